"""Pairwise judging: two responses side by side, in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Literal

from pipelines.engines.base import Engine
from pipelines.judge.cases import CLASH, MAX_REASON, Case, Opinions
from pipelines.judge.logits import preference
from pipelines.judge.verdicts import Asker, Form, LLMConfig, Opinion, rejects
from schemas.records import Message, Reject, Vote

STRONGEST = 3


class PairwiseConfig(LLMConfig):
    """Settings of a judge that compares the responses of a pair."""

    kind: Literal["pairwise"] = "pairwise"
    """Judge kind."""


def _value(said: dict[str, Any]) -> float:
    """The verdict in [-1, 1]: above 0 where A is better, by its strength."""
    side = {"A": 1, "B": -1, "tie": 0}[said["winner"]]
    strength: int = said["strength"]
    return side * strength / STRONGEST


async def _measure(engine: Engine, messages: tuple[Message, ...], seed: int) -> float:
    """P(A) - P(B), as shares of the two letters."""
    return 2 * await preference(engine, messages, seed) - 1


FORM = Form(
    template="pairwise",
    slots=("response_a", "response_b"),
    properties={
        "winner": {"type": "string", "enum": ["A", "B", "tie"]},
        "strength": {"type": "integer", "enum": list(range(1, STRONGEST + 1))},
    },
    value=_value,
    measure=_measure,
)


async def votes(name: str, asker: Asker, cases: Sequence[Case]) -> Opinions:
    """Two votes a pair, one an order; a pair whose votes side differently says so in both."""
    shown = [
        (
            asker.shown(case, case.a.text, case.b.text),
            asker.shown(case, case.b.text, case.a.text),
        )
        for case in cases
    ]
    found = await asker.opinions(dict.fromkeys(chain.from_iterable(shown)), len(cases))
    given: list[Vote] = []
    rejected: list[Reject] = []
    for case, (in_ab, in_ba) in zip(cases, shown, strict=True):
        ab, ba = found[in_ab], reversed_(found[in_ba])
        clash = clashes(ab, ba)
        given.append(_vote(name, case, "ab", ab, clash))
        given.append(_vote(name, case, "ba", ba, clash))
        for order, opinion in (("ab", ab), ("ba", ba)):
            if opinion.failures:
                rejected += rejects(name, case.pair.id, f"order {order}", opinion)
    return Opinions(given, rejected)


def reversed_(opinion: Opinion) -> Opinion:
    """An opinion on (b, a) as one on (a, b)."""
    return opinion._replace(value=None if opinion.value is None else 0.0 - opinion.value)


def clashes(ab: Opinion, ba: Opinion) -> bool:
    """Whether the two orders side with different responses."""
    return ab.value is not None and ba.value is not None and ab.value * ba.value < 0


def _vote(name: str, case: Case, order: Literal["ab", "ba"], opinion: Opinion, clash: bool) -> Vote:
    reason = opinion.reason
    if clash:
        reason = (f"{CLASH}: {reason}" if reason else CLASH)[:MAX_REASON]
    return Vote(
        unit=case.pair.id,
        unit_kind="pair",
        judge=name,
        judge_kind="llm",
        order=order,
        value=opinion.value,
        reason=reason,
    )
