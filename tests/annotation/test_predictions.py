"""What the machine believes is shown where a campaign says so, and nowhere else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.campaign import Campaign, remembered, saved
from annotation.configs import PairItem, predicted
from annotation.push import push
from annotation.server import Server
from annotation.tasks import Question
from tests.annotation.campaigns import client, tasks_on
from tests.annotation.devtools import CHROMIUM, Browser


@pytest.mark.parametrize(
    ("probability", "order", "choice"),
    [
        (0.5, "ab", "tie"),
        (0.6, "ab", "tie"),
        (0.61, "ab", "-1"),
        (0.61, "ba", "1"),
        (0.2, "ab", "2"),
        (0.05, "ba", "-3"),
        (0.95, "ab", "-3"),
    ],
)
def test_a_belief_becomes_a_choice_of_what_is_shown(
    probability: float, order: Any, choice: str
) -> None:
    made = predicted(probability, order)
    assert made["result"][0]["value"] == {"choices": [choice]}
    assert made["score"] == max(probability, 1 - probability)


def asked(n: int) -> list[Question]:
    return [
        Question(
            f"pair-{i}", PairItem(f"Question {i}?", "A", "B"), (f"a{i}", f"b{i}"), prediction=p
        )
        for i, p in enumerate([0.97, 0.7, None][:n])
    ]


def predictions(owner: httpx.Client, campaign: Campaign) -> list[int]:
    """How many predictions each task carries on the server."""
    known = saved(campaign)
    assert known is not None
    return [len(task["predictions"]) for task in tasks_on(owner, known.project)]


def coming(owner: httpx.Client, campaign: Campaign) -> dict[str, Any]:
    """The task that an annotator would be given next, as their page asks for it."""
    known = saved(campaign)
    assert known is not None
    found = owner.get(f"/api/projects/{known.project}/next").raise_for_status()
    return dict(found.json())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nobody_is_led_unless_the_plan_says_so(
    server: Server, owner: httpx.Client, tmp_path: Path
) -> None:
    hidden = Campaign("unled", tmp_path / "unled")
    push(hidden, client(server), asked(3))
    assert predictions(owner, hidden) == [0, 0, 0]
    assert coming(owner, hidden)["predictions"] == []

    shown = Campaign("led", tmp_path / "led", instruction="Read <both>.", show_predictions=True)
    push(shown, client(server), asked(3))
    assert predictions(owner, shown) == [1, 1, 0]
    assert len(coming(owner, shown)["predictions"]) == 1
    again = remembered("led", tmp_path / "led")
    assert again == shown

    # The plan is changed: what is there is shown no longer, and the new words are read.
    changed = replace(shown, instruction="Read both twice.", show_predictions=False)
    assert push(changed, client(server), asked(3)).already == 3
    assert coming(owner, shown)["predictions"] == []
    known = saved(changed)
    assert known is not None
    project = owner.get(f"/api/projects/{known.project}").json()
    assert project["expert_instruction"] == "Read both twice."


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_an_annotator_sees_it_as_a_choice_that_is_made(
    server: Server, owner: httpx.Client, tmp_path: Path
) -> None:
    campaign = Campaign("seen", tmp_path / "seen", show_predictions=True)
    push(campaign, client(server), asked(1))
    known = saved(campaign)
    assert known is not None

    async def scene() -> list[str]:
        async with Browser(tmp_path) as page:
            await page.go(f"{server.url}/user/login/")
            await page.until("!!document.querySelector('input[name=password]')")
            for name, value in (
                ("email", server.account.user), ("password", server.account.password)
            ):  # fmt: skip
                await page.run(f"document.querySelector('input[name={name}]').value='{value}'")
            await page.run("document.querySelector('form').submit()")
            await page.until(
                "!location.pathname.includes('login') && document.readyState == 'complete'"
            )
            await page.go(f"{server.url}/projects/{known.project}/data?labeling=1")
            await page.until("document.body.innerText.includes('Submit')", 120)
            await asyncio.sleep(2)
            await page.picture(tmp_path / "seen.png")
            words = "e.closest('label')?.innerText || e.parentElement.innerText"
            found = await page.run(
                f"[...document.querySelectorAll('input[type=radio]:checked')].map(e => {words})"
            )
            return list(found)

    first_is_a = "A" in tasks_on(owner, known.project)[0]["data"]["first"]
    better = "First" if first_is_a else "Second"
    assert any(f"{better} is much better" in words for words in asyncio.run(scene()))
