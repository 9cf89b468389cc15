"""Judging by log-probabilities: the same votes without a reply to be read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

import pytest

from pipelines.engines.base import Reply, Request
from pipelines.judge.cases import CLASH, Case, Opinions, squashed
from pipelines.judge.llm import Judge, ListwiseConfig, PairwiseConfig, PointwiseConfig, judge
from schemas.errors import BadReply, EngineError
from tests.pipelines.judge.made import case
from tests.pipelines.told import Answer, ToldEngine, reply


def run(
    config: Judge, cases: Sequence[Case], told: Callable[[Request], Answer]
) -> tuple[Opinions, ToldEngine]:
    engine = ToldEngine(told)
    return asyncio.run(judge("j", config, cases, {"judge": engine}, 0)), engine


def values(opinions: Opinions) -> list[tuple[str | None, float | None]]:
    return [(vote.order, vote.value) for vote in opinions.votes]


def weighs(probabilities: Callable[[str], dict[str, float]]) -> Callable[[Request], Answer]:
    """An engine that gives the log-probability of a scored word, by what the request shows."""

    def told(request: Request) -> Reply:
        share = probabilities(request.messages[-1].content)[request.scored]
        return Reply("", "stop", 9, 1, math.log(share))

    return told


def test_a_pairs_value_is_the_difference_of_the_letters_shares() -> None:
    config = PairwiseConfig(engine="judge", logits=True)
    opinions, engine = run(config, [case()], weighs(lambda _: {"A": 0.6, "B": 0.2}))
    assert values(opinions) == [("ab", pytest.approx(0.5)), ("ba", pytest.approx(-0.5))]
    assert [vote.reason for vote in opinions.votes] == [CLASH, CLASH]
    assert sorted(request.scored for request in engine.asked) == ["A", "A", "B", "B"]
    content = engine.asked[0].messages[-1].content
    assert content.endswith("Reply with the letter of the better response alone: A or B.")
    assert "JSON" not in content


def test_a_response_is_worth_its_log_odds() -> None:
    def probabilities(content: str) -> dict[str, float]:
        return {"yes": 0.8, "no": 0.1} if "Six." in content else {"yes": 0.1, "no": 0.2}

    config = PointwiseConfig(engine="judge", logits=True)
    opinions, _ = run(config, [case()], weighs(probabilities))
    assert [vote.value for vote in opinions.votes] == [
        pytest.approx(math.log(8)),
        pytest.approx(-math.log(2)),
        pytest.approx(squashed(math.log(16))),
    ]


def test_a_tournament_can_be_played_by_log_probabilities() -> None:
    def probabilities(content: str) -> dict[str, float]:
        six_first = content.find("Six.") < content.find("Seven.")
        return {"A": 0.9, "B": 0.1} if six_first else {"A": 0.1, "B": 0.9}

    config = ListwiseConfig(engine="judge", logits=True)
    opinions, _ = run(config, [case()], weighs(probabilities))
    assert values(opinions) == [(None, 1.0)]


def test_log_probabilities_that_are_not_there_are_no_vote() -> None:
    config = PairwiseConfig(engine="judge", logits=True)
    opinions, _ = run(config, [case()], lambda request: BadReply("too_long", "9000 tokens"))
    assert [(vote.value, vote.reason) for vote in opinions.votes] == [(None, "too_long")] * 2
    assert [reject.code for reject in opinions.rejects] == ["too_long"] * 2


def test_an_engine_without_log_probabilities_stops_the_judge() -> None:
    config = PairwiseConfig(engine="judge", logits=True)
    with pytest.raises(EngineError, match="gives no log-probabilities"):
        run(config, [case()], lambda request: reply("A"))
