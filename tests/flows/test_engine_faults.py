"""A server in trouble: the run ends in one line, nothing is lost, nothing is asked twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines import fleet, openai
from tests.flows.plans import Done, call, merged, prefinery, scripted, write_plan
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

GOOD = reply(text="3+4=7\n#7")
PROMPTS, SAMPLES = 5, 4
ALL = PROMPTS * SAMPLES


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(openai, "BACKOFF_LAST_S", 0.02)
    monkeypatch.setattr(fleet, "PROBE_FIRST_S", 0.02)
    monkeypatch.setattr(fleet, "PROBE_LAST_S", 0.05)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(always=GOOD) as running:
        yield running


class Job:
    """A plan that asks a server, and the command that runs it."""

    def __init__(self, folder: Path, server: FakeServer, **engine: Any) -> None:
        self.root = folder / "store"
        self.server = server
        asked = {"kind": "openai", "base_urls": [server.url], "concurrency": 2, **engine}
        self.settings: dict[str, Any] = {"retries": 0, "give_up_s": 0.0, "timeout_s": 5.0}
        plan = {**scripted(process=None), "engines": {"policy": {**self.settings, **asked}}}
        self.plan = write_plan(folder, plan, PROMPTS)
        self.command = ("run", self.plan, "--root", self.root, "--json")

    def run(self) -> Done:
        return call(*self.command)

    def kept(self) -> int:
        """Usable replies in the journal."""
        with sqlite3.connect(self.root / "journal.sqlite") as journal:
            query = "select count(*) from replies where json_array_length(reply) = 5"
            return int(journal.execute(query).fetchone()[0])

    def completes(self) -> dict[str, Any]:
        """The mended server is asked for what it had not answered, and the run is whole."""
        self.server.script, self.server.always = [], GOOD
        kept, before = self.kept(), len(self.server.bodies)
        summary = self.run().json
        assert summary["status"] == "complete"
        assert summary["rows"]["generate"] == {"responses": ALL, "rejects": 0}
        assert summary["asked"] == len(self.server.bodies) - before == ALL - kept
        assert self.run().json["computed"] == []
        assert len(self.server.bodies) - before == ALL - kept
        return summary


FAULTS: dict[str, tuple[Act, str]] = {
    "slow": (slow(5.0), "no reply in 0.2 s"),
    "answers as another model": (
        reply(top={"model": "other"}),
        "generate: 8 of 8 requests got no usable answer, 8 times wrong_model (answered as other, "
        "asked for m); mend the engine or raise failure_limit, then run again: usable answers are "
        "kept",
    ),
    "returns an empty text": (reply(text=""), "8 times empty_reply (the reply is an empty text)"),
    "returns no text": (reply(text=None), "8 times empty_reply (the reply holds no text)"),
    "returns no body": (raw(""), "the reply is not JSON"),
    "returns no choices": (raw("{}"), "the reply holds no choices"),
    "returns HTML": (raw("<html><h1>502", "text/html"), "the reply is an HTML page, not JSON"),
    "stops in mid-reply": (cut(), "the reply was cut off"),
    "closes the connection": (hang_up(), "the connection was closed before a reply"),
    "fails": (status(500, "out of memory"), "out of memory"),
    "refuses the key": (status(401, "who are you?"), "who are you?"),
    "is busy": (status(429, "later", Retry_After="0"), "lower concurrency or raise retries"),
    "finds the prompt too long": (status(413, "too long"), "8 times too_long"),
    "does not finish": (reply(choice={"finish_reason": None}), "8 times cut_off"),
    "filters": (reply(choice={"finish_reason": "content_filter"}), "8 times refused"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_ends_the_run_in_one_line_and_the_same_command_goes_on(
    what: str, tmp_path: Path, server: FakeServer
) -> None:
    act, words = FAULTS[what]
    job = Job(tmp_path, server, timeout_s=0.2 if what == "slow" else 5.0)
    server.always = act
    said = job.run().refused()
    assert words in said, said
    assert job.kept() == 0
    assert call("runs", "--root", job.root, "--json").json[0]["status"] == "failed"
    assert call("show", "--root", job.root, "--json").json["manifests"].keys() == {"ingest"}
    job.completes()


@pytest.mark.parametrize("what", ["slow", "stops in mid-reply", "returns an empty text", "is busy"])
def test_answers_before_a_fault_are_kept(what: str, tmp_path: Path, server: FakeServer) -> None:
    act, words = FAULTS[what]
    job = Job(tmp_path, server, timeout_s=0.2 if what == "slow" else 5.0, concurrency=1)
    server.script, server.always = [GOOD] * 11, act  # in the second of three shards
    said = job.run().refused()
    assert words.replace("8 times", "5 times") in said, said
    assert job.kept() == 11
    assert job.completes()["replayed"] == 3  # the first shard was whole


def test_a_server_that_is_down(tmp_path: Path, server: FakeServer) -> None:
    job = Job(tmp_path, server)
    server.kill()
    said = prefinery(*job.command).refused()
    assert said == f"{server.url}: connection refused; start the server or mend base_urls"
    server.start()
    summary = prefinery(*job.command).json
    assert (summary["asked"], summary["rows"]["generate"]["responses"]) == (ALL, ALL)
    # All is answered: that the server is away again stops nothing.
    server.kill()
    again = job.run()
    assert (again.json["computed"], again.json["asked"]) == ([], 0)


def test_a_server_that_dies_in_mid_run(tmp_path: Path, server: FakeServer) -> None:
    job = Job(tmp_path, server, retries=2)
    server.script = [GOOD] * 9
    server.always = hang_up()
    refused = prefinery(*job.command)
    assert refused.code == 2 and "Traceback" not in refused.err
    assert refused.err.splitlines()[-1].startswith("prefinery: ")
    assert job.kept() == 9
    job.completes()


def test_a_storm_of_refusals_that_passes(tmp_path: Path, server: FakeServer) -> None:
    job = Job(tmp_path, server, retries=6)
    server.script = [status(429, "later", Retry_After="0")] * 5 + [status(503)] * 3
    summary = job.run().json
    assert summary["rows"]["generate"] == {"responses": ALL, "rejects": 0}
    assert summary["asked"] == ALL
    assert len(server.bodies) == ALL + 8


def test_faults_below_the_limit_are_rejects(tmp_path: Path, server: FakeServer) -> None:
    job = Job(tmp_path, server, concurrency=1)
    plan = merged(
        {**scripted(process=None), "failure_limit": 0.2},
        {"engines": {"policy": None, "server": {**job.settings, "kind": "openai"}}},
    )
    plan["engines"]["server"] |= {"base_urls": [server.url], "concurrency": 1}
    plan["generate"]["engine"] = "server"
    write_plan(tmp_path, plan, PROMPTS)
    server.script = [GOOD] * 3 + [reply(text="")] + [GOOD] * 5 + [raw("<html>", "text/html")]
    summary = job.run().json
    assert summary["rows"]["generate"] == {"responses": ALL - 2, "rejects": 2}
    assert len(server.bodies) == ALL
    rows = call(
        *("query", "--root", job.root, "--json"),
        "select code, split_part(unit, '#', 2) as sample from generate.rejects order by code",
    )
    assert rows.out.splitlines() == [
        '{"code": "empty_reply", "sample": "3"}',
        '{"code": "not_json", "sample": "1"}',
    ]
    # They are answers, too: the same command asks nothing again.
    assert job.run().json["computed"] == []
    assert len(server.bodies) == ALL


@pytest.mark.parametrize(
    ("models", "code", "words"),
    [
        ("<html>", 200, "the reply is an HTML page, not JSON"),
        ([], 200, "serves no model; name one of them as the model"),
        ([{"id": "a"}, {"id": "b"}], 200, "serves a, b; name one of them as the model"),
        ([{"id": "m"}], 500, ""),
        ([{"id": "m"}], 401, ""),
        ([{"id": "m"}], 404, ""),
    ],
)
def test_a_server_that_does_not_say_what_it_serves(
    models: Any, code: int, words: str, tmp_path: Path, server: FakeServer
) -> None:
    job = Job(tmp_path, server)
    server.models, server.models_status = models, code
    said = job.run().refused()
    assert said.startswith(f"{server.url}: ") and words in said, said
    assert server.bodies == []
    server.models, server.models_status = [{"id": "m"}], 200
    assert job.run().json["asked"] == ALL


def test_a_server_of_another_model_than_named(tmp_path: Path, server: FakeServer) -> None:
    job = Job(tmp_path, server, model="big")
    assert job.run().refused() == f"{server.url}: does not serve big; it serves m"


def test_servers_that_are_not_the_same(tmp_path: Path, server: FakeServer) -> None:
    with FakeServer(models=[{"id": "m", "root": "/models/other"}]) as second:
        job = Job(tmp_path, server, base_urls=[server.url, second.url])
        assert job.run().refused() == (
            "the servers serve different things as m: /models/m, /models/other"
        )
        second.models = server.models
        assert job.run().json["asked"] == ALL == len(server.bodies) + len(second.bodies)
        assert server.bodies and second.bodies


def test_a_key_that_is_not_set(tmp_path: Path, server: FakeServer) -> None:
    job = Job(tmp_path, server, api_key_env="NO_SUCH_KEY")
    assert job.run().refused() == "api_key_env: the environment variable NO_SUCH_KEY is not set"


def test_a_key_is_kept_nowhere(
    tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-very-secret")
    job = Job(tmp_path, server, api_key_env="TEST_KEY", concurrency=1)
    server.always = status(500, "bad key sk-very-secret")
    failed = job.run()
    assert "sk-very-secret" not in failed.err
    server.always = GOOD
    done = job.run()
    assert done.code == 0 and "sk-very-secret" not in done.out + done.err
    assert server.headers[0]["Authorization"] == "Bearer sk-very-secret"
    for path in job.root.rglob("*"):
        if path.is_file():
            assert b"sk-very-secret" not in path.read_bytes(), path
