"""What people and other plans do to a campaign's server: each case has one outcome."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.campaign import Campaign, status
from annotation.client import Client, token_of
from annotation.configs import QuestionConfig
from annotation.pull import pull
from annotation.push import push
from annotation.server import Server, answers
from annotation.webhook import HEADER, Receiver
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


def test_a_text_that_was_edited_by_hand(
    server: Server, owner: httpx.Client, people: list[Any], folder: Path
) -> None:
    campaign, asked = Campaign("edited", folder), client(server)
    push(campaign, asked, questions(3))
    task = by_unit(tasks_on(owner, status(campaign).project))["pair-00001"]
    people[0].answer(task["id"], "3")
    pull(campaign, asked)
    assert len(votes_of(campaign)) == 1
    changed = {**task["data"], "first": "something else"}
    place = f"/api/tasks/{task['id']}/"
    owner.patch(place, json={"data": changed}).raise_for_status()
    pull(campaign, asked)
    assert (votes_of(campaign), rejects_of(campaign)) == ({}, [("pair-00001", "task_edited")])
    assert status(campaign).figures["edited"] == 1
    assert push(campaign, asked, questions(3)).already == 3
    owner.patch(place, json={"data": task["data"]}).raise_for_status()
    pull(campaign, asked)
    assert len(votes_of(campaign)) == 1 and rejects_of(campaign) == []


def test_tasks_that_were_deleted_or_added_by_hand(
    server: Server, owner: httpx.Client, people: list[Any], folder: Path
) -> None:
    campaign, asked = Campaign("deleted", folder), client(server)
    push(campaign, asked, questions(4))
    project = status(campaign).project
    tasks = by_unit(tasks_on(owner, project))
    for unit in tasks:
        people[0].answer(tasks[unit]["id"], "1")
    pull(campaign, asked)
    assert len(votes_of(campaign)) == 4
    # The last one's id is given to the next task that anyone makes.
    owner.delete(f"/api/tasks/{tasks['pair-00003']['id']}/").raise_for_status()
    data = {"prompt": "mine", "first": "x", "second": "y"}
    owner.post(f"/api/projects/{project}/import", json=[{"data": data}]).raise_for_status()
    mine = tasks_on(owner, project)[-1]
    assert mine["id"] == tasks["pair-00003"]["id"]
    people[1].answer(mine["id"], "3")
    pull(campaign, asked)
    assert sorted(unit for unit, _ in votes_of(campaign)) == [f"pair-{i:05d}" for i in range(3)]
    assert rejects_of(campaign) == []
    figures = status(campaign).figures
    assert (figures["gone"], figures["foreign"], figures["pushed"]) == (1, 1, 3)

    kept = push(campaign, asked, questions(4))
    assert (kept.new, kept.already, kept.gone) == (0, 3, 1)
    again = push(campaign, asked, questions(4), resend=True)
    assert (again.new, again.already, again.gone) == (1, 3, 0)
    assert set(by_unit(tasks_on(owner, project)[:3] + tasks_on(owner, project)[4:])) == set(tasks)


def test_a_label_config_that_was_edited_is_refused_or_put_right(
    server: Server, owner: httpx.Client, folder: Path
) -> None:
    campaign, asked = Campaign("config", folder), client(server)
    push(campaign, asked, questions(2))
    project = status(campaign).project
    swapped = campaign.label_config.replace('alias="3"', 'alias="-3"', 1)
    changed = swapped.replace("First is much better", "Worst")
    place = f"/api/projects/{project}/"
    owner.patch(place, json={"label_config": changed}).raise_for_status()
    for act in (lambda: push(campaign, asked, questions(2)), lambda: pull(campaign, asked)):
        with pytest.raises(UserError, match=r"label config of project \d+ was edited on the serv"):
            act()
    assert push(campaign, asked, questions(3), migrate=True).new == 1
    assert owner.get(place).json()["label_config"] == campaign.label_config

    longer = Campaign("config", folder, options=QuestionConfig(justification="none"))
    with pytest.raises(UserError, match="is not the plan's any more"):
        push(longer, asked, questions(3))
    push(longer, asked, questions(3), migrate=True)
    assert owner.get(place).json()["label_config"] == longer.label_config
    pull(longer, asked)


def test_two_campaigns_and_two_plans_on_one_server(
    server: Server, owner: httpx.Client, people: list[Any], folder: Path
) -> None:
    asked = client(server)
    one, other = Campaign("first", folder / "1"), Campaign("second", folder / "2")
    for campaign in (one, other):
        assert push(campaign, asked, questions(3)).new == 3
    projects = [status(c).project for c in (one, other)]
    assert projects[0] != projects[1]
    people[0].answer(tasks_on(owner, projects[0])[0]["id"], "1")
    for campaign, count in ((one, 1), (other, 0)):
        assert pull(campaign, asked).votes == count

    # Another plan with the same campaign: what both ask is asked once, each reads its own.
    plan = Campaign("first", folder / "3")
    done = push(plan, asked, questions(5)[1:])
    assert (done.new, done.already) == (2, 2)
    assert status(plan).project == projects[0]
    assert len(tasks_on(owner, projects[0])) == 5
    people[1].answer(by_unit(tasks_on(owner, projects[0]))["pair-00004"]["id"], "-2")
    assert (pull(one, asked).votes, pull(plan, asked).votes) == (1, 1)
    assert [unit for unit, _ in votes_of(plan)] == ["pair-00004"]
    assert status(one).figures["foreign"] == 2

    # Another seed would show other texts on the same tasks.
    with pytest.raises(UserError, match="began with seed 0, now it is 5"):
        push(Campaign("first", folder / "1", seed=5), asked, questions(3))


def test_overlap_of_single_questions(server: Server, owner: httpx.Client, folder: Path) -> None:
    campaign, asked = Campaign("overlap", folder, overlap=2), client(server)
    push(campaign, asked, [*questions(2, overlap=2), *questions(3, overlap=3)[2:]])
    assert [t["overlap"] for t in tasks_on(owner, status(campaign).project)] == [2, 2, 3]
    push(campaign, asked, questions(1, overlap=4))
    assert [t["overlap"] for t in tasks_on(owner, status(campaign).project)] == [4, 2, 3]


def test_the_webhook_tells_of_an_answer(
    server: Server, owner: httpx.Client, people: list[Any], folder: Path
) -> None:
    campaign, asked = Campaign("hook", folder), client(server)
    push(campaign, asked, questions(1))
    project = status(campaign).project
    with Receiver() as receiver:
        assert httpx.post(receiver.url, headers={HEADER: "wrong"}).status_code == 403
        assert httpx.post(receiver.url).status_code == 403
        assert not receiver.wait(0.1)
        receiver.hook(asked, project)
        people[0].answer(tasks_on(owner, project)[0]["id"], "1")
        assert receiver.wait(10)
        assert not receiver.wait(0.1)
    assert owner.get("/api/webhooks/", params={"project": project}).json() == []


def test_errors_are_one_line(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = client(server)
    with pytest.raises(UserError, match="nothing was pushed from"):
        pull(Campaign("none", folder), asked)
    with pytest.raises(UserError, match=r"refuses the token \(401\)") as refused:
        push(Campaign("none", folder), Client(server.url, "0" * 40), questions(1))
    assert "0000" not in str(refused.value)
    push(Campaign("here", folder), asked, questions(1))
    with pytest.raises(UserError, match="a server is running on this folder already"):
        Server(server.environment, server.data, server.port + 1).start()
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    with pytest.raises(UserError, match="set LABEL_STUDIO_API_KEY"):
        token_of()
    account = server.data / "account.json"
    assert token_of(account) == server.account.token
    assert (account.stat().st_mode & 0o777, server.data.stat().st_mode & 0o777) == (0o600, 0o700)
    assert answers(server.url)
    assert server.account.token not in (server.data / "server.log").read_text("utf-8")


def test_sign_up_is_closed_without_an_invitation(server: Server, owner: httpx.Client) -> None:
    before = owner.get("/api/users").json()
    with httpx.Client(base_url=server.url, trust_env=False) as anyone:
        page = anyone.get("/user/signup/")
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert found is not None
        form = {"email": "x@example.org", "password": "Guess-12345"}
        form["csrfmiddlewaretoken"] = found.group(1)
        for link in ("/user/signup/", "/user/signup/?token=guess"):
            assert anyone.post(link, data=form).status_code == 403
    assert [u["email"] for u in owner.get("/api/users").json()] == [u["email"] for u in before]
