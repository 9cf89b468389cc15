import json
from pathlib import Path

import pytest

from annotation.configs import KINDS, PREFERENCES, QuestionConfig
from annotation.guide import guide
from schemas.records import Criterion
from tests.annotation.devtools import CHROMIUM, Browser
from tests.flows.test_report import ATTACKS, Page

CRITERIA = (
    Criterion(kind="hard_rule", text="Contains no personal data.", weight=2.0),
    Criterion(kind="principle", text="Says what is asked first."),
    Criterion(kind="principle", text="Is <short> & plain.", weight=3.0),
)


def words(page: str) -> str:
    return " ".join(Page(page).words.split())


def test_the_whole_scale_is_explained_with_its_keys() -> None:
    text = words(guide("pairwise", QuestionConfig(), CRITERIA, title="Round 1"))
    for shown, key in PREFERENCES.values():
        assert f"{shown} {key}" in text
    assert "Round 1" in text
    for rating in ("Helpfulness", "Correctness", "Coherence", "Complexity", "Verbosity"):
        assert rating in text


def test_the_rubrics_criteria_stand_by_kind_the_weightiest_first() -> None:
    text = words(guide("pairwise", QuestionConfig(), CRITERIA))
    order = ["Rules", "Contains no personal data. (weight 2)", "Principles"]
    order += ["Is <short> & plain. (weight 3)", "Says what is asked first. (weight 1)"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "Pitfalls" not in text  # there are none


def test_what_the_plan_does_not_ask_is_not_explained() -> None:
    text = words(guide("pairwise", QuestionConfig(ratings="none", justification="none")))
    assert "Verbosity" not in text and "in a sentence or two" not in text
    must = words(guide("pairwise", QuestionConfig(ratings="required", justification="required")))
    assert "Always say why" in must and "Rate each response" in must


def test_the_plans_own_error_types_are_named() -> None:
    text = words(guide("spans", QuestionConfig(error_types=("Bad unit", "Bad sign"))))
    assert "Bad unit 1" in text and "Bad sign 2" in text


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_texts_are_shown_and_never_run(kind: str) -> None:
    hostile = "".join(ATTACKS)
    criteria = (Criterion(kind="pitfall", text=hostile),)
    read = Page(guide(kind, QuestionConfig(), criteria, title=hostile, instruction=hostile))
    assert read.open == []
    assert not read.names() & {"script", "img", "iframe", "link", "a", "svg", "base", "form"}
    for tag, attributes in read.tags:
        for name in attributes:
            assert not name.startswith("on") and name not in {"src", "href", "style"}, tag
    assert "[U+202E]" in read.words and "\u202e" not in read.words and "\x00" not in read.words


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_nothing_runs_in_a_browser(tmp_path: Path) -> None:
    import asyncio

    hostile = "".join(ATTACKS).replace("\ud800", "")
    path = tmp_path / "guide.html"
    page = guide("pairwise", QuestionConfig(), (*CRITERIA, Criterion(kind="pitfall", text=hostile)))
    path.write_text(page, "utf-8")

    async def scene() -> tuple[str, list[str]]:
        async with Browser(tmp_path) as browser:
            await browser.go(path.as_uri())
            await browser.picture(tmp_path / "guide.png", whole=True)
            return str(await browser.run("document.title")), browser.requests + browser.dialogs

    title, asked = asyncio.run(scene())
    assert title == "Which of two responses is better?"
    assert json.dumps(asked) == json.dumps([path.as_uri()])
