"""Binary search for the first error, begun where the question's difficulty suggests it.

EpicPRM (Sun et al. 2025, arXiv 2503.02382). A step is right if the policy still ends right at least
half as often after it as from the bare question. The search begins in the middle; with five
positions or more, a quarter of them earlier for a hard question (root value below about .15) and a
quarter later for an easy one (above .45): hard ones go wrong early. Steps before the first error are
right, it and those after it wrong; a solution with a right answer has only right steps.

Not taken over: the paper weighs rollouts by their perplexity, uses several policies, and fits the
number of draws to the question; here draws count alike and there are k.
"""

from __future__ import annotations

from pipelines.process.config import ProcessConfig
from pipelines.process.methods.asking import Log, draw, step_of
from pipelines.process.search import (
    Book,
    BudgetSpent,
    Found,
    Label,
    Question,
    Search,
    Solo,
    Solution,
    Step,
    final_step,
    parallel,
    tally,
)

_TIE = 1e-6
"""Half the root's value is still right; `draw` and `step_of` want more than their threshold."""


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's solutions."""
    return parallel(question, [label(s, question.book, config) for s in question.solutions])


def label(solution: Solution, book: Book, config: ProcessConfig) -> Solo:
    """Label one solution.

    Unresolved: `unsolved` where no rollout of the bare question is right, so that there is no
    threshold; `undecided` where no rollout of a tested prefix had an answer.
    """
    log, steps = Log(), [Step()] * solution.steps
    if solution.ended:
        steps[-1] = final_step(solution.final_right)
        if solution.final_right:
            return _found(solution, steps, "complete", log, solution.steps, solution.steps)
    first, after = 0, solution.last
    """The first error is one of the steps `first` to `after`; `solution.last`: none that is tested."""
    tested: int | None = None
    try:
        root = solution.prefix(0)
        # Uncurtailed: a value is wanted here, and all solutions of the question share it.
        yield from draw(book, [root], config.k, 0, log, "root value")
        seen = tally(book.drawn(root))
        if not seen.right:
            return _found(solution, steps, "unsolved", log, first, after)
        rate = seen.right / seen.counted
        threshold = rate / 2 - _TIE
        while first < after:
            tested = start(after, rate) if tested is None else (first + after - 1) // 2
            prefix, why = solution.prefix(tested + 1), f"binary search {first + 1}..{after}"
            (drawn,) = yield from draw(
                book, [prefix], config.k, config.stop_at, log, why, threshold
            )
            steps[tested] = step_of(drawn, config.stop_at, threshold)
            if steps[tested].label is None:
                return _found(solution, steps, "undecided", log, first, after)
            if steps[tested].label == "right":
                first = tested + 1
            else:
                after = tested
    except BudgetSpent:
        if tested is not None and not steps[tested].n:
            # Its rollouts so far are known; what they come to is not.
            left = step_of(book.drawn(solution.prefix(tested + 1), config.k), 0)
            steps[tested] = left._replace(label=None, source="none")
        return _found(solution, steps, "budget", log, first, after)
    return _found(solution, steps, "complete", log, first, after)


def start(count: int, rate: float) -> int:
    """Index of the step tested first, of `count`, for a root value; the paper's rule."""
    middle, quarter = (count - 1) // 2, (count - 1) // 4
    tenths = round(10 * rate)
    return middle - quarter if tenths < 2 else middle + quarter if tenths >= 5 else middle


def _found(
    solution: Solution, steps: list[Step], stopped: str, log: Log, first: int, after: int
) -> Found:
    """Steps before `first` are right, `after` and what follows is wrong, what is between is open."""
    for index, step in enumerate(steps):
        if step.label is None and (index < first or (after <= index and after < solution.last)):
            own: Label = "right" if index < first else "wrong"
            steps[index] = step._replace(label=own, source="inferred")
    return Found(solution, tuple(steps), stopped, stopped == "complete", asked=tuple(log.asked))
