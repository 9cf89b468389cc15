"""What the tests of campaigns share: questions that tell a from b, and a worker to be killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from annotation.campaign import Campaign
from annotation.client import Client
from annotation.configs import PairItem
from annotation.pull import pull
from annotation.push import push
from annotation.server import Server
from annotation.tasks import Question
from schemas.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SETTLE_S = 3.0
HOSTILE = "<script>alert(1)</script> s3://bucket/x {{x}} \u202e\u200b \\(x^2\\) \ud800 \0"


def questions(n: int, overlap: int = 1) -> list[Question]:
    return [
        Question(
            f"pair-{i:05d}",
            PairItem(f"Question {i}?", f"A {i} {HOSTILE}", f"B {i}"),
            (f"a-{i}", f"b-{i}"),
            overlap=overlap,
        )
        for i in range(n)
    ]


def client(server: Server) -> Client:
    return Client(server.url, server.account.token)


def tasks_on(owner: httpx.Client, project: int) -> list[dict[str, Any]]:
    """The project's tasks as the server says, read apart from the code under test."""
    found = owner.get(
        "/api/tasks", params={"project": project, "page_size": 100_000, "fields": "all"}
    )
    tasks: list[dict[str, Any]] = found.raise_for_status().json()["tasks"]
    return sorted(tasks, key=lambda t: int(t["id"]))


def by_unit(tasks: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tasks by the unit that their text tells of."""
    return {f"pair-{int(t['data']['prompt'][9:-1]):05d}": t for t in tasks}


def votes_of(campaign: Campaign) -> dict[tuple[str, str], dict[str, Any]]:
    rows = pq.read_table(campaign.votes).to_pylist()
    found = {(r["unit"], r["judge"]): r for r in rows}
    assert len(found) == len(rows), "a vote stands twice"
    return found


def rejects_of(campaign: Campaign) -> list[tuple[str, str]]:
    rows = pq.read_table(campaign.rejects).to_pylist()
    return sorted((r["unit"], r["code"]) for r in rows)


def start(what: str, server: Server, campaign: Campaign, n: int) -> subprocess.Popen[str]:
    """A push or a pull in a process of its own, which says `ready` when it begins."""
    command = [sys.executable, "-m", "tests.annotation.campaigns", what, server.url]
    worker = subprocess.Popen(
        [*command, str(campaign.folder), campaign.name, str(n)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(server.account.token + "\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "ready\n"
    return worker


def main(what: str, url: str, folder: str, name: str, n: str) -> int:
    campaign = Campaign(name, Path(folder), seed=1)
    server = Client(url, input())
    print("ready", flush=True)
    try:
        if what == "push":
            push(campaign, server, questions(int(n)), batch=20, settle_s=SETTLE_S)
        else:
            pull(campaign, server, whole=True)
    except UserError as error:
        print(error)
        return 2
    print("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
