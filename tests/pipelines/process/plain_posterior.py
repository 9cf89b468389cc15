"""The change-point posterior as sums that are written out term by term."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipelines.process.posterior import (
    BINS,
    LAMBDAS,
    RECOVERIES,
    Array,
    Evidence,
    Priors,
)

WIDE = Priors.about(0.5, 0.05, 0.5, 0.05)
ODD = replace(
    Priors.about(0.2, 0.3, 0.7, 0.1),
    shape=(0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 1.8, 1.9),
    kappa=6.0,
    spread=1.0,
)


class Way(NamedTuple):
    """One way that things may be, and how probable it is together with the evidence."""

    lam: float
    recovery: float
    first: int
    """The first wrong step; T: none."""
    last: int
    """The last wrong step; -1: none."""
    weight: float


def share(priors: Priors, steps: int, t: int) -> float:
    """H[t], the share of the mistakes that falls on the first t steps."""
    whole, part = divmod(BINS * t / steps, 1)
    shape = priors.shape
    done = sum(shape[: int(whole)])
    return (done + (shape[int(whole)] * part if part else 0.0)) / sum(shape)


def prior_of(priors: Priors, steps: int, lam: float, first: int, last: int) -> float:
    """P(tau1, tau2 | lam): mistakes at steps come one independent of the other."""

    def mistake(step: int) -> float:
        between = share(priors, steps, step + 1) - share(priors, steps, step)
        return 1 - math.exp(-lam * between)

    if first == steps:
        return math.exp(-lam)
    p = math.exp(-lam * share(priors, steps, first)) * mistake(first)
    if last > first:
        p *= mistake(last)
    return p * math.exp(-lam * (1 - share(priors, steps, last + 1)))


def outcome(
    priors: Priors, steps: int, lam: float, recovery: float, state: str, t: int, answers: bool
) -> tuple[float, float, float]:
    """P(right), P(own wrong answer), P(another) of a rollout from position t."""
    e = math.exp(-lam * (1 - share(priors, steps, t)))
    a, b = priors.chance_repeat, priors.repeat
    if state == "sound":
        right = e + (1 - e) * recovery
    else:
        right = min(1.0, recovery * (1 - priors.spread + priors.spread * 2 * (1 - t / steps)))
    same = b * e + (1 - b * e) * a if state == "after" else a
    if not answers:
        return right, 0.0, 1 - right
    return right, (1 - right) * same, (1 - right) * (1 - same)


def state_at(first: int, last: int, t: int) -> str:
    """Positions 0..first are sound, those after the last mistake `after`."""
    return "sound" if t <= first else "after" if t > last else "between"


def worlds(priors: Priors, seen: Evidence, answers: bool) -> Iterator[Way]:
    """All that may be, with P(it, evidence)."""
    steps = seen.steps
    answers = answers and seen.final_right is False
    kappa = priors.kappa
    ways = [(k, m) for k in range(steps) for m in range(k, steps)] + [(steps, -1)]
    for lam, w_lam in zip(LAMBDAS, priors.lambdas, strict=True):
        for recovery, w_rec in zip(RECOVERIES, priors.recoveries, strict=True):
            for first, last in ways:
                p = w_lam * w_rec * prior_of(priors, steps, lam, first, last)
                root = outcome(priors, steps, lam, recovery, "sound", 0, answers)[0]
                p *= root**seen.others_right * (1 - root) ** (seen.others - seen.others_right)
                if seen.final_right is not None:
                    right = 1 - priors.slip if first == steps else max(recovery, 1e-6)
                    p *= right if seen.final_right else 1 - right
                for t in range(steps + 1):
                    chances = outcome(
                        priors, steps, lam, recovery, state_at(first, last, t), t, answers
                    )
                    p *= sequence(kappa, chances, merged(seen.counts[t], answers))
                yield Way(float(lam), float(recovery), first, last, float(p))


def merged(counts: Array, answers: bool) -> tuple[int, int, int]:
    """Where answers tell nothing, a wrong rollout is a wrong rollout."""
    right, same, other = (int(c) for c in counts)
    return (right, same, other) if answers else (right, 0, same + other)


def sequence(kappa: float, chances: tuple[float, ...], counts: tuple[int, ...]) -> float:
    """Polya's urn: the chance of these draws in one given order."""
    p, drawn = 1.0, 0
    for chance, count in zip(chances, counts, strict=True):
        for i in range(count):
            p *= max(kappa * chance, 1e-12 if not i else 0.0) + i
            p /= kappa + drawn
            drawn += 1
    return p


def information(priors: Priors, seen: Evidence, answers: bool) -> list[float]:
    """By position, the sum over steps of the mutual information of `is sound` and the next rollout."""
    every = list(worlds(priors, seen, answers))
    total = sum(w.weight for w in every)
    answers = answers and seen.final_right is False
    found = []
    for t in range(seen.steps + 1):
        counts = merged(seen.counts[t], answers)
        nats = 0.0
        for step in range(seen.steps):
            table = np.zeros((2, 3))
            for w in every:
                chances = outcome(
                    priors,
                    seen.steps,
                    w.lam,
                    w.recovery,
                    state_at(w.first, w.last, t),
                    t,
                    answers,
                )
                for y in range(3):
                    drawn = (priors.kappa * chances[y] + counts[y]) / (priors.kappa + sum(counts))
                    table[int(w.first > step), y] += w.weight / total * drawn
            for is_sound in (0, 1):
                for y in range(3):
                    p = table[is_sound, y]
                    if p > 0:
                        nats += p * math.log(p / (table[is_sound].sum() * table[:, y].sum()))
        found.append(nats)
    return found


def counts(*rows: tuple[int, int, int]) -> Array:
    return np.array(rows, dtype=float)
