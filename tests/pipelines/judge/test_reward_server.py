"""Served reward models: a loopback server that answers by rule, in vLLM's shapes, with its faults."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from pipelines.judge import reward_server
from pipelines.judge.cases import Case, Opinions, squashed
from pipelines.judge.reward_model import judge
from pipelines.judge.reward_server import RewardServerConfig
from schemas.errors import EngineDown, EngineError
from tests.pipelines.judge.rewarding import ANSWERS, CASES, case_of, scores


def reward(text: str) -> float:
    return len(text) / 10


class Server:
    """Answers by rule; `faults` are served before a text's first answer."""

    def __init__(self, *faults: web.Response | None) -> None:
        self.faults = list(faults)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[dict[str, Any]], Any] | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.faults:
            fault = self.faults.pop(0)
            if fault is None:
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            return fault
        if self.reply is not None:
            return web.json_response(self.reply(body))
        name = request.path.strip("/")
        text = body["documents"] if name == "score" else body["messages"][-1]["content"]
        if "too" in text:
            message = "This model's maximum context length is 512 tokens."
            return web.json_response({"error": {"message": message}}, status=400)
        key, value = {
            "classify": ("probs", [reward(text)]),
            "pooling": ("data", [reward(text)]),
            "score": ("score", reward(text)),
        }[name]
        return web.json_response({"model": "rm", "data": [{"index": 0, key: value}]})


def serve(
    server: Server, cases: list[Case] = CASES, told: list[int] | None = None, **config: Any
) -> Opinions:
    async def run() -> Opinions:
        app = web.Application()
        for name in ("classify", "pooling", "score"):
            app.router.add_post(f"/{name}", server.handle)
        async with TestServer(app) as up:
            made = RewardServerConfig(base_url=str(up.make_url("")), model="rm", **config)

            def advance(rows: int, tokens: int) -> None:
                if told is not None:
                    told.append(rows)

            return await judge("served", made, cases, {}, 0, advance)

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_server, "BACKOFF_FIRST_S", 0.001)


@pytest.mark.parametrize("endpoint", ["classify", "pooling", "score"])
def test_a_served_model_is_asked_for_raw_scores(endpoint: Any) -> None:
    server, told = Server(), list[int]()
    found = serve(server, told=told, endpoint=endpoint)
    by = scores(found)
    assert sum(told) == len(CASES) and found.rejects == []
    for case in CASES:
        assert by[case.a.id] == reward(case.a.text)
        vote = next(v for v in found.votes if v.unit == case.pair.id)
        assert vote.value == pytest.approx(squashed(reward(case.a.text) - reward(case.b.text)))
    assert len(server.bodies) == len(ANSWERS) * 2 < len(by)  # each text once
    body = next(b for b in server.bodies if "no" in json.dumps(b) and "2+2?" in json.dumps(b))
    asked: dict[str, dict[str, Any]] = {
        "score": {"queries": "2+2?", "documents": "no"},
        "classify": {
            "messages": [
                {"role": "user", "content": "2+2?"},
                {"role": "assistant", "content": "no"},
            ]
        },
    }
    wanted = asked["score" if endpoint == "score" else "classify"]
    extra = {"task": "classify"} if endpoint == "pooling" else {}
    assert body == {"model": "rm", "use_activation": False, **wanted, **extra}


def test_the_key_is_sent_and_stands_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_KEY", "s3cret")
    server = Server()
    serve(server, CASES[:1], api_key_env="REWARD_KEY")
    assert {h["Authorization"] for h in server.headers} == {"Bearer s3cret"}
    refusing = Server(web.json_response({"error": "no, s3cret"}, status=401))
    with pytest.raises(EngineError, match=r"401: no, \*\*\*"):
        serve(refusing, CASES[:1], api_key_env="REWARD_KEY", concurrency=1)
    monkeypatch.delenv("REWARD_KEY")
    with pytest.raises(EngineError, match=r"REWARD_KEY is not set"):
        serve(Server(), CASES[:1], api_key_env="REWARD_KEY")


def test_passing_trouble_is_asked_again() -> None:
    server = Server(
        web.Response(status=503, headers={"Retry-After": "0.01"}),
        None,
        web.Response(status=500),
        web.Response(text="<html>", content_type="text/html"),
    )
    found = serve(server, CASES[:1], concurrency=1, retries=4)
    assert [v.value for v in found.votes if v.unit_kind == "response"] == [
        reward(CASES[0].a.text),
        reward(CASES[0].b.text),
    ]
    assert len(server.bodies) == 6


def test_trouble_that_stays_is_the_text_s_or_the_server_s() -> None:
    broken = Server(*(web.Response(status=500) for _ in range(2)))
    found = serve(broken, CASES[:1], concurrency=1, retries=1)
    assert [(v.value is None, v.reason) for v in found.votes] == [
        (True, "server_error"),
        (False, ""),
        (True, "server_error"),
    ]
    assert [r.code for r in found.rejects] == ["server_error"]
    with pytest.raises(EngineDown, match=r"HTTP 429"):
        serve(
            Server(*(web.Response(status=429) for _ in range(2))),
            CASES[:1],
            concurrency=1,
            retries=1,
        )
    nowhere = RewardServerConfig(base_url="http://127.0.0.1:1", model="rm", retries=1)
    with pytest.raises(EngineDown, match=r"http://127.0.0.1:1"):
        asyncio.run(judge("served", nowhere, CASES[:1], {}, 0, lambda rows, tokens: None))
    with pytest.raises(EngineError, match=r"HTTP 404: check base_url"):
        serve(Server(web.Response(status=404)), CASES[:1], concurrency=1)


def test_too_long_for_the_server_is_a_reason() -> None:
    long = case_of("q", "too long", "fine")
    found = serve(Server(), [long])
    assert [v.reason for v in found.votes][::2] == ["too_long", "too_long"]
    assert [(r.unit, r.code) for r in found.rejects] == [(long.a.id, "too_long")]


def with_row(**row: Any) -> dict[str, Any]:
    return {"model": "rm", "data": [{"index": 0, **row}]}


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ({"model": "rm"}, "bad_shape"),
        ({"model": "rm", "data": []}, "bad_shape"),
        ({"model": "rm", "data": [{}, {}]}, "bad_shape"),
        (with_row(score=1.0), "bad_shape"),
        (with_row(probs=[]), "bad_shape"),
        (with_row(probs=["1"]), "bad_shape"),
        (with_row(probs=[True]), "bad_shape"),
        (with_row(probs=[[1.0]]), "bad_shape"),
        (with_row(probs=[10**400]), "not_finite"),
        (with_row(probs=[math.nan]), "not_json"),
        (with_row(probs=[1.0]) | {"model": "other"}, "wrong_model"),
    ],
)
def test_no_score_is_guessed(reply: dict[str, Any], code: str) -> None:
    server = Server()
    server.reply = lambda body: reply
    found = serve(server, CASES[:1], retries=0)
    assert [(v.value, v.reason) for v in found.votes] == [(None, code)] * 3


def test_a_classifier_of_several_classes_is_no_reward_model() -> None:
    server = Server()
    server.reply = lambda body: with_row(probs=[0.2, 0.8])
    with pytest.raises(EngineError, match=r"rm has 2 outputs; a reward model has one"):
        serve(server, CASES[:1])


@pytest.mark.parametrize(
    "url", ["h:1", "ftp://h", "http://", "http://u:p4ss@h", "http://h/?q=1", "http://h:0"]
)
def test_bad_addresses_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ValidationError, match=r"base_url is http") as error:
        RewardServerConfig(base_url=url, model="rm")
    assert "p4ss" not in str(error.value)
