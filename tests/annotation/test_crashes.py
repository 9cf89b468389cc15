"""Whatever is killed while a campaign is pushed or pulled: no task twice, no vote lost or doubled."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.campaign import Campaign, status
from annotation.client import Client
from annotation.pull import pull
from annotation.push import push
from annotation.server import Server
from tests.annotation.campaigns import (
    SETTLE_S,
    client,
    questions,
    rejects_of,
    start,
    tasks_on,
    votes_of,
)
from tests.servers.label_studio import LossyProxy

pytestmark = pytest.mark.slow
STEP = 40
CLIENTS, SERVERS = 7, 3
"""How often each is killed, in pushes and in pulls: 20 moments."""


def test_killed_at_random_moments(
    server: Server, owner: httpx.Client, people: list[Any], folder: Path
) -> None:
    campaign, coin = Campaign("killed", folder, seed=1), random.Random(7)
    told = []
    for n in range(CLIENTS + SERVERS):
        worker = start("push", server, campaign, STEP * (n + 1))
        time.sleep(coin.uniform(0, 1.5))
        if n < CLIENTS:
            worker.kill()
        else:
            server.kill()
        told.append(_end(worker))
        if n >= CLIENTS:
            server.start()
    total = (CLIENTS + SERVERS) * STEP
    last = push(campaign, client(server), questions(total), settle_s=SETTLE_S)
    assert (last.doubles, last.gone, last.new + last.already) == (0, 0, total)
    project = status(campaign).project
    tasks = tasks_on(owner, project)
    assert len(tasks) == total
    assert len({t["data"]["external_id"] for t in tasks}) == total

    for t in tasks[:30]:
        people[t["id"] % 3].answer(t["id"], "2")
    pull(campaign, client(server))
    truth = campaign.votes.read_bytes()
    assert len(votes_of(campaign)) == 30
    for n in range(CLIENTS + SERVERS):
        worker = start("pull", server, campaign, 0)
        time.sleep(coin.uniform(0, 0.8))
        if n < CLIENTS:
            worker.kill()
        else:
            server.kill()
        told.append(_end(worker))
        assert campaign.votes.read_bytes() == truth
        if n >= CLIENTS:
            server.start()
        # A new answer after each: the next pull, which may die again, must not lose it.
        task = tasks[100 + n]["id"]
        people[n % 3].answer(task, "-1")
        pull(campaign, client(server))
        truth = campaign.votes.read_bytes()
        assert len(votes_of(campaign)) == 31 + n
    pull(campaign, client(server), whole=True)
    assert campaign.votes.read_bytes() == truth
    assert rejects_of(campaign) == []
    assert len(tasks_on(owner, project)) == total
    # Moments that hit nothing would prove nothing.
    print("ends:", told)
    assert sum(end != 0 for end in told) >= 10


def _end(worker: Any) -> int:
    out, _ = worker.communicate(timeout=90)
    if worker.returncode == 2:
        assert out.startswith("Label Studio at http://127.0.0.1:"), out
        assert out.count("\n") == 1, out
    return int(worker.returncode)


@pytest.mark.parametrize("late", [False, True])
def test_replies_that_are_lost(
    server: Server, owner: httpx.Client, folder: Path, late: bool
) -> None:
    campaign = Campaign(f"lossy-{'late' if late else 'cut'}", folder)
    with LossyProxy(server.port, lose=3, late=late) as proxy:
        through = Client(proxy.url, server.account.token)
        done = push(campaign, through, questions(120), batch=30, settle_s=SETTLE_S)
        assert proxy.lost == 3
    assert (done.new, done.doubles) == (120, 0)
    tasks = tasks_on(owner, status(campaign).project)
    assert len(tasks) == len({t["data"]["external_id"] for t in tasks}) == 120


def test_two_pushers_at_once_on_one_machine(
    server: Server, owner: httpx.Client, folder: Path
) -> None:
    campaign = Campaign("two-here", folder, seed=1)
    workers = [start("push", server, campaign, 150) for _ in range(2)]
    assert [_end(w) for w in workers] == [0, 0]
    tasks = tasks_on(owner, status(campaign).project)
    assert len(tasks) == len({t["data"]["external_id"] for t in tasks}) == 150


def test_two_pushers_at_once_on_two_machines(
    server: Server, owner: httpx.Client, people: list[Any], folder: Path
) -> None:
    both = [Campaign("two-there", folder.with_name(name), seed=1) for name in ("x", "y")]
    workers = [start("push", server, campaign, 150) for campaign in both]
    assert [_end(w) for w in workers] == [0, 0]
    for campaign in both:
        assert push(campaign, client(server), questions(150)).new == 0
    assert status(both[0]).project == status(both[1]).project
    project = status(both[0]).project

    # A double for certain: what a third machine would have sent at that very moment.
    one = tasks_on(owner, project)[0]
    owner.post(f"/api/projects/{project}/import", json=[{"data": one["data"]}]).raise_for_status()
    first = push(both[0], client(server), questions(150))
    assert (first.new, first.doubles) == (0, 1)
    assert push(both[1], client(server), questions(150)).new == 0
    tasks = tasks_on(owner, project)
    open_ = [t["data"]["external_id"] for t in tasks if not t["is_labeled"]]
    assert len(open_) == len(set(open_)) == 150
    assert len(tasks) - 150 == status(both[0]).figures["doubles"] >= 1

    # Who answered both before that is counted once; an answer to the double alone counts.
    twin = tasks[-1]
    assert twin["data"] == one["data"] and twin["is_labeled"]
    ann, bob, _ = people
    ann.answer(one["id"], "1")
    ann.answer(twin["id"], "2")
    bob.answer(twin["id"], "3")
    pull(both[0], client(server))
    found = votes_of(both[0])
    assert sorted(abs(v["value"]) for v in found.values()) == [2 / 3, 1.0]
    assert {unit for unit, _ in found} == {"pair-00000"}
    assert rejects_of(both[0]) == [("pair-00000", "answered_again")]
