"""Cases for reward models as judges, and how to read the scores that they gave."""

from __future__ import annotations

from itertools import pairwise

from pipelines.judge.cases import Case, Opinions
from tests.pipelines.judge import made

ANSWERS = ["4", "It is four, I think.", "no", "4 of course", "x" * 30, "5"]


def case_of(question: str, a: str, b: str) -> Case:
    """Two answers to a question without a reference."""
    return made.case(a, b, made.prompt(question, None))


CASES = [
    case_of(question, a, b)
    for question in ("2+2?", "Say how much two and two are.")
    for a, b in pairwise(ANSWERS)
]


def scores(opinions: Opinions) -> dict[str, float | None]:
    """By response id; none: it has no score."""
    return {v.unit: v.value for v in opinions.votes if v.unit_kind == "response"}
