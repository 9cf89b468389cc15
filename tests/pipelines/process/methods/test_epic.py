"""Adaptive binary search with a threshold at half of the root's value."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.process.methods import epic
from pipelines.process.methods.epic import start
from pipelines.process.search import Drawn
from tests.pipelines.process.methods.told_question import (
    drawn_at,
    drive,
    lines,
    question,
    settings,
)


@pytest.mark.parametrize(
    ("count", "rate", "index"),
    [
        (9, 0.1, 2),
        (9, 0.3, 4),
        (9, 0.5, 6),
        (9, 0.15, 4),  # 1.5 tenths round to 2
        (9, 0.45, 4),  # 4.5 tenths round to 4
        (4, 0.1, 1),  # too few to shift
        (4, 0.9, 1),
        (5, 0.1, 1),
        (5, 0.9, 3),
        (1, 0.9, 0),
    ],
)
def test_the_search_starts_earlier_in_hard_questions(count: int, rate: float, index: int) -> None:
    assert start(count, rate) == index


def test_the_search_by_hand() -> None:
    asked = question(lines(10))
    # Root .5: the threshold is .25 of 8 draws, at least 2 of 8. The first error is step 4.
    told = {0: "rwrwrwrw", 7: "wwwwwwww", 3: "rwwwwwwr", 5: "wwwwwwrw", 4: "wwwwwwwr"}
    config = settings("epic", k=8, stop_at=0)
    (found,) = drive(asked, epic.search(asked, config), lambda at, _: told[at]).found
    assert [(a.position, a.count, a.why) for a in found.asked] == [
        (0, 8, "root value"),
        (7, 8, "binary search 1..9"),
        (3, 8, "binary search 1..6"),
        (5, 8, "binary search 4..6"),
        (4, 8, "binary search 4..4"),
    ]
    assert [s.label for s in found.steps] == ["right"] * 3 + ["wrong"] * 7
    assert [s.source for s in found.steps] == [
        "inferred",
        "inferred",
        "rollouts",
        "rollouts",
        "rollouts",
        "inferred",
        "rollouts",
        "inferred",
        "inferred",
        "answer",
    ]
    assert found.first_error == 3
    assert found.steps[2].value == 0.25 and found.steps[3].value == 0.125
    assert [s.n for s in found.steps] == [0, 0, 8, 8, 8, 0, 8, 0, 0, 0]
    assert found.stopped == "complete" and found.resolved


@given(
    steps=st.integers(1, 20),
    error=st.integers(0, 20),
    rate=st.integers(1, 8),
    stop_at=st.sampled_from([0, 2]),
    ended=st.booleans(),
)
def test_any_first_error_is_found_in_logarithmic_tests(
    steps: int, error: int, rate: int, stop_at: int, ended: bool
) -> None:
    asked = question(lines(steps), ended=ended, right=False if ended else None)
    root = "r" * rate + "w" * (8 - rate)

    def rollouts(at: int, prover: bool) -> str:
        return root if at == 0 or at <= error else "wwwwwwww"

    config = settings("epic", k=8, stop_at=stop_at)
    (found,) = drive(asked, epic.search(asked, config), rollouts).found
    last = steps - 1 if ended else steps
    expected = min(error, last) if ended or error < last else None
    assert found.first_error == expected
    cut = steps if expected is None else expected
    assert [s.label for s in found.steps] == ["right"] * cut + ["wrong"] * (steps - cut)
    # The first test can be a quarter off the middle.
    assert len(drawn_at(asked)) - 1 <= 1 + math.ceil(math.log2(last + 1))


def test_curtailed_draws_end_where_the_label_is_settled() -> None:
    asked = question(lines(2))
    # At least 4 of 8 are needed: settled wrong by the fifth failure.
    told = {0: "rrrrrrrr", 1: "wwwww---"}
    config = settings("epic", k=8, stop_at=2)
    (found,) = drive(asked, epic.search(asked, config), lambda at, _: told[at]).found
    assert drawn_at(asked) == {"": 8, "step 1": 5}
    assert found.first_error == 0


def test_a_right_solution_is_right_without_rollouts() -> None:
    asked = question(lines(3), right=True)
    (found,) = drive(asked, epic.search(asked, settings("epic"))).found
    assert [s.label for s in found.steps] == ["right"] * 3
    assert [s.source for s in found.steps] == ["inferred", "inferred", "answer"]
    assert found.asked == () and found.resolved


def test_a_last_step_without_a_checked_answer_stays_open() -> None:
    asked = question(lines(3), right=None)
    (found,) = drive(asked, epic.search(asked, settings("epic")), lambda *_: "r" * 8).found
    assert [s.label for s in found.steps] == ["right", "right", None]
    assert found.first_error is None


def test_an_unsolved_question_has_no_threshold() -> None:
    asked = question(lines(4))
    (found,) = drive(asked, epic.search(asked, settings("epic")), lambda *_: "wwtwwwww").found
    assert (found.stopped, found.resolved) == ("unsolved", False)
    assert [s.label for s in found.steps] == [None, None, None, "wrong"]


def test_a_prefix_without_answers_leaves_it_open() -> None:
    asked = question(lines(6))
    told = {0: "rwwrwwww", 3: "r" * 8, 4: "t" * 8}
    search = epic.search(asked, settings("epic", stop_at=0))
    (found,) = drive(asked, search, lambda at, _: told[at]).found
    assert (found.stopped, found.resolved) == ("undecided", False)
    assert [s.label for s in found.steps] == ["right", "right", "right", None, None, "wrong"]
    assert found.steps[3].truncated == 8


def test_a_spent_budget_leaves_the_bracket() -> None:
    asked = question(lines(6))
    told = {0: "rwwrwwww", 3: "w" * 8}
    search = epic.search(asked, settings("epic", stop_at=0))
    (found,) = drive(asked, search, lambda at, _: told[at], waves=2).found
    assert (found.stopped, found.resolved) == ("budget", False)
    assert [s.label for s in found.steps] == [None, None, "wrong", "wrong", "wrong", "wrong"]


def test_a_budget_spent_within_a_test_keeps_its_counts() -> None:
    asked = question(lines(2))
    told = {0: "rrrrrrrr", 1: "wwwwwwww"}
    search = epic.search(asked, settings("epic", k=8, stop_at=2))
    (found,) = drive(asked, search, lambda at, _: told[at], waves=2).found
    assert (found.steps[0].n, found.steps[0].label) == (4, None)
    assert found.stopped == "budget"


def test_all_rollouts_of_the_bare_question_count() -> None:
    asked = question(lines(2))
    asked.book.draws[False, ""] = [Drawn("right", None, "", 1)] * 4
    asked.book.draws[False, ""] += [Drawn("wrong", None, "", 1)] * 28
    # 1 of 8 is at least half of 4 in 32.
    search = epic.search(asked, settings("epic", k=8, stop_at=0))
    (found,) = drive(asked, search, lambda *_: "wwwwwwwr").found
    assert found.first_error == 1
