"""Which pairs people are asked about, and in what order.

A label is worth the error that it takes away: (L(p) - L_human) * weight, L(p) = min(p, 1 - p) the
chance that the pair's label would stay wrong, L_human that a person errs, the weight by how many
like pairs the label informs; less what the answer costs. What is worth less than nothing is not
asked. Of the best candidates those far from each other are taken.

Beside them an audit is drawn uniformly over all pairs, by a hash of the pair and the seed, before
anything else and whatever the probabilities say. Over the rounds the audit is always the pairs
whose hash is below one number, so all its labels together are a uniform sample: a pair that was
asked for its value and comes to lie below that number belongs to it from then on (`purposes`).

Everything follows from ids, probabilities, embeddings and the seed: the same plan routes the same
pairs, in whatever order they are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from pipelines.config import Config
from pipelines.routing_select import (
    REFERENCES,
    Floats,
    Indices,
    Vectors,
    density,
    spread,
    uniform,
    units,
)
from schemas.errors import SchemaError
from schemas.records import ReviewItem
from schemas.table import with_ids

NAME = "routing"
VERSION = 1

Mask = npt.NDArray[np.bool_]
Share = Annotated[float, Field(ge=0, le=1)]


class RoutingConfig(Config):
    """Settings of routing. The budget is that of one round: give `answers` or `money`."""

    answers: Annotated[int, Field(ge=1)] | None = None
    """Answers that people may give in a round; a pair that three answer takes three."""
    money: Annotated[float, Field(gt=0)] | None = None
    """Money that a round may cost, at `seconds` an answer and `hourly_rate`."""
    seconds: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that one answer takes."""
    hourly_rate: Annotated[float, Field(ge=0)] = 20.0
    """Money for an hour of a person's time."""
    error_cost: Annotated[float, Field(gt=0)] = 1.0
    """Money that one wrong label in the dataset costs: what taking it out is worth."""
    human_error: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Error rate of one person."""
    audit: Share = 0.1
    """Share of the budget that is drawn uniformly over all pairs, for calibration and bounds."""
    gold: Share = 0.0
    """Share of the budget for pairs whose answer is known, to measure the people."""
    overlap: Annotated[int, Field(ge=2)] = 3
    """How many people answer a pair that more than one answers."""
    overlap_share: Share = 0.0
    """Share of the pairs that several people answer."""
    candidates: Annotated[float, Field(ge=1)] = 2.0
    """Candidates per pair that is asked for its value; the most spread out of them are taken.
    1: the best are taken, spread or not."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.answers is None) == (self.money is None):
            raise ValueError("give the budget as `answers` or as `money`")
        if self.money is not None and self.hourly_rate == 0:
            raise ValueError("a budget in `money` needs an `hourly_rate` above 0")
        if self.audit + self.gold > 1:
            raise ValueError("`audit` and `gold` are more than the whole budget")
        return self

    @property
    def price(self) -> float:
        """Money for one answer."""
        return self.seconds / 3600 * self.hourly_rate

    @property
    def budget(self) -> int:
        """Answers that a round may take."""
        if self.answers is not None:
            return self.answers
        return math.floor((self.money or 0.0) / self.price + 1e-9)


def majority_error(error: float, people: int) -> float:
    """Chance that most of `people` independent answers are wrong; a tie is settled by a coin."""
    total = 0.0
    for wrong in range(people + 1):
        chance = math.comb(people, wrong) * error**wrong * (1 - error) ** (people - wrong)
        total += chance * (1.0 if 2 * wrong > people else 0.5 if 2 * wrong == people else 0.0)
    return total


