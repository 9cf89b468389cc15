"""Pairs of known truth: scripted judges, labels flipped on purpose, people who know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass
class Synthetic:
    """The tables that a calibration reads, and what is true."""

    matrix: pa.Table
    features: pa.Table
    truth: np.ndarray
    """Whether a is better, [n]."""
    right: np.ndarray
    """Whether the label is right; of pairs without one, whether a is better. [n]"""

    def labels(self, rows: np.ndarray, annotator: str = "ana") -> pa.Table:
        """A person who knows, on these rows."""
        return pa.table(
            {
                "pair_id": self.features["pair_id"].take(pa.array(rows)),
                "value": np.where(self.truth[rows], 1.0, -1.0),
                "annotator": [annotator] * len(rows),
            }
        )


def make(
    n: int = 2000,
    seed: int = 0,
    *,
    error: float = 0.2,
    labelled: bool = True,
    noise: tuple[float, ...] = (0.8, 1.0, 1.5, 3.0),
    missing: float = 0.1,
    per_prompt: int = 1,
) -> Synthetic:
    """Each judge sees the truth (+1, -1) with Gaussian noise of its own deviation.

    Pairs of a prompt are a star: they share the response that is better.
    """
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.5
    given = truth ^ (rng.random(n) < error)
    side = np.where(truth, 1.0, -1.0)
    votes = side[:, None] + rng.normal(0, 1, (n, len(noise))) * noise
    lost = rng.random(votes.shape) < missing
    turn = np.where(given, 1.0, -1.0) if labelled else np.ones(n)
    votes *= turn[:, None]
    ids = [f"pair {i:05}" for i in range(n)]
    prompts = [f"prompt {i // per_prompt:05}" for i in range(n)]
    good = [f"{p} good" for p in prompts]
    bad = [f"{p} {i}" for i, p in enumerate(prompts)]
    matrix = {f"judge {j}": pa.array(votes[:, j], mask=lost[:, j]) for j in range(len(noise))}
    features = {
        "pair_id": ids,
        "prompt_id": prompts,
        "response_a": [g if t else b for g, b, t in zip(good, bad, truth, strict=True)],
        "response_b": [b if t else g for g, b, t in zip(good, bad, truth, strict=True)],
        "label": pa.array(np.where(given, "a", "b") if labelled else [None] * n, pa.string()),
        "agreement": np.zeros(n),
        "length": rng.normal(0, 1, n),
    }
    right = truth == given if labelled else truth
    return Synthetic(pa.table({"pair_id": ids, **matrix}), pa.table(features), truth, right)


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """Over ten bins of equal width."""
    at = np.minimum((p * 10).astype(int), 9)
    return float(np.abs(np.bincount(at, p - right, 10)).sum() / len(p))


def ranking(p: np.ndarray, right: np.ndarray) -> float:
    """Chance that a right label has a higher probability than a wrong one."""
    good, bad = p[right], p[~right]
    return float((good[:, None] > bad[None]).mean() + 0.5 * (good[:, None] == bad[None]).mean())
