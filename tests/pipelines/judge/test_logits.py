"""What is asked for a verdict by log-probabilities, and what they become."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engines.base import Reply, Request, Sampling
from pipelines.judge.logits import choices, likelihood, preference, yes_no
from schemas.errors import BadReply, EngineError
from schemas.records import Message
from tests.pipelines.told import Answer, ToldEngine

MESSAGES = (Message(role="user", content="which?"),)


class Table(ToldEngine):
    """Scores a text by a table; it answers a text that is not in it with BadReply."""

    def __init__(self, logprobs: Mapping[str, float | None]) -> None:
        def told(request: Request) -> Answer:
            if request.scored not in logprobs:
                return BadReply("too_long", request.scored)
            return Reply("", "stop", 5, len(request.scored.split()), logprobs[request.scored])

        super().__init__(told, 4)


def test_choices_are_the_sums_in_the_options_order() -> None:
    engine = Table({"A": -1.0, "B": -0.5, "a tie": -7.0})
    found = asyncio.run(choices(engine, MESSAGES, ("B", "a tie", "A"), seed=4, prefix="I say "))
    assert found == (-0.5, -7.0, -1.0)
    fixed = Sampling(temperature=0.0, max_tokens=1, seed=4)
    assert engine.asked == [
        Request(MESSAGES, fixed, prefix="I say ", scored=text) for text in ("B", "a tie", "A")
    ]


def test_yes_no_is_the_log_odds() -> None:
    assert asyncio.run(yes_no(Table({"yes": -0.25, "no": -3.0}), MESSAGES)) == 2.75


@given(st.lists(st.floats(-300, 0), min_size=2, max_size=4))
def test_preference_is_a_share_that_no_common_shift_moves(given_: list[float]) -> None:
    letters = "ABCD"[: len(given_)]

    def share(shift: float) -> float:
        table = {a: b + shift for a, b in zip(letters, given_, strict=True)}
        return asyncio.run(preference(Table(table), MESSAGES, letters=letters))

    first = share(0.0)
    assert 0 <= first <= 1
    assert first == pytest.approx(share(-50.0), abs=1e-9)
    naive = sum(math.exp(other - given_[0]) for other in given_)
    assert first == pytest.approx(1 / naive, abs=1e-9)


def test_preference_is_of_a_against_b() -> None:
    found = asyncio.run(preference(Table({"A": -1.0, "B": -1.0 - math.log(3)}), MESSAGES))
    assert found == pytest.approx(0.75)


def test_a_bad_reply_is_the_callers_and_a_silent_engine_stops() -> None:
    with pytest.raises(BadReply, match="too_long"):
        asyncio.run(choices(Table({"A": -1.0}), MESSAGES, ("A", "B")))
    with pytest.raises(EngineError, match="gives no log-probabilities"):
        asyncio.run(yes_no(Table({"yes": None, "no": -1.0}), MESSAGES))
    with pytest.raises(ValueError, match="no text"):
        asyncio.run(likelihood(Table({}), MESSAGES, ""))


def test_a_mean_is_a_token() -> None:
    found: Any = asyncio.run(likelihood(Table({"a b": -3.0}), MESSAGES, "a b"))
    assert (found.total, found.tokens, found.mean) == (-3.0, 2, -1.5)
