"""How often labels are wrong, from scores that were made without them; and P(label is right)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipelines.consistency.calibration_models import sigmoid
from pipelines.consistency.latent import noisy_agreement

RATES = np.concatenate([[0.002, 0.005], np.arange(0.01, 0.455, 0.01)])
"""Error rates that are tried."""
SCALES = np.geomspace(0.2, 8.0, 32)
"""Worths of a score of typical size that are tried."""
BINS = 400
DRAWS = 200
LEVEL = 0.95


@dataclass(frozen=True)
class Noise:
    """Estimated share of wrong labels, its 95% interval, and what the score is worth."""

    rate: float
    low: float
    high: float
    worth: float
    """Log-odds of the truth for one unit of the score."""
    told: bool
    """Whether the data tells the rate at all: the interval spans less than half of what is tried."""


def estimate(score: np.ndarray, group: np.ndarray, seed: int) -> Noise:
    """Error rate of labels under random flips.

    A label agrees with its score s with probability e + (1 - 2e) sigmoid(k s), so e is what is left of
    disagreement where the score is surest. Maximum likelihood over a grid of e and k; the interval is
    the percentile one over `DRAWS` resamples of the groups (Bayesian bootstrap), joined with the
    profile likelihood's, which stays wide where scores say too little to tell e from k.

    Args:
        score: Oriented to the label, made without it, shape [n].
        group: Prompt of each label, integers from 0, shape [n].
        seed: Of the resampling.
    """
    spread = float(np.sqrt((score**2).mean())) if len(score) else 0.0
    if spread < 1e-9:
        return Noise(0.25, float(RATES[0]), float(RATES[-1]), 1.0, False)
    order = np.argsort(score, kind="stable")
    which = np.empty(len(score), np.int64)
    which[order] = np.arange(len(score)) * min(BINS, len(score)) // len(score)
    bins = int(which.max()) + 1
    middle = np.bincount(which, score, bins) / np.bincount(which, minlength=bins)
    clean = sigmoid(middle[:, None] * SCALES[None, :] / spread)  # [bins, scales]
    table = np.log(RATES[None, :, None] + (1 - 2 * RATES[None, :, None]) * clean[:, None, :])
    flat = table.reshape(bins, -1)
    counts = np.bincount(which, minlength=bins).astype(float)
    whole = (counts @ flat).reshape(len(RATES), len(SCALES))
    at, k = np.unravel_index(int(whole.argmax()), whole.shape)
    rng = np.random.default_rng([seed, 7])
    groups = int(group.max()) + 1
    drawn = []
    for _ in range(DRAWS):
        weight = rng.exponential(size=groups)[group]
        found = np.bincount(which, weight, bins) @ flat
        drawn.append(float(RATES[int(found.argmax()) // len(SCALES)]))
    profile = whole.max(axis=1)
    inside = RATES[profile >= profile.max() - 1.92]
    tail = (1 - LEVEL) / 2
    low = min(float(np.quantile(drawn, tail)), float(inside[0]))
    high = max(float(np.quantile(drawn, 1 - tail)), float(inside[-1]))
    told = high - low < (RATES[-1] - RATES[0]) / 2
    return Noise(float(RATES[at]), low, high, float(SCALES[k]) / spread, bool(told))


def at_rate(score: np.ndarray, known: Noise) -> Noise:
    """The worth of another score under an error rate that is known; score oriented, shape [n]."""
    _, worth = noisy_agreement(score, known.rate)
    return replace(known, worth=worth)


def log_odds(score: np.ndarray, label: np.ndarray, noise: Noise) -> np.ndarray:
    """Log-odds that the label is right: the score's evidence and the label's own, shape [n].

    `label` is 1 where there is a label, 0 where labels contradict each other.
    """
    rate = max(noise.rate, 0.005)
    return np.asarray(noise.worth * score + label * np.log((1 - rate) / rate))