def route(
    beliefs: pa.Table,
    decisions: pa.Table | None,
    config: RoutingConfig,
    *,
    seed: int,
    round: int = 0,
    asked: pa.Table | None = None,
    embeddings: npt.NDArray[np.float32] | None = None,
    gold: Sequence[str] = (),
) -> pa.Table:
    """Review queue of one round, by rank: `ReviewItem` rows.

    `beliefs`: `Belief` rows. `decisions`: pairs that are dropped are asked for no value; without
    it, none is. `asked`: the `ReviewItem` rows of all rounds before; their pairs are not asked
    again. `embeddings`: float32 [pairs, d], a row a belief; without it every weight is 1 and
    nothing is spread. `gold`: ids of pairs whose answer is known.

    The three purposes are mixed evenly over the ranks, each in its own order (value: the best
    first; audit, gold: by hash), so a queue that is left half done is half of each, and the
    answered part of the audit is a uniform sample still.

    Raises SchemaError when embeddings do not fit, or a pair stands in `beliefs` twice.
    """
    pool = _read(beliefs, decisions, embeddings, asked, config, seed)
    audit, propensity = _audit(pool, asked, config)
    names, chance = _gold(pool, audit, asked, gold, config, (seed, "gold", round))
    left = config.budget - int(pool.people[audit].sum()) - len(names)
    able = pool.open & ~pool.frame["pair_id"].is_in(list(gold)).to_numpy()
    able[audit] = False
    chosen, value, weight = _best(pool, able, left, config)
    items = [
        {
            "pair_id": pool.frame["pair_id"][int(i)],
            "purpose": purpose,
            "value": float(value[i]),
            "propensity": drawn,
            "overlap": int(pool.people[i]),
            "why": _why(purpose, float(pool.p[i]), float(weight[i])),
            "place": (place + 0.5) / len(which),
        }
        for which, purpose, drawn in ((chosen, "value", 1.0), (audit, "audit", propensity))
        for place, i in enumerate(which)
    ]
    items += [
        {
            "pair_id": name,
            "purpose": "gold",
            "value": -config.price,
            "propensity": chance,
            "overlap": 1,
            "why": "its answer is known: it measures who answers",
            "place": (place + 0.5) / len(names),
        }
        for place, name in enumerate(names)
    ]
    items.sort(key=lambda item: (item.pop("place"), item["purpose"], item["pair_id"]))
    rows = [
        {**item, "round": round, "rank": i, "seconds": config.seconds}
        for i, item in enumerate(items)
    ]
    schema = ReviewItem.arrow_schema().remove(0)
    return with_ids(ReviewItem, pa.Table.from_pylist(rows, schema=schema))


def purposes(asked: pa.Table, beliefs: pa.Table, *, seed: int) -> pa.Table:
    """Purpose and propensity of every pair asked over all rounds: pair_id, purpose, propensity.

    The audit is all asked pairs whose hash is no greater than that of its last one, so a pair asked
    earlier for its value is in it as soon as the audit reaches it; each was drawn with the audit's
    share of all pairs. `seed` is the one they were routed with.
    """
    frame = pl.DataFrame(pl.from_arrow(asked)).unique("pair_id", keep="first", maintain_order=True)
    ids = pl.DataFrame(pl.from_arrow(beliefs)).get_column("pair_id")
    draw = uniform(ids.to_list(), seed, "audit")
    cut = _cut(ids, draw, asked)
    inside = frame["pair_id"].is_in(ids.filter(pl.Series(draw <= cut)).to_list())
    frame = frame.select(
        "pair_id",
        purpose=pl.when(inside).then(pl.lit("audit")).otherwise("purpose"),
        propensity=pl.when(inside).then(_share(draw, cut)).otherwise("propensity"),
    )
    return frame.to_arrow()


def worth_another_round(queue: pa.Table) -> bool:
    """Whether the next batch is expected to gain more than it costs, all purposes together."""
    return math.fsum(queue["value"].to_pylist()) > 0


@dataclass(frozen=True)
class _Pool:
    """The pairs by id: pair_id, probability, [n] each below."""

    frame: pl.DataFrame
    p: Floats
    fresh: Mask
    """Not asked before."""
    open: Mask
    """May be asked for its value."""
    people: Indices
    """How many would answer it."""
    draw: Floats
    """Hash that the audit is drawn by."""
    vectors: Vectors | None

    @property
    def order(self) -> Indices:
        """Indices in the audit's order."""
        return np.argsort(self.draw, kind="stable")


def _read(
    beliefs: pa.Table,
    decisions: pa.Table | None,
    embeddings: npt.NDArray[np.float32] | None,
    asked: pa.Table | None,
    config: RoutingConfig,
    seed: int,
) -> _Pool:
    frame = pl.DataFrame(pl.from_arrow(beliefs)).select("pair_id", "probability", "humans")
    if embeddings is not None and (embeddings.ndim != 2 or len(embeddings) != len(frame)):
        raise SchemaError(
            f"routing: embeddings are {list(embeddings.shape)}, beliefs are {len(frame)} rows"
        )
    frame = frame.with_row_index("row").sort("pair_id")
    twice = frame.filter(pl.col("pair_id").is_duplicated())
    if len(twice):
        raise SchemaError(f"routing: pair {twice['pair_id'][0]} stands in beliefs twice")
    able = frame["humans"] == 0
    if decisions is not None:
        gone = pl.DataFrame(pl.from_arrow(decisions)).filter(pl.col("action") == "drop")
        able = able & ~frame["pair_id"].is_in(gone["pair_id"].to_list())
    before = [] if asked is None else asked["pair_id"].to_pylist()
    fresh = ~frame["pair_id"].is_in(before).to_numpy()
    ids = frame["pair_id"].to_list()
    crowd: np.ndarray = np.zeros(len(ids), bool)
    if config.overlap_share:
        crowd = uniform(ids, seed, "overlap") < config.overlap_share
    return _Pool(
        frame,
        frame["probability"].to_numpy(),
        fresh,
        fresh & able.to_numpy(),
        np.where(crowd, config.overlap, 1),
        uniform(ids, seed, "audit"),
        None if embeddings is None else units(embeddings[frame["row"].to_numpy()]),
    )


