"""Prefinery against a real vLLM server, on the CPU: what it answers, and what its death does.

The model is the bundled policy, with defaults of its own for sampling as many models have them:
nothing of those may reach an answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.base import Reply, Request, Sampling
from pipelines.engines.openai import OpenAIConfig, OpenAIEngine
from schemas.errors import BadReply
from schemas.records import Message
from tests.servers.vllm_server import ROOT, VLLMServer, python_or_skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROMPTS = [json.loads(line) for line in (ROOT / "data/prompts.jsonl").open()][:40]
ENDPOINTS: dict[str, dict[str, Any]] = {
    "chat": {},
    "completions": {"endpoint": "completions", "template": str(ROOT / "data/policy")},
}
ENOUGH_TO_KILL = 500
"""Kept replies, of about 900 in all, at which the server is killed."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    python = python_or_skip()
    folder = tmp_path_factory.mktemp("vllm")
    model = shutil.copytree(ROOT / "data/policy", folder / "policy")
    defaults = json.loads((model / "generation_config.json").read_text())
    defaults |= {"top_k": 1, "repetition_penalty": 1.5, "temperature": 0.5}
    (model / "generation_config.json").write_text(json.dumps(defaults))
    with VLLMServer(python, model, folder / "server.log") as running:
        yield running


def ask(server: VLLMServer, requests: list[Request], **settings: Any) -> list[Reply]:
    """All at once."""

    async def run() -> list[Reply]:
        engine = OpenAIEngine(OpenAIConfig(kind="openai", base_urls=(server.url,), **settings))
        await engine.probe()
        async with engine:
            return list(await asyncio.gather(*(engine.complete(r) for r in requests)))

    return asyncio.run(run())


def request(number: int, *, sample: int = 0, **settings: Any) -> Request:
    sampling = Sampling(max_tokens=96, **settings)
    return Request((Message(role="user", content=PROMPTS[number]["prompt"]),), sampling, sample)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_prefix_is_continued_to_the_letter(server: VLLMServer, endpoint: str) -> None:
    settings = {**ENDPOINTS[endpoint], "logprobs": True}
    asked = [request(number, temperature=0.0) for number in range(4)]
    for whole, reply in zip(asked, ask(server, asked, **settings), strict=True):
        text = reply.text
        assert reply.finish_reason == "stop"
        assert reply.completion_tokens == len(text) + 1  # a token a character, and the end
        assert reply.logprob is not None and -20 < reply.logprob < 0
        lines = [end for end, letter in enumerate(text, 1) if letter == "\n"]
        assert lines, "the answer has steps"
        cuts = {1, 2, len(text) - 1, len(text), *lines}
        parts = [Request(whole.messages, whole.sampling, prefix=text[:cut]) for cut in sorted(cuts)]
        for part, rest in zip(parts, ask(server, parts, **settings), strict=True):
            assert part.prefix + rest.text == text
            assert rest.prompt_tokens == reply.prompt_tokens + len(part.prefix)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_samples_follow_from_their_seeds_alone(server: VLLMServer, endpoint: str) -> None:
    settings = ENDPOINTS[endpoint]
    # One at a time: vLLM's arithmetic may differ in another batch.
    first, again = (
        [ask(server, [request(2, sample=i, temperature=2.0)], **settings)[0] for i in range(8)]
        for _ in range(2)
    )
    assert first == again
    assert len({reply.text for reply in first}) > 2  # the model's own top_k allows for one


@pytest.mark.parametrize("structured", ["json_schema", "structured_outputs"])
def test_replies_follow_a_schema(server: VLLMServer, structured: str) -> None:
    """The policy knows no JSON: whatever is right about its replies is the server's doing."""
    verdicts = ["A", "B", "tie"]
    schema = {
        "type": "object",
        "properties": {
            "verdict": {"enum": verdicts},
            "score": {"type": "integer", "minimum": 0, "maximum": 10},
            "reason": {"type": "string", "maxLength": 20},
        },
        "required": ["verdict", "score", "reason"],
        "additionalProperties": False,
    }
    asked = [
        Request(r.messages, r.sampling, schema=json.dumps(schema)) for r in map(request, range(20))
    ]
    for reply in ask(server, asked, structured=structured):
        said = json.loads(reply.text)
        assert said.keys() == {"verdict", "score", "reason"}
        assert said["verdict"] in verdicts and said["score"] in range(11)
        assert len(said["reason"]) <= 20


def test_a_prompt_beyond_the_context(server: VLLMServer) -> None:
    endless = Request((Message(role="user", content="why? " * 200),), Sampling())
    with pytest.raises(BadReply, match="maximum context length is 512") as caught:
        ask(server, [endless])
    assert caught.value.code == "too_long"


