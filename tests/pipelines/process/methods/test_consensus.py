"""Solutions are kept where rollouts and the judge agree on the first error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.process.methods import consensus
from pipelines.process.search import Found, Question
from schemas.errors import BadReply
from tests.pipelines.process.methods.told_question import (
    drawn_at,
    drive,
    graded,
    lines,
    question,
    settings,
)


def run(asked: Question, told: dict[int, str], *verdicts: str | None, **more: Any) -> Found:
    config = settings("consensus", k=4, **more.pop("config", {}))
    judge = graded(*verdicts, reference=None)
    search = consensus.search(asked, config)
    (found,) = drive(asked, search, lambda at, _: told[at], lambda _: judge, **more).found
    return found


def test_an_agreed_first_error_is_kept_and_what_follows_is_dropped() -> None:
    asked = question(lines(5))
    told = {1: "wrwr", 2: "rr", 3: "wwww"}
    found = run(asked, told, "right", "right", "other", "right", "other")
    assert [s.label for s in found.steps] == ["right", "right", "wrong", None, None]
    assert [s.source for s in found.steps] == ["rollouts", "rollouts", "rollouts", "none", "none"]
    assert [s.judge_label for s in found.steps] == ["right", "right", "wrong", "right", "wrong"]
    assert found.first_error == 2
    assert (found.stopped, found.resolved) == ("complete", True)
    # What comes after the judge's first error decides nothing: it is not sampled.
    assert drawn_at(asked) == {"step 1": 4, "step 2": 2, "step 3": 4}
    assert found.asked[0].of == "judge"


@pytest.mark.parametrize(
    "told",
    [
        {1: "wwww", 2: "wwww", 3: "wwww"},  # rollouts err earlier
        {1: "rr", 2: "rr", 3: "rwwr"},  # and later
    ],
)
def test_disagreement_leaves_no_labels_but_the_values(told: dict[int, str]) -> None:
    asked = question(lines(5))
    found = run(asked, told, "right", "right", "other")
    assert [s.label for s in found.steps] == [None] * 5
    assert [s.source for s in found.steps] == ["none"] * 5
    assert [s.n for s in found.steps[:3]] == [len(told[position]) for position in (1, 2, 3)]
    assert all(s.value is not None for s in found.steps[:3])
    assert [s.judge_label for s in found.steps] == ["right", "right", "wrong", None, None]
    assert found.first_error is None
    assert (found.stopped, found.resolved) == ("disagree", False)


def test_agreement_on_no_error_labels_every_step() -> None:
    asked = question(lines(3), right=True)
    found = run(asked, {1: "rr", 2: "wrr"}, "right", "right", "right")
    assert [s.label for s in found.steps] == ["right"] * 3
    assert [s.source for s in found.steps] == ["rollouts", "rollouts", "answer"]
    assert found.first_error is None and found.resolved


def test_a_wrong_answer_that_the_judge_finds_right_costs_no_rollouts() -> None:
    asked = question(lines(3), right=False)
    found = run(asked, {}, "right", "right", "right")
    assert (found.stopped, found.resolved) == ("disagree", False)
    assert drawn_at(asked) == {}
    assert [s.value for s in found.steps] == [None, None, 0.0]
    assert [s.label for s in found.steps] == [None] * 3


def test_an_error_in_the_last_step_is_the_answers() -> None:
    asked = question(lines(3), right=False)
    found = run(asked, {1: "rr", 2: "rr"}, "right", "right", "calculation")
    assert [s.label for s in found.steps] == ["right", "right", "wrong"]
    assert [s.source for s in found.steps] == ["rollouts", "rollouts", "answer"]
    assert found.resolved


def test_a_solution_that_was_cut_off_is_sampled_to_its_end() -> None:
    asked = question(lines(2), right=None, ended=False)
    found = run(asked, {1: "rr", 2: "rr"}, "right", "right")
    assert [s.label for s in found.steps] == ["right", "right"]
    assert found.resolved


@pytest.mark.parametrize("verdicts", [(None, "other"), ("right", None, "right"), ()])
def test_a_judge_who_does_not_say_where_costs_no_rollouts(verdicts: tuple[str | None, ...]) -> None:
    asked = question(lines(3))
    found = run(asked, {}, *verdicts)
    assert (found.stopped, found.resolved) == ("undecided", False)
    assert drawn_at(asked) == {}


def test_rollouts_without_answers_leave_it_open() -> None:
    asked = question(lines(3))
    found = run(asked, {1: "tttt", 2: "wwww"}, "right", "other")
    assert (found.stopped, found.resolved) == ("undecided", False)
    assert [s.label for s in found.steps] == [None] * 3
    assert [s.truncated for s in found.steps] == [4, 0, 0]


def test_an_answer_that_cannot_be_checked_agrees_with_nothing() -> None:
    asked = question(lines(2), right=None)
    found = run(asked, {1: "rr"}, "right", "right")
    assert (found.stopped, found.resolved) == ("undecided", False)


def test_the_whole_ensemble_judges_where_it_is_set() -> None:
    asked = question(lines(3))
    replies = {
        "validity": graded("right", "other", "right"),
        "reference": graded("right", "right", "right", reference=None),
        "reverse": json.dumps({"explanation": "", "step": 2}),
    }
    config = settings("consensus", k=2, ensemble={})
    search = consensus.search(asked, config)
    told = {1: "rr", 2: "ww"}
    (found,) = drive(
        asked, search, lambda at, _: told[at], lambda wanted: replies[wanted.template]
    ).found
    assert [s.judge_probability for s in found.steps] == [1.0, pytest.approx(1 / 3), 1.0]
    assert [s.label for s in found.steps] == ["right", "wrong", None]
    assert [a.why for a in found.asked] == [
        "validity",
        "reference",
        "reverse",
        "up to the judge's error",
        "up to the judge's error",
    ]


@pytest.mark.parametrize("waves", [0, 1, 2])
def test_a_spent_budget_labels_nothing(waves: int) -> None:
    asked = question(lines(3))
    found = run(asked, {1: "wrwr", 2: "wwww"}, "right", "other", waves=waves)
    assert (found.stopped, found.resolved) == ("budget", False)
    assert [s.label for s in found.steps] == [None] * 3
    assert [s.n for s in found.steps] == ([2, 2, 0] if waves == 2 else [0, 0, 0])
    assert found.steps[0].judge_label == (None if waves == 0 else "right")


def test_an_unusable_verdict_is_a_reject() -> None:
    asked = question(lines(3))
    search = consensus.search(asked, settings("consensus"))
    finding = drive(asked, search, judge=lambda _: BadReply("bad_shape", "so"))
    assert finding.found == ()
    assert [(r.code, r.detail) for r in finding.rejects] == [("bad_shape", "so")]
