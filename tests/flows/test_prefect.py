"""A run under a real Prefect server: what it shows, that it decides nothing, and its schedule."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows import runs
from pipelines.store import Store
from tests.flows.plans import (
    REPLIES,
    STAGES,
    asked,
    command,
    prefinery,
    prompt,
    scripted,
    surroundings,
    write_plan,
)
from tests.flows.prefect_server import PrefectServer, prefect_server, stop, wait_for

SAMPLES = 4
OPTED_OUT = ("CI", "DO_NOT_TRACK", "GITHUB_ACTIONS")
SCHEDULED_S = 100.0
"""Seconds within which a run that is due every minute has come and gone."""


@dataclass(frozen=True)
class Place:
    """A server, the environment of its clients, and a listener that nobody should find."""

    server: PrefectServer
    client: dict[str, str]
    trap: socket.socket


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("prefect")
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.setblocking(False)
        proxy = f"http://127.0.0.1:{trap.getsockname()[1]}"
        outside = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy)
        # Prefect sends no telemetry from CI: here it is Prefinery that has to keep it from that.
        everywhere = {**outside, "NO_PROXY": "127.0.0.1", "CI": "", "GITHUB_ACTIONS": ""}
        with prefect_server(home / "server", **everywhere) as server:
            own = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(home / "client")}
            yield Place(server, {**everywhere, **own}, trap)


def plan_of(rows: int, folder: Path, **engine: Any) -> Path:
    policy = {"kind": "scripted", "replies": REPLIES, "ask_log": "asked.log", **engine}
    plan = scripted(name=folder.name, engines={"policy": policy})
    return write_plan(folder, plan, rows)


def published(root: Path) -> dict[str, bytes]:
    """Content of every published file, by its path: digests are folder names."""
    files = [path for path in (root / "stages").rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def here(server: PrefectServer, name: str) -> list[dict[str, Any]]:
    """Flow runs that were started by `prefinery run`, by name."""
    return server.flow_runs(deployment_id={"is_null_": True}, name={"any_": [name]})


def test_prefect_is_not_imported_where_no_server_is_named() -> None:
    code = (
        "import sys, pathlib, flows.orchestrate as o; "
        "print(o.with_prefect('all', pathlib.Path('p'), None), 'prefect' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=surroundings(), capture_output=True, check=True, text=True
    )
    assert done.stdout == "None False\n"


def test_prefect_sends_no_telemetry() -> None:
    code = (
        "import pathlib, flows.orchestrate as o; from schemas.errors import UserError\n"
        "try: o.with_prefect('all', pathlib.Path('p'), None)(None)\n"
        "except UserError: from prefect.analytics import is_telemetry_enabled as on; print(on())"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        unset = {k: v for k, v in surroundings(PREFECT_API_URL=url).items() if k not in OPTED_OUT}
        done = subprocess.run(
            [sys.executable, "-c", code], env=unset, capture_output=True, check=True, text=True
        )
    assert done.stdout == "False\n"


@pytest.mark.slow
@pytest.mark.usefixtures("deployed")  # started first, since it has to wait for the clock
class TestRun:
    def test_a_flow_with_a_task_a_unit_and_the_same_bytes(
        self, place: Place, tmp_path: Path
    ) -> None:
        plan = plan_of(5, tmp_path / "shown").rename(tmp_path / "shown" / "shown.toml")
        done = prefinery("run", plan, "--root", tmp_path / "with", "--json", **place.client)
        assert done.json["asked"] > 5 * SAMPLES
        assert [line for line in done.err.splitlines() if not line.startswith("  ")][:1] == [
            f"run {done.json['run']}: complete"
        ]

        [run] = wait_for(lambda: here(place.server, "shown"), 5)
        assert run["state_type"] == "COMPLETED"
        flow = place.server.post("/flows/filter", flows={"id": {"any_": [run["flow_id"]]}})[0]
        assert flow["name"] == "prefinery-all"
        units = {f"{s}-{n:05d}" for s in STAGES if s != "emit" for n in range(3)} | {"emit"}
        tasks = wait_for(lambda: complete(place.server, run, len(units)), 20)
        assert tasks == dict.fromkeys(units, "COMPLETED")

        said = [line.strip() for line in done.err.splitlines() if line.startswith("  ")]
        log = place.server.log(run)
        assert said[0].startswith("ingest ") and set(said[: len(STAGES)]) <= set(log)

        assert run["state"]["data"] is None
        assert not (Path(place.client["PREFECT_HOME"]) / "storage").exists()

        plain = prefinery("run", plan, "--root", tmp_path / "without", "--json")
        assert plain.json["run"] == done.json["run"]
        assert published(tmp_path / "with") == published(tmp_path / "without")

        again = prefinery("run", plan, "--root", tmp_path / "with", **place.client)
        assert again.code == 0 and again.err.startswith("nothing to do: ")
        assert len(here(place.server, "shown")) == 1

    def test_a_users_error_is_one_line_here_and_the_message_there(
        self, place: Place, tmp_path: Path
    ) -> None:
        plan = plan_of(2, tmp_path / "failing", fail_share=1.0)
        plan = plan.rename(plan.with_name("failing.toml"))
        line = prefinery("run", plan, "--root", tmp_path / "store", **place.client).refused()
        assert line.startswith("generate: 8 of 8 requests got no usable answer")
        [run] = here(place.server, "failing")
        assert run["state_type"] == "FAILED"
        assert line in run["state"]["message"]

    @pytest.mark.parametrize("listens", [False, True], ids=["dead", "deaf"])
    def test_no_server_there_is_one_line_and_soon(self, tmp_path: Path, listens: bool) -> None:
        plan = plan_of(2, tmp_path / "unshown")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            if listens:
                taken.listen()
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
            started = time.monotonic()
            done = prefinery("run", plan, "--root", tmp_path / "s", PREFECT_API_URL=url)
            took = time.monotonic() - started
        line = done.refused()
        assert line.startswith(f"no Prefect server answers at {url} (")
        assert line.endswith("or unset PREFECT_API_URL to run without Prefect")
        assert took < 40
        assert asked(tmp_path / "unshown" / "asked.log") == []

    def test_a_server_that_goes_away_does_not_stop_the_work(self, tmp_path: Path) -> None:
        plan = plan_of(6, tmp_path / "left", delay_ms=100.0, concurrency=1)
        log = tmp_path / "left" / "asked.log"
        with prefect_server(tmp_path / "home") as server:
            process = subprocess.Popen(
                command("run", plan, "--root", tmp_path / "store", "--json"),
                env=surroundings(
                    PREFECT_API_URL=server.url,
                    PREFECT_HOME=str(tmp_path / "client"),
                    PREFECT_CLIENT_MAX_RETRIES="0",
                ),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            wait_for(lambda: len(asked(log)) > 3, 60)
            server.process.kill()
            server.process.wait()
            out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert '"status": "complete"' in out
        [warning] = [line for line in err.splitlines() if line.startswith("prefinery: ")]
        assert f"the Prefect server at {server.url} failed" in warning
        assert "Traceback" not in err and "Event(" not in err
        assert len(asked(log)) == len(set(asked(log)))


def complete(server: PrefectServer, run: dict[str, Any], count: int) -> dict[str, str] | None:
    """States of a flow run's tasks once all have ended: they reach the server a little later."""
    tasks = server.task_runs(run)
    return tasks if len(tasks) == count and set(tasks.values()) == {"COMPLETED"} else None


