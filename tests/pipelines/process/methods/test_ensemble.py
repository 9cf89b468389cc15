"""Several judge prompts vote on every step."""

from __future__ import annotations

import json

import pytest

from pipelines.process.methods import ensemble
from pipelines.process.search import Query
from schemas.errors import BadReply
from tests.pipelines.process.methods.told_question import (
    Judge,
    drive,
    graded,
    lines,
    question,
    settings,
)


def telling(**replies: str | BadReply) -> Judge:
    """A reply by template."""
    return lambda wanted: replies[wanted.template]


def reverse(step: int | None) -> str:
    return json.dumps({"explanation": "so", "step": step})


def test_the_majority_labels_and_a_tie_does_not() -> None:
    asked = question(lines(5))
    judge = telling(
        validity=graded("right", "right", "other", None, "right"),
        reference=graded("right", "other", "other", None, "other", reference=None),
        reverse=reverse(2),
    )
    (found,) = drive(asked, ensemble.search(asked, settings("ensemble")), judge=judge).found
    assert [s.judge_probability for s in found.steps] == [1.0, pytest.approx(1 / 3), 0.0, None, 0.5]
    assert [s.label for s in found.steps] == ["right", "wrong", "wrong", None, None]
    assert [s.judge_label for s in found.steps] == [s.label for s in found.steps]
    assert [s.source for s in found.steps] == ["judge", "judge", "judge", "none", "none"]
    assert found.first_error == 1
    assert (found.stopped, found.resolved) == ("complete", True)
    assert [(a.why, a.count, a.of) for a in found.asked] == [
        ("validity", 1, "judge"),
        ("reference", 1, "judge"),
        ("reverse", 1, "judge"),
    ]


def test_in_reverse_a_reply_has_no_vote_on_what_follows_the_error() -> None:
    asked = question(lines(3))
    judge = telling(
        validity=graded("right", "right", "other"),
        reference=graded("right", "right", "other", reference=None),
        reverse=reverse(2),
    )
    (found,) = drive(asked, ensemble.search(asked, settings("ensemble")), judge=judge).found
    assert [s.judge_probability for s in found.steps] == [1.0, pytest.approx(2 / 3), 0.0]


def test_null_in_reverse_holds_all_right() -> None:
    asked = question(lines(2), right=True)
    judge = telling(validity=graded(), reference=graded(), reverse=reverse(None))
    (found,) = drive(asked, ensemble.search(asked, settings("ensemble")), judge=judge).found
    assert [s.judge_probability for s in found.steps] == [1.0, 1.0]
    assert found.first_error is None and found.resolved


def test_a_tie_before_any_error_leaves_it_open() -> None:
    asked = question(lines(2))
    config = settings("ensemble", ensemble={"reverse": False})
    judge = telling(
        validity=graded("right", "other"), reference=graded("other", "other", reference=None)
    )
    (found,) = drive(asked, ensemble.search(asked, config), judge=judge).found
    assert [s.label for s in found.steps] == [None, "wrong"]
    assert (found.stopped, found.resolved) == ("undecided", False)


def test_samples_and_reverse_are_settings() -> None:
    asked = question(lines(1))
    seen: list[Query] = []

    def judge(wanted: Query) -> str:
        seen.append(wanted)
        return graded("right" if wanted.sample else "other", reference=None)

    config = settings("ensemble", ensemble={"samples": 3, "reverse": False})
    (found,) = drive(asked, ensemble.search(asked, config), judge=judge).found
    assert [(q.template, q.sample) for q in seen] == [
        ("validity", 0),
        ("validity", 1),
        ("validity", 2),
        ("reference", 0),
        ("reference", 1),
        ("reference", 2),
    ]
    assert found.steps[0].judge_probability == pytest.approx(4 / 6)
    assert [(a.why, a.count) for a in found.asked] == [("validity", 3), ("reference", 3)]


def test_a_refused_reply_has_no_vote_and_is_said() -> None:
    asked = question(lines(2))
    judge = telling(
        validity=BadReply("not_json", "no"),
        reference=graded("right", "other", reference=None),
        reverse=reverse(9),
    )
    (found,) = drive(asked, ensemble.search(asked, settings("ensemble")), judge=judge).found
    assert [s.judge_probability for s in found.steps] == [1.0, 0.0]
    assert found.first_error == 1
    assert (found.stopped, found.resolved) == ("refused", False)


def test_with_no_usable_reply_the_first_reason_stands() -> None:
    asked = question(lines(2))
    judge = telling(
        validity=BadReply("not_json", "no"), reference=BadReply("cut_off", ""), reverse=reverse(9)
    )
    finding = drive(asked, ensemble.search(asked, settings("ensemble")), judge=judge)
    assert finding.found == ()
    assert [(r.code, r.detail) for r in finding.rejects] == [("not_json", "no")]
