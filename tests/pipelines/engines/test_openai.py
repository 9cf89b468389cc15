from __future__ import annotations

import hashlib
import json
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.base import Reply, Request, Sampling, request_seed
from pipelines.engines.fleet import Failure
from pipelines.engines.openai_dialect import RETRY_AFTER_CAP_S, Dialect, retry_after
from schemas.errors import BadReply, EngineDown, EngineError
from tests.pipelines.engines.asking import (
    ASK,
    ask,
    identity_of,
    one,
    samples,
)
from tests.pipelines.engines.fake_server import (
    Act,
    FakeServer,
    cut,
    hang_up,
    raw,
    reply,
    slow,
    status,
)

pytestmark = pytest.mark.usefixtures("short_waits")


# What is sent and what comes back


def test_chat_request_and_reply(server: FakeServer) -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, top_k=5, max_tokens=9, stop=("\n",))
    request = Request(ASK.messages, sampling, sample=3)
    assert one(server, request=request) == Reply("fine", "stop", 7, 2)
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "2+2?"}],
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 5,
            "max_tokens": 9,
            "stop": ["\n"],
            "seed": request_seed(identity_of(server).digest, request),
        }
    ]


def test_fields_that_are_off_are_not_sent(server: FakeServer) -> None:
    one(server)
    assert not server.bodies[0].keys() & {"top_k", "stop", "logprobs", "response_format"}


def test_each_sample_has_its_own_seed(server: FakeServer) -> None:
    ask(server, requests=samples(5))
    assert len({body["seed"] for body in server.bodies}) == 5


def test_chat_continues_a_prefix(server: FakeServer) -> None:
    one(server, request=Request(ASK.messages, ASK.sampling, prefix="2+2="))
    body = server.bodies[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "2+2="}
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False


def test_a_server_that_cannot_continue_is_not_asked_to(server: FakeServer) -> None:
    request = Request(ASK.messages, ASK.sampling, prefix="2+2=")
    with pytest.raises(EngineError, match="cannot continue a prefix"):
        one(server, request=request, continue_mode="none")
    assert server.bodies == []


def template_folder(folder: Path) -> str:
    text = (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | tojson }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(text)
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<s>"}}))
    return text


def test_completions_renders_the_template_and_appends_the_prefix(
    server: FakeServer, tmp_path: Path
) -> None:
    text = template_folder(tmp_path)
    request = Request(ASK.messages, ASK.sampling, prefix="2+2=\n")
    settings = {"endpoint": "completions", "template": str(tmp_path), "logprobs": True}
    assert one(server, request=request, **settings) == Reply("fine", "stop", 7, 2, logprob=-0.75)
    body = server.bodies[0]
    assert body["prompt"] == '<s><user>"2+2?"<assistant>2+2=\n'
    assert body["add_special_tokens"] is False
    assert body["logprobs"] == 1
    identity = identity_of(server, **settings)
    assert identity.template == hashlib.sha256(text.encode()).hexdigest()
    assert identity.endpoint == "completions"
    assert identity.extra["special_tokens"] == {"bos_token": "<s>"}


def test_chat_logprobs_are_summed(server: FakeServer) -> None:
    assert one(server, logprobs=True).logprob == -0.75
    assert server.bodies[0]["logprobs"] is True


def test_missing_logprobs_are_an_error() -> None:
    with (
        FakeServer(always=reply(choice={"logprobs": None})) as server,
        pytest.raises(EngineError, match="set logprobs = false"),
    ):
        one(server, logprobs=True)


