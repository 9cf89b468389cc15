"""Stepwise outcome labels: a positive makes all earlier steps positive."""

from __future__ import annotations

from pipelines.process.methods import sorm
from tests.pipelines.process.methods.told_question import drive, lines, question, settings


def test_a_positive_makes_earlier_steps_positive() -> None:
    asked = question(lines(5))
    told = {1: "wwww", 2: "tttt", 3: "wwrw", 4: "wwww"}
    (found,) = drive(
        asked, sorm.search(asked, settings("sorm", k=4)), lambda position, _: told[position]
    ).found
    assert [s.label for s in found.steps] == ["right", "right", "right", "wrong", "wrong"]
    assert [s.source for s in found.steps] == [
        "inferred",
        "inferred",
        "rollouts",
        "rollouts",
        "answer",
    ]
    # The counts stay what was seen; only the label is inferred.
    assert [s.successes for s in found.steps] == [0, 0, 1, 0, 0]
    assert [s.truncated for s in found.steps] == [0, 4, 0, 0, 0]
    assert [s.value for s in found.steps] == [0.0, None, 0.25, 0.0, 0.0]
    assert found.first_error == 3
    assert found.stopped == "complete" and found.resolved


def test_a_right_answer_makes_all_steps_right() -> None:
    asked = question(lines(3), right=True)
    (found,) = drive(asked, sorm.search(asked, settings("sorm", k=2)), lambda *_: "ww").found
    assert [s.label for s in found.steps] == ["right"] * 3
    assert [s.source for s in found.steps] == ["inferred", "inferred", "answer"]
    assert found.first_error is None


def test_a_spent_budget_is_said() -> None:
    asked = question(lines(3))
    search = sorm.search(asked, settings("sorm", k=4, stop_at=2))
    (found,) = drive(asked, search, lambda position, _: "wwww", waves=1).found
    assert [s.n for s in found.steps] == [2, 2, 0]
    assert found.stopped == "budget" and not found.resolved
