"""A campaign of 500 questions, three people, and all that people do to it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.campaign import Campaign, status
from annotation.pull import close, pull
from annotation.push import push
from annotation.server import Server
from pipelines.humans import HumansConfig, pseudonym, read_votes
from schemas.errors import UserError
from tests.annotation.campaigns import (
    by_unit,
    client,
    questions,
    rejects_of,
    tasks_on,
    votes_of,
)

pytestmark = pytest.mark.slow
N = 500
CHOICES = ("-3", "-2", "-1", "tie", "1", "2", "3", "both_bad", "cannot_judge")


def meant(choice: str, task: dict[str, Any]) -> tuple[float | None, str]:
    """The vote that a choice is, by the texts that were shown."""
    if choice in ("tie", "both_bad"):
        return 0.0, choice
    if choice == "cannot_judge":
        return None, choice
    a_is_first = task["data"]["first"].startswith("A ")
    return (-1 if a_is_first else 1) * int(choice) / 3, ""


def test_votes_are_what_people_entered(
    server: Server, owner: httpx.Client, people: list[Any], folder: Path
) -> None:
    campaign = Campaign("five-hundred", folder, seed=1)
    asked = client(server)
    assert push(campaign, asked, questions(N), batch=200).new == N
    again = push(campaign, asked, questions(N), batch=200)
    assert (again.new, again.already) == (0, N)
    project = status(campaign).project
    tasks = by_unit(tasks_on(owner, project))
    assert len(tasks) == N == len(tasks_on(owner, project))

    # Nothing but the texts and our id is to be seen, and a is on either side.
    assert {key for t in tasks.values() for key in t["data"]} == {
        *("prompt", "first", "second", "external_id")
    }
    first = sum(t["data"]["first"].startswith("A ") for t in tasks.values())
    assert 200 < first < 300
    assert not any(t["predictions"] for t in tasks.values())

    truth: dict[tuple[str, str], tuple[float | None, str, float]] = {}
    ids: dict[tuple[str, str], int] = {}

    def work(n: int) -> dict[tuple[str, str], tuple[int, str | None, float]]:
        """One person's work, as (annotation, choice, seconds)."""
        person, coin, did = people[n], random.Random(n), {}
        for i, (unit, task) in enumerate(sorted(tasks.items())):
            if i % 4 == n or i % 25 == n:
                choice = None if coin.random() < 0.04 else coin.choice(CHOICES)
                seconds = round(coin.uniform(0.5, 90), 2)
                did[unit, person.email] = (
                    person.answer(task["id"], choice, seconds), choice, seconds
                )  # fmt: skip
        return did

    with ThreadPoolExecutor(3) as pool:
        for did in pool.map(work, range(3)):
            for key, (number, choice, seconds) in did.items():
                value, reason = meant(choice, tasks[key[0]]) if choice else (None, "skipped")
                truth[key], ids[key] = (value, reason, seconds), number
    assert len(truth) > 400
    assert sum(reason == "skipped" for _, reason, _ in truth.values()) > 5

    def check() -> None:
        found = {k: (v["value"], v["reason"], v["seconds"]) for k, v in votes_of(campaign).items()}
        assert found == {(unit, pseudonym(email)): v for (unit, email), v in truth.items()}

    assert pull(campaign, asked).rejects == 0
    check()

    # They change their minds, take answers back, answer again, and some answers are no answers.
    ann, bob, eve = people
    mine = sorted(key for key in truth if key[1] == ann.email and truth[key][1] != "skipped")
    for n, key in enumerate(mine[:20]):
        choice = CHOICES[n % len(CHOICES)]
        ann.change(ids[key], choice, lead_time=2.0)
        truth[key] = (*meant(choice, tasks[key[0]]), 2.0)
    for key in mine[20:23]:
        ann.delete(ids[key])
        del truth[key]
    unit = mine[23][0]
    later = ann.answer(tasks[unit]["id"], "3", 4.0)
    truth[mine[23]] = (*meant("3", tasks[unit]), 4.0)
    bad = {
        "unknown_choice": {"result": [_choice("7")]},
        "unknown_control": {"result": [{**_choice("1"), "from_name": "score"}]},
        "wrong_target": {"result": [{**_choice("1"), "to_name": "first"}]},
        "missing": {"result": []},
        "twice": {"result": [_choice("1"), _choice("-1")]},
        "other_hand": {"result": [_choice("1")], "completed_by": bob.id},
    }
    free = sorted(u for u in tasks if (u, eve.email) not in truth and (u, bob.email) not in truth)
    planted = [(unit, "answered_again")]
    for place, (code, body) in zip(free, bad.items(), strict=False):
        eve.call("POST", f"/api/tasks/{tasks[place]['id']}/annotations/", json=body)
        planted.append((place, code))
    stolen = mine[24]
    eve.change(ids[stolen], "3")
    del truth[stolen]
    planted.append((stolen[0], "other_hand"))

    found = pull(campaign, asked)
    assert not found.whole
    check()
    assert rejects_of(campaign) == sorted(planted)
    assert votes_of(campaign)[unit, pseudonym(ann.email)]["annotation"].endswith(f"/{later}")

    # The same state gives the same bytes: again, as a whole, and on a second machine.
    before = campaign.votes.read_bytes(), campaign.rejects.read_bytes()
    pull(campaign, asked)
    assert (campaign.votes.read_bytes(), campaign.rejects.read_bytes()) == before
    other = Campaign("five-hundred", folder.with_name("other"), seed=1)
    joined = push(other, asked, questions(N))
    assert (joined.new, joined.already) == (0, N)
    assert pull(other, asked).whole
    assert (other.votes.read_bytes(), other.rejects.read_bytes()) == before

    # A plan reads them as they are.
    units = {u for u, _ in truth}
    votes, labels, rejects = read_votes(HumansConfig(paths=(str(campaign.votes),)), units)
    assert len(votes) == len(truth) and not rejects
    assert {label.pair_id for label in labels} == {
        u for (u, _), (value, _, _) in truth.items() if value is not None
    }

    assert close(campaign, asked).votes == len(truth)
    with pytest.raises(UserError, match="is closed; name another"):
        push(campaign, asked, questions(1))
    late = by_unit(tasks_on(owner, project))[free[-1]]
    bob.answer(late["id"], "2", 9.0)
    truth[free[-1], bob.email] = (*meant("2", late), 9.0)
    pull(campaign, asked)
    check()


def _choice(choice: str) -> dict[str, Any]:
    value = {"choices": [choice]}
    return {"from_name": "preference", "to_name": "prompt", "type": "choices", "value": value}
