"""Wilson's interval of numbers, arrays and columns, and the draws that clustered cases are worth."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipelines.intervals import effective_draws, share_ends, wilson

COUNTS = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS)
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    k, n = counts
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
    wide = binomtest(k, n).proportion_ci(0.99, method="wilson")
    assert wilson(k / n, n, 2.5758293035489) == pytest.approx((wide.low, wide.high), abs=1e-9)


@given(st.lists(COUNTS, min_size=1, max_size=8))
def test_numbers_arrays_and_columns_have_the_same_bits(counts: list[tuple[int, int]]) -> None:
    plain = [wilson(k / n, n) for k, n in counts]
    shares = np.array([k / n for k, n in counts])
    draws = np.array([n for _, n in counts], dtype=np.float64)
    low, high = wilson(shares, draws)
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == plain
    frame = pl.DataFrame({"share": shares, "draws": draws})
    below, above = wilson(pl.col("share"), pl.col("draws"))
    assert frame.select(low=below, high=above).rows() == plain


@given(COUNTS)
def test_the_ends_of_a_column_hold_the_share_and_stay_within_0_and_1(
    counts: tuple[int, int],
) -> None:
    k, n = counts
    frame = pl.DataFrame({"share": [k / n], "draws": [float(n)]})
    low, high = share_ends(pl.col("share"), pl.col("draws"))
    found = frame.select(low=low, high=high).row(0)
    assert 0 <= found[0] <= k / n <= found[1] <= 1
    assert found == pytest.approx(wilson(k / n, n), abs=1e-12)


def test_of_nothing_asked_a_column_has_no_ends() -> None:
    frame = pl.DataFrame({"share": [None]}, schema={"share": pl.Float64})
    low, high = share_ends(pl.col("share"), pl.lit(None, pl.Float64))
    assert frame.select(low=low, high=high).rows() == [(None, None)]


@given(COUNTS.filter(lambda counts: 0 < counts[0] < counts[1]))
def test_independent_cases_are_worth_what_they_are(counts: tuple[int, int]) -> None:
    k, n = counts
    share = k / n
    assert effective_draws(share, share * (1 - share) / n) == pytest.approx(n)
    assert effective_draws(share, 4 * share * (1 - share) / n) == pytest.approx(n / 4)
