"""Advantages under a prover, and the unbiased estimate of a best-of-K prover."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.process.estimate import interval
from pipelines.process.methods import advantage
from pipelines.process.methods.advantage import best_of
from pipelines.process.search import Drawn
from tests.pipelines.process.methods.told_question import (
    drawn_at,
    drive,
    lines,
    question,
    settings,
)


def stopped(draws: tuple[bool, ...], stop_at: int) -> tuple[int, int]:
    """Successes and draws of a sequence cut after its `stop_at`-th success."""
    if stop_at == 0:
        return sum(draws), len(draws)
    successes = n = 0
    for right in draws:
        n += 1
        successes += right
        if successes == stop_at:
            break
    return successes, n


@given(
    p=st.floats(0.02, 0.98),
    stop_at=st.integers(0, 4),
    k=st.integers(4, 9),
    best=st.integers(1, 4),
)
def test_best_of_is_unbiased_also_under_curtailment(
    p: float, stop_at: int, k: int, best: int
) -> None:
    mean = 0.0
    for draws in product((True, False), repeat=k):
        weight = math.prod(p if right else 1 - p for right in draws)
        mean += weight * best_of(*stopped(draws, stop_at), stop_at, k, best)
    assert mean == pytest.approx(1 - (1 - p) ** best, abs=1e-9)


def test_best_of_by_hand() -> None:
    assert best_of(2, 8, 0, 8, 4) == pytest.approx(1 - math.comb(6, 4) / math.comb(8, 4))
    assert best_of(2, 8, 2, 8, 4) == pytest.approx(1 - 3 / 7)
    assert best_of(2, 3, 2, 8, 4) == 1.0
    assert best_of(0, 8, 2, 8, 4) == 0.0
    # Fewer draws than K: the share is put in.
    assert best_of(1, 2, 0, 2, 4) == pytest.approx(1 - 0.5**4)
    assert best_of(2, 2, 2, 2, 4) == 1.0


def test_advantages_of_a_best_of_prover() -> None:
    asked = question(lines(4))
    told = {0: "rwrwrwrw", 1: "rrrrrrrr", 2: "wwwwwwww", 3: "wwwwwwww"}
    config = settings("advantage", k=8, stop_at=0, best_of=2)
    (found,) = drive(asked, advantage.search(asked, config), lambda at, _: told[at]).found
    root = 1 - math.comb(4, 2) / math.comb(8, 2)
    assert [s.advantage for s in found.steps] == pytest.approx([1 - root, -1.0, 0.0, 0.0])
    assert [s.label for s in found.steps] == ["right", "wrong", "right", "right"]
    assert [s.source for s in found.steps] == ["rollouts"] * 4
    assert [s.value for s in found.steps] == [1.0, 0.0, 0.0, 0.0]
    assert [s.n for s in found.steps] == [8, 8, 8, 0]
    assert found.first_error == 1
    assert [(a.position, a.count, a.of) for a in found.asked] == [
        (0, 8, "policy"),
        (1, 8, "policy"),
        (2, 8, "policy"),
        (3, 8, "policy"),
    ]


def test_a_drop_within_the_noise_is_not_labelled() -> None:
    asked = question(lines(2), right=True)
    told = {0: "rrrr", 1: "rrwr"}
    config = settings("advantage", k=4, stop_at=0, best_of=1)
    (found,) = drive(asked, advantage.search(asked, config), lambda at, _: told[at]).found
    assert [s.advantage for s in found.steps] == pytest.approx([-0.25, 0.25])
    assert [(s.label, s.source) for s in found.steps] == [(None, "none"), ("right", "rollouts")]


def test_wrong_where_the_interval_is_below_zero() -> None:
    config = settings("advantage", k=8, stop_at=0, best_of=1)
    for before, after in product(range(9), repeat=2):
        asked = question(lines(2), right=None)
        told = {0: "r" * before + "w" * (8 - before), 1: "r" * after + "w" * (8 - after)}
        search = advantage.search(asked, config)
        (found,) = drive(asked, search, lambda at, _, told=told: told[at]).found
        change = (after - before) / 8
        high = change + math.hypot(
            interval(after, 8, 0)[1] - after / 8, before / 8 - interval(before, 8, 0)[0]
        )
        expected = "right" if change >= 0 else "wrong" if high < 0 else None
        assert found.steps[0].label == expected
        # Nothing can be said of the last step: its answer could not be checked.
        assert (found.steps[1].advantage, found.steps[1].label) == (None, None)


def test_a_prover_engine_is_asked_and_the_policy_is_not() -> None:
    asked = question(lines(3), right=True)
    told = {0: "wwwwwwww", 1: "rwrw----", 2: "rr------"}
    config = settings("advantage", k=8, stop_at=2, prover="strong")
    search = advantage.search(asked, config)
    (found,) = drive(asked, search, lambda at, prover: told[at] if prover else "").found
    assert drawn_at(asked) == {}
    assert drawn_at(asked, prover=True) == {"": 8, "step 1": 3, "step 2": 2}
    # Stopped at the second of 3 draws: 1/2; at the second of 2: 1.
    assert [s.advantage for s in found.steps] == pytest.approx([0.5, 0.5, 0.0])
    # The value is the policy's: known at the end alone.
    assert [s.value for s in found.steps] == [None, None, 1.0]
    assert [s.low for s in found.steps] == [None, None, 1.0]
    assert [(s.n, s.successes) for s in found.steps] == [(3, 2), (2, 2), (0, 0)]
    assert {a.of for a in found.asked} == {"prover"}


def test_all_rollouts_of_the_bare_question_are_used() -> None:
    asked = question(lines(2), right=None)
    asked.book.draws[False, ""] = [Drawn("right", None, "", 1)] * 24
    asked.book.draws[False, ""] += [Drawn("wrong", None, "", 1)] * 8
    config = settings("advantage", k=4, stop_at=0, best_of=1)
    (found,) = drive(asked, advantage.search(asked, config), lambda *_: "rrrr").found
    assert found.steps[0].advantage == pytest.approx(1 - 24 / 32)


def test_a_spent_budget_leaves_what_is_known() -> None:
    asked = question(lines(3))
    config = settings("advantage", k=4, stop_at=0)
    search = advantage.search(asked, config)
    (found,) = drive(asked, search, lambda *_: "rwrw", waves=1).found
    assert [s.advantage for s in found.steps] == [None, None, None]
    assert [s.label for s in found.steps] == [None, None, None]
    assert found.stopped == "budget" and not found.resolved
