"""The estimators against exact enumeration of every outcome of the sampling design."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import comb

import pytest
from scipy.stats import binomtest

from pipelines.process.estimate import interval, value

CHANCES = (0.02, 0.1, 0.3, 0.5, 0.77, 0.95)


def outcomes(p: float, k: int, stop_at: int) -> Iterator[tuple[int, int, float]]:
    """Every (successes, draws) that the design can end in, with its probability."""
    for n in range(max(stop_at, 1), k + 1):
        if stop_at:
            yield stop_at, n, comb(n - 1, stop_at - 1) * p**stop_at * (1 - p) ** (n - stop_at)
    for s in range(min(stop_at or k + 1, k + 1)):
        yield s, k, comb(k, s) * p**s * (1 - p) ** (k - s)


@pytest.mark.parametrize("p", CHANCES)
@pytest.mark.parametrize(
    ("k", "stop_at"), [(2, 2), (4, 2), (8, 2), (8, 3), (8, 8), (16, 5), (5, 0), (8, 9)]
)
def test_the_value_is_unbiased(p: float, k: int, stop_at: int) -> None:
    design = list(outcomes(p, k, stop_at))
    assert sum(chance for _, _, chance in design) == pytest.approx(1)
    mean = sum(value(s, n, stop_at) * chance for s, n, chance in design)
    assert mean == pytest.approx(p, abs=1e-12)


@pytest.mark.parametrize("stop_at", [0, 2, 3])
def test_the_value_is_unbiased_where_some_draws_do_not_count(stop_at: int) -> None:
    """A draw may be cut off: it uses up one of the k, and is neither right nor wrong."""
    k, chances = 6, {"right": 0.3, "wrong": 0.2, "cut": 0.5}
    mean = seen = 0.0
    for draws in itertools.product(chances, repeat=k):
        chance = 1.0
        for draw in draws:
            chance *= chances[draw]
        successes = counted = 0
        for draw in draws:
            if stop_at and successes == stop_at:
                break
            successes += draw == "right"
            counted += draw != "cut"
        if counted:
            seen += chance
            mean += chance * value(successes, counted, stop_at)
    assert mean / seen == pytest.approx(0.3 / 0.5, abs=1e-12)


def test_stopping_at_the_first_success_leans_high_as_documented() -> None:
    mean = sum(value(s, n, 1) * chance for s, n, chance in outcomes(0.5, 8, 1))
    assert mean == pytest.approx(sum(0.5**n / n for n in range(1, 9)))


@pytest.mark.parametrize(
    ("successes", "n", "stop_at", "expected"),
    [
        (2, 2, 2, 1.0),
        (2, 8, 2, 1 / 7),
        (1, 8, 2, 1 / 8),
        (0, 8, 2, 0.0),
        (3, 8, 0, 3 / 8),
        (1, 4, 1, 1 / 4),
        (0, 1, 2, 0.0),
        (1, 1, 2, 1.0),
    ],
)
def test_values_by_hand(successes: int, n: int, stop_at: int, expected: float) -> None:
    assert value(successes, n, stop_at) == pytest.approx(expected)


def test_no_draw_has_no_value() -> None:
    with pytest.raises(ValueError, match=r"at least one draw"):
        value(0, 0, 2)


@pytest.mark.parametrize(("k", "stop_at"), [(1, 2), (4, 2), (8, 2), (8, 1), (12, 4), (8, 0)])
def test_the_interval_covers_as_often_as_it_says(k: int, stop_at: int) -> None:
    for p in (*CHANCES, 0.001, 0.2, 0.4, 0.6, 0.9, 0.999):
        covered = [0.0, 0.0, 0.0]
        for s, n, chance in outcomes(p, k, stop_at):
            low, high = interval(s, n, stop_at)
            covered[0] += chance * (low <= p <= high)
            covered[1] += chance * (p < low)
            covered[2] += chance * (p > high)
        assert covered[0] >= 0.9 - 1e-12
        assert max(covered[1:]) <= 0.05 + 1e-12  # either side


@pytest.mark.parametrize(("s", "n"), [(0, 8), (3, 8), (8, 8), (1, 1), (0, 1)])
def test_without_stopping_it_is_the_clopper_pearson_interval(s: int, n: int) -> None:
    known = binomtest(s, n).proportion_ci(0.9, "exact")
    assert interval(s, n, 0) == pytest.approx((known.low, known.high))


def test_the_interval_holds_the_value_and_narrows_with_draws() -> None:
    for s, n, _ in outcomes(0.5, 8, 2):
        low, high = interval(s, n, 2)
        assert 0 <= low <= value(s, n, 2) <= high <= 1
    widths = [high - low for low, high in (interval(n // 2, n, 0) for n in (2, 8, 32, 128))]
    assert widths == sorted(widths, reverse=True)