def write_plan(folder: Path, server: VLLMServer, model: str = "policy") -> Path:
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    plan = folder / "plan.toml"
    plan.write_text(f"""
        name = "served"
        shard_rows = 20
        [prompts]
        paths = ["prompts.jsonl"]
        [engines.policy]
        kind = "openai"
        base_urls = ["{server.url}"]
        model = "{model}"
        give_up_s = 240
        [generate]
        engine = "policy"
        samples = 4
        sampling = {{ max_tokens = 96, temperature = 1.5 }}
        [process]
        engine = "policy"
        k = 4
        stop_at = 0
        sampling = {{ max_tokens = 96 }}
        [emit]
        name = "served"
    """)
    return plan


def command(*words: str | Path) -> dict[str, Any]:
    """How the `prefinery` command is started, with Prefect left out of it."""
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"}
    return {"args": [sys.executable, "-m", "flows.cli", *words], "cwd": ROOT, "env": environment}


def prefinery(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(**command(*words), capture_output=True, text=True, timeout=300)


def engine_finding(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    findings: list[dict[str, str]] = json.loads(done.stdout)
    (found,) = (finding for finding in findings if finding["what"] == "engine policy")
    return found


def test_a_model_that_is_not_served(server: VLLMServer, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, server, model="polcy")
    line = f"{server.url}: does not serve polcy; it serves policy"
    done = prefinery("curate", plan, "--root", tmp_path / "store")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == f"prefinery: {line}"
    examined = prefinery("doctor", plan, "--root", tmp_path / "store", "--json")
    assert examined.returncode == 2
    assert engine_finding(examined)["detail"] == line


def replies(store: Path, which: str = "true") -> int:
    """Replies in the journal that are there for good."""
    journal = store / "journal.sqlite"
    if not journal.exists():
        return 0
    connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    try:
        return int(connection.execute(f"select count(*) from replies where {which}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # the table is being made
    finally:
        connection.close()


def wait(until: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def parquet(store: Path) -> dict[str, str]:
    """SHA-256 of every published Parquet file."""
    stages = store / "stages"
    return {
        path.relative_to(stages).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in stages.rglob("*.parquet")
    }


def test_a_run_outlives_its_server(server: VLLMServer, tmp_path: Path) -> None:
    """The server is killed half way and comes back; then everything is made again without it."""
    plan, store, log = write_plan(tmp_path, server), tmp_path / "store", tmp_path / "run.log"
    words = (plan, "--root", store, "--json")
    examined = prefinery("doctor", *words)
    assert examined.returncode == 0, examined.stdout
    assert engine_finding(examined)["detail"] == "openai policy"

    with log.open("w") as talk:
        run = subprocess.Popen(
            **command("curate", *words), stdout=subprocess.PIPE, stderr=talk, text=True
        )
    try:
        wait(lambda: replies(store) >= ENOUGH_TO_KILL or run.poll() is not None, 120)
        assert run.poll() is None, log.read_text()
        server.kill()
        assert server.processes() == []
        examined = prefinery("doctor", *words)
        assert examined.returncode == 2
        assert engine_finding(examined) == {
            "state": "problem",
            "what": "engine policy",
            "detail": f"{server.url}: connection refused; start the server or mend base_urls",
        }
        kept = replies(store)  # what was answered before is written down by now
        assert run.poll() is None, log.read_text()
        server.start()
        summary = json.loads(run.communicate(timeout=240)[0])
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 0, log.read_text()
    assert "not asked until it is back" in log.read_text()
    assert summary["status"] == "complete"
    generated, labelled = summary["rows"]["generate"], summary["rows"]["process"]
    assert generated["responses"] + generated["rejects"] == 160
    assert labelled["step_labels"] + labelled["rejects"] == generated["responses"]
    total = replies(store)
    assert kept >= ENOUGH_TO_KILL and total > kept + 100
    # Every reply was asked for once; the second server was asked for what the first did not give.
    assert summary["asked"] == total
    assert server.answered() == total - kept
    # No request was given up. At this temperature the policy may say nothing, once in a long while.
    failed = "json_array_length(reply) = 2"
    assert replies(store, f"{failed} and json_extract(reply, '$[0]') <> 'empty_reply'") == 0
    assert replies(store, failed) <= 3

    again = json.loads(prefinery("curate", *words).stdout)
    assert (again["computed"], again["asked"], again["replayed"]) == ([], 0, 0)
    assert server.answered() == total - kept

    before = parquet(store)
    server.stop()
    shutil.rmtree(store / "stages")
    done = prefinery("curate", *words)
    assert done.returncode == 0, done.stderr
    remade = json.loads(done.stdout)
    assert remade["status"] == "complete" and "emit" in remade["computed"]
    assert remade["asked"] == 0 and remade["replayed"] >= total
    assert parquet(store) == before
    assert replies(store) == total
