"""Fit the change-point model's priors to a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipelines.process.posterior import (
    BINS,
    LAMBDAS,
    RECOVERIES,
    SAME,
    Array,
    Evidence,
    Grid,
    Posterior,
    Priors,
    weights,
)

KAPPAS = (6.0, 20.0, 60.0, 200.0)
SPREADS = (0.0, 0.5, 1.0)
ROUNDS = 30
"""Most rounds of EM."""
MOST_FITTED = 256
"""Most solutions that priors are fitted to."""


def fit(evidences: Sequence[Evidence], priors: Priors, answers: bool = True) -> Priors:
    """Fit priors to a corpus: EM for weights, hazard shape and rates, a line search for the rest.

    EM ends where a round gains less than 0.002 nats a solution. Of a large corpus evenly
    spaced solutions stand for the rest.
    """
    spaced = np.linspace(0, len(evidences), min(len(evidences), MOST_FITTED), endpoint=False)
    chosen = [evidences[int(i)] for i in spaced]

    def score(tried: Priors) -> float:
        return _log_evidence(chosen, tried, answers)

    before = -np.inf
    for _ in range(ROUNDS):
        found = score(priors)
        if found - before < 0.002 * len(chosen):
            break
        before, priors = found, _maximise(chosen, priors, answers)
    priors = max((replace(priors, kappa=kappa) for kappa in KAPPAS), key=score)
    priors = max((replace(priors, spread=spread) for spread in SPREADS), key=score)
    return _maximise(chosen, priors, answers)


def _log_evidence(evidences: Sequence[Evidence], priors: Priors, answers: bool) -> float:
    grids: dict[tuple[int, int], Grid] = {}
    total = 0.0
    for seen in evidences:
        found = Posterior(_grid(grids, priors, seen), seen, answers)
        _ = found.joint
        total += found.log_evidence
    return total


def _grid(grids: dict[tuple[int, int], Grid], priors: Priors, seen: Evidence) -> Grid:
    key = (seen.steps, seen.ahead)
    if key not in grids:
        grids[key] = Grid(priors, *key)
    return grids[key]


def _covered(steps: int) -> Array:
    """Share of the whole solution that each step has in each bin, [T, BINS]."""
    low, high = np.arange(steps)[:, None] / steps, np.arange(1, steps + 1)[:, None] / steps
    edges = np.linspace(0, 1, BINS + 1)
    return np.asarray(np.maximum(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0))


def _maximise(evidences: Sequence[Evidence], priors: Priors, answers: bool) -> Priors:
    """One round of EM, smoothed by a few pseudo-solutions that follow the priors as they are."""
    grids: dict[tuple[int, int], Grid] = {}
    strength = 4.0
    lam = strength * np.array(priors.lambdas)
    rec = strength * np.array(priors.recoveries)
    mistakes, exposure = np.full(BINS, strength / BINS), np.full(BINS, strength / BINS)
    # Wrong rollouts that met the own answer, and that could have: by accident, after the last mistake.
    met = strength * np.array([priors.chance_repeat, priors.repeat])
    could = np.full(2, strength)
    for seen in evidences:
        grid = _grid(grids, priors, seen)
        found = Posterior(grid, seen, answers)
        joint = found.joint
        g = joint.sum(axis=(1, 2)).reshape(len(LAMBDAS), len(RECOVERIES))
        lam += g.sum(1)
        rec += g.sum(0)
        first = found.first
        rate = float((joint.sum(axis=(1, 2)) * grid.lam[:, 0]).sum())
        alive = np.concatenate([[1.0], 1 - np.cumsum(first[:-1])[:-1]])
        covered = _covered(seen.steps + seen.ahead)[: seen.steps]
        likely = covered * np.array(priors.shape)
        mistakes += first[:-1] @ (likely / likely.sum(1, keepdims=True))
        exposure += (alive * rate) @ covered
        if not found.answers:
            continue
        states = found.states()
        for t in np.flatnonzero(seen.counts.sum(1)):
            weight, counts = states[:, :, t], seen.counts[t]
            free = grid.free[:, t]
            wrongs = counts[1:].sum()
            sound, between, after = weight.sum(axis=1)
            own = priors.repeat * free
            meant = own / (own + (1 - own) * priors.chance_repeat)
            meant_after = float((weight[2] * meant).sum())
            met += [
                (sound + between + after - meant_after) * counts[SAME],
                meant_after * counts[SAME],
            ]
            by_chance = sound + between + float((weight[2] * (1 - own)).sum())
            could += [by_chance * wrongs, float((weight[2] * free).sum()) * wrongs]
    shape = mistakes / exposure
    return replace(
        priors,
        lambdas=weights(lam),
        recoveries=weights(rec),
        shape=tuple(float(s) for s in shape / shape.mean()),
        chance_repeat=float(np.clip(met[0] / could[0], 0.002, 0.9)),
        repeat=float(np.clip(met[1] / could[1], 0.02, 0.98)),
    )
