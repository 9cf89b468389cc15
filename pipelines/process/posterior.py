"""The change-point model: where in a solution the first error is, given rollouts from its prefixes.

A prefix is sound until the first wrong step, tau1, and unsound from there on; after the last wrong
step, tau2 >= tau1, a solution that goes on without further mistakes ends in its own wrong answer W.
A rollout from position t therefore ends

    right, in W, or in another wrong answer, with probabilities that depend on the state:
    sound             g = E + (1 - E) r     W: (1 - g) a
    unsound           r                     W: (1 - r) a
    after the last    r                     W: (1 - r) (b E + (1 - b E) a)

with E = exp(-lam (1 - H[t])) the chance of no further mistake, lam the question's mistakes per
solution, H[t] the share of them that falls on the first t steps, r the chance of recovery, a the
chance of meeting W by accident and b that of ending in it where nothing else goes wrong. lam and
the recovery rate are latent in every solution, on grids with prior weights; counts at a position
are Dirichlet-multinomial with concentration kappa, so that a sound step may still raise or lower
the value. All positions' evidence is joined exactly: cumulative sums over (lam, recovery) x tau1 x
tau2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammaln

Array = NDArray[np.float64]

LAMBDAS: Array = np.array([0.05, 0.15, 0.35, 0.7, 1.2, 1.8, 2.5, 3.5])
RECOVERIES: Array = np.array([0.0, 0.02, 0.05, 0.1, 0.17, 0.3, 0.5])
BINS = 8
"""Bins of relative position in which the hazard's shape is fitted."""
RIGHT, SAME, OTHER = 0, 1, 2
TAIL_SHARES: Array = np.array([0.0, 0.5, 0.25, 0.75, 1.0])
"""Shares of what an interval leaves out that may lie below it; the first wins a tie. None comes
first: with more at 0 than would be left out below, an interval from 0 would hold that much too much.
"""
_TINY = 1e-300


@dataclass(frozen=True)
class Priors:
    """What is believed of a corpus; every field is fitted by `fit`."""

    lambdas: tuple[float, ...]
    """Weight of each value of LAMBDAS."""
    recoveries: tuple[float, ...]
    """Weight of each value of RECOVERIES."""
    shape: tuple[float, ...] = (1.0,) * BINS
    """Relative hazard by bin of relative position; mean 1."""
    repeat: float = 0.5
    """b."""
    chance_repeat: float = 0.05
    """a."""
    kappa: float = 20.0
    """Concentration of the value around its mean at a position."""
    spread: float = 0.0
    """0: recovery is as likely everywhere; 1: in proportion to what is left of the solution."""
    slip: float = 0.001
    """Chance that a sound solution's own final answer is still not right."""

    @classmethod
    def about(
        cls, solve_rate: float, recovery: float, repeat: float, chance_repeat: float
    ) -> Priors:
        """Wide priors around a solve rate and a recovery rate."""
        lam = np.exp(-0.5 * (np.log(LAMBDAS / -np.log(solve_rate)) / 1.0) ** 2)
        rec = np.exp(-np.abs(RECOVERIES - recovery) / 0.05)
        return cls(
            lambdas=weights(lam),
            recoveries=weights(rec),
            repeat=repeat,
            chance_repeat=chance_repeat,
        )


def weights(raw: Array) -> tuple[float, ...]:
    """Scaled to sum to 1."""
    return tuple(float(w) for w in raw / raw.sum())


@dataclass
class Evidence:
    """What is known of one solution of T steps.

    `counts[t]` are the rollouts after t steps that ended (right, in the solution's own wrong
    answer, in another wrong answer); t from 0 to T.
    """

    steps: int
    final_right: bool | None
    others_right: int = 0
    """Other responses to the same question that are right,"""
    others: int = 0
    """of this many with an answer."""
    counts: Array = field(default_factory=lambda: np.zeros((0, 3)))
    ahead: int = 0
    """Steps that a solution which was cut off would still have had."""

    def __post_init__(self) -> None:
        if not len(self.counts):
            self.counts = np.zeros((self.steps + 1, 3))


