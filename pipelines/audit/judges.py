"""P(label is right) from small judges that never saw the pair they judge.

Each judge is fitted on the pairs of the other folds: reward models over meanings (sentence
embeddings), over what code measures and over words; the labels of like pairs; the pairs of the same
prompt that share a response; and whatever scores the data brings. A logistic model weighs them, fitted
on the same labels, wrong ones among them, by a likelihood that knows how often labels are wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.audit import figures, models, noise
from pipelines.audit.cases import Cases
from pipelines.consistency.calibration_models import SURE, fit_logistic
from pipelines.consistency.transitivity import others

RIDGES = {"meaning": (1.0, 4.0, 16.0, 64.0), "code": (3.0, 30.0, 300.0), "words": (0.3, 1.0, 4.0)}
STACK_RIDGE = 3.0
ROUNDS = 2
"""Times that the models are fitted again under the error rate that was found."""
PEOPLE = 50
"""Pairs that people judged from which their answers correct the probabilities."""
PERSON = float(np.log(0.95 / 0.05))
"""Log-odds of one person's answer."""
STEPS = sum(map(len, RIDGES.values())) + ROUNDS * len(RIDGES)
"""Models fitted, each once a fold: what `advance` counts."""


@dataclass(frozen=True)
class Material:
    """What judges see of m cases, chosen less rejected."""

    views: dict[str, Any]
    """Shape [m, k] each: `meaning`, `code` (dense), `words` (sparse)."""
    gap: np.ndarray
    """Differences of vectors, shape [m, d]."""
    group: np.ndarray
    """Shape [m]."""
    fold: np.ndarray
    """Shape [m]."""
    used: np.ndarray
    """Whether models may be fitted to the case, shape [m]."""


@dataclass(frozen=True)
class Judged:
    """What the judges came to."""

    log_odds: np.ndarray
    """That the case's label is right, in [-12, 12], shape [m]."""
    evidence: dict[str, np.ndarray]
    """What each judge adds to them, shape [m] each."""
    weights: dict[str, float]
    """Weight of each judge, of scores of typical size 1."""
    noise: noise.Noise
    code: np.ndarray
    """What each code figure adds, shape [m, 2 * figures]."""
    people: tuple[int, int]
    """Cases that people judged, and how often the label went against them."""
    calibrated: bool
    """Whether people's answers corrected the probabilities."""


def judge(found: Cases, material: Material, seed: int, advance: Callable[[int], None]) -> Judged:
    """Judge all cases."""
    label, fold, used = found.label, material.fold, material.used
    kept: dict[str, tuple[float, list[np.ndarray]]] = {}
    scores: dict[str, np.ndarray] = {}
    for name, x in material.views.items():
        ridge, scores[name], coefs = models.choose(x, label, fold, used, RIDGES[name], advance)
        kept[name] = (ridge, coefs)
    scores["neighbours"] = figures.neighbours(material.gap, label, fold, used)
    scores |= {f"column {name}": score for name, score in found.judges.items()}
    error = 0.0
    rate = noise.estimate(_stack(scores, material, label, error)[0], material.group, seed)
    for _ in range(ROUNDS):
        error = rate.rate
        for name, (ridge, coefs) in kept.items():
            x = material.views[name]
            scores[name], coefs = models.cross_fit(x, label, fold, used, error, ridge, coefs)
            kept[name] = (ridge, coefs)
            advance(1)
        total, parts, weights = _stack(scores, material, label, error)
        known = label > 0
        rate = noise.estimate(total[known], material.group[known], seed)
    around = _around(found, total, rate)
    if around.any():
        scores["same prompt"] = around
        total, parts, weights = _stack(scores, material, label, rate.rate)
        known = label > 0
        rate = noise.at_rate(total[known], rate)
    code_x = material.views["code"]
    mean = np.stack(kept["code"][1])[fold]
    size = float(np.sqrt((scores["code"] ** 2).mean())) or 1.0
    code = code_x * mean * (rate.worth * weights["code"] / size)
    log_odds = noise.log_odds(total, label, rate)
    evidence = {name: rate.worth * part for name, part in parts.items()}
    log_odds, people, calibrated = _with_people(found, log_odds)
    return Judged(np.clip(log_odds, -SURE, SURE), evidence, weights, rate, code, people, calibrated)


def _stack(
    scores: dict[str, np.ndarray], material: Material, label: np.ndarray, error: float
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, float]]:
    """Cross-fitted sum of the judges' scores [m], what each adds, and mean weights."""
    sizes = {name: float(np.sqrt((s**2).mean())) or 1.0 for name, s in scores.items()}
    x = np.stack([s / sizes[name] for name, s in scores.items()], axis=1)
    total, coefs = models.cross_fit(x, label, material.fold, material.used, error, STACK_RIDGE)
    weight = np.stack(coefs)
    parts = x * weight[material.fold]
    return (
        total,
        {name: parts[:, at] for at, name in enumerate(scores)},
        dict(zip(scores, weight.mean(axis=0).tolist(), strict=True)),
    )


def _around(found: Cases, total: np.ndarray, rate: noise.Noise) -> np.ndarray:
    """What the prompt's other pairs say of each, shape [m]; their labels count, its own does not."""
    own = np.tanh(noise.log_odds(total, found.label, rate) / 2)
    # Responses of different prompts are different, even if their texts are the same.
    texts = int(max(found.chosen.max(), found.rejected.max())) + 1
    return others(
        found.prompt,
        found.prompt * texts + found.chosen,
        found.prompt * texts + found.rejected,
        own,
        1.0,
    )


def _with_people(found: Cases, log_odds: np.ndarray) -> tuple[np.ndarray, tuple[int, int], bool]:
    """Log-odds corrected on the cases that people judged, and with their answers added."""
    asked = np.flatnonzero(found.human)
    against = int((found.human[asked] < 0).sum())
    enough = len(asked) >= PEOPLE
    if enough:
        x = np.stack([np.ones(len(asked)), np.clip(log_odds[asked], -SURE, SURE)], axis=1)
        y = (found.human[asked] > 0).astype(float)
        shift, slope = fit_logistic(x, y, np.array([1.0, 10.0]), prior=np.array([0.0, 1.0]))
        log_odds = shift + max(float(slope), 0.0) * log_odds
    return log_odds + PERSON * found.human, (len(asked), against), enough