def _audit(pool: _Pool, asked: pa.Table | None, config: RoutingConfig) -> tuple[Indices, float]:
    """The pairs next in the audit's order that nobody was asked about, and the audit's share so far."""
    cut = _cut(pool.frame["pair_id"], pool.draw, asked)
    waiting = pool.order
    audit = _afford(
        waiting[pool.fresh[waiting]], pool.people, _nearest(config.audit * config.budget)
    )
    return audit, _share(pool.draw, max(cut, pool.draw[audit].max(initial=-1.0)))


def _gold(
    pool: _Pool,
    audit: Indices,
    asked: pa.Table | None,
    gold: Sequence[str],
    config: RoutingConfig,
    salt: tuple[object, ...],
) -> tuple[list[str], float]:
    """Known-answer pairs not asked yet, drawn by hash, and the chance of each to be drawn."""
    taken = set() if asked is None else set(asked["pair_id"].to_pylist())
    taken |= {pool.frame["pair_id"][int(i)] for i in audit}
    free = sorted(set(gold) - taken)
    drawn = np.argsort(uniform(free, *salt), kind="stable")
    drawn = drawn[: _nearest(config.gold * config.budget)]
    return [free[i] for i in drawn], len(drawn) / max(1, len(free))


def _best(
    pool: _Pool, able: Mask, answers: int, config: RoutingConfig
) -> tuple[Indices, Floats, Floats]:
    """Pairs to ask for their value, the best first; value and weight of every pair, [n]."""
    loss = np.where(
        pool.people > 1, majority_error(config.human_error, config.overlap), config.human_error
    )
    gain = (np.minimum(pool.p, 1 - pool.p) - loss) * config.error_cost
    cost = pool.people * config.price
    weight = np.ones(len(pool.p))
    if pool.vectors is not None:
        # A weight is 2 at most: what has no value then need not be looked at.
        rows = np.flatnonzero(able & (2 * gain > cost))
        weight[rows] = density(pool.vectors[rows], pool.vectors[pool.order[:REFERENCES]])
    value = gain * weight - cost
    rank = np.flatnonzero(able & (value >= 0) & (gain > 0))
    rank = rank[np.argsort(-(gain * weight / pool.people)[rank], kind="stable")]
    chosen = _afford(rank, pool.people, answers)
    if pool.vectors is not None and config.candidates > 1 and len(chosen):
        short = rank[: math.ceil(len(chosen) * config.candidates)]
        chosen = _afford(short[spread(pool.vectors[short], len(chosen))], pool.people, answers)
    return chosen, value, weight


def _nearest(number: float) -> int:
    """Nearest whole number, halves up."""
    return math.floor(number + 0.5 + 1e-9)


def _cut(ids: pl.Series, draw: Floats, asked: pa.Table | None) -> float:
    """Greatest hash of the audit so far; below 0 before the first."""
    if asked is None:
        return -1.0
    audited = pl.DataFrame(pl.from_arrow(asked)).filter(pl.col("purpose") == "audit")
    return float(draw[ids.is_in(audited["pair_id"].to_list()).to_numpy()].max(initial=-1.0))


def _share(draw: Floats, cut: float) -> float:
    return float((draw <= cut).mean()) if len(draw) else 0.0


def _afford(order: Indices, people: Indices, answers: int) -> Indices:
    """The first of `order` that need no more answers than these together."""
    return order[np.cumsum(people[order]) <= answers]


def _why(purpose: str, p: float, weight: float) -> str:
    if purpose == "audit":
        return "drawn uniformly, for calibration and bounds"
    said = f"its label is right with probability {p:.2f}"
    return said + ("; many pairs are like it" if weight > 1.1 else "")
