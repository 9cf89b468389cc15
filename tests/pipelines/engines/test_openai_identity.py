from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.engines.base import Identity
from pipelines.engines.openai import OpenAIConfig, OpenAIEngine
from pipelines.engines.openai_dialect import Dialect
from schemas.errors import BadReply, EngineDown, EngineError
from tests.pipelines.engines.asking import (
    KEY,
    ask,
    config,
    free_port,
    identity_of,
    one,
)
from tests.pipelines.engines.fake_server import (
    FakeServer,
    reply,
    status,
)

pytestmark = pytest.mark.usefixtures("short_waits")


# The identity


def test_identity_and_its_secrets(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    identity = identity_of(server, api_key_env="SOME_KEY", revision="r1", price_prompt=2.0)
    assert identity.as_dict() == {
        "kind": "openai",
        "model": "m",
        "revision": "r1",
        "template": "",
        "endpoint": "chat",
        "extra": {"structured": "json_schema", "logprobs": False, "root": "/models/m"},
    }
    assert identity == identity_of(server, revision="r1", concurrency=3, timeout_s=9)
    server.models = [{"id": "m", "root": "/models/other"}]
    assert identity_of(server, revision="r1").digest != identity.digest
    assert one(server, api_key_env="SOME_KEY").text == "fine"
    assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"
    for code in (400, 401, 404, 500, 429):
        server.always = status(code, f"Incorrect API key provided: {KEY}")
        (trouble,) = ask(server, api_key_env="SOME_KEY", retries=0)
        assert "Incorrect API key provided: ***" in str(trouble)
        assert KEY not in repr(trouble)
    server.always = reply(top={"model": KEY})
    with pytest.raises(BadReply, match=r"answered as \*\*\*"):
        one(server, api_key_env="SOME_KEY")
    assert KEY not in caplog.text
    assert KEY not in repr(Dialect("m", secret=KEY))


def test_a_key_that_is_not_there(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(EngineError, match="environment variable SOME_KEY is not set"):
        one(server, api_key_env="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(EngineError, match="SOME_KEY holds characters") as caught:
        one(server, api_key_env="SOME_KEY")
    assert KEY not in str(caught.value)


def test_identity_is_unknown_before_a_probe(server: FakeServer) -> None:
    engine = OpenAIEngine(config(server))
    with pytest.raises(EngineError, match="probe"):
        _ = engine.identity


def test_a_remembered_identity_needs_no_server() -> None:
    identity = Identity(
        "openai", "m", "", "", "chat", {"structured": "json_schema", "logprobs": False}
    )
    url = f"http://127.0.0.1:{free_port()}/v1"
    settings = OpenAIConfig(kind="openai", base_urls=(url,), model="m")

    async def run() -> None:
        async with OpenAIEngine(settings, identity) as engine:
            assert engine.identity == identity

    asyncio.run(run())
    changed = OpenAIConfig(kind="openai", base_urls=(url,), model="m", revision="r2")
    with pytest.raises(EngineError, match="not those its identity was probed with"):
        OpenAIEngine(changed, identity)
    other = OpenAIConfig(kind="openai", base_urls=(url,), model="n")
    with pytest.raises(EngineError, match="not those its identity was probed with"):
        OpenAIEngine(other, identity)


def test_what_is_served_is_listed(server: FakeServer) -> None:
    server.models = [{"id": "m"}, {"id": "n"}]
    with pytest.raises(EngineError) as caught:
        identity_of(server, model="q")
    assert str(caught.value) == f"{server.url}: does not serve q; it serves m, n"
    with pytest.raises(EngineError, match="serves m, n; name one of them as the model"):
        identity_of(server)
    assert identity_of(server, model="n").model == "n"


def test_a_fleet_agrees_on_model_and_root(server: FakeServer) -> None:
    with FakeServer(models=[{"id": "m", "root": "/models/x"}]) as other:
        with pytest.raises(EngineError, match="different things as m: /models/m, /models/x"):
            identity_of(server, other)
        other.models = [{"id": "n"}]
        with pytest.raises(EngineError, match="serve different models: m, n"):
            identity_of(server, other)
        other.models = [{"id": "m"}]
        assert identity_of(server, other).extra["root"] == "/models/m"


def test_a_server_without_a_list_of_models(server: FakeServer) -> None:
    server.models_status = 404
    assert identity_of(server, model="m").extra == {"structured": "json_schema", "logprobs": False}
    with pytest.raises(EngineError, match="HTTP 404"):
        identity_of(server)


def test_probe_names_every_server_that_fails(server: FakeServer) -> None:
    server.models = "<html></html>"
    dead = f"http://127.0.0.1:{free_port()}/v1"
    settings = OpenAIConfig(kind="openai", base_urls=(server.url, dead))
    with pytest.raises(EngineDown) as caught:
        asyncio.run(OpenAIEngine(settings).probe())
    assert str(caught.value) == (
        f"{server.url}: the reply is an HTML page, not JSON; {dead}: connection refused; "
        "start the server or mend base_urls"
    )
    server.models = [{"id": "n"}]
    with pytest.raises(EngineError, match="does not serve m; it serves n") as wrong:
        asyncio.run(OpenAIEngine(settings.model_copy(update={"model": "m"})).probe())
    assert not isinstance(wrong.value, EngineDown)


# The config, and the template


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000/v1",
        "ftp://h/v1",
        f"http://me:{KEY}@h/v1",
        f"http://h/v1?key={KEY}",
        "http://",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="a base URL is") as caught:
        OpenAIConfig(kind="openai", base_urls=(url,))
    assert KEY not in str(caught.value)


def test_config_that_makes_no_sense() -> None:
    urls = ("http://h/v1",)
    with pytest.raises(ValidationError, match="stands twice"):
        OpenAIConfig(kind="openai", base_urls=("http://h/v1", "http://h/v1/"))
    with pytest.raises(ValidationError, match="that needs one"):
        OpenAIConfig(kind="openai", base_urls=urls, endpoint="completions")
    with pytest.raises(ValidationError, match="that needs one"):
        OpenAIConfig(kind="openai", base_urls=urls, template="/t")
    with pytest.raises(ValidationError, match="base_urls"):
        OpenAIConfig(kind="openai", base_urls=())


def engine_with(template: Path) -> OpenAIEngine:
    return OpenAIEngine(
        OpenAIConfig(
            kind="openai",
            base_urls=("http://h/v1",),
            endpoint="completions",
            template=str(template),
        )
    )


def test_templates_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no chat template; give a"):
        engine_with(tmp_path)
    file = tmp_path / "t.jinja"
    file.write_text("{{ bos_token }}{{ messages[0].content }}")
    with pytest.raises(EngineError, match="uses bos_token; put the model's"):
        engine_with(file)
    file.write_text("{% if %}")
    with pytest.raises(EngineError, match="no usable chat template"):
        engine_with(file)


def test_a_template_is_sandboxed_and_may_refuse(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    settings = {"endpoint": "completions", "template": str(file)}
    for text, why in (
        ("{{ raise_exception('no system turns') }}", "no system turns"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ):
        file.write_text(text)
        with pytest.raises(BadReply, match=why) as caught:
            one(server, **settings)
        assert caught.value.code == "bad_request"
    assert server.bodies == []


def test_template_of_a_tokenizer_config(server: FakeServer, tmp_path: Path) -> None:
    text = "{% for m in messages %}{% generation %}[{{ m.content }}]{% endgeneration %}{% endfor %}"
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": text}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    one(server, endpoint="completions", template=str(tmp_path))
    assert server.bodies[0]["prompt"] == "[2+2?]"
