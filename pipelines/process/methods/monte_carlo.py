"""Per-step Monte Carlo: complete every prefix k times, see how often it ends right.

Math-Shepherd (Wang et al. 2024, arXiv 2312.08935): the hard label is "any right", the soft one the
share.
"""

from __future__ import annotations

from pipelines.process.config import ProcessConfig
from pipelines.process.methods.asking import Log, draw, positions, step_of
from pipelines.process.search import (
    Book,
    BudgetSpent,
    Found,
    Question,
    Search,
    Solo,
    Solution,
    final_step,
    parallel,
)


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's solutions."""
    return parallel(question, [label(s, question.book, config) for s in question.solutions])


def label(solution: Solution, book: Book, config: ProcessConfig) -> Solo:
    """Label one solution: every step by rollouts of its own, the last by the checked answer."""
    log, stopped = Log(), "complete"
    prefixes = [solution.prefix(position) for position in positions(solution)]
    try:
        yield from draw(book, prefixes, config.k, config.stop_at, log, "every step")
    except BudgetSpent:
        stopped = "budget"
    steps = [step_of(book.drawn(prefix, config.k), config.stop_at) for prefix in prefixes]
    if solution.ended:
        steps.append(final_step(solution.final_right))
    return Found(
        solution,
        tuple(steps),
        stopped,
        resolved=stopped == "complete",
        asked=tuple(log.asked),
    )
