"""Pointwise judging: every response by itself; a pair's vote is the difference of its two scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pipelines.judge.cases import Case, Opinions, squashed
from pipelines.judge.logits import yes_no
from pipelines.judge.verdicts import Asker, Form, LLMConfig, Opinion, Shown, rejects
from schemas.records import Reject, Response, Vote

LOWEST, HIGHEST = 1, 10


class PointwiseConfig(LLMConfig):
    """Settings of a judge that scores responses one by one."""

    kind: Literal["pointwise"] = "pointwise"
    """Judge kind."""


def _value(said: dict[str, Any]) -> float:
    score: int = said["score"]
    return float(score)


FORM = Form(
    template="pointwise",
    slots=("response",),
    properties={"score": {"type": "integer", "enum": list(range(LOWEST, HIGHEST + 1))}},
    value=_value,
    measure=yes_no,
)


async def votes(name: str, asker: Asker, cases: Sequence[Case]) -> Opinions:
    """One vote a response, in [1, 10] or log-odds, and one a pair, of the difference in [-1, 1]."""
    asked = {asker.shown(case, r.text): None for case in cases for r in (case.a, case.b)}
    found = await asker.opinions(asked, len(cases))
    given: list[Vote] = []
    rejected: list[Reject] = []
    scored: set[tuple[str, Shown]] = set()
    for case in cases:
        for response in (case.a, case.b):
            shown = asker.shown(case, response.text)
            if (response.id, shown) not in scored:  # a response is of many pairs
                scored.add((response.id, shown))
                given.append(_response_vote(name, response, found[shown]))
                rejected += rejects(name, response.id, "response", found[shown])
        a, b = (found[asker.shown(case, r.text)] for r in (case.a, case.b))
        given.append(_pair_vote(name, case, a, b, asker.config.logits))
    return Opinions(given, rejected)


def _response_vote(name: str, response: Response, opinion: Opinion) -> Vote:
    return Vote(
        unit=response.id,
        unit_kind="response",
        judge=name,
        judge_kind="llm",
        value=opinion.value,
        reason=opinion.reason,
    )


def _pair_vote(name: str, case: Case, a: Opinion, b: Opinion, logits: bool) -> Vote:
    value: float | None = None
    if a.value is None or b.value is None:
        reason = a.reason if a.value is None else b.reason
    else:
        gap = a.value - b.value
        value = squashed(gap) if logits else gap / (HIGHEST - LOWEST)
        reason = f"a: {a.value:.4g}; b: {b.value:.4g}"
    return Vote(
        unit=case.pair.id,
        unit_kind="pair",
        judge=name,
        judge_kind="llm",
        value=value,
        reason=reason,
    )
