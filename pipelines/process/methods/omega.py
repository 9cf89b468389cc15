"""OmegaPRM: a tree grown by binary searches for first errors (Luo et al. 2024, arXiv 2406.06592).

A state is a prefix with an estimate MC of its value from k rollouts; the pool holds states' wrong
rollouts, at first the question's own wrong solutions and the root's. Each search takes from the
pool the rollout r of state s with the greatest Q + U,

    Q = alpha^(1 - MC(s)) * beta^(tokens(r) / L),  U = c * sqrt(sum of all N) / (1 + N(s)),

where N(s) counts the searches that began at s, and finds r's first prefix with MC = 0 by halving.
Each tested prefix with MC > 0 becomes a state. A text is searched once; right, truncated and
unparsed rollouts never. `omega_mm` (MM-PRM) is the same with other defaults; the paper's k is 16,
ours is `config.k` for both.

Where this is not as published:
- the root is a state whatever its MC is: questions without a right or a wrong rollout are left
  out by the question filter, and whoever keeps one is given what can be found;
- a prefix none of whose rollouts has an answer is not unsound: its search ends, `undecided`;
- `stop_at` above 0 ends a test at its first success, since only MC > 0 decides where the search
  goes on. Lost are the state's rollouts after that success, which would have joined the pool, and
  values lean high: a state of value p has on average (1 - p) / p wrong rollouts instead of
  k (1 - p). The root is always given k.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.process.config import OmegaConfig, ProcessConfig
from pipelines.process.methods.asking import Log, draw, step_of
from pipelines.process.methods.growing import ROOT, Stem, labelled, path, stem
from pipelines.process.search import (
    Ask,
    BudgetSpent,
    Drawn,
    Finding,
    Found,
    Prefix,
    Question,
    Search,
    Solution,
    Step,
    rejected,
    tally,
)
from pipelines.process.siblings import Child, step_pairs
from schemas.errors import BadReply
from schemas.records import Reject

MIN_GAP = 0.25
"""Least difference in value of two siblings that are exported as a pair."""


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's wrong solutions and the paths that were grown and searched.

    Right solutions are not searched; they get what searches of the others say about their steps.
    """
    tree = _Tree(question, config)
    try:
        stopped = yield from tree.grow()
    except BudgetSpent:
        stopped = "budget"
    except BadReply as error:
        # Without the root there is nothing to search from.
        return Finding((), rejects=tuple(rejected(s, error) for s in question.solutions))
    return tree.finding(stopped)


def settings(config: ProcessConfig) -> OmegaConfig:
    """The search's settings, with the method's own defaults where none are set."""
    own = config.omega or OmegaConfig()
    mm = config.method == "omega_mm"
    chosen: dict[str, float] = {}
    if own.length is None:
        chosen["length"] = 2000.0 if mm else 500.0
    if mm and "searches" not in own.model_fields_set:
        chosen["searches"] = 200
    if mm and own.rollouts is None:
        chosen["rollouts"] = 1000
    return own.model_copy(update=chosen)


@dataclass(eq=False)
class _State:
    """A sound prefix: `value` is its MC, `visits` its N."""

    stem: Stem
    value: float
    visits: int = 0


class _Candidate(NamedTuple):
    """A wrong solution that may be searched: one of the question's, or a rollout of a state."""

    state: _State
    wrong: Solution | Drawn


