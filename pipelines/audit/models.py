"""Small reward models that noise does not fool: logistic on differences, under random flips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.consistency.calibration_models import sigmoid

Matrix = Any
"""A dense array or a sparse matrix, shape [n, k]: chosen's features less rejected's."""


def fit(
    x: Matrix,
    weight: np.ndarray,
    error: float,
    ridge: float,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Coefficients that make the labels likeliest if a share `error` of them was flipped.

    Minimises -sum w log(e + (1 - 2e) sigmoid(x c)) + ridge |c|^2 / 2: a label that the model is sure is
    wrong pulls no more (symmetric label noise; Natarajan et al. 2013, Patrini et al. 2017). There is no
    intercept: a pair turned round has the opposite log-odds.
    """
    from scipy.optimize import minimize

    def cost(c: np.ndarray) -> tuple[float, np.ndarray]:
        p = sigmoid(x @ c)
        agree = error + (1 - 2 * error) * p
        pull = weight * (1 - 2 * error) * p * (1 - p) / np.maximum(agree, 1e-12)
        value = -(weight @ np.log(np.maximum(agree, 1e-12))) + ridge * (c @ c) / 2
        return float(value), np.asarray(ridge * c - x.T @ pull)

    first = np.zeros(x.shape[1]) if start is None else start
    if not x.shape[0] or not x.shape[1]:
        return first
    found = minimize(cost, first, jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return np.asarray(found.x)


def cross_fit(
    x: Matrix,
    weight: np.ndarray,
    fold: np.ndarray,
    used: np.ndarray,
    error: float,
    ridge: float,
    starts: list[np.ndarray] | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scores of pairs by models that saw no pair of their fold, shape [n], and the models.

    `used` says which pairs may be fitted to.
    """
    score = np.zeros(x.shape[0])
    models = []
    for k in range(int(fold.max()) + 1):
        inside = np.flatnonzero(fold == k)
        rest = np.flatnonzero((fold != k) & used & (weight > 0))
        start = starts[k] if starts else None
        # In double precision once, not anew in every step of the fit.
        found = fit(x[rest].astype(np.float64), weight[rest], error, ridge, start)
        score[inside] = x[inside] @ found
        models.append(found)
    return score, models


def choose(
    x: Matrix,
    weight: np.ndarray,
    fold: np.ndarray,
    used: np.ndarray,
    ridges: Sequence[float],
    advance: Callable[[int], None],
) -> tuple[float, np.ndarray, list[np.ndarray]]:
    """The ridge whose cross-fitted scores predict the labels best, those scores and their models."""
    best: tuple[float, float, np.ndarray, list[np.ndarray]] | None = None
    for ridge in ridges:
        score, models = cross_fit(x, weight, fold, used, 0.0, ridge)
        loss = float(weight @ np.logaddexp(0.0, -score))
        if best is None or loss < best[0]:
            best = (loss, ridge, score, models)
        advance(1)
    assert best is not None
    return best[1:]
