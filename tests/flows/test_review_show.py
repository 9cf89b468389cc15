"""What the terminal says of campaigns, and that what is not known is not said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flows import review_show

COST = {
    "votes": 39, "labels": 27, "timed": 39, "seconds": 637.5, "seconds_per_vote": 16.8,
    "seconds_per_label": 23.6, "money": 3.54, "money_per_label": 0.131,
}  # fmt: skip
ANN = {
    "judge": "human-1\x1b[31m", "votes": 12, "gold_accuracy": None, "gold_asked": 0,
    "rest_accuracy": 0.5, "rest_asked": 2, "first_share": 0.75, "first_asked": 12,
    "seconds": None, "flags": "position_bias",
}  # fmt: skip
RUN = {
    "run": "r-1", "votes": 39, "waiting": 68, "changed": 27, "money_per_change": 0.13,
    "next_pairs": 48, "next_worth": -3.2,
}  # fmt: skip
NOTHING = {
    "level": "nominal",
    "alpha": None,
    "low": None,
    "high": None,
    "units": 0,
    "meaning": "so",
}


def people(**changes: Any) -> dict[str, Any]:
    return {
        "campaign": "c1", "hourly_rate": 20.0, "agreement": [NOTHING], "annotators": [ANN],
        "cost": COST, "run": RUN, **changes,
    }  # fmt: skip


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_people_and_what_they_are_worth(capsys: pytest.CaptureFixture[str]) -> None:
    review_show.people(people())
    lines = said(capsys)
    assert lines[:3] == [
        "c1: 39 answers on 27 questions by 1 people",
        "a label: 24 s, 0.13; all: 0.18 h, 3.54 at 20.00 an hour",
        "run r-1: 27 decisions changed by 39 answers (0.13 each); 68 answers wait, the next 48 pairs "
        "are worth -3.20",
    ]
    assert lines[4] == "nominal 0 so"
    # Who wrote a name does not write to the terminal.
    assert "\x1b" not in "".join(lines)
    assert lines[6].endswith("12 0.50 of 2 0.75 of 12 position_bias")


def test_what_is_not_known_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    cost = {**COST, "seconds_per_label": None, "money_per_label": None}
    run = {**RUN, "changed": None, "money_per_change": None, "waiting": None}
    review_show.people(people(cost=cost, run=run, annotators=[]))
    assert said(capsys)[:2] == [
        "c1: 39 answers on 27 questions by 0 people",
        "run r-1: no queue",
    ]


def test_a_push_says_what_did_not_go(capsys: pytest.CaptureFixture[str]) -> None:
    done = {"campaign": "c1", "new": 1200, "already": 3, "doubles": 0, "gone": 2, "not_shown": 1}
    review_show.pushed({**done, "guide": "g.html"})
    assert said(capsys) == [
        "c1: 1,200 new questions, 3 were there",
        "2 deleted on the server (--resend asks them again)",
        "1 cannot be shown",
        "guide for annotators: g.html",
    ]


def test_a_status_counts_what_could_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    review_show.status(
        {
            "campaign": "c1", "kind": "steps", "url": "http://127.0.0.1:1/projects/1/data",
            "closed": True, "items": 9, "answered": 4, "doubles": 0, "edited": 1, "gone": 0,
            "foreign": 0, "annotations_answer": 4, "annotations_missing": 2,
            "annotators": {"human-1": 4},
        }
    )  # fmt: skip
    assert said(capsys) == [
        "c1 (steps, closed) http://127.0.0.1:1/projects/1/data",
        "4 of 9 questions answered",
        "1 edited",
        "2 answers: missing",
        "annotator answers",
        "human-1 4",
    ]


def test_json_is_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    review_show.show(people(), True, review_show.people)
    assert json.loads(capsys.readouterr().out) == people()
