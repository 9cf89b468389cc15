"""Fixed-k rivals that no published method is, but that a careful user might build.

`every`: k rollouts of every prefix; `binary`: binary search for the first error. Both may hold a
prefix for sound where its share of successes is above half of the root's, which resists recovery
better than "any right". `binary` with "any right" is OmegaPRM's inner search, on the given
solutions alone.
"""

from __future__ import annotations

from pipelines.process.methods.asking import Log, draw, positions, step_of
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
)


def every(question: Question, k: int) -> Search:
    """k rollouts of every prefix and of the root; a step is right above half of the root's share."""
    return parallel(question, [_every(s, question.book, k) for s in question.solutions])


def _every(solution: Solution, book: Book, k: int) -> Solo:
    log, stopped = Log(), "complete"
    prefixes = [solution.prefix(position) for position in (0, *positions(solution))]
    try:
        yield from draw(book, prefixes, k, 0, log, "every step and the root")
    except BudgetSpent:
        stopped = "budget"
    half = (step_of(book.drawn(prefixes[0], k), 0).value or 0.0) / 2
    steps = [step_of(book.drawn(prefix, k), 0, half) for prefix in prefixes[1:]]
    if solution.ended:
        steps.append(final_step(solution.final_right))
    asked = tuple(log.asked)
    return Found(solution, tuple(steps), stopped, resolved=stopped == "complete", asked=asked)


def binary(question: Question, k: int, half_root: bool = False, stop_at: int = 0) -> Search:
    """Binary search for the first error with k rollouts of each prefix tested."""
    searches = [_binary(s, question.book, k, half_root, stop_at) for s in question.solutions]
    return parallel(question, searches)


def _binary(solution: Solution, book: Book, k: int, half_root: bool, stop_at: int) -> Solo:
    """A sound prefix sends the search right, an unsound one left; untested steps are inferred."""
    log, stopped, threshold = Log(), "complete", 0.0
    steps = [Step()] * solution.steps
    low, high = 0, solution.steps if solution.final_right is False else solution.last + 1
    try:
        if half_root:
            (at_root,) = yield from draw(book, [solution.prefix(0)], k, 0, log, "root")
            threshold = (step_of(at_root, 0).value or 0.0) / 2
        while high - low > 1:
            middle = (low + high) // 2
            why = f"binary search {low}..{high}"
            (drawn,) = yield from draw(
                book, [solution.prefix(middle)], k, stop_at, log, why, threshold
            )
            steps[middle - 1] = step_of(drawn, stop_at, threshold)
            low, high = (middle, high) if steps[middle - 1].label == "right" else (low, middle)
    except BudgetSpent:
        stopped = "budget"
    for t in range(solution.last):
        label: Label | None = "right" if t < low else "wrong" if t + 1 == high else None
        if steps[t].label is None and label is not None and stopped == "complete":
            steps[t] = steps[t]._replace(label=label, source="inferred")
    if solution.ended:
        steps[-1] = final_step(solution.final_right)
    asked = tuple(log.asked)
    return Found(solution, tuple(steps), stopped, resolved=stopped == "complete", asked=asked)
