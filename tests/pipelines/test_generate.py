"""Responses in order, and a Reject for every request without a usable answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.engines.base import Reply, Request, Sampling
from pipelines.generate import GenerateConfig, generate
from pipelines.sampling import SamplingConfig, opening
from schemas.errors import BadReply, EngineError
from schemas.records import Message, Prompt, Reject, Response
from schemas.table import validate
from tests.pipelines.rows import prompt
from tests.pipelines.told import Answer, Told, ToldEngine, reply

PROMPTS = [prompt("one"), prompt("two")]


def run(
    told: Told, prompts: list[Prompt] = PROMPTS, seed: int = 3, **config: Any
) -> tuple[list[Response], list[Reject], ToldEngine, list[tuple[int, int]]]:
    engine = ToldEngine(told, concurrency=3)
    advanced: list[tuple[int, int]] = []
    settings = GenerateConfig(engine="policy", **config)
    good, bad = asyncio.run(
        generate(
            prompts, engine, settings, seed, lambda rows, tokens: advanced.append((rows, tokens))
        )
    )
    validate(Response, Response.to_table(good))
    validate(Reject, Reject.to_table(bad))
    return good, bad, engine, advanced


def test_a_response_holds_what_was_replied_and_by_whom() -> None:
    answer = Reply("hello", "length", 7, 5, -1.5)
    (response,), bad, engine, advanced = run(lambda r: answer, PROMPTS[:1], samples=1)
    assert response == Response(
        prompt_id=PROMPTS[0].id,
        engine=engine.identity.digest,
        model="told",
        sample_index=0,
        text="hello",
        prompt_tokens=7,
        completion_tokens=5,
        finish_reason="length",
        logprob=-1.5,
    )
    assert bad == []
    assert advanced == [(1, 5)]


def test_what_is_asked() -> None:
    sampling = SamplingConfig(temperature=0.5, top_p=0.9, top_k=4, max_tokens=9, stop=("x",))
    _, _, engine, _ = run(lambda r: reply("a"), samples=2, sampling=sampling, system="be brief")
    settings = Sampling(0.5, 0.9, 4, 9, ("x",), seed=3)
    system = Message(role="system", content="be brief")
    assert engine.asked == [
        Request((system, *one.messages), settings, sample) for one in PROMPTS for sample in (0, 1)
    ]
    _, _, engine, _ = run(lambda r: reply("a"), samples=1)
    assert [r.messages for r in engine.asked] == [one.messages for one in PROMPTS]


def test_responses_are_in_order_of_prompt_and_sample_whatever_came_first() -> None:
    async def told(request: Request) -> Answer:
        await asyncio.sleep(0.002 * (4 - request.sample))
        return reply(f"{request.messages[0].content} {request.sample}")

    good, _, _, _ = run(told, samples=4)
    assert [r.text for r in good] == [f"{name} {i}" for name in ("one", "two") for i in range(4)]
    assert [r.sample_index for r in good] == [0, 1, 2, 3] * 2


def test_a_request_without_a_usable_answer_is_a_reject() -> None:
    def told(request: Request) -> Answer:
        if request.sample == 1:
            return BadReply("empty_reply", "x" * 600)
        return reply(f"text {request.sample}", 4)

    good, bad, _, advanced = run(told, samples=3)
    assert bad == [
        Reject(unit=f"{one.id}#1", stage="generate", code="empty_reply", detail="x" * 500)
        for one in PROMPTS
    ]
    assert [r.sample_index for r in good] == [0, 2, 0, 2]
    assert len(good) + len(bad) == 6 == sum(rows for rows, _ in advanced)
    assert sum(tokens for _, tokens in advanced) == 16


def test_an_engine_that_cannot_be_used_stops_the_work() -> None:
    with pytest.raises(EngineError, match=r"^wrong key$"):
        run(lambda r: EngineError("wrong key"))


def test_no_prompts_give_nothing() -> None:
    assert run(lambda r: reply("a"), [])[:2] == ([], [])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 11.0),
        ("temperature", "1"),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -1),
        ("top_k", 2.5),
        ("max_tokens", 0),
        ("max_token", 5),
    ],
)
def test_settings_out_of_range_or_misspelt_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        SamplingConfig(**{field: value})


def test_the_samples_asked_are_bounded() -> None:
    for samples in (0, 10_001):
        with pytest.raises(ValidationError, match=r"samples"):
            GenerateConfig(engine="policy", samples=samples)


def test_a_prompt_s_own_system_message_goes_before_the_plan_s() -> None:
    user = Message(role="user", content="q")
    own = Message(role="system", content="own")
    assert opening((user,), "be brief") == (Message(role="system", content="be brief"), user)
    assert opening((own, user), "be brief") == (own, user)
    assert opening((user,), None) == (user,)