@dataclass(frozen=True)
class Deployed:
    """A plan served every minute."""

    place: Place
    plan: Path
    root: Path
    process: subprocess.Popen[bytes]

    @property
    def asked(self) -> list[str]:
        return asked(self.plan.with_name("asked.log"))

    @property
    def err(self) -> str:
        return self.plan.with_name("err.log").read_text()

    def append(self, first: int, count: int) -> None:
        """More prompts, in one write."""
        more = write_plan(
            self.root.with_name("more"), None, map(prompt, range(first, first + count))
        )
        with self.plan.with_name("prompts.jsonl").open("ab") as prompts:
            prompts.write(more.with_name("prompts.jsonl").read_bytes())

    def ended(self) -> list[dict[str, Any]]:
        """Runs that the schedule started and that are complete."""
        deployment = self.place.server.deployment("served")
        return self.place.server.flow_runs(
            deployment_id={"any_": [deployment["id"]]},
            state={"type": {"any_": ["COMPLETED"]}},
            tags={"all_": ["auto-scheduled"]},
        )

    def schedule(self, switch: str) -> None:
        """`pause` or `resume` what the clock starts."""
        deployment = self.place.server.deployment("served")
        self.place.server.post(f"/deployments/{deployment['id']}/{switch}_deployment")

    def trigger(self) -> str:
        """Ask for a run out of turn; its id."""
        deployment = self.place.server.deployment("served")
        run = self.place.server.post(f"/deployments/{deployment['id']}/create_flow_run")
        return str(run["id"])

    def outcome(self, run_id: str) -> dict[str, Any]:
        """How a run ended."""

        def look() -> dict[str, Any] | None:
            run = self.place.server.run(run_id)
            final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            return run if run["state_type"] in final else None

        return wait_for(look, 60)