@pytest.mark.parametrize(
    ("how", "sent"),
    [
        (
            "json_schema",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "reply", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        ("structured_outputs", {"structured_outputs": {"json": {"type": "object"}}}),
        ("none", {}),
    ],
)
def test_a_schema_is_sent_as_configured(server: FakeServer, how: str, sent: Any) -> None:
    one(
        server,
        request=Request(ASK.messages, ASK.sampling, schema='{"type":"object"}'),
        structured=how,
    )
    keys = ("response_format", "structured_outputs")
    assert {k: v for k, v in server.bodies[0].items() if k in keys} == sent


def test_length_is_kept_and_absent_usage_is_zero() -> None:
    with FakeServer([reply(choice={"finish_reason": "length"}, top={"usage": None})]) as server:
        assert one(server) == Reply("fine", "length", 0, 0)


# One row's bad replies


@pytest.mark.parametrize(
    ("act", "code", "detail", "times"),
    [
        (reply(text=""), "empty_reply", "the reply is an empty text", 1),
        (reply(text=None), "empty_reply", "the reply holds no text", 1),
        (reply(top={"choices": []}), "empty_reply", "the reply holds no choices (3 times)", 3),
        (raw('{"error":{"message":"out of memory"}}'), "empty_reply", "out of memory (3 times)", 3),
        (
            raw("<html>hello</html>", "text/html"),
            "not_json",
            "the reply is an HTML page, not JSON (3 times)",
            3,
        ),
        (raw("[" * 100_000), "not_json", "the reply is not JSON (100000 bytes) (3 times)", 3),
        (raw('{"choices": NaN}'), "not_json", "the reply is not JSON (16 bytes) (3 times)", 3),
        (raw("[]"), "not_json", "the reply is not a JSON object (3 times)", 3),
        (reply(text="\ud800"), "not_json", "the reply's content is not Unicode text", 1),
        (reply(text=["part"]), "not_json", "the reply's content is not Unicode text", 1),
        (cut(), "server_error", "the reply was cut off (3 times)", 3),
        (hang_up(), "server_error", "the connection was closed before a reply (3 times)", 3),
        (slow(9), "server_error", "no reply in 0.2 s (3 times)", 3),
        (status(500, "boom"), "server_error", "HTTP 500: boom (3 times)", 3),
        (status(409, "locked"), "server_error", "HTTP 409: locked (3 times)", 3),
        (
            reply(choice={"finish_reason": "abort"}),
            "server_error",
            "the server broke off the reply (abort) (3 times)",
            3,
        ),
        (reply(top={"model": "n"}), "wrong_model", "answered as n, asked for m", 1),
        (
            reply(choice={"finish_reason": "content_filter"}),
            "refused",
            "finish_reason content_filter",
            1,
        ),
        (reply(choice={"finish_reason": None}), "cut_off", "the reply states no finish_reason", 1),
        (reply(choice={"message": {"content": None, "refusal": "No."}}), "refused", "No.", 1),
        (status(400, "bad seed"), "bad_request", "HTTP 400: bad seed", 1),
        (status(422, "bad seed"), "bad_request", "HTTP 422: bad seed", 1),
        (status(413, "big"), "too_long", "HTTP 413: big", 1),
        (
            status(
                400, "This model's maximum context length is 512 tokens. However, you requested 600"
            ),
            "too_long",
            "HTTP 400: This model's maximum context length is 512 tokens. However, you requested 600",
            1,
        ),
        (
            status(
                400,
                "The decoder prompt (length 600) is longer than the maximum model length of 512",
            ),
            "too_long",
            "HTTP 400: The decoder prompt (length 600) is longer than the maximum model length of 512",
            1,
        ),
    ],
)
def test_bad_reply(act: Act, code: str, detail: str, times: int) -> None:
    with FakeServer(always=act) as server:
        timeout = 0.2 if detail.startswith("no reply") else 5.0
        with pytest.raises(BadReply) as caught:
            one(server, retries=2, timeout_s=timeout)
        assert (caught.value.code, caught.value.detail) == (code, detail)
        assert len(server.bodies) == times


def test_an_empty_continuation_of_a_whole_prefix_is_a_reply() -> None:
    with FakeServer(always=reply(text="")) as server:
        request = Request(ASK.messages, ASK.sampling, prefix="4")
        assert one(server, request=request) == Reply("", "stop", 7, 2)


def test_a_dated_snapshot_is_the_model_asked_for() -> None:
    with FakeServer(
        [reply(top={"model": "m-2024-08-06"}), reply(top={"model": "m-mini"})]
    ) as server:
        assert one(server).text == "fine"
        with pytest.raises(BadReply, match="answered as m-mini"):
            one(server)


@pytest.mark.parametrize(
    "act",
    [
        *(status(code) for code in (408, 429, 500, 502, 503, 504)),
        *(cut(), hang_up(), slow(9), raw("<p>", "text/html"), raw("{"), reply(top={"choices": []})),
    ],
)
def test_a_passing_failure_is_retried(act: Act) -> None:
    with FakeServer([act]) as server:
        assert one(server, timeout_s=0.3).text == "fine"
        assert len(server.bodies) == 2
        assert server.bodies[0] == server.bodies[1]


def test_no_retry_when_none_is_wanted() -> None:
    with FakeServer(always=status(500, "boom")) as server:
        with pytest.raises(BadReply, match="server_error: HTTP 500: boom"):
            one(server, retries=0)
        assert len(server.bodies) == 1


# The engine's troubles


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (401, "api_key_env"),
        (403, "may not use this model"),
        (404, "base_urls"),
        (402, "mend the engine"),
        (301, "redirects are not followed"),
    ],
)
def test_statuses_that_stop_the_run(code: int, advice: str) -> None:
    with FakeServer(always=status(code, "no", Location="http://127.0.0.1:1/")) as server:
        with pytest.raises(EngineError, match=advice) as caught:
            one(server)
        assert str(caught.value).startswith(f"{server.url}: HTTP {code}: ")
        assert not isinstance(caught.value, EngineDown)
        assert len(server.bodies) == 1


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_stays_busy_blames_no_row(code: int) -> None:
    with FakeServer(always=status(code, "slow down")) as server:
        with pytest.raises(EngineDown) as caught:
            one(server, retries=3)
        assert str(caught.value) == (
            f"{server.url}: HTTP {code}: slow down (4 times, nothing answered in between); lower "
            "concurrency or raise retries; answered requests are kept"
        )
        assert len(server.bodies) == 4


