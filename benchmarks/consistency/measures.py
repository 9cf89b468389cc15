"""Figures of probabilities against the truth."""

from __future__ import annotations

import numpy as np

BINS = 10


def ece(probability: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width of [0, 1]."""
    at = np.minimum((probability * BINS).astype(int), BINS - 1)
    gap = np.bincount(at, probability - right, BINS)
    return float(np.abs(gap).sum() / len(probability))


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of a score; ties count half."""
    from scipy.stats import rankdata

    rank = rankdata(score)
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return 0.5
    return float((rank[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))
