"""Replies in the shapes real models give: each is read right or refused with its code, none is guessed."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipelines.judge.llm import PairwiseConfig, PointwiseConfig, judge
from tests.pipelines.judge.made import case
from tests.pipelines.told import ToldEngine, reply

REPLIES: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parent / "replies.toml").read_text("utf-8")
)["reply"]


def test_there_are_many_kinds_of_them() -> None:
    assert len({recorded["kind"] for recorded in REPLIES}) == len(REPLIES) >= 60


@pytest.mark.parametrize("recorded", REPLIES, ids=[recorded["kind"] for recorded in REPLIES])
def test_a_reply_is_read_right_or_refused_with_its_code(recorded: dict[str, Any]) -> None:
    engine = ToldEngine(
        lambda request: reply(recorded["text"], finish=recorded.get("finish", "stop"))
    )
    made = PointwiseConfig if recorded.get("judge") == "pointwise" else PairwiseConfig
    config = made(engine="judge", think=True)
    opinions = asyncio.run(judge("j", config, [case()], {"judge": engine}, 0))
    if made is PairwiseConfig:
        votes = {vote.order: vote for vote in opinions.votes}
        assert list(votes) == ["ab", "ba"]
    else:
        votes = {vote.unit: vote for vote in opinions.votes if vote.unit_kind == "response"}
        assert len(votes) == 2
    first, second = votes.values()
    if "value" in recorded:
        assert not opinions.rejects
        assert first.value == pytest.approx(recorded["value"], abs=1e-9)
        # The same letter in the other order is the other response.
        turn = -1 if made is PairwiseConfig else 1
        assert second.value == pytest.approx(turn * recorded["value"], abs=1e-9)
        assert len(engine.asked) == 2
    else:
        assert [(vote.value, vote.reason) for vote in opinions.votes] == (
            [(None, recorded["code"])] * len(opinions.votes)
        )
        assert [reject.code for reject in opinions.rejects] == [recorded["code"]] * 2
        assert all(reject.stage == "judge" for reject in opinions.rejects)
        assert len(engine.asked) == 6  # each asked for again twice