def test_a_storm_of_429_passes_while_others_are_answered() -> None:
    """Four of five requests are refused, far more often than `retries` for most rows."""
    refuse = status(429, "slow down")
    with FakeServer([refuse, refuse, refuse, refuse, reply()] * 30) as server:
        answers = ask(server, requests=samples(30), retries=4)
        assert [getattr(a, "text", a) for a in answers] == ["fine"] * 30
        assert len(server.bodies) == 150


def test_retry_after_is_waited_for() -> None:
    with FakeServer([status(429, "later", Retry_After="0.4")]) as server:
        start = time.monotonic()
        assert one(server).text == "fine"
        assert 0.4 <= time.monotonic() - start < 3


def test_retry_after_rests_one_server_of_a_fleet() -> None:
    with FakeServer([status(429, "later", Retry_After="30")]) as busy, FakeServer() as other:
        start = time.monotonic()
        assert {a.text for a in ask(busy, other, requests=samples(20))} == {"fine"}  # type: ignore[union-attr]
        assert time.monotonic() - start < 5
        assert len(busy.bodies) + len(other.bodies) == 21


def test_retry_after_forms() -> None:
    assert retry_after(None) == 0.0
    assert retry_after("1.5") == 1.5
    assert retry_after("-3") == 0.0
    assert retry_after("86400") == RETRY_AFTER_CAP_S
    assert retry_after("nan") == 0.0
    assert retry_after("soon") == 0.0
    assert 18 < retry_after(formatdate(time.time() + 20, usegmt=True)) <= 20
    assert retry_after(formatdate(time.time() - 20, usegmt=True)) == 0.0


def test_errors_repeat_little_of_a_servers_words() -> None:
    body = json.dumps({"error": {"message": "a\n\x1b[31mb " + "x" * 5000}}).encode()
    words = Dialect("m").words(body)
    assert words.startswith("a [31mb xxx")
    assert len(words) == 300
    assert isinstance(Dialect("m").refusal("u", 500, {}, body), Failure)
