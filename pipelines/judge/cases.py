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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipelines.engines.base import Engine
from schemas.records import Criterion, Pair, Prompt, Reject, Response, Vote

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


@dataclass
class Scored:
    """Scores of responses by id, with reasons: what one-by-one judges make pair votes of."""

    value: dict[str, float | None] = field(default_factory=dict)
    reason: dict[str, str] = field(default_factory=dict)


def squashed(margin: float) -> float:
    """2 sigmoid(margin) - 1, in [-1, 1]: a difference of log-odds or rewards as a vote."""
    return math.tanh(margin / 2)


def responses_of(cases: Sequence[Case]) -> dict[str, tuple[Prompt, Response]]:
    """The responses of some cases, each once, in the order of the cases."""
    return {r.id: (case.prompt, r) for case in cases for r in (case.a, case.b)}
