"""Ours: a posterior over the first error, sampled where a rollout informs most per token.

After each wave the next goes to the position with the most mutual information about the first error
per expected token (posterior.py has the model). A solution is done once one first error, or none, is
as probable as `confidence`; it is left unresolved at `max_rollouts`, and where no rollout would tell
enough for its tokens. Labels are posterior
probabilities: a step is labelled where it is sound or unsound with that confidence, no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from pipelines.process.config import ChangepointConfig, ProcessConfig
from pipelines.process.fitting import fit
from pipelines.process.methods.asking import Log
from pipelines.process.posterior import OTHER, RIGHT, SAME, Array, Evidence, Grid, Posterior, Priors
from pipelines.process.search import (
    Ask,
    BudgetSpent,
    Drawn,
    Found,
    Label,
    Prefix,
    Question,
    Search,
    Solo,
    Solution,
    Step,
    final_step,
    parallel,
    tally,
)
from schemas.records import Asked

DIGITS = 6
"""Decimals of published probabilities: sums in another order differ below that."""


class Changepoint:
    """The method with its present priors."""

    def __init__(self, config: ProcessConfig, priors: Priors | None = None) -> None:
        self.config = config
        self.own = config.changepoint or ChangepointConfig()
        start = self.own.priors
        self.priors = priors or Priors.about(
            start.solve_rate, start.recovery, start.repeat, start.chance_repeat
        )
        self._grids: dict[tuple[int, int], Grid] = {}

    def pilot(self, questions: Sequence[Question]) -> int:
        """How many of the questions, from the first, are searched before the priors are fitted."""
        if not self.own.fit:
            return 0
        solutions = 0
        for index, question in enumerate(questions):
            if solutions >= self.own.pilot:
                return index
            solutions += len(question.solutions)
        return len(questions)

    def fit(self, findings: Iterable[tuple[Question, Sequence[Found]]]) -> None:
        """Fit the priors to questions that were searched."""
        seen = [
            self._evidence(question, found.solution)
            for question, every in findings
            for found in every
        ]
        if seen and self.own.fit:
            self.priors = fit(seen, self.priors, self.own.answers)
            self._grids.clear()

    def search(self, question: Question) -> Search:
        """Label a question's solutions."""
        return parallel(question, [self._label(question, s) for s in question.solutions])

    def relabel(self, question: Question, found: Found) -> Found:
        """The same rollouts under the present priors."""
        evidence = self._evidence(question, found.solution)
        posterior = Posterior(self._grid(evidence), evidence, self.own.answers)
        again = self._found(question, found.solution, posterior, found.stopped, found.asked)
        if found.stopped == "confident" and not again.resolved:
            return replace(again, stopped="refitted")
        return again

    def _grid(self, seen: Evidence) -> Grid:
        key = (seen.steps, seen.ahead)
        if key not in self._grids:
            self._grids[key] = Grid(self.priors, *key)
        return self._grids[key]

    def _evidence(self, question: Question, solution: Solution) -> Evidence:
        own = solution.final_right
        root = question.book.kept(solution.prefix(0))
        # The bare question's rollouts begin with the responses, where the policy wrote them: they
        # are counted once, and the solution itself not at all.
        if len(root) >= question.responses.n:
            others = tally([d for d in root if d.text != solution.text])
            right, counted = others.right, others.counted
        else:
            right = question.responses.right - (own is True)
            counted = question.responses.counted - (own is not None)
        counts = _all_counts(question, solution)
        ahead = 0
        if not solution.ended:
            step = solution.tokens / solution.steps
            mean = question.responses.tokens / max(1, question.responses.n)
            ahead = max(1, round((mean - solution.tokens) / max(1.0, step)))
        return Evidence(solution.steps, own, right, counted, counts, ahead)

    def _label(self, question: Question, solution: Solution) -> Solo:
        """Where the posterior stops changing is for the posterior to say: no other stopping rule."""
        log, book, own = Log(), question.book, self.own
        evidence = self._evidence(question, solution)
        posterior = Posterior(self._grid(evidence), evidence, own.answers)
        # A solution that was cut off goes on for at least another step.
        step = max(1.0, solution.tokens / solution.steps)
        costs = np.array([max(step, solution.tokens_after(t)) for t in range(solution.last + 1)])
        prefixes = [solution.prefix(t) for t in range(solution.last + 1)]
        drawn = 0
        stopped = "cap"
        while True:
            if posterior.first.max() >= own.confidence:
                stopped = "confident"
                break
            left = own.max_rollouts - drawn
            if left <= 0:
                break
            t, gain = self._next(posterior, costs)
            if gain <= own.min_gain / 1000:
                stopped = "uninformative"
                break
            n = min(left, own.wave)
            have = len(book.kept(prefixes[t]))
            log.note(
                t, n, f"most informative, P(first error) {posterior.first.max():.2f}", "policy"
            )
            posterior.forget()  # hundreds of solutions wait at once
            try:
                yield [Ask(prefixes[t], have + n)]
            except BudgetSpent:
                stopped = "budget"
                break
            drawn += n
            book.drawn(prefixes[t])  # raises where one of them got no usable answer
            self._take(question, solution, posterior, prefixes)
        self._take(question, solution, posterior, prefixes)
        return self._found(question, solution, posterior, stopped, tuple(log.asked))

    def _next(self, posterior: Posterior, costs: Array) -> tuple[int, float]:
        """The position to sample and what a token there tells; the bare question is none."""
        # Rounded, so that rounding in the arithmetic settles no tie.
        gain = np.round(posterior.information()[1 : len(costs)] / costs[1:], 12)
        if not len(gain):
            return 0, 0.0
        t = int(np.argmax(gain))
        return t + 1, float(gain[t])

    def _take(
        self,
        question: Question,
        solution: Solution,
        posterior: Posterior,
        prefixes: Sequence[Prefix],
    ) -> None:
        """Take in what the book holds by now, also what other solutions asked of shared prefixes."""
        counts = _all_counts(question, solution)
        for t in np.flatnonzero((counts != posterior.evidence.counts).any(axis=1)):
            posterior.evidence.counts[t] = counts[t]
            posterior.update(int(t))

    def _found(
        self,
        question: Question,
        solution: Solution,
        posterior: Posterior,
        stopped: str,
        asked: tuple[Asked, ...],
    ) -> Found:
        first = np.round(posterior.first, DIGITS)
        sound = np.clip(np.round(1 - np.cumsum(posterior.first[:-1]), DIGITS), 0, 1)
        confident = bool(posterior.first.max() >= self.own.confidence)
        steps = []
        for k in range(solution.steps):
            step = Step(sound=float(sound[k]), error=float(first[k]))
            label: Label | None = None
            if sound[k] >= self.own.confidence:
                label = "right"
            elif sound[k] <= 1 - self.own.confidence:
                label = "wrong"
            step = step._replace(label=label, source="inferred" if label else "none")
            drawn = question.book.kept(solution.prefix(k + 1)) if k + 1 <= solution.last else []
            if drawn:
                step = _sampled(step, drawn, posterior, k + 1)
            steps.append(step)
        if solution.ended and solution.final_right is not None:
            known = steps[-1]
            steps[-1] = final_step(solution.final_right, known)
        return Found(
            solution,
            tuple(steps),
            stopped,
            resolved=confident,
            no_error=float(first[-1]),
            asked=asked,
        )


def _all_counts(question: Question, solution: Solution) -> Array:
    """Counts by position of what the rollouts of a solution's prefixes came to, [T + 1, 3].

    Those of the bare question (position 0) tell its difficulty and are counted with the responses.
    """
    counts = np.zeros((solution.steps + 1, 3))
    for t in range(1, solution.last + 1):
        for d in question.book.kept(solution.prefix(t)):
            if d.outcome == "right":
                counts[t, RIGHT] += 1
            elif d.outcome == "wrong":
                met = d.answer is not None and d.answer == solution.answer
                counts[t, SAME if met else OTHER] += 1
    return counts


def _sampled(step: Step, drawn: Sequence[Drawn], posterior: Posterior, t: int) -> Step:
    seen = tally(drawn)
    step = step._replace(
        n=seen.n,
        successes=seen.right,
        truncated=seen.truncated,
        unparsed=seen.unparsed,
        tokens=seen.tokens,
        source="rollouts" if step.label else "none",
    )
    if not seen.counted:
        return step
    value, low, high = (round(x, DIGITS) for x in posterior.value(t))
    return step._replace(value=value, low=low, high=high)
