"""Likelihood judges: each measure by hand, what has no score and why, and the bundled policy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.engines.base import Reply, Request
from pipelines.judge.cases import Case, Opinions, squashed
from pipelines.judge.likelihood import LEAD, OPENING, LikelihoodConfig, judge, material
from schemas.errors import BadReply, EngineError, UserError
from schemas.records import Message, Pair, Prompt, Response, Vote
from tests.pipelines.judge.made import response
from tests.pipelines.told import ToldEngine

POLICY = Path(__file__).parents[3] / "data" / "policy"


class Told(ToldEngine):
    """Scores by a function of the request; a token a word."""

    def __init__(self, score: Callable[[Request], float | None]) -> None:
        async def told(request: Request) -> Reply:
            await asyncio.sleep(0)
            return Reply("", "stop", 1, len(request.scored.split()), score(request))

        super().__init__(told, 3)


def prompt(text: str = "two and two?", **fields: Any) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), source="made", **fields)


def case(to: Prompt, a: Response, b: Response) -> Case:
    return Case(to, Pair(prompt_id=to.id, response_a=a.id, response_b=b.id), a, b)


ASKED = prompt(reference="4")
A, B, C = (response(ASKED, text, i) for i, text in enumerate(("it is four", "five", "six or so")))
CASES = [case(ASKED, A, B), case(ASKED, A, C)]


def run(engine: Any, cases: list[Case] = CASES, **settings: Any) -> Opinions:
    config = LikelihoodConfig(engine="e", **settings)
    return asyncio.run(judge("j", config, cases, {"e": engine}, 7))


def values(found: Opinions) -> dict[str, float | None]:
    return {vote.unit: vote.value for vote in found.votes}


def test_votes_on_responses_once_and_on_pairs_without_order() -> None:
    per = {A.text: -3.0, B.text: -2.0, C.text: -1.5}
    engine = Told(lambda r: per[r.scored])
    found = run(engine, measure="policy")
    assert found.rejects == []
    assert [(v.unit, v.unit_kind, v.value) for v in found.votes] == [
        (A.id, "response", -1.0),
        (B.id, "response", -2.0),
        (CASES[0].pair.id, "pair", squashed(1.0)),
        (C.id, "response", -0.5),
        (CASES[1].pair.id, "pair", squashed(-0.5)),
    ]
    assert {(v.judge, v.judge_kind, v.order) for v in found.votes} == {("j", "llm", None)}
    assert [v.reason for v in found.votes] == ["", "", "a: -1; b: -2", "", "a: -1; b: -0.5"]
    assert [(r.messages, r.prefix, r.scored) for r in engine.asked] == [
        (ASKED.messages, "", text) for text in per
    ]
    assert len({(r.sampling, r.sample) for r in engine.asked}) == 1
    Vote.to_table(found.votes)


def test_perplexity_ratio_is_what_the_prompt_adds() -> None:
    def score(request: Request) -> float:
        given = request.messages == ASKED.messages
        assert given or request.messages == (Message(role="user", content=""),)
        return {A.text: (-3.0, -9.0), B.text: (-4.0, -3.5)}[request.scored][not given]

    found = values(run(Told(score), CASES[:1], measure="perplexity_ratio"))
    assert (found[A.id], found[B.id]) == (2.0, -0.5)


def test_density_ratio_is_of_two_models_over_one_text() -> None:
    strong = Told(lambda r: {A.text: -3.0, B.text: -4.0}[r.scored])
    weak = Told(lambda r: {A.text: -6.0, B.text: -2.0}[r.scored])
    config = LikelihoodConfig(engine="e", measure="density_ratio", against="weak")
    engines = {"e": strong, "weak": weak}
    found = asyncio.run(judge("j", config, CASES[:1], engines, 7))
    assert values(found) == {A.id: 1.0, B.id: -2.0, CASES[0].pair.id: squashed(3.0)}
    assert [r.scored for r in weak.asked] == [A.text, B.text]


def test_the_reference_follows_the_response() -> None:
    engine = Told(lambda r: -1.0 if "four" in r.prefix else -2.5)
    found = values(run(engine, CASES[:1], measure="reference"))
    assert (found[A.id], found[B.id]) == (-1.0, -2.5)
    assert [(r.prefix, r.scored) for r in engine.asked] == [
        (A.text + LEAD, " 4"),
        (B.text + LEAD, " 4"),
    ]


def test_follow_ups_are_a_users_turns() -> None:
    talk = Prompt(
        messages=tuple(
            Message(role=role, content=text)  # type: ignore[arg-type]
            for role, text in [
                ("system", "be brief"),
                ("user", "hello"),
                ("assistant", "hi"),
                ("user", "two and two?"),
            ]
        ),
        source="made",
    )
    good, bad = response(talk, "four"), response(talk, "five", 1)

    def score(request: Request) -> float:
        said = [(m.role, m.content) for m in request.messages]
        assert said[:-1] == [
            ("user", OPENING),
            ("assistant", "hello"),
            ("user", "hi"),
            ("assistant", "two and two?"),
        ]
        pleased = request.scored in ("thanks a lot", "great")
        words = len(request.scored.split())
        return -words * (1.0 if pleased == (said[-1] == ("user", "four")) else 4.0)

    engine = Told(score)
    found = values(
        run(
            engine,
            [case(talk, good, bad)],
            measure="follow_up",
            satisfied=("thanks a lot", "great"),
            dissatisfied=("no",),
        )
    )
    assert (found[good.id], found[bad.id]) == (3.0, -3.0)
    assert len(engine.asked) == 6


def test_what_cannot_be_scored_says_why_and_rejects_no_row() -> None:
    bare = prompt("and?")
    first, second = response(bare, "yes"), response(bare, "no", 1)
    empty = response(ASKED, "", 9)
    engine = Told(lambda r: -1.0)
    cases = [case(bare, first, second), case(ASKED, A, empty)]
    found = run(engine, cases, measure="reference")
    assert found.rejects == []
    assert [(v.unit, v.value, v.reason) for v in found.votes] == [
        (first.id, None, "no_reference"),
        (second.id, None, "no_reference"),
        (cases[0].pair.id, None, "no_reference"),
        (A.id, -1.0, ""),
        (empty.id, None, "empty_response"),
        (cases[1].pair.id, None, "empty_response"),
    ]
    assert len(engine.asked) == 1


def test_an_unusable_reply_is_a_reject_and_a_vote_without_a_value() -> None:
    def score(request: Request) -> float:
        if request.scored == B.text:
            raise BadReply("too_long", "x" * 600)
        return -3.0

    found = run(Told(score), measure="policy")
    [reject] = found.rejects
    assert (reject.unit, reject.stage, reject.code) == (B.id, "judge", "too_long")
    assert reject.detail == "j: " + "x" * 497
    by_unit = {v.unit: (v.value, v.reason) for v in found.votes}
    assert by_unit[B.id] == by_unit[CASES[0].pair.id] == (None, "too_long")
    assert by_unit[CASES[1].pair.id] == (0.0, "a: -1; b: -1")


def test_every_case_is_told_once() -> None:
    told: list[tuple[int, int]] = []
    config = LikelihoodConfig(engine="e", measure="policy")
    engines = {"e": Told(lambda r: -1.0)}
    asyncio.run(judge("j", config, CASES, engines, 7, lambda *done: told.append(done)))
    assert sum(rows for rows, _ in told) == len(CASES)
    assert asyncio.run(judge("j", config, [], engines, 7)) == Opinions([], [])


def test_what_is_wrong_with_a_config() -> None:
    with pytest.raises(ValidationError, match="against goes with measure"):
        LikelihoodConfig(engine="e", measure="density_ratio")
    with pytest.raises(ValidationError, match="against goes with measure"):
        LikelihoodConfig(engine="e", measure="policy", against="weak")
    with pytest.raises(ValidationError, match="at least 1"):
        LikelihoodConfig(engine="e", measure="follow_up", satisfied=())
    for config in (
        LikelihoodConfig(engine="x", measure="policy"),
        LikelihoodConfig(engine="e", measure="density_ratio", against="x"),
    ):
        with pytest.raises(UserError, match=r"^judge j: the plan has no engine 'x'$"):
            asyncio.run(judge("j", config, CASES, {"e": Told(lambda r: -1.0)}, 7))
    assert len(material(LikelihoodConfig(engine="e", measure="policy"))) == 32


def test_an_engine_that_cannot_score_stops_the_run() -> None:
    with pytest.raises(EngineError, match="gives no log-probabilities of a given text"):
        run(Told(lambda r: None), measure="policy")


def test_the_bundled_policy_prefers_answers_to_the_question_asked() -> None:
    """A real model: each prompt's greedy answer against the one that it gave to the next prompt."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from pipelines.engines.local import LocalConfig, LocalEngine

    engine = LocalEngine(LocalConfig(model=str(POLICY), device="cpu", threads=1))
    lines = (POLICY.parent / "prompts.jsonl").read_text().splitlines()[:30]
    rows = [json.loads(line) for line in lines]

    async def both() -> dict[str, float]:
        shares = {}
        async with engine:
            asked = [
                Request((Message(role="user", content=row["prompt"]),), greedy()) for row in rows
            ]
            written = [reply.text for reply in await asyncio.gather(*map(engine.complete, asked))]
            cases = []
            for row, text, other in zip(rows, written, [*written[1:], written[0]], strict=True):
                to = prompt(row["prompt"], reference=row["reference"])
                if text != other:
                    cases.append(case(to, response(to, text), response(to, other, 1)))
            for measure in ("policy", "perplexity_ratio"):
                config = LikelihoodConfig(engine="e", measure=measure)
                found = await judge("j", config, cases, {"e": engine}, 7)
                pairs = [v.value for v in found.votes if v.unit_kind == "pair"]
                shares[measure] = sum(v is not None and v > 0 for v in pairs) / len(pairs)
        return shares

    shares = asyncio.run(both())
    assert shares["policy"] > 0.95 and shares["perplexity_ratio"] > 0.8


def greedy() -> Any:
    from pipelines.engines.base import Sampling

    return Sampling(temperature=0.0, max_tokens=96)
