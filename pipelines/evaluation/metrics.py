"""Figures of reward models: numpy alone, every one checked by hand-computed values in the tests.

Most take `weights`, one a row: a bootstrap draw is a reweighting, so one function serves both the
figure and its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Statistic = Callable[[Floats], float]
BINS = 15


def mean(values: Floats, weights: Floats | None = None) -> float:
    """Weighted mean. Raises ValueError where there is nothing to average."""
    total = len(values) if weights is None else weights.sum()
    if total == 0:
        raise ValueError("nothing to average")
    return float((values if weights is None else values * weights).sum() / total)


def pair_hits(chosen: Floats, rejected: Floats) -> Floats:
    """Per pair 1 where chosen scores higher, 0 where lower, 1/2 at a tie; the mean is the accuracy."""
    return np.where(chosen == rejected, 0.5, chosen > rejected).astype(np.float64)


def brier(probability: Floats, outcome: Floats, weights: Floats | None = None) -> float:
    """Mean squared difference of probabilities and outcomes in [0, 1] (Brier, 1950)."""
    return mean(np.square(probability - outcome), weights)


def mass_bins(confidence: Floats, bins: int = BINS) -> Ints:
    """Bin of each row: bins of equal mass, cut at quantiles; equal confidences share a bin.

    So the bins do not depend on the order of rows, and ties can leave fewer bins than asked for.
    """
    edges = np.quantile(confidence, np.arange(1, bins) / bins, method="inverted_cdf")
    return np.searchsorted(np.unique(edges), confidence, side="left").astype(np.int64)


def calibration_error(
    confidence: Floats, outcome: Floats, bins: Ints, weights: Floats | None = None
) -> float:
    """Expected calibration error: sum over bins of (share of rows) * |mean confidence - mean outcome|.

    Guo et al. (2017), with the bins given (see `mass_bins`, Nixon et al. 2019).
    """
    w = np.ones(len(confidence)) if weights is None else weights
    gap = np.bincount(bins, w * (confidence - outcome))
    return float(np.abs(gap).sum() / w.sum())


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram."""

    bin: int
    """Index, from low to high confidence."""
    confidence: float
    """Mean confidence."""
    right: float
    """Share of outcomes that were right."""
    count: int
    """Rows."""


def reliability(confidence: Floats, outcome: Floats, bins: Ints) -> tuple[ReliabilityBin, ...]:
    """The bins behind `calibration_error`, those without rows left out."""
    rows = []
    for b in np.unique(bins):
        inside = bins == b
        confident, right = confidence[inside].mean(), outcome[inside].mean()
        rows.append(ReliabilityBin(int(b), float(confident), float(right), int(inside.sum())))
    return tuple(rows)


def best_of_n(scores: Sequence[float] | Floats, truth: Sequence[float], n: int) -> float:
    """Expected truth of the highest-scored of n samples, over all n-subsets of the N given.

    The value i-th from below in score is the best of a subset with chance C(i-1, n-1)/C(N, n); samples
    of equal score share the chance of their group equally. Exact, no sampling. ValueError: n > N.
    """
    total = len(scores)
    if not 1 <= n <= total:
        raise ValueError(f"best of {n} needs {n} samples, there are {total}")
    values = np.asarray(scores, np.float64)
    right = np.asarray(truth, np.float64)
    expected = 0.0
    below = 0
    for level in np.unique(values):
        group = values == level
        upto = below + int(group.sum())
        chance = (comb(upto, n) - comb(below, n)) / comb(total, n)
        expected += chance * float(right[group].mean())
        below = upto
    return expected


def oracle_best_of_n(truth: Sequence[float], n: int) -> float:
    """Chance that n of the N samples hold a right one: 1 - C(wrong, n)/C(N, n) (pass@n, Chen 2021)."""
    total = len(truth)
    if not 1 <= n <= total:
        raise ValueError(f"best of {n} needs {n} samples, there are {total}")
    wrong = sum(1 for t in truth if not t)
    return 1.0 - comb(wrong, n) / comb(total, n)


def first_below(scores: Sequence[float], threshold: float) -> int | None:
    """Index of the first step that scores below the threshold; none: no step does."""
    return next((i for i, s in enumerate(scores) if s < threshold), None)


def first_error_f1(
    hits: Floats, erroneous: np.ndarray[Any, np.dtype[np.bool_]], weights: Floats | None = None
) -> float:
    """ProcessBench's F1 (arXiv 2412.06559): harmonic mean of the accuracies on two kinds of solutions.

    hits (k,) tells whether the first error was named (or, without an error, none was); `erroneous`
    tells the kind. ValueError where a kind is missing.
    """
    w = np.ones(len(hits)) if weights is None else weights
    wrong = mean(hits[erroneous], w[erroneous])
    sound = mean(hits[~erroneous], w[~erroneous])
    return harmonic(wrong, sound)


def harmonic(a: float, b: float) -> float:
    """Harmonic mean of two shares; 0 where one is 0."""
    return 2.0 * a * b / (a + b) if a and b else 0.0


def best_threshold(scores: Sequence[Sequence[float]], first_error: Sequence[int | None]) -> float:
    """The threshold on step scores with the highest first-error F1 on these solutions.

    Candidates lie between neighbouring scores that can change a verdict; of several best ones the
    middle one is taken. ValueError where solutions with or without an error are missing.
    """
    # A solution is judged right for thresholds in (low, high]: its first error's score lies below
    # the threshold and no step before does.
    lows, highs, sound = [], [], []
    erroneous = 0
    for row, gold in zip(scores, first_error, strict=True):
        if gold is None:
            sound.append(min(row))
            continue
        erroneous += 1
        before = min(row[:gold], default=np.inf)
        if row[gold] < before:
            lows.append(row[gold])
            highs.append(before)
    if not erroneous or not sound:
        raise ValueError("a threshold needs solutions with and without an error")
    ends = np.unique([0.0, *lows, *(h for h in highs if h < np.inf), *sound, 1.0])
    candidates = np.append((ends[:-1] + ends[1:]) / 2.0, np.nextafter(1.0, 2.0))
    wrong = np.searchsorted(np.sort(lows), candidates) - np.searchsorted(np.sort(highs), candidates)
    right = len(sound) - np.searchsorted(np.sort(sound), candidates)
    a, b = wrong / erroneous, right / len(sound)
    f1 = np.divide(2 * a * b, a + b, out=np.zeros(len(a)), where=(a * b) > 0)
    best = np.flatnonzero(f1 == f1.max())
    return float(candidates[best[len(best) // 2]])


def interval(
    statistic: Statistic,
    clusters: Sequence[str],
    draws: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval, whole clusters (prompts) drawn with replacement.

    `statistic` gets one weight a row: how often the row's cluster was drawn. A draw on which it is
    not defined (ValueError) is drawn again, at most as often as there are draws. Draws of a
    calibration error lie above its value, at times all of them: an interval is widened to hold it.
    """
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(cluster.max()) + 1
    rng = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(2 * draws):
        weights = rng.multinomial(count, np.full(count, 1.0 / count))[cluster]
        try:
            found.append(statistic(weights.astype(np.float64)))
        except ValueError:
            continue
        if len(found) == draws:
            break
    if not found:
        raise ValueError("the statistic is defined on no draw")
    low, high = np.quantile(found, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    value = statistic(np.ones(len(cluster)))
    return min(float(low), value), max(float(high), value)
