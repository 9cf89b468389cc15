"""Labels of wrong answers to questions that are nearly always solved."""

from __future__ import annotations

import pytest

from pipelines.process.methods import scan
from pipelines.process.search import Tally
from tests.pipelines.process.methods.told_question import (
    drawn_at,
    drive,
    lines,
    question,
    settings,
)

SURE = Tally(10, 8, 2, 0, 0, 90)


def test_steps_up_to_the_first_error_with_soft_targets() -> None:
    asked = question(lines(7), responses=SURE)
    told = {1: "rwww", 2: "rrrr", 3: "rwww", 4: "rrrw", 5: "wwww"}
    search = scan.search(asked, settings("scan", k=4, stop_at=0))
    finding = drive(asked, search, lambda at, _: told[at])
    (found,) = finding.found
    assert finding.rejects == ()
    assert [s.label for s in found.steps] == ["right"] * 4 + ["wrong"] + [None] * 2
    # V / .8 at the error and two steps before it, 1 further away, nothing after it.
    assert [s.sound for s in found.steps][:5] == pytest.approx([1, 1, 0.25 / 0.8, 0.75 / 0.8, 0])
    assert [s.sound for s in found.steps][5:] == [None, None]
    assert drawn_at(asked) == {f"step {n}": 4 for n in range(1, 6)}
    assert [a.position for a in found.asked] == [1, 2, 3, 4, 5]
    assert found.first_error == 4 and found.resolved and found.stopped == "complete"


def test_no_target_is_above_one() -> None:
    asked = question(lines(2), responses=SURE)
    (found,) = drive(asked, scan.search(asked, settings("scan", k=4)), lambda *_: "rrrr").found
    assert [s.sound for s in found.steps] == [1.0, 0.0]
    assert [(s.label, s.source) for s in found.steps] == [
        ("right", "rollouts"),
        ("wrong", "answer"),
    ]


def test_right_solutions_are_right_without_rollouts() -> None:
    asked = question(lines(3), right=True, responses=SURE)
    (found,) = drive(asked, scan.search(asked, settings("scan"))).found
    assert [(s.label, s.source) for s in found.steps] == [
        ("right", "inferred"),
        ("right", "inferred"),
        ("right", "answer"),
    ]
    assert [s.sound for s in found.steps] == [1.0] * 3
    assert [s.n for s in found.steps] == [0] * 3


@pytest.mark.parametrize(
    ("responses", "detail"),
    [
        (Tally(8, 5, 3, 0, 0, 80), "5 of 8 answers of its question are right"),
        # A truncated or unparsed response is neither right nor wrong.
        (Tally(12, 2, 1, 5, 4, 80), "2 of 3 answers of its question are right"),
        (Tally(3, 0, 0, 3, 0, 80), "0 of 0 answers of its question are right"),
    ],
)
def test_questions_below_the_confidence_are_passed_over(responses: Tally, detail: str) -> None:
    asked = question(lines(3), lines(4), responses=responses)
    finding = drive(asked, scan.search(asked, settings("scan")))
    assert finding.found == ()
    assert [(r.unit, r.code, r.detail) for r in finding.rejects] == [
        (s.trajectory.response_id, "not_selected", detail) for s in asked.solutions
    ]


def test_exactly_the_confidence_is_enough() -> None:
    asked = question(lines(1), right=True, responses=Tally(4, 3, 1, 0, 0, 9))
    assert len(drive(asked, scan.search(asked, settings("scan"))).found) == 1


@pytest.mark.parametrize(("right", "ended"), [(None, True), (None, False), (False, False)])
def test_solutions_without_a_checked_answer_are_passed_over(
    right: bool | None, ended: bool
) -> None:
    asked = question(lines(3), right=right, ended=ended, responses=SURE)
    finding = drive(asked, scan.search(asked, settings("scan")))
    assert finding.found == ()
    (reject,) = finding.rejects
    assert reject.code == "not_selected"
    assert reject.detail == "it was cut off, or its own answer could not be checked"


def test_a_step_without_answers_leaves_it_open() -> None:
    asked = question(lines(4), responses=SURE)
    told = {1: "rr", 2: "tu"}
    search = scan.search(asked, settings("scan", k=2))
    (found,) = drive(asked, search, lambda at, _: told[at]).found
    assert (found.stopped, found.resolved) == ("undecided", False)
    assert [s.label for s in found.steps] == ["right", None, None, None]
    assert [s.sound for s in found.steps] == [None] * 4
    assert (found.steps[1].truncated, found.steps[1].unparsed) == (1, 1)


def test_a_spent_budget_forces_no_error() -> None:
    asked = question(lines(4), responses=SURE)
    told = {1: "rr", 2: "wwwwww"}
    search = scan.search(asked, settings("scan", k=6, stop_at=2))
    (found,) = drive(asked, search, lambda at, _: told[at], waves=2).found
    assert (found.stopped, found.resolved) == ("budget", False)
    assert [s.label for s in found.steps] == ["right", None, None, None]
    assert found.steps[1].n == 2
