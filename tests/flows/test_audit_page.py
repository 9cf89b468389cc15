"""The audit's page: the worst pairs first, nothing in a text runs, nothing is loaded."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from flows import audit_page
from pipelines.audit.audit import Audit, audit, summary
from pipelines.audit.config import AuditConfig
from tests.flows.test_report import ATTACKS, CHROMIUM, FLAGS, Page
from tests.pipelines.audit.made import EMBED, preferences, write

ATTACKED = [text.replace("\ud800", "") for text in ATTACKS]


def audited(tmp_path: Path, rows: list[dict]) -> Audit:
    path = write(tmp_path / "<b>data.jsonl", rows)
    return audit(AuditConfig(datasets=(str(path),), model="none"), tmp_path / "work", embed=EMBED)


def page(found: Audit) -> str:
    return audit_page.render(found, summary(found) | {"action": "report", "seed": 0})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> str:
    rows = [
        {"prompt": f"{text} {at}", "chosen": text, "rejected": f"other {text}"}
        for at, text in enumerate(ATTACKED)
    ]
    return page(audited(tmp_path_factory.mktemp("hostile"), rows))


def test_the_worst_stand_first_and_copies_once(tmp_path) -> None:
    rows, wrong = preferences(80, 0.1)
    found = audited(tmp_path, rows + rows[:5])
    worst = audit_page.worst(found, 12)
    probabilities = [row.probability for row in worst]
    assert probabilities == sorted(probabilities) and len(worst) == 12
    assert all(row.chosen.startswith("Whatever") for row in worst[: int(wrong.sum())])
    assert len({(row.prompt, row.chosen) for row in worst}) == 12
    assert worst[0].evidence[0][1] < 0
    assert len(audit_page.worst(found)) == 80


def test_the_page_says_what_the_summary_says(tmp_path) -> None:
    rows, wrong = preferences(80, 0.1)
    words = " ".join(Page(page(audited(tmp_path, rows))).words.split())
    assert f"pairs likely wrong{int(wrong.sum())}more likely wrong than right" in words
    assert "The worst 80" in words and "another row says the opposite of the same pair" in words
    assert "no people’s answers corrected it" in words


def test_hostile_texts_are_shown_and_none_is_markup(hostile) -> None:
    read = Page(hostile)
    assert read.open == []
    names = {name for name, _ in read.tags}
    assert not names & {"script", "iframe", "img", "object", "base", "animate", "form", "input"}
    for name, attributes in read.tags:
        assert not any(key.startswith("on") for key in attributes), (name, attributes)
        for key in ("href", "src"):
            assert (attributes.get(key) or "#").startswith("#"), attributes
    assert "document.title='ran'" in read.words and "{{ 7*7 }}" in read.words
    assert "\u202e" not in hostile and "U+202E" in hostile
    assert "<b>data" not in hostile and "&lt;b&gt;data" in hostile


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_nothing_runs_in_a_browser(hostile, tmp_path) -> None:
    assert CHROMIUM is not None and shutil.which(CHROMIUM)
    path = tmp_path / "audit.html"
    path.write_text(hostile, "utf-8")
    command = [
        CHROMIUM,
        *(f.replace("\t", " ") for f in FLAGS.split(" ")),
        f"--user-data-dir={tmp_path}/u",
    ]
    shown = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert "<title>ran" not in shown and "Prefinery audit</title>" in shown
