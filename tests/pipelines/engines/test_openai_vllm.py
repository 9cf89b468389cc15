"""What the `openai` engine says to a server that says it is vLLM, and to no other."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.base import Request
from pipelines.engines.openai import OpenAIEngine
from schemas.errors import EngineError
from tests.pipelines.engines.asking import ASK, config, identity_of, one
from tests.pipelines.engines.fake_server import (
    FakeServer,
    reply,
)

pytestmark = pytest.mark.usefixtures("short_waits")

POLICY = Path(__file__).parents[3] / "data" / "policy"
OFF = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
PREFIX = Request(ASK.messages, ASK.sampling, prefix="2+2=4\n")


def vllm(**settings: Any) -> FakeServer:
    return FakeServer(
        models=[{"id": "m", "root": "/models/m", "owned_by": "vllm"}],
        **settings,
    )


def test_the_models_own_sampling_defaults_are_switched_off() -> None:
    with vllm() as server:
        one(server)
        few = Request(ASK.messages, replace(ASK.sampling, top_k=5))
        one(server, request=few)
        said = [{key: body.get(key) for key in OFF} for body in server.bodies]
    assert said == [OFF, {**OFF, "top_k": 5}]


def test_another_server_is_told_nothing_that_it_may_not_know(server: FakeServer) -> None:
    server.models = [{"id": "m", "owned_by": "organization-owner"}]
    one(server, request=PREFIX)
    assert not server.bodies[0].keys() & {*OFF, "return_prompt_text"}


def test_the_identity_says_vllm() -> None:
    with vllm() as server:
        identity = identity_of(server)
        assert identity.extra["server"] == "vllm"
        remembered = OpenAIEngine(config(server), identity)

        async def ask() -> None:
            async with remembered as engine:
                await engine.complete(ASK)

        asyncio.run(ask())
        assert server.bodies[0]["min_p"] == 0.0
        with FakeServer() as other:
            assert "server" not in identity_of(server, other).extra


def test_a_chat_template_that_trims_a_prefix_stops_the_run() -> None:
    with vllm() as server:
        server.script = [reply(top={"prompt_text": "Q: 2+2?\nA: 2+2=4\n"})]
        assert one(server, request=PREFIX).text == "fine"
        assert server.bodies[0]["return_prompt_text"] is True
        server.script = [reply(top={"prompt_text": "Q: 2+2?\nA: 2+2=4"})]
        with pytest.raises(EngineError, match=r"template changes a prefix.*use endpoint"):
            one(server, request=PREFIX)


def test_completions_sends_a_prefix_token_for_token(tmp_path: Path) -> None:
    """As a list of ids, the rendered template's first; the same ones that the text would give."""
    pytest.importorskip("tokenizers")
    settings = {"endpoint": "completions", "template": str(POLICY)}
    with vllm() as server:
        engine = OpenAIEngine(config(server, **settings))
        tokens = engine.tokens(PREFIX.prefix)  # before it knows who answers
        assert tokens is not None and len(tokens.ids) == len(PREFIX.prefix)
        rendered = "Q: 2+2?\nA: "
        both = engine.tokens(rendered + PREFIX.prefix)
        assert both is not None
        one(server, request=replace(PREFIX, prefix_ids=tokens.ids), **settings)
        one(server, request=replace(PREFIX, prefix_ids=(9, 9)), **settings)
        one(server, request=PREFIX, **settings)
        said = [body["prompt"] for body in server.bodies]
        assert said == [
            list(both.ids),
            [*both.ids[: len(rendered)], 9, 9],
            rendered + PREFIX.prefix,
        ]
        # Where there is no tokenizer, the text is sent, and no tokens are known.
        bare = shutil.copy(POLICY / "chat_template.jinja", tmp_path)
        shutil.copy(POLICY / "tokenizer_config.json", tmp_path)
        for template in (bare, str(tmp_path)):
            plain = {"endpoint": "completions", "template": template}
            assert OpenAIEngine(config(server, **plain)).tokens("2") is None
            one(server, request=replace(PREFIX, prefix_ids=(9, 9)), **plain)
            assert server.bodies[-1]["prompt"] == rendered + PREFIX.prefix


def test_chat_continues_text_whose_tokens_are_the_servers_business() -> None:
    with vllm() as server:
        assert OpenAIEngine(config(server)).tokens("2+2") is None
        one(server, request=replace(PREFIX, prefix_ids=(9, 9)))
        assert server.bodies[0]["messages"][-1]["content"] == PREFIX.prefix
