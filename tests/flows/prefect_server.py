"""A real Prefect server for tests: its own folder and SQLite, loopback, gone when the test ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.flows.plans import surroundings

STARTING_S = 120.0
"""Seconds until it answers: 9 on two quiet cores."""
STOPPING_S = 20.0
START = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1")
SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
}
Found = TypeVar("Found")


@dataclass(frozen=True)
class PrefectServer:
    """What is asked of a server; the address ends in /api."""

    url: str
    process: subprocess.Popen[bytes]

    def post(self, path: str, **body: Any) -> Any:
        """The JSON answer to a POST request; one that finds the database locked is sent again."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=30) as reply:
                    return json.load(reply)
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
            time.sleep(0.5)
        raise AssertionError(f"{path}: still 503")

    def flow_runs(self, **matching: Any) -> list[dict[str, Any]]:
        """Flow runs under a filter of Prefect's, first due first."""
        runs: list[dict[str, Any]] = self.post(
            "/flow_runs/filter", flow_runs=matching, sort="EXPECTED_START_TIME_ASC"
        )
        return runs

    def run(self, run_id: str) -> dict[str, Any]:
        """One flow run."""
        return self.flow_runs(id={"any_": [run_id]})[0]

    def task_runs(self, run: dict[str, Any]) -> dict[str, str]:
        """State of every task run of a flow run, by name."""
        found = self.post(
            "/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}}, sort="NAME_ASC"
        )
        assert len(found) == len({task["name"] for task in found})
        return {task["name"]: task["state_type"] for task in found}

    def log(self, run: dict[str, Any]) -> list[str]:
        """Lines of the flow run's own log, in order."""
        found = self.post(
            "/logs/filter",
            logs={"flow_run_id": {"any_": [run["id"]]}, "task_run_id": {"is_null_": True}},
            sort="TIMESTAMP_ASC",
        )
        return [line["message"] for line in found]

    def deployment(self, name: str) -> dict[str, Any]:
        """One deployment by its name."""
        [found] = self.post("/deployments/filter", deployments={"name": {"any_": [name]}})
        return dict(found)


@contextmanager
def prefect_server(home: Path, **environment: str) -> Iterator[PrefectServer]:
    """Start a server whose folder is `home` on a free port of 127.0.0.1, and stop it at the end."""
    home.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    inherited = {k: v for k, v in surroundings().items() if not k.startswith("PREFECT_")}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*START, "--port", str(port)],
            env={**inherited, **SETTINGS, "PREFECT_HOME": str(home), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    server = PrefectServer(f"http://127.0.0.1:{port}/api", process)
    try:
        wait_for(lambda: _healthy(server, home / "server.log"), STARTING_S)
        yield server
    finally:
        stop(process, signal.SIGTERM)


def _healthy(server: PrefectServer, log: Path) -> bool:
    assert server.process.poll() is None, log.read_text(errors="replace")[-2000:]
    try:
        with urllib.request.urlopen(f"{server.url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, TimeoutError):
        return False


def stop(process: subprocess.Popen[Any], by: signal.Signals) -> int:
    """End a process; its exit code. One that does not end is killed."""
    if process.poll() is None:
        os.kill(process.pid, by)
    try:
        return process.wait(STOPPING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def wait_for(look: Callable[[], Found | None], seconds: float) -> Found:
    """The first true thing that `look` returns. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds:.0f} s")
