"""What votes tell without a human label: a latent truth behind them, and how often labels are wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PRIOR = 4.0
"""Votes' worth of the prior that a judge is right three times of four: few votes prove little."""
ROUNDS = 100
MODEL_ROWS = 50_000
"""Rows from which the two figures of `noisy_agreement` are estimated: more would not move them."""


class OneCoin(NamedTuple):
    """A fitted one-coin model."""

    accuracy: np.ndarray
    """Chance of each judge to be right, shape [judges]."""
    weight: np.ndarray
    """What a judge's side adds to the log-odds, its copies' share taken off, shape [judges]."""
    log_odds: np.ndarray
    """Log-odds that the positive side is right, shape [n]."""


def sides(votes: np.ndarray) -> np.ndarray:
    """Votes as -1, 0, 1; 0 where there is none. Any shape."""
    return np.asarray(np.sign(np.nan_to_num(votes)))


def redundancy(votes: np.ndarray) -> np.ndarray:
    """How many judges each judge is as good as a copy of, itself included: at least 1, [judges].

    The sum of its squared correlations with all judges (uncentred, votes' signs): m copies have m.
    Judges that are right agree, too, so what is expected of independent judges of that agreement is
    taken off: the part of the correlation that the first common factor explains.
    """
    taken = sides(votes)
    if not taken.shape[1]:
        return np.ones(0)
    norm = np.sqrt((taken**2).sum(axis=0))
    cosine = (taken.T @ taken) / np.maximum(np.outer(norm, norm), 1e-12)
    np.fill_diagonal(cosine, 1.0)
    values, vectors = np.linalg.eigh(cosine)
    loading = vectors[:, -1] * np.sqrt(max(values[-1] - 1.0, 0.0))
    loading = np.clip(loading, -0.99, 0.99)
    residual = (cosine - np.outer(loading, loading)) / np.sqrt(
        np.outer(1 - loading**2, 1 - loading**2)
    )
    np.fill_diagonal(residual, 1.0)
    return np.asarray((np.clip(residual, -1, 1) ** 2).sum(axis=0))


def one_coin(votes: np.ndarray, weights: np.ndarray | None = None) -> OneCoin:
    """Dawid and Skene's (1979) model with one accuracy a judge, by EM from the majority.

    Args:
        votes: Above 0: for the positive side; 0 or NaN: no side. Shape [n, judges].
        weights: How much of a judge's evidence counts, shape [judges]; none: 1 / `redundancy`, so
            that m copies of a judge count as one.

    A judge that is right less than half the time has a negative weight. The truth is known but for
    its sign: the majority is taken to be right more often than not.
    """
    taken = sides(votes)
    share = 1.0 / redundancy(taken) if weights is None else np.asarray(weights, dtype=np.float64)
    seen = np.abs(taken).sum(axis=0)
    mean = (taken * share).sum(axis=1) / np.maximum((np.abs(taken) * share).sum(axis=1), 1e-12)
    belief = mean
    accuracy = np.full(taken.shape[1], 0.75)
    for _ in range(ROUNDS):
        agree = (taken * belief[:, None]).sum(axis=0)
        fresh = ((seen + agree) / 2 + 0.75 * PRIOR) / (seen + PRIOR)
        log_odds = taken @ (share * np.log(fresh / (1 - fresh)))
        belief = np.tanh(log_odds / 2)
        if np.abs(fresh - accuracy).max(initial=0.0) < 1e-7:
            accuracy = fresh
            break
        accuracy = fresh
    weight = share * np.log(accuracy / (1 - accuracy))
    return OneCoin(accuracy, weight, taken @ weight)


def pooled_coins(
    units: np.ndarray, judges: np.ndarray, votes: np.ndarray, prior: float = 10.0
) -> tuple[np.ndarray, np.ndarray]:
    """The one-coin model for many judges of few votes each, as crowds are.

    Each judge's accuracy is pulled to the crowd's own as if by `prior` votes: full confusion matrices
    of workers with six votes each are noise.

    Args:
        units: What is voted on, integers from 0, shape [votes].
        judges: Who votes, integers from 0, shape [votes].
        votes: -1, 0 or 1; 0 takes no side. Shape [votes].
        prior: Votes' worth of the crowd's accuracy.

    Returns:
        Log-odds of the positive side, shape [units], and accuracies, shape [judges].
    """
    count, people = int(units.max(initial=-1)) + 1, int(judges.max(initial=-1)) + 1
    units, judges, taken = units[votes != 0], judges[votes != 0], np.sign(votes[votes != 0])
    total = np.maximum(np.bincount(units, minlength=count), 1)
    belief = np.bincount(units, taken, count) / total
    accuracy = np.full(people, 0.5)
    log_odds: np.ndarray = np.zeros(count)
    seen = np.bincount(judges, minlength=people).astype(np.float64)
    for _ in range(ROUNDS):
        right = (1 + taken * belief[units]) / 2
        common = np.clip(right.mean() if len(right) else 0.5, 0.01, 0.99)
        fresh = (np.bincount(judges, right, people) + prior * common) / (seen + prior)
        fresh = np.clip(fresh, 0.01, 0.99)
        weight = np.log(fresh / (1 - fresh))
        log_odds = np.bincount(units, taken * weight[judges], count)
        belief = np.tanh(log_odds / 2)
        moved = np.abs(fresh - accuracy).max(initial=0.0)
        accuracy = fresh
        if moved < 1e-6:
            break
    return log_odds, accuracy


def noisy_agreement(score: np.ndarray, error: float | None = None) -> tuple[float, float]:
    """How often given labels are wrong, and what a score is worth, from agreement alone.

    A label agrees with a score s (log-odds scale up to a factor, above 0: it sides with the label)
    with probability e + (1 - 2e) sigmoid(k s): the truth follows the score, and the label is the
    truth but for random flips at rate e. Maximum likelihood over a grid; every s is oriented to its
    label, and its mirror image would disagree.

    Args:
        score: Scores made without the label they are compared with, shape [n].
        error: e where it is known already; none: it is estimated. Scores of nearly one size, as
            near-certain ones are, cannot tell a small e from a small k.

    Returns:
        e in [0.002, 0.45] and k above 0. Where scores are useless e is not known: 0.25 then.
    """
    s = score[:: max(1, len(score) // MODEL_ROWS)]
    spread = float(np.sqrt((s**2).mean())) if len(s) else 0.0
    if spread < 1e-9:
        return 0.25 if error is None else error, 1.0
    best = (-np.inf, 0.25, 1.0)
    rates = np.concatenate([[0.002, 0.005, 0.01], np.arange(0.02, 0.46, 0.01)])
    for e in rates if error is None else [error]:
        for k in np.geomspace(0.2, 10.0, 40) / spread:
            p = e + (1 - 2 * e) / (1 + np.exp(-np.clip(k * s, -50, 50)))
            best = max(best, (float(np.log(p).sum()), float(e), float(k)))
    return best[1], best[2]
