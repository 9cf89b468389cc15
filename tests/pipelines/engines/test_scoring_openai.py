"""How servers are asked to score a text, and what of their answers is believed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pipelines.engines.base import Reply, Request, Sampling
from schemas.errors import BadReply, EngineError
from schemas.records import Message
from tests.pipelines.engines.asking import ask, one
from tests.pipelines.engines.fake_server import Act, FakeServer, reply, status

pytestmark = pytest.mark.usefixtures("short_waits")

POLICY = Path(__file__).parents[3] / "data" / "policy"
FOLDER = {"endpoint": "completions", "template": str(POLICY)}
FIXED = Sampling(temperature=0.0, max_tokens=1, seed=7)
SCORED = Request((Message(role="user", content="q"),), FIXED, scored="7\n#5")
BEFORE = "Q: q\nA: "


def prompt_of(body: dict[str, Any], chat: bool) -> str:
    """What the bundled template makes of a chat body, or the text that was sent."""
    if not chat:
        return str(body["prompt"])
    text = "".join(
        f"Q: {m['content']}\nA: " if m["role"] == "user" else m["content"] for m in body["messages"]
    )
    return text


def told(**changes: Any) -> Act:
    """As vLLM answers: a token a character, n tokens in -n/10 each; `changes` replace its fields."""

    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> web.Response:
        chat = "chat" in request.path
        sent = body["messages"] if chat else body["prompt"]
        text = None if isinstance(sent, list) and not chat else prompt_of(body, chat)
        ids = [ord(c) for c in text] if text is not None else sent
        fields: dict[str, Any] = {"prompt_token_ids": ids}
        if "prompt_logprobs" in body:
            fields["prompt_logprobs"] = [None] + [
                {str(token): {"logprob": -at / 10, "rank": 1}} for at, token in enumerate(ids) if at
            ]
        if body.get("return_prompt_text"):
            fields["prompt_text"] = text
        fields |= changes
        top = fields if chat else None
        return web.json_response(
            server.good_reply(request, body, top=top, choice=None if chat else fields)
        )

    return act


def vllm(act: Act | None = None) -> FakeServer:
    models = [{"id": "m", "root": "/models/m", "owned_by": "vllm"}]
    return FakeServer(models=models, always=act or told())


def about(number: float) -> Any:
    return pytest.approx(number)


def total(first: int, count: int) -> float:
    return -sum(range(first, first + count)) / 10


def test_chat_on_vllm_ends_in_the_text_and_counts_from_where_the_prompt_ends() -> None:
    with vllm() as server:
        found = one(server, request=SCORED)
        assert found == Reply("", "stop", 8, 4, about(total(8, 4)))
        first, second = server.bodies
    assert "prompt_logprobs" not in first and first["return_token_ids"] is True
    assert first["messages"] == [{"role": "user", "content": "q"}]
    assert second["messages"][1:] == [{"role": "assistant", "content": "7\n#5"}]
    assert second["continue_final_message"] is True and second["add_generation_prompt"] is False
    assert second["prompt_logprobs"] == 0
    assert (second["max_tokens"], second["temperature"], second["top_k"]) == (1, 0.0, -1)
    assert "seed" not in second and "logprobs" not in second


def test_a_prefix_comes_before_the_text() -> None:
    with vllm() as server:
        found = one(server, request=replace(SCORED, prefix="3+4="))
        assert [body["messages"][-1]["content"] for body in server.bodies] == ["3+4=", "3+4=7\n#5"]
    assert found == Reply("", "stop", 12, 4, about(total(12, 4)))


def test_the_tokens_of_a_prompt_are_asked_for_once_by_all_its_texts() -> None:
    texts = tuple(replace(SCORED, scored=text) for text in ("a", "bc", "d"))
    with vllm() as server:
        found = ask(server, requests=(*texts, replace(texts[0], prefix="z")))
        assert [r.completion_tokens for r in found if isinstance(r, Reply)] == [1, 2, 1, 1]
        assert sum("prompt_logprobs" not in body for body in server.bodies) == 2
        assert len(server.bodies) == 6


def test_schema_and_sampling_are_not_sent() -> None:
    odd = replace(SCORED, schema='{"type": "object"}', sampling=Sampling(stop=("x",), top_p=0.5))
    with vllm() as server:
        one(server, request=SCORED)
        first = server.bodies[-1]
        one(server, request=odd, logprobs=True)
        assert server.bodies[-1] == first


def test_a_template_folder_with_a_tokenizer_sends_tokens() -> None:
    with vllm() as server:
        found = one(server, request=SCORED, **FOLDER)
        [body] = server.bodies
    assert len(body["prompt"]) == 12 and all(isinstance(i, int) for i in body["prompt"])
    assert body["add_special_tokens"] is False and body["prompt_logprobs"] == 0
    assert found == Reply("", "stop", 8, 4, about(total(8, 4)))


def alone(folder: Path) -> dict[str, str]:
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        shutil.copy(POLICY / name, folder / name)
    return {"endpoint": "completions", "template": str(folder / "chat_template.jinja")}


def test_a_lone_template_sends_texts_to_vllm(tmp_path: Path) -> None:
    with vllm() as server:
        found = one(server, request=SCORED, **alone(tmp_path))
        assert [body["prompt"] for body in server.bodies] == [BEFORE, f"{BEFORE}7\n#5"]
    assert found == Reply("", "stop", 8, 4, about(total(8, 4)))


def test_one_token_over_the_boundary_refuses_the_row() -> None:
    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> Any:
        whole = "prompt_logprobs" in body
        ids = [1, 2, 9, 4] if whole else [1, 2, 3]
        return await told(
            prompt_token_ids=ids, prompt_logprobs=[{str(i): {"logprob": -1.0}} for i in ids]
        )(server, request, body)

    with vllm(act) as server:
        [found] = ask(server, requests=(SCORED,))
    assert isinstance(found, BadReply) and found.code == "bad_request"
    assert "no tokens of its own" in found.detail


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"prompt_logprobs": None}, "no prompt_logprobs in its reply"),
        ({"prompt_token_ids": None}, "no prompt_token_ids in its reply"),
        ({"prompt_logprobs": [None]}, "1 of 12 tokens"),
        ({"prompt_logprobs": [{}] * 12}, "not a number a token"),
        ({"prompt_logprobs": [{"0": {"logprob": -1}}] * 12}, "lack the tokens themselves"),
        ({"prompt_text": BEFORE + "7\n#5 "}, "chat template changes"),
    ],
)
def test_a_vllm_that_does_not_tell_stops_the_run(changes: dict[str, Any], line: str) -> None:
    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> Any:
        known = changes if "prompt_logprobs" in body or "prompt_token_ids" in changes else {}
        return await told(**known)(server, request, body)

    with vllm(act) as server, pytest.raises(EngineError, match=line):
        one(server, request=SCORED)


def test_something_between_prompt_and_text_stops_the_run() -> None:
    """As templates do that open a thought before every finished answer."""

    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> Any:
        more = {"prompt_text": f"{BEFORE}<think>7\n#5"} if "prompt_logprobs" in body else {}
        return await told(**more)(server, request, body)

    with vllm(act) as server, pytest.raises(EngineError, match="puts something before it"):
        one(server, request=SCORED)


def test_chat_elsewhere_is_told_at_once_to_use_completions(server: FakeServer) -> None:
    with pytest.raises(EngineError, match=r'^endpoint = "chat": .* use endpoint = "completions"'):
        one(server, request=SCORED)
    assert server.bodies == []


def echoed(**changes: Any) -> Act:
    """As the first OpenAI API echoes: tokens of two characters, and the one that it wrote."""

    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> web.Response:
        sent = body["prompt"]
        count = len(sent) if isinstance(sent, list) else (len(sent) + 1) // 2
        logprobs = {
            "token_logprobs": [None, *(-at / 10 for at in range(1, count)), -50.0],
            "text_offset": [2 * at for at in range(count)] + [len(sent)],
        }
        choice = {"logprobs": logprobs | changes}
        return web.json_response(server.good_reply(request, body, choice=choice))

    return act


def test_other_servers_echo_tokens() -> None:
    with FakeServer(always=echoed()) as server:
        found = one(server, request=SCORED, **FOLDER)
        [body] = server.bodies
    assert (body["echo"], body["logprobs"], body["max_tokens"]) == (True, 1, 1)
    assert "prompt_logprobs" not in body and len(body["prompt"]) == 12
    assert found == Reply("", "stop", 8, 4, about(total(8, 4)))


def test_other_servers_echo_texts_and_say_where_tokens_begin(tmp_path: Path) -> None:
    odd = replace(SCORED, prefix="3")  # a token of the echo holds its end and the text's start
    with FakeServer(always=echoed()) as server:
        settings = alone(tmp_path)
        found = one(server, request=SCORED, **settings)
        [refused] = ask(server, requests=(odd,), **settings)
    assert found == Reply("", "stop", 4, 2, about(-0.9))
    assert isinstance(refused, BadReply) and refused.code == "bad_request"


@pytest.mark.parametrize("act", [reply(), echoed(token_logprobs=[-1.0]), echoed(token_logprobs=0)])
def test_a_server_that_does_not_echo_stops_the_run(act: Act) -> None:
    line = (
        r'^endpoint = "completions": the server gives no log-probabilities .* use another engine$'
    )
    with FakeServer(always=act) as server, pytest.raises(EngineError, match=line):
        one(server, request=SCORED, **FOLDER)


def test_an_echo_of_a_text_without_offsets_stops_the_run(tmp_path: Path) -> None:
    act = echoed(text_offset=None)
    with FakeServer(always=act) as server, pytest.raises(EngineError, match="no text_offset"):
        one(server, request=SCORED, **alone(tmp_path))


def test_troubles_become_what_they_always_do() -> None:
    long = status(400, "maximum context length is 512 tokens")
    with vllm(long) as server:
        [found] = ask(server, requests=(SCORED,))
        assert isinstance(found, BadReply) and found.code == "too_long"
    with vllm() as server:
        server.script = [status(500), told(), status(503), told()]
        assert one(server, request=SCORED).completion_tokens == 4
    with vllm() as server:
        server.script = [reply(top={"model": "other"})]
        [wrong] = ask(server, requests=(SCORED,))
        assert isinstance(wrong, BadReply) and wrong.code == "wrong_model"
        assert isinstance(one(server, request=SCORED), Reply)


def test_a_failed_look_at_a_prompt_is_not_kept() -> None:
    with vllm() as server:
        server.script = [status(400, "no")]
        first, *_ = ask(server, requests=(SCORED,))
        assert isinstance(first, BadReply) and first.code == "bad_request"
        assert one(server, request=SCORED).logprob == about(total(8, 4))
