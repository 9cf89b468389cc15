"""Copies, contradictions, cycles, leaks and biases, by the numbers of texts alone."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.audit.cases import cases, folds, groups
from pipelines.audit.findings import bias
from pipelines.audit.read import Pairs


def pairs(*sides: tuple[int, int, int]) -> Pairs:
    made = Pairs(texts=[f"text {at}" for at in range(9)], judges={"j": []})
    for at, (prompt, chosen, rejected) in enumerate(sides):
        made.prompt.append(prompt)
        made.ask.append(prompt)
        made.chosen.append(chosen)
        made.rejected.append(rejected)
        made.human.append(1.0 if at == 0 else np.nan)
        made.judges["j"].append(float(at) if at else np.nan)
    return made


def test_rows_of_one_pair_are_one_case_turned_as_most_of_them() -> None:
    found = cases(pairs((0, 1, 2), (0, 2, 1), (0, 2, 1), (3, 1, 2), (3, 2, 1)), np.arange(9))
    assert found.case.tolist() == [0, 0, 0, 1, 1]
    assert (found.chosen.tolist(), found.rejected.tolist()) == ([2, 1], [1, 2])
    assert found.sign.tolist() == [-1, 1, 1, 1, -1]
    assert found.label.tolist() == [1, 0]
    assert found.human.tolist() == [-1, 0]  # people sided with what the case calls rejected
    assert found.judges["j"][0] > 0 > found.judges["j"][1]


def test_a_group_is_a_prompt_or_what_is_tied_by_responses_where_there_is_none() -> None:
    found = cases(
        pairs((0, 1, 2), (0, 3, 4), (5, 1, 2), (8, 1, 2), (8, 2, 3), (8, 6, 7)), np.arange(9)
    )
    empty = np.arange(9) == 8
    assert groups(found, empty, np.arange(9)).tolist() == [0, 0, 1, 2, 2, 3]
    near = np.array([0, 1, 2, 3, 4, 0, 6, 7, 8])  # prompts 0 and 5 are nearly the same
    assert groups(found, empty, near).tolist() == [0, 0, 0, 1, 1, 2]


def test_folds_hold_whole_groups_and_are_of_like_size() -> None:
    group = np.repeat(np.arange(40), np.arange(40) % 7 + 1)
    fold = folds(group, 5, 0)
    assert all(len(set(fold[group == g])) == 1 for g in range(40))
    sizes = np.bincount(fold)
    assert len(sizes) == 5 and sizes.max() - sizes.min() <= 3
    assert set(folds(np.zeros(50, int), 5, 0)) == {0, 1, 2, 3, 4}


def test_a_bias_is_a_share_of_those_that_differ_with_prompts_resampled() -> None:
    left = np.array([2.0, 2.0, 2.0, 1.0, 3.0, np.nan])
    right = np.array([1.0, 1.0, 1.0, 2.0, 3.0, 1.0])
    found = bias("x", left, right, np.arange(6), 0)
    assert (found.more, found.differ, found.share) == (3, 4, 0.75)
    assert found.low < 0.75 < found.high
    together = bias("x", left, right, np.array([0, 0, 0, 1, 1, 1]), 0)
    assert together.high - together.low > found.high - found.low
    nothing = bias("x", left, left, np.arange(6), 0)
    assert (nothing.differ, nothing.share, nothing.low, nothing.high) == (
        0,
        pytest.approx(0.5),
        0,
        1,
    )
