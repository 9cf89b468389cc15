"""What the other pairs of a prompt say: the leave-one-out fit, against fits made anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.consistency import transitivity
from pipelines.consistency.transitivity import others


def drawn(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    prompts = rng.integers(0, 6, count)
    first = prompts * 10 + rng.integers(0, 5, count)
    second = prompts * 10 + 5 + rng.integers(0, 4, count)
    return prompts, first, second, rng.uniform(-1, 1, count)


def anew(prompts: np.ndarray, a: np.ndarray, b: np.ndarray, y: np.ndarray, row: int) -> float:
    """The ridge fit without the row."""
    kept = np.flatnonzero((prompts == prompts[row]) & (np.arange(len(y)) != row))
    names = sorted({*a[prompts == prompts[row]], *b[prompts == prompts[row]]})
    x = np.zeros((len(kept), len(names)))
    for at, pair in enumerate(kept):
        x[at, names.index(a[pair])], x[at, names.index(b[pair])] = 1, -1
    score = np.linalg.solve(x.T @ x + np.eye(len(names)), x.T @ y[kept])
    return float(score[names.index(a[row])] - score[names.index(b[row])])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_it_is_the_fit_that_left_the_pair_out(seed: int, count: int) -> None:
    rows = drawn(seed, count)
    expected = [anew(*rows, row) for row in range(count)]
    assert others(*rows, 1.0) == pytest.approx(expected, abs=1e-9)


def test_blocks_and_the_order_of_pairs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(1, 200)
    whole = others(*rows, 1.0)
    turn = np.random.default_rng(0).permutation(200)
    assert others(*(part[turn] for part in rows), 1.0) == pytest.approx(whole[turn], abs=1e-12)
    monkeypatch.setattr(transitivity, "BLOCK", 100)
    assert others(*rows, 1.0) == pytest.approx(whole, abs=1e-12)


def test_large_prompts_take_one_step_which_is_exact_for_the_ends_of_a_star(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transitivity, "LARGEST", 2)
    y = np.array([1.0, 1.0, -1.0])
    found = others(np.zeros(3, int), np.zeros(3, int), np.array([1, 2, 3]), y, 1.0)
    assert found == pytest.approx([(1 - 1) / 3, (1 - 1) / 3, (1 + 1) / 3])


def test_a_pair_by_itself_is_told_nothing() -> None:
    one = np.array([0])
    assert others(one, one, one + 1, np.array([1.0]), 1.0).tolist() == [0.0]
    assert len(others(*(np.zeros(0, int) for _ in range(3)), np.zeros(0), 1.0)) == 0


def test_a_triangle_is_closed() -> None:
    # 0 beats 1, 1 beats 2: of 0 against 2 the others say yes, whatever its own vote.
    for own in (1.0, -1.0):
        found = others(
            np.zeros(3, int), np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([1, 1, own]), 0.1
        )
        assert found[2] > 1.0
