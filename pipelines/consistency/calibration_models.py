"""Models of P(label is right): regularised logistic, isotonic, boosted trees; and the last correction.

All see columns that are oriented to the pair's label and change sign with it. A pair that came with
a label may have an intercept: its label is evidence. A pair without one has none, and its mirror
image must have the opposite log-odds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

SURE = 12.0
"""Log-odds are cut here: e^-12 is beyond what any number of labels can show."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function. Any shape."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -700, 700))))


def log_loss(log_odds: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each y in [0, 1], in nats, shape [n]."""
    return np.asarray(np.logaddexp(0.0, log_odds) - y * log_odds)


def fit_logistic(
    x: np.ndarray,
    y: np.ndarray,
    ridge: np.ndarray,
    weight: np.ndarray | None = None,
    prior: np.ndarray | None = None,
) -> np.ndarray:
    """Coefficients that minimise sum w * log loss + sum ridge * (coef - prior)^2 / 2, by Newton steps.

    Args:
        x: Shape [n, k].
        y: In [0, 1], shape [n].
        ridge: Above 0, shape [k].
        weight: Shape [n]; none: 1.
        prior: Shape [k]; none: 0.
    """
    w = np.ones(len(y)) if weight is None else weight
    centre = np.zeros(x.shape[1]) if prior is None else prior

    def cost(at: np.ndarray) -> float:
        return float(w @ log_loss(x @ at, y) + 0.5 * (ridge * (at - centre) ** 2).sum())

    coef = centre.copy()
    now = cost(coef)
    for _ in range(50):
        p = sigmoid(x @ coef)
        gradient = x.T @ (w * (p - y)) + ridge * (coef - centre)
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-4 and cost(coef - size * step) > now:
            size /= 2
        coef = coef - size * step
        after = cost(coef)
        if now - after < 1e-10 * (1 + abs(now)):
            break
        now = after
    return coef


@dataclass(frozen=True)
class Design:
    """What the models see of n pairs."""

    compact: np.ndarray
    """Scores and features, shape [n, c]."""
    votes: np.ndarray
    """Scaled votes, 0 where missing, shape [n, judges]."""
    symmetric: np.ndarray
    """What does not turn with the pair, shape [n, s]."""
    labelled: np.ndarray
    """1.0 where the pair came with a label, else 0.0, shape [n]."""
    slices: np.ndarray
    """Slice of each pair, from 0, of those with labels enough for weights of their own; -1: none."""
    trusted: int
    """The first so many compact columns are scores already made of many pairs: hardly penalised."""

    def at(self, rows: np.ndarray) -> Design:
        """The design of some rows."""
        return Design(
            self.compact[rows],
            self.votes[rows],
            self.symmetric[rows],
            self.labelled[rows],
            self.slices[rows],
            self.trusted,
        )

    def mirrored(self, y: np.ndarray) -> tuple[Design, np.ndarray, np.ndarray]:
        """Unlabelled rows added upside down, with their y, and weights that count them once."""
        bare = np.flatnonzero(self.labelled == 0)
        weight = np.ones(len(y) + len(bare))
        weight[bare] = weight[len(y) :] = 0.5
        whole = Design(
            np.vstack([self.compact, -self.compact[bare]]),
            np.vstack([self.votes, -self.votes[bare]]),
            np.vstack([self.symmetric, self.symmetric[bare]]),
            np.r_[self.labelled, self.labelled[bare]],
            np.r_[self.slices, self.slices[bare]],
            self.trusted,
        )
        return whole, np.r_[y, 1 - y[bare]], weight


class Model(Protocol):
    """A candidate: fitted once, then asked for log-odds."""

    name: str

    def fit(self, design: Design, y: np.ndarray, seed: int) -> None:
        """Fit to y in [0, 1], shape [n]."""

    def log_odds(self, design: Design) -> np.ndarray:
        """Log-odds that the label is right, shape [n]."""


class Logistic:
    """Ridge logistic regression; `votes`: on every judge's votes, too, else on the scores alone.

    `slices`: that many slices have departures from the common weights of their own, under the same
    penalty: with few labels they stay near the common weights (partial pooling).
    """

    def __init__(self, ridge: float, votes: bool, slices: int = 0) -> None:
        seen = "all votes" if votes else "scores"
        self.name = f"logistic {seen}{' by slice' if slices else ''} ridge {ridge:g}"
        self.ridge, self.with_votes, self.slices = ridge, votes, slices
        self.coef = np.zeros(0)

    def _columns(self, design: Design) -> np.ndarray:
        parts = [design.labelled[:, None], design.compact]
        if self.with_votes:
            parts.append(design.votes)
        common = np.hstack(parts)
        own = [common * (design.slices == k)[:, None] for k in range(self.slices)]
        return np.hstack([common, *own])

    def fit(self, design: Design, y: np.ndarray, seed: int) -> None:
        """Fit to y in [0, 1], shape [n]."""
        whole, target, weight = design.mirrored(y)
        x = self._columns(whole)
        ridge = np.full(x.shape[1], float(self.ridge))
        ridge[0] = 0.1
        ridge[1 : 1 + design.trusted] = 0.1
        self.coef = fit_logistic(x, target, ridge, weight)

    def log_odds(self, design: Design) -> np.ndarray:
        """Log-odds that the label is right, shape [n]."""
        return np.clip(self._columns(design) @ self.coef, -SURE, SURE)


class Isotonic:
    """A monotone curve over the logistic score; antisymmetric for pairs without a label."""

    def __init__(self, base: Logistic) -> None:
        self.name = f"isotonic of {base.name}"
        self.base = base
        self.n = 0
        self.curves: dict[float, Any] = {}

    def fit(self, design: Design, y: np.ndarray, seed: int) -> None:
        """Fit to y in [0, 1], shape [n]."""
        from sklearn.isotonic import IsotonicRegression

        self.base.fit(design, y, seed)
        whole, target, weight = design.mirrored(y)
        score = self.base.log_odds(whole)
        self.n = len(y)
        for kind in (0.0, 1.0):
            rows = whole.labelled == kind
            if rows.any():
                curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
                self.curves[kind] = curve.fit(score[rows], target[rows], sample_weight=weight[rows])

    def log_odds(self, design: Design) -> np.ndarray:
        """Log-odds that the label is right, shape [n]."""
        score = self.base.log_odds(design)
        p = sigmoid(score)
        for kind, curve in self.curves.items():
            rows = design.labelled == kind
            p[rows] = curve.predict(score[rows])
        # n labels cannot show that a step of the curve is never wrong (Laplace's rule).
        p = (p * self.n + 0.5) / (self.n + 1)
        return np.asarray(np.log(p / (1 - p)))


class Boosting:
    """Gradient-boosted trees on everything; the mean of a pair and its mirror where it has no label."""

    name = "boosting"

    def __init__(self) -> None:
        self.trees: Any = None

    def _columns(self, design: Design) -> np.ndarray:
        return np.hstack([design.labelled[:, None], design.compact, design.votes, design.symmetric])

    def fit(self, design: Design, y: np.ndarray, seed: int) -> None:
        """Fit to y in [0, 1], shape [n]."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        whole, target, weight = design.mirrored(y)
        x = self._columns(whole)
        self.trees = HistGradientBoostingClassifier(
            max_iter=60,
            learning_rate=0.08,
            max_leaf_nodes=6,
            min_samples_leaf=10,
            l2_regularization=10.0,
            early_stopping=False,
            random_state=seed,
        )
        # A soft label is both answers, each with its weight.
        both = np.r_[np.ones(len(x)), np.zeros(len(x))]
        self.trees.fit(np.vstack([x, x]), both, np.r_[weight * target, weight * (1 - target)])

    def log_odds(self, design: Design) -> np.ndarray:
        """Log-odds that the label is right, shape [n]."""
        found = self.trees.decision_function(self._columns(design))
        bare = design.labelled == 0
        if bare.any():
            turned = Design(
                -design.compact,
                -design.votes,
                design.symmetric,
                design.labelled,
                design.slices,
                design.trusted,
            ).at(np.flatnonzero(bare))
            found[bare] = (found[bare] - self.trees.decision_function(self._columns(turned))) / 2
        return np.asarray(np.clip(found, -SURE, SURE))


def candidates(labels: int, slices: int) -> list[Model]:
    """Models to choose from, the simplest first; trees only with labels enough to fill leaves."""
    models: list[Model] = [Logistic(ridge, False) for ridge in (3.0, 30.0)]
    models += [Logistic(ridge, True) for ridge in (3.0, 10.0, 30.0, 100.0)]
    if slices > 1:
        models += [Logistic(ridge, True, slices) for ridge in (3.0, 10.0, 30.0)]
    if labels >= 150:
        models += [Isotonic(Logistic(30.0, False)), Boosting()]
    return models


@dataclass(frozen=True)
class Correction:
    """The last map of log-odds, an intercept and a slope, and each slice's departure from it."""

    common: np.ndarray
    """Intercept (of pairs that came with a label) and slope, shape [2]."""
    slices: dict[str, np.ndarray]
    """Departures of the slices that have labels, each of shape [2]."""

    def apply(self, log_odds: np.ndarray, labelled: np.ndarray, slices: np.ndarray) -> np.ndarray:
        """Corrected log-odds, shape [n]."""
        result = self.common[0] * labelled + self.common[1] * log_odds
        for name, (shift, tilt) in self.slices.items():
            rows = slices == name
            result[rows] += shift * labelled[rows] + tilt * log_odds[rows]
        return np.asarray(np.clip(result, -SURE, SURE))


def fit_correction(
    log_odds: np.ndarray, labelled: np.ndarray, y: np.ndarray, slices: np.ndarray
) -> Correction:
    """Fit the correction on out-of-fold log-odds (Platt 1999, with priors).

    A slice's departure has a Gaussian prior at 0 of deviation 0.5 (intercept) and 0.25 (slope): with
    few labels it stays with the others, with many it is calibrated apart (partial pooling).
    """
    names = sorted(set(slices.tolist()))
    x = np.c_[labelled, log_odds]
    own = [name for name in names if len(names) > 1]
    blocks = [x, *(x * (slices == name)[:, None] for name in own)]
    ridge = np.r_[[1.0, 10.0], np.tile([4.0, 16.0], len(own))]
    prior = np.r_[[0.0, 1.0], np.zeros(2 * len(own))]
    coef = fit_logistic(np.hstack(blocks), y, ridge, prior=prior)
    parts = coef.reshape(-1, 2)
    return Correction(parts[0], dict(zip(own, parts[1:], strict=True)))
