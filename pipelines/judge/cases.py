"""What a judge is given, and the contract that all judges of a panel share.

A module of the panel has a config class with a `kind`, and

    async def judge(name, config, cases, engines, seed, advance) -> Opinions

which gives every case its votes: on the pair, in both orders where order means something, and on
the responses where those are scored one by one. A value of a pair is in [-1, 1], above 0 where a is
better; a difference m of two scores that are log-odds or rewards becomes 2 sigmoid(m) - 1. A
judge that cannot say gives a vote without a value and with its reason, never a 0. Two votes of a
judge on one pair that side with different responses are a position clash: `decide` reads them as a
tie, and their reasons begin with `position_clash`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipelines.config import Advance
from pipelines.engines.base import Engine
from schemas.errors import BadReply
from schemas.records import Criterion, Pair, Prompt, Reject, Response, Vote

STAGE = "judge"
"""Stage that the rejects of judges name."""
CLASH = "position_clash"
MAX_REASON = 2000
"""Characters of a judge's words that a vote keeps."""

Engines = Mapping[str, Engine]
"""The plan's engines by name, open while a judge works."""


@dataclass(frozen=True)
class Case:
    """A pair with what it is made of, and the criteria of its rubric, if it has one."""

    prompt: Prompt
    pair: Pair
    a: Response
    b: Response
    rubric: tuple[Criterion, ...] = ()


class Opinions(NamedTuple):
    """What a judge came to. A reject is a request that got no usable answer; its vote has no value."""

    votes: list[Vote]
    rejects: list[Reject]


Outcome = float | str | BadReply
"""What scoring a response came to: a score; a reason code, where there is nothing to score; or a
request without a usable answer."""


def squashed(margin: float) -> float:
    """2 sigmoid(margin) - 1, in [-1, 1]: a difference of log-odds or rewards as a vote."""
    return math.tanh(margin / 2)


def responses_of(cases: Sequence[Case]) -> dict[str, tuple[Prompt, Response]]:
    """The responses of some cases, each once, in the order of the cases."""
    return {r.id: (case.prompt, r) for case in cases for r in (case.a, case.b)}


def by_case(cases: int, responses: int, advance: Advance) -> Callable[[int], None]:
    """Told of every response that is scored, it tells `advance` of as many cases."""
    done = told = 0

    def finished(count: int) -> None:
        nonlocal done, told
        done += count
        rows = cases * done // responses
        if rows > told:
            advance(rows - told, 0)
            told = rows

    return finished


def opinions_of(
    name: str,
    kind: Literal["reward_model", "llm"],
    cases: Sequence[Case],
    outcomes: Mapping[str, Outcome],
) -> Opinions:
    """Votes of a judge that scores responses one by one: each response's score, each pair's difference.

    `outcomes`: by response id. A request without a usable answer is a Reject, too.
    """
    votes: list[Vote] = []
    rejects: list[Reject] = []
    seen: set[str] = set()

    def vote(
        unit: str, unit_kind: Literal["response", "pair"], value: float | None, reason: str
    ) -> None:
        votes.append(
            Vote(
                unit=unit,
                unit_kind=unit_kind,
                judge=name,
                judge_kind=kind,
                value=value,
                reason=reason,
            )
        )

    for case in cases:
        a, b = outcomes[case.a.id], outcomes[case.b.id]
        for response, outcome in ((case.a, a), (case.b, b)):
            if response.id in seen:  # a response is of many pairs
                continue
            seen.add(response.id)
            if isinstance(outcome, float):
                vote(response.id, "response", outcome, "")
                continue
            vote(response.id, "response", None, _code(outcome))
            if isinstance(outcome, BadReply):
                detail = f"{name}: {outcome.detail}"[:500]
                rejects.append(
                    Reject(unit=response.id, stage=STAGE, code=outcome.code, detail=detail)
                )
        if isinstance(a, float) and isinstance(b, float):
            vote(case.pair.id, "pair", squashed(a - b), f"a: {a:.4g}; b: {b:.4g}")
        else:
            vote(case.pair.id, "pair", None, _code(b if isinstance(a, float) else a))
    return Opinions(votes, rejects)


def _code(outcome: Outcome) -> str:
    return outcome.code if isinstance(outcome, BadReply) else str(outcome)