@pytest.fixture(scope="module")
def deployed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("served", numbered=False)
    plan = write_plan(
        folder,
        scripted(
            name="served",
            process=None,
            engines={
                "policy": {
                    "kind": "scripted",
                    "replies": REPLIES,
                    "ask_log": "asked.log",
                    "delay_ms": 50.0,
                    "concurrency": 1,
                }
            },
        ),
    )
    root = folder / "store"
    with (folder / "out.log").open("wb") as out, (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(
            command("deploy", plan, "--cron", "* * * * *", "--root", root),
            env=surroundings(**place.client, PREFECT_RUNNER_POLL_FREQUENCY="1"),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,  # a terminal's Ctrl-C goes to its group
        )
    try:
        wait_for(lambda: place.server.post("/deployments/filter"), 60)
        yield Deployed(place, plan, root, process)
    finally:
        stop(process, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.usefixtures("deployed")
class TestDeploy:
    def test_mistakes_are_one_line(self, place: Place, tmp_path: Path) -> None:
        plan = plan_of(1, tmp_path / "mistaken")
        words = ("deploy", plan, "--root", tmp_path / "s", "--cron")
        assert prefinery(*words, "0 3 * * *").refused().startswith("deploy needs a Prefect server")
        for cron in ("whenever", "0 3 * *", "61 * * * *"):
            line = prefinery(*words, cron, **place.client).refused()
            assert line.startswith(f"--cron {cron!r}: no cron schedule; give five fields")

    def test_a_schedule_asks_for_new_rows_only(self, deployed: Deployed) -> None:
        server = deployed.place.server
        deployment = server.deployment("served")
        assert deployment["paused"] is False
        assert [s["schedule"]["cron"] for s in deployment["schedules"]] == ["* * * * *"]
        [first] = wait_for(deployed.ended, SCHEDULED_S)[:1]
        assert first["auto_scheduled"] is True
        assert first["state"]["message"].endswith(
            ": asked 20 requests, 0 answered from the journal"
        )
        assert len(deployed.asked) == 5 * SAMPLES

        deployed.append(first=5, count=3)
        seen = {run["id"] for run in deployed.ended()}
        second = wait_for(
            lambda: next((run for run in deployed.ended() if run["id"] not in seen), None),
            SCHEDULED_S,
        )
        assert second["auto_scheduled"] is True
        assert second["state"]["message"].endswith(
            ": asked 12 requests, 20 answered from the journal"
        )
        assert len(set(deployed.asked)) == len(deployed.asked) == 8 * SAMPLES
        assert "generate-00003" in server.task_runs(second)
        said = deployed.err.splitlines()
        assert said[0].startswith(
            f"serving prefinery-all/served at '* * * * *' UTC from {server.url}"
        )
        assert sum(line.endswith("20 answered from the journal") for line in said) == 1

    def test_a_killed_run_is_taken_up_by_the_next(self, deployed: Deployed) -> None:
        deployed.schedule("pause")  # so that it is this run that is killed
        before = len(deployed.asked)
        deployed.append(first=100, count=20)
        killed = deployed.trigger()
        wait_for(lambda: len(deployed.asked) > before + 10, 60)
        record = runs.load(Store.open(deployed.root, create=False), "latest")
        os.kill(record.attempts[-1]["pid"], signal.SIGKILL)
        assert deployed.outcome(killed)["state_type"] == "CRASHED"
        assert deployed.outcome(deployed.trigger())["state_type"] == "COMPLETED"
        new = deployed.asked[before:]
        assert len(set(new)) == 20 * SAMPLES
        assert len(new) <= 20 * SAMPLES + 1  # the one request that was under way is asked again

    def test_a_plan_at_work_elsewhere_is_left_alone(self, deployed: Deployed) -> None:
        store = Store.open(deployed.root, create=False)
        with store.lock(f"run-{runs.load(store, 'latest').id}", wait=False):
            run = deployed.outcome(deployed.trigger())
        assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Skipped")
        assert f"process {os.getpid()} is at work on it" in run["state"]["message"]

    def test_a_users_error_fails_the_run_and_the_schedule_goes_on(self, deployed: Deployed) -> None:
        prompts = deployed.plan.with_name("prompts.jsonl")
        away = prompts.rename(prompts.with_name("away.jsonl"))
        run = deployed.outcome(deployed.trigger())
        away.rename(prompts)
        assert run["state_type"] == "FAILED"
        assert "prompts.jsonl" in run["state"]["message"]
        assert any(line.startswith("failed: ") for line in deployed.err.splitlines())
        assert "Traceback" not in deployed.err
        assert deployed.outcome(deployed.trigger())["state_type"] == "COMPLETED"

    def test_ctrl_c_ends_it_and_pauses_the_schedule(self, deployed: Deployed) -> None:
        deployed.schedule("resume")
        assert deployed.place.server.deployment("served")["paused"] is False
        os.killpg(deployed.process.pid, signal.SIGINT)
        assert deployed.process.wait(60) == 0
        assert deployed.err.endswith(
            "stopped; the schedule is paused until the same command is given again\n"
        )
        assert deployed.plan.with_name("out.log").read_text() == ""
        assert deployed.place.server.deployment("served")["paused"] is True

    def test_nothing_was_asked_of_the_outside(self, place: Place) -> None:
        with pytest.raises(BlockingIOError):
            place.trap.accept()
