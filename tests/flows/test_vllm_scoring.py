"""Log-probabilities of given texts from a real vLLM server, on the CPU, against the local engine."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.base import Engine, Reply, Request, Sampling
from pipelines.engines.local import LocalConfig, LocalEngine
from pipelines.engines.openai import OpenAIConfig, OpenAIEngine
from pipelines.judge.logits import choices
from schemas.errors import BadReply
from schemas.records import Message
from tests.servers.vllm_server import ROOT, VLLMServer, python_or_skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

POLICY = ROOT / "data/policy"
FIXED = Sampling(temperature=0.0, max_tokens=1)
QUESTIONS = [json.loads(line)["prompt"] for line in (ROOT / "data/prompts.jsonl").open()][:12]
TEXTS = ("3+4=7", "#5", "7-2=5\n#5", "9", "1+1=2\n1+1=2\n#2", " 7")
ENDPOINTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "chat": lambda folder: {},
    "completions": lambda folder: {"endpoint": "completions", "template": str(POLICY)},
    # A lone template has no tokenizer beside it: the server cuts prompt and text.
    "completions, as text": lambda folder: {"endpoint": "completions", "template": alone(folder)},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    python = python_or_skip()
    folder = tmp_path_factory.mktemp("vllm")
    with VLLMServer(python, POLICY, folder / "server.log") as running:
        yield running


def alone(folder: Path) -> str:
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        shutil.copy(POLICY / name, folder / name)
    return str(folder / "chat_template.jinja")


def served(server: VLLMServer, **settings: Any) -> OpenAIEngine:
    engine = OpenAIEngine(OpenAIConfig(kind="openai", base_urls=(server.url,), **settings))
    asyncio.run(engine.probe())
    return engine


def local() -> LocalEngine:
    return LocalEngine(LocalConfig(model=str(POLICY), device="cpu", threads=1))


def answers(engine: Engine, requests: list[Request]) -> list[Reply | BaseException]:
    async def run() -> list[Reply | BaseException]:
        async with engine:
            asked = (engine.complete(r) for r in requests)
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(run())


def ask(question: str, text: str, prefix: str = "") -> Request:
    return Request((Message(role="user", content=question),), FIXED, prefix=prefix, scored=text)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_text_scores_as_in_the_local_engine(
    server: VLLMServer, endpoint: str, tmp_path: Path
) -> None:
    asked = [ask(q, t, prefix) for q in QUESTIONS for t in TEXTS for prefix in ("", "2+2=4\n")]
    engine = served(server, **ENDPOINTS[endpoint](tmp_path))
    for there, here in zip(answers(engine, asked), answers(local(), asked), strict=True):
        assert isinstance(there, Reply) and isinstance(here, Reply)
        assert (there.text, there.finish_reason) == ("", "stop")
        assert there.completion_tokens == here.completion_tokens
        assert there.prompt_tokens == here.prompt_tokens
        assert there.logprob == pytest.approx(here.logprob, abs=1e-3)


def test_the_prompts_tokens_are_asked_for_once(server: VLLMServer) -> None:
    before = server.answered()
    answers(served(server), [ask(QUESTIONS[0], text) for text in TEXTS])
    assert server.answered() == before + len(TEXTS) + 1


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_beyond_the_context(server: VLLMServer, endpoint: str, tmp_path: Path) -> None:
    [long] = answers(served(server, **ENDPOINTS[endpoint](tmp_path)), [ask("why?", "1" * 600)])
    assert isinstance(long, BadReply) and long.code == "too_long"


def test_choices_are_ordered_as_in_the_local_engine(server: VLLMServer) -> None:
    messages = (Message(role="user", content=QUESTIONS[0]),)

    async def both() -> list[tuple[float, ...]]:
        found = []
        for engine in (served_later, local()):
            async with engine:
                found.append(await choices(engine, messages, ("3", "7", "#")))
        return found

    served_later: Any = served(server)
    there, here = asyncio.run(both())
    assert there == pytest.approx(here, abs=1e-3)
