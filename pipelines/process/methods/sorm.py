"""A step is right if the right answer is still reached from it, or from any later step.

GLoRe's stepwise outcome labels (Havrilla et al. 2024, arXiv 2402.10963): k draws after every step,
positive if any succeeds; a positive makes all earlier steps positive. The solution's own checked
answer counts as such a positive.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.process.config import ProcessConfig
from pipelines.process.methods import monte_carlo
from pipelines.process.search import Book, Found, Question, Search, Solo, Solution, Step, parallel


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's solutions."""
    return parallel(question, [label(s, question.book, config) for s in question.solutions])


def label(solution: Solution, book: Book, config: ProcessConfig) -> Solo:
    """Label one solution: per-step Monte Carlo, then every step before a right one is right."""
    found = yield from monte_carlo.label(solution, book, config)
    return Found(
        solution,
        _propagated(found.steps),
        found.stopped,
        resolved=found.resolved,
        asked=found.asked,
    )


def _propagated(steps: Sequence[Step]) -> tuple[Step, ...]:
    last = max((t for t, step in enumerate(steps) if step.label == "right"), default=-1)
    return tuple(
        step._replace(label="right", source="inferred")
        if t < last and step.label != "right"
        else step
        for t, step in enumerate(steps)
    )
