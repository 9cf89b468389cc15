"""How far people agree: Krippendorff's alpha by level of measurement, with bootstrap intervals.

Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): 1 - observed disagreement /
disagreement expected by chance, over units that at least two people answered; any number of people,
any answers missing. Below .667 conclusions are usually not drawn. A low alpha may be real
disagreement on hard pairs: labels are softened by it, never dropped for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schemas.errors import SchemaError

Level = Literal["nominal", "ordinal", "interval"]
Floats = npt.NDArray[np.float64]

RELIABLE = 0.8
TENTATIVE = 0.667
MOST_VALUES = 21
"""Different values that are told apart at most; of a finer scale the nearest of so many, evenly
spread, are taken: memory goes with their square."""
REPLICATES = 1000
_BLOCK = 50
"""Replicates at a time: bounds memory to this many weights of every unit."""


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha of the units that at least two people answered."""

    level: Level
    alpha: float | None
    """None: nothing can be told (no such unit, or one value throughout)."""
    low: float | None
    """Lower end of the 95% interval: percentiles over units drawn again with replacement."""
    high: float | None
    """Upper end of it."""
    units: int
    """Units that at least two people answered."""
    votes: int
    """Their votes."""
    people: int
    """People who gave them."""

    @property
    def meaning(self) -> str:
        """What alpha means, in words, by the limits of Krippendorff (2004): .8 and .667."""
        if not self.units:
            return "not known: nothing was answered by two people"
        if self.alpha is None:
            return "not known: there is one answer throughout, and nothing to tell apart by chance"
        if self.alpha >= RELIABLE:
            return "reliable"
        if self.alpha >= TENTATIVE:
            return "fit for tentative conclusions"
        if self.alpha > 0 and self.low is not None and self.low <= 0:
            return "cannot be told from chance by so few answers"
        if self.alpha > 0:
            return "better than chance, but too low to draw conclusions from single labels"
        return "no better than chance"


def krippendorff(
    votes: pa.Table, level: Level, *, seed: int = 0, replicates: int = REPLICATES
) -> Agreement:
    """Alpha of `votes`: columns unit, judge and value (a number; null: no answer).

    Values of the same unit and judge are an error: give each person's last. Raises SchemaError.
    """
    frame = pl.DataFrame(pl.from_arrow(votes)).select("unit", "judge", "value").drop_nulls("value")
    twice = frame.filter(pl.struct("unit", "judge").is_duplicated())
    if len(twice):
        raise SchemaError(f"{twice['judge'][0]} stands twice on {twice['unit'][0]}")
    frame = frame.filter(pl.len().over("unit") > 1).sort("unit", "judge")
    given = _coarse(frame["value"].to_numpy().astype(np.float64))
    values = np.unique(given)
    codes = np.searchsorted(values, given)
    units = frame["unit"].rle_id().to_numpy().astype(np.int64)
    size = int(units[-1]) + 1 if len(units) else 0
    counts = np.zeros((size, len(values)))
    np.add.at(counts, (units, codes), 1.0)
    alpha = low = high = None
    if size:
        # Units that were answered alike weigh alike: only how many there are of each matters.
        kinds, times = np.unique(counts, axis=0, return_counts=True)
        met = _coincidences(kinds)
        weighted = np.asarray(np.tensordot(times, met, axes=1), np.float64)
        alpha = _alphas(weighted[None], values, level)[0]
        if np.isfinite(alpha):
            low, high = _interval(met, times, values, level, seed, replicates)
    return Agreement(
        level,
        float(alpha) if alpha is not None and np.isfinite(alpha) else None,
        low,
        high,
        size,
        len(frame),
        frame["judge"].n_unique(),
    )


def _coarse(given: Floats) -> Floats:
    """The values themselves, or, where they are too many, the nearest of a grid over their range."""
    if len(np.unique(given)) <= MOST_VALUES:
        return given
    low, high = given.min(), given.max()
    step = (high - low) / (MOST_VALUES - 1)
    return np.asarray(low + np.rint((given - low) / step) * step)


def _coincidences(counts: Floats) -> Floats:
    """Values that meet in each unit, [units, values, values], from the counts [units, values]."""
    people = counts.sum(axis=1)[:, None, None]
    met = counts[:, :, None] * counts[:, None, :]
    index = np.arange(counts.shape[1])
    met[:, index, index] -= counts
    return np.asarray(met / (people - 1))


def _alphas(met: Floats, values: Floats, level: Level) -> Floats:
    """Alpha of each of [n] matrices of coincidences [n, values, values]; NaN: undefined."""
    totals = met.sum(axis=2)
    distance = _distances(totals, values, level)
    n = totals.sum(axis=1)
    chance = (totals[:, :, None] * totals[:, None, :] * distance).sum(axis=(1, 2))
    seen = (met * distance).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1 - (n - 1) * seen / chance)


def _distances(totals: Floats, values: Floats, level: Level) -> Floats:
    """Squared differences [n or 1, values, values]; ordinal ones depend on how often values occur."""
    if level == "nominal":
        return (1 - np.eye(len(values)))[None]
    if level == "interval":
        return np.asarray((values[:, None] - values[None, :]) ** 2)[None]
    # Of the ranks between c and k, ends halved: the sum from c to k less half of either end.
    upto = np.cumsum(totals, axis=1) - totals / 2
    return np.asarray((upto[:, :, None] - upto[:, None, :]) ** 2)


def _interval(
    met: Floats,
    times: npt.NDArray[np.int64],
    values: Floats,
    level: Level,
    seed: int,
    replicates: int,
) -> tuple[float | None, float | None]:
    units, met = int(times.sum()), met.reshape(len(met), -1)
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, replicates, _BLOCK):
        block = min(_BLOCK, replicates - start)
        drawn = rng.multinomial(units, times / units, size=block)
        whole = (drawn @ met).reshape(block, len(values), len(values))
        found.append(_alphas(whole, values, level))
    alphas = np.concatenate(found) if found else np.empty(0)
    alphas = alphas[np.isfinite(alphas)]
    if not len(alphas):
        return None, None
    low, high = np.quantile(alphas, [0.025, 0.975])
    return float(low), float(high)