class Grid:
    """A prior's tables for solutions of T steps: axes g = (lam, recovery), positions 0..T."""

    def __init__(self, priors: Priors, steps: int, ahead: int = 0) -> None:
        self.priors, self.steps = priors, steps
        lam, rec = np.meshgrid(LAMBDAS, RECOVERIES, indexing="ij")
        self.lam, self.rec = lam.ravel()[:, None], rec.ravel()[:, None]
        weights = np.outer(priors.lambdas, priors.recoveries).ravel()
        self.log_weight = np.log(np.maximum(weights, _TINY))
        edges = np.linspace(0, 1, BINS + 1)
        mass = np.concatenate([[0.0], np.cumsum(priors.shape)]) / sum(priors.shape)
        at = np.arange(steps + 1) / (steps + ahead)
        self.mass: Array = np.interp(at, edges, mass)
        self.free = np.exp(-self.lam * (1 - self.mass))  # E
        left = 1 - at
        self.recover = self.rec * np.minimum(
            (1 - priors.spread) + priors.spread * 2 * left, 1 / np.maximum(self.rec, 1e-9)
        )
        # A mistake still to come recovers as an average one does.
        sound = self.free + (1 - self.free) * self.rec
        right = np.stack([sound, self.recover, self.recover])  # [state, g, t]
        a, b = priors.chance_repeat, priors.repeat
        none = np.zeros_like(sound)
        same = a + (1 - a) * np.stack([none, none, b * self.free])
        wrong = 1 - right
        self.outcomes: Array = np.stack(
            [right, wrong * same, wrong * (1 - same)]
        )  # [y, state, g, t]
        self.blind: Array = np.stack([right, 0 * wrong, wrong])
        self.prior = self._prior()

    def _prior(self) -> Array:
        """log P(tau1, tau2 | lam) as [g, tau1, tau2]; the last tau1 (index T) is no error.

        Index k stands for step k (0-based) wrong, that is, for positions k+1 and later unsound.
        """
        lam, steps = self.lam, self.steps
        alive = np.exp(-lam * self.mass)  # no mistake in the first t steps
        first = alive[:, :-1] - alive[:, 1:]  # [g, T]
        hazard = 1 - np.exp(-lam * np.diff(self.mass))  # [g, T]
        # No mistake in the rest of what is written; `free` is to where a rollout ends.
        none = np.exp(-lam * (self.mass[-1] - self.mass[1:]))
        last = hazard * none  # the last mistake at m, given one earlier
        joint = np.full((len(lam), steps + 1, steps), -np.inf)
        k, m = np.triu_indices(steps, 1)
        joint[:, k, m] = np.log(np.maximum(first[:, k] * last[:, m], _TINY))
        every = np.arange(steps)
        joint[:, every, every] = np.log(np.maximum(first * none, _TINY))
        joint[:, steps, 0] = np.log(np.maximum(alive[:, -1], _TINY))
        return joint


