"""Intervals of shares, and how many independent draws a share of clustered cases is worth.

One formula for plain numbers, arrays and columns, so that a judge's card, a rubric's value, an
annotator's record and a chart mean the same by an interval.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
import polars as pl

Floats = np.ndarray[Any, np.dtype[np.float64]]
Number = TypeVar("Number", float, Floats, pl.Expr)

Z = 1.959964
"""97.5% quantile of the standard normal: of a two-sided 95% interval."""


def wilson(share: Number, n: Number, z: float = Z) -> tuple[Number, Number]:
    """Lower and upper end of the score interval of a share of n draws (Wilson, 1927).

    `share`: in [0, 1]. `n`: above 0, need not be whole. `z`: standard errors to each side; 95% by
    default. Rounding may carry an end past 0, 1 or the share by its last bits.
    """
    square = z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    spread = share * (1 - share) / n + square / (4 * n * n)
    half = z / (1 + square / n) * _root(spread)
    return middle - half, middle + half


def share_ends(share: pl.Expr, n: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Ends of `wilson`, 95%, kept in [0, 1] and around the share; null where `share` or `n` is."""
    low, high = wilson(share, n)
    return pl.min_horizontal(low, share).clip(0, 1), pl.max_horizontal(high, share).clip(0, 1)


def effective_draws(share: Number, variance: Number) -> Number:
    """Independent draws whose share would have this variance (Korn and Graubard, 1998).

    The variance is the share's own, as its clusters show it; above 0. What a caller makes of few
    clusters, or of clusters that are all alike, is its own affair.
    """
    return share * (1 - share) / variance


def _root(square: Number) -> Number:
    if isinstance(square, pl.Expr):
        return square.sqrt()
    return np.sqrt(square) if isinstance(square, np.ndarray) else math.sqrt(square)