class _Tree:
    def __init__(self, question: Question, config: ProcessConfig) -> None:
        self.question, self.config = question, config
        self.settings = settings(config)
        self.stop_at = 1 if config.stop_at else 0
        self.states: dict[str, _State] = {}
        self.pool: list[_Candidate] = []
        self.searches = 0
        self.seen = {solution.text for solution in question.solutions}
        """Whole texts that have been in the pool, or never will."""
        self.known: dict[str, Prefix] = {}
        """The question's own prefixes, which may have tokens."""
        self.tests: dict[str, Child] = {}
        """Prefixes whose test is complete."""
        self.grown: list[Solution] = []
        self.ended: dict[str, str | BadReply] = {}
        """How the search of each text ended."""
        self.logs: dict[str, Log] = {}
        self.rooted = Log()

    def grow(self) -> Generator[Sequence[Ask], None, str]:
        """Search until a limit is reached; why it stopped."""
        yield from self._root()
        while self.pool:
            if self.searches >= self.settings.searches:
                return "searches"
            candidate = self._pop()
            solution = self._solution(candidate)
            self.ended[solution.text] = "budget"  # unless it comes to another end
            try:
                end = yield from self._bisect(solution, candidate.state.stem.prefix.position)
            except BadReply as error:
                self.ended[solution.text] = error
                continue
            self.ended[solution.text] = end
            if end == "rollouts":
                return end
        return "pool_empty"

    def _root(self) -> Generator[Sequence[Ask], None, None]:
        """The root's value, and the first of the pool."""
        solutions = self.question.solutions
        for solution in solutions:
            for position in range(solution.last + 1):
                prefix = solution.prefix(position)
                self.known.setdefault(prefix.text, prefix)
        k = min(self.config.k, self.settings.rollouts or self.config.k)
        yield from draw(self.question.book, [ROOT.prefix], k, 0, self.rooted, "root")
        # A question filter may have drawn more than k.
        drawn = self.question.book.drawn(ROOT.prefix)
        root = self._state(ROOT, drawn)
        own = {s.text: _Candidate(root, s) for s in solutions if s.final_right is False}
        self.pool = [*own.values(), *self.pool]

    def _state(self, stem: Stem, drawn: list[Drawn]) -> _State:
        """A new state; its wrong rollouts join the pool."""
        state = _State(stem, step_of(drawn, self.stop_at).value or 0.0)
        self.states[stem.prefix.text] = state
        for rollout in drawn:
            text = stem.prefix.text + rollout.text
            # A blank rollout adds no step: there is nothing to search.
            if rollout.outcome == "wrong" and rollout.text.strip() and text not in self.seen:
                self.seen.add(text)
                self.pool.append(_Candidate(state, rollout))
        return state

    def _priority(self, candidate: _Candidate) -> float:
        s, state = self.settings, candidate.state
        assert s.length is not None
        q = math.pow(s.alpha, 1 - state.value) * math.pow(s.beta, candidate.wrong.tokens / s.length)
        # Every search raises one state's visits by one: their sum is the number of searches.
        return q + s.exploration * math.sqrt(self.searches) / (1 + state.visits)

    def _pop(self) -> _Candidate:
        """Take the candidate of the highest priority, of equal ones the oldest."""
        best = max(range(len(self.pool)), key=lambda at: self._priority(self.pool[at]))
        candidate = self.pool.pop(best)
        candidate.state.visits += 1
        self.searches += 1
        return candidate

    def _solution(self, candidate: _Candidate) -> Solution:
        if isinstance(candidate.wrong, Solution):
            return candidate.wrong
        stem, splitter = candidate.state.stem, self.config.splitter
        grown = path(self.question, stem, candidate.wrong, splitter)
        self.grown.append(grown)
        return grown

    def _bisect(self, solution: Solution, low: int) -> Generator[Sequence[Ask], None, str]:
        """Find the first unsound position after `low`; how the search ended."""
        log = self.logs.setdefault(solution.text, Log())
        high = solution.steps
        while high - low > 1:
            middle = (low + high) // 2
            prefix = self._prefix(solution, middle)
            if prefix.text not in self.tests and not self._affords(self.config.k):
                return "rollouts"
            why = f"binary search {low}..{high}"
            [drawn] = yield from draw(
                self.question.book, [prefix], self.config.k, self.stop_at, log, why
            )
            seen = tally(drawn)
            if not seen.counted:
                return "undecided"
            before = solution.prefix(middle - 1).text
            step = prefix.text[len(before) :]
            self.tests[prefix.text] = Child(before, step, seen.right, seen.wrong)
            if seen.right:
                low = middle
                if prefix.text not in self.states:
                    self._state(stem(solution, middle)._replace(prefix=prefix), drawn)
            else:
                high = middle
        return "complete"

    def _prefix(self, solution: Solution, position: int) -> Prefix:
        prefix = solution.prefix(position)
        return self.known.get(prefix.text, prefix)

    def _affords(self, count: int) -> bool:
        """Whether that many rollouts more keep within the limit."""
        if self.settings.rollouts is None:
            return True
        drawn = sum(len(d) for (prover, _), d in self.question.book.draws.items() if not prover)
        return drawn + count <= self.settings.rollouts

    def finding(self, stopped: str) -> Finding:
        """What is known; `stopped`: why the tree grew no further."""
        found: list[Found] = []
        rejects: list[Reject] = []
        for solution in (*self.question.solutions, *self.grown):
            given = "not_searched" if solution.final_right is not False else stopped
            end = self.ended.get(solution.text, given)
            if isinstance(end, BadReply):
                rejects.append(rejected(solution, end))
            else:
                found.append(self._found(solution, end))
        pairs = step_pairs(
            self.question.prompt.id, self.tests.values(), MIN_GAP, self.config.described()
        )
        return Finding(tuple(found), pairs, tuple(rejects))

    def _found(self, solution: Solution, end: str) -> Found:
        texts = [solution.prefix(position).text for position in range(1, solution.steps + 1)]
        refuted = [p for p, text in enumerate(texts, 1) if self._refuted(text)]
        evidence = [self._evidence(text) for text in texts]
        steps, resolved = labelled(solution, evidence, refuted)
        resolved &= solution.final_right is False
        if end == "complete" and not resolved:
            # Another search has since had a success after this one's first error.
            end = "contradicted"
        own = self.logs.get(solution.text, Log()).asked
        root = self.rooted.asked if solution.trajectory.response_id is not None else []
        return Found(solution, steps, end, resolved, asked=(*root, *own))

    def _refuted(self, text: str) -> bool:
        return text in self.tests and not self.tests[text].right

    def _evidence(self, text: str) -> Step:
        drawn = self.question.book.draws.get((False, text), [])
        return step_of(drawn, self.stop_at)