class Posterior:
    """P(first error, last error, lam, recovery | evidence) of one solution."""

    def __init__(self, grid: Grid, evidence: Evidence, answers: bool = True) -> None:
        self.grid, self.evidence = grid, evidence
        # Without a wrong answer of its own, a solution has none to meet again.
        self.answers = answers and evidence.final_right is False
        self.likelihood = np.zeros((3, *grid.free.shape))  # [state, g, t]
        for t in np.flatnonzero(evidence.counts.sum(1)):
            self.update(int(t))

    def forget(self) -> None:
        """Drop the large tables, some MiB for long solutions; they are made again when wanted."""
        self.__dict__.pop("joint", None)
        self.__dict__.pop("_base", None)

    @cached_property
    def _base(self) -> Array:
        """The joint prior's logarithm, with the responses and the final answer taken in."""
        grid, seen = self.grid, self.evidence
        base: Array = grid.prior + grid.log_weight[:, None, None]
        p = np.clip(grid.outcomes[RIGHT, 0, :, 0], 1e-9, 1 - 1e-9)
        others = seen.others_right * np.log(p) + (seen.others - seen.others_right) * np.log1p(-p)
        base = base + others[:, None, None]
        if seen.final_right is not None:
            slip = grid.priors.slip
            # At its very end a solution that went wrong is right only where it has recovered.
            recovered = np.clip(grid.rec[:, 0], 1e-6, 1 - 1e-6)
            wrong, fine = (recovered, 1 - slip) if seen.final_right else (1 - recovered, slip)
            base = base.copy()
            base[:, :-1] += np.log(wrong)[:, None, None]
            base[:, -1] += np.log(fine)
        return base

    def update(self, t: int) -> None:
        """Take in the counts at position t."""
        p = self.outcomes[:, :, :, t]
        counts = self._counts()[t]
        kappa = self.grid.priors.kappa
        total = np.zeros(p.shape[1:])
        for y in np.flatnonzero(counts):
            alpha = np.maximum(kappa * p[y], 1e-12)
            total += gammaln(alpha + counts[y]) - gammaln(alpha)
        n = counts.sum()
        self.likelihood[:, :, t] = total - (gammaln(kappa + n) - gammaln(kappa))
        self.__dict__.pop("joint", None)

    def _counts(self) -> Array:
        """The counts as the outcomes are told apart: [T + 1, y]."""
        counts = self.evidence.counts
        if self.answers:
            return counts
        wrong = counts[:, SAME] + counts[:, OTHER]
        return np.stack([counts[:, RIGHT], np.zeros_like(wrong), wrong], axis=1)

    @property
    def outcomes(self) -> Array:
        """P(outcome | state, g, position) as [y, state, g, t]."""
        return self.grid.outcomes if self.answers else self.grid.blind

    @cached_property
    def joint(self) -> Array:
        """P(g, tau1, tau2) as [g, T + 1, T]; tau1 = T is no error (tau2 = 0 there)."""
        ll, steps = self.likelihood, self.grid.steps
        c0, c1, c2 = np.cumsum(ll, axis=2)  # inclusive over positions 0..t, each [g, T + 1]
        log = self._base.copy()
        # tau1 = k: positions 0..k are sound, k+1..m unsound, m+1..T after the last mistake m.
        log[:, :steps] += (c0[:, :steps] - c1[:, :steps])[:, :, None]
        log[:, :steps] += (c1[:, :steps] - c2[:, :steps])[:, None, :]
        log[:, :steps] += c2[:, -1][:, None, None]
        log[:, steps, 0] += c0[:, -1]
        peak = log.max()
        out: Array = np.exp(log - peak)
        self.log_evidence = float(peak + np.log(out.sum()))
        out /= out.sum()
        return out

    @property
    def first(self) -> Array:
        """P(first error = step k), k from 0 to T-1; at T: no error."""
        return np.asarray(self.joint.sum(axis=(0, 2)))

    def states(self) -> Array:
        """P(g, state at position t) as [state, g, t]."""
        joint, steps = self.joint, self.grid.steps
        by_first = joint.sum(axis=2)  # [g, T + 1]
        sound = np.cumsum(by_first[:, ::-1], axis=1)[:, ::-1]  # tau1 >= t
        by_last = joint[:, :steps].sum(axis=1)  # [g, T]
        after = np.concatenate([np.zeros((len(by_last), 1)), np.cumsum(by_last, axis=1)], axis=1)
        between = by_first.sum(axis=1, keepdims=True) - sound - after
        return np.stack([sound, np.maximum(between, 0), after])

    def information(self) -> Array:
        """What one more rollout would tell, by position 0..T: the sum over the steps of its mutual
        information (nats) with whether the step is sound.

        Summed over steps, since an error that may be far off spoils more labels than one that may
        be next door.
        """
        steps, counts = self.grid.steps, self._counts()
        kappa = self.grid.priors.kappa
        weight = self.joint.sum(axis=(1, 2))
        # What is this improbable cannot change which position informs most.
        kept = np.flatnonzero(weight > 1e-3 * weight.max())
        joint = self.joint[kept] / weight[kept].sum()
        p = self.outcomes[:, :, kept]  # [y, state, g, t]
        p = (kappa * p + counts.T[:, None, None, :]) / (kappa + counts.sum(1))
        by_first = joint.sum(axis=2)  # [g, k]
        # after[g, k, t]: tau1 = k and the last mistake before position t
        after = np.zeros((*by_first.shape, steps + 1))
        after[:, :steps, 1:] = np.cumsum(joint[:, :steps], axis=2)
        between = by_first[:, :, None] - after
        position = np.arange(steps + 1)
        unsound = position[:, None] < position[None, :]  # [k, t]
        sound_part = np.einsum("gk,ygt->ykt", by_first, p[:, 0], optimize=True)
        wrong_part = np.matmul(between.transpose(2, 1, 0), p[:, 1].transpose(2, 1, 0))
        wrong_part += np.matmul(after.transpose(2, 1, 0), p[:, 2].transpose(2, 1, 0))  # [t, k, y]
        both = np.where(unsound, wrong_part.transpose(2, 1, 0), sound_part)  # [y, k, t]
        both = np.maximum(both, _TINY)
        total = both.sum(1, keepdims=True)  # [y, 1, t]
        wrong = np.cumsum(both[:, :-1], axis=1)  # [y, step, t]: the step is unsound
        found = np.zeros(steps + 1)
        for part in (wrong, np.maximum(total - wrong, _TINY)):
            share = part.sum(0, keepdims=True)
            found += (part * (np.log(part) - np.log(total) - np.log(share))).sum(axis=(0, 1))
        return found

    def value(self, t: int, coverage: float = 0.9) -> tuple[float, float, float]:
        """Mean of the value at position t and the shortest interval of its posterior.

        Shortest, to 1/512, over five ways to share what is left out between both ends: where much of
        the mass is at 0 exactly, nothing is left out below, and an equal-tailed interval would cover
        too much. The ends are right to 2^-24, less than the six decimals that are published.
        It holds `coverage` of the posterior (ways less probable than 1e-4 are left out), and more
        only where 0 alone does, or where it has to be widened to hold the mean.
        """
        weight: Array = self.states()[:, :, t].ravel()
        right: Array = self.outcomes[RIGHT, :, :, t].ravel()
        kappa, counts = self.grid.priors.kappa, self.evidence.counts[t]
        successes, n = counts[RIGHT], counts.sum()
        mean = float((weight * (kappa * right + successes) / (kappa + n)).sum())
        # An unsound prefix recovers alike whatever lam: few of the many ways differ here.
        right, which = np.unique(right, return_inverse=True)
        weight = np.asarray(np.bincount(which, weight), dtype=np.float64)
        keep = weight > 1e-4
        weight, right = weight[keep] / weight[keep].sum(), right[keep]
        a, b = kappa * right + successes, kappa * (1 - right) + n - successes
        atom = a < 1e-9
        a, b = np.maximum(a, 1e-9), np.maximum(b, 1e-9)

        def narrowed(ends: Array, masses: Array, halvings: int) -> Array:
            """Closer brackets, [under or over, ...], of the quantiles of some masses."""
            under, over = ends
            for _ in range(halvings):
                middle = (under + over) / 2
                below = np.where(atom, 1.0, betainc(a, b, middle[..., None])) @ weight
                reached = below >= masses
                under, over = np.where(reached, under, middle), np.where(reached, middle, over)
            return np.stack([under, over])

        masses = (1 - coverage) * TAIL_SHARES + np.array([[0.0], [coverage]])  # [end, share]
        ends = narrowed(np.stack([np.zeros(masses.shape), np.ones(masses.shape)]), masses, 9)
        best = int(np.argmin(ends[1, 1] - ends[0, 0]))
        # Closer for the shortest alone, since each halving costs. Where the posterior crowds at 0,
        # an end that is off by 1/512 may leave out most of it.
        (low, _), (_, high) = narrowed(ends[:, :, best], masses[:, best], 15)
        return mean, min(float(low), mean), max(float(high), mean)
