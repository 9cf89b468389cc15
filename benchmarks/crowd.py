"""Real annotators: 84,445 votes of 3,815 people on 16,927 pairs of arguments (UKPConvArg).

`accuracy_*` is the share of pairs with a gold side whose aggregated side is that one; a label of
nought counts half. The source estimated its gold from these same votes with MACE, which favours that
model; so `held_out_*` is measured as well: of each pair one vote is kept back, and the share of those
votes that took the side that the others' aggregate is on is counted (pairs where it takes none: half). `stated_error_*` is the mean error that
the labels of pairs with a gold side state.

The replay asks for one vote at a time: `random` in random order over all votes; `active` first one
vote a pair, then always the pairs that are likeliest to be on the wrong side, by what the model makes
of all votes so far. Both are aggregated alike after every batch. `labels_to_full_*` is the share of
all votes after which the accuracy of the full set is reached; `labels_to_near_*` the same less one
point.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from annotation.aggregate import AggregateConfig, aggregate, posteriors
from annotation.cost import cost
from annotation.quality import QualityConfig, quality
from benchmarks import harness

DATA = harness.REPO.parent / "shared" / "data"
METHODS = {
    "majority": ("majority", 1),
    "one_coin_pooled_20": ("one_coin", 20),
    "dawid_skene": ("dawid_skene", 1),
    "dawid_skene_pooled_10": ("dawid_skene", 10),
    "dawid_skene_pooled_50": ("dawid_skene", 50),
    "mace": ("mace", 1),
    "mace_pooled_10": ("mace", 10),
    "bradley_terry": ("bradley_terry", 1),
}
REPLAYED = AggregateConfig(method="dawid_skene", pool_below=10, iterations=30)
BATCH = 0.05
"""Share of all votes in a batch of the replay."""


def load(topics: int | None, place: Path = DATA) -> tuple[pl.DataFrame, pa.Table, dict[str, float]]:
    """Votes, pairs, and the gold of those that have a side or are equal."""
    pairs = pl.read_parquet(place / "ukp_convarg_pairs.parquet")
    votes = pl.read_parquet(place / "ukp_convarg_votes.parquet")
    names = pairs["topic"].unique().sort()[:topics] if topics else pairs["topic"].unique()
    pairs, votes = (t.filter(pl.col("topic").is_in(names.to_list())) for t in (pairs, votes))
    unit = pl.col("topic") + "/" + pl.col("pair_id")
    when = [
        pl.col(c).str.to_datetime("%Y-%m-%d %H:%M:%S%.f UTC") for c in ("accepted", "submitted")
    ]
    # One assignment holds several votes: each took its share of the time.
    together = pl.len().over("worker", "accepted", "submitted")
    votes = votes.select(
        unit=unit,
        unit_kind=pl.lit("pair"),
        judge="worker",
        judge_kind=pl.lit("human"),
        order=pl.lit("ab"),
        value=pl.col("value").replace_strict({"a1": 1.0, "a2": -1.0, "equal": 0.0}),
        seconds=(when[1] - when[0]).dt.total_seconds() / together,
        cost=pl.lit(None, pl.Float64),
    ).unique(["unit", "judge"], keep="last", maintain_order=True)
    sides = pl.col("pair_id").str.split("_").list
    table = pairs.select(
        id=unit,
        response_a=pl.col("topic") + "/" + sides.get(0),
        response_b=pl.col("topic") + "/" + sides.get(1),
    )
    truth = pairs.select(unit, "gold").filter(pl.col("gold").is_in(["a1", "a2", "equal"]))
    gold = {u: {"a1": 1.0, "a2": -1.0, "equal": 0.0}[g] for u, g in truth.iter_rows()}
    return votes, table.to_arrow(), gold


def accuracy(labels: pa.Table, gold: dict[str, float]) -> float:
    """Share right of the pairs with a gold side; those without a label, or one of nought, half."""
    said = dict(zip(labels["pair_id"].to_pylist(), labels["value"].to_pylist(), strict=True))
    truth = {unit: side for unit, side in gold.items() if side}
    score = [0.5 * (1 + np.sign(said.get(unit, 0.0)) * side) for unit, side in truth.items()]
    return float(np.mean(score))


def held_out(votes: pl.DataFrame, pairs: pa.Table, config: AggregateConfig, seed: int) -> float:
    """Share of the votes kept back that agree with the aggregate of the others."""
    kept = votes.with_columns(draw=np.random.default_rng(seed).random(len(votes)))
    out = pl.col("draw") == pl.col("draw").min().over("unit")
    tested = kept.filter(out & (pl.col("value") != 0))
    labels = aggregate(kept.filter(~out).drop("draw").to_arrow(), config, pairs=pairs)
    return accuracy(labels, dict(tested.select("unit", "value").iter_rows()))


def replay(
    votes: pl.DataFrame, gold: dict[str, float], seed: int, active: bool, full: float
) -> list[tuple[float, float]]:
    """(share of the votes asked for, accuracy) after every batch, until the full set's is reached."""
    drawn = votes.with_columns(draw=np.random.default_rng(seed).random(len(votes))).sort("draw")
    drawn = drawn.with_columns(turn=pl.int_range(pl.len()).over("unit"))
    size = max(1, round(BATCH * len(votes)))
    names, unit = np.unique(drawn["unit"].to_numpy(), return_inverse=True)
    turn = drawn["turn"].to_numpy()
    last = np.bincount(unit)  # votes there are of each pair
    asked = np.zeros(len(names), np.int64)
    taken: npt.NDArray[np.bool_] = turn == 0 if active else np.arange(len(drawn)) < 4 * size
    asked += np.bincount(unit[taken], minlength=len(names))
    curve = []
    while True:
        so_far = drawn.filter(pl.Series(taken)).to_arrow()
        labels = aggregate(so_far, REPLAYED)
        curve.append((float(taken.mean()), accuracy(labels, gold)))
        if taken.all() or curve[-1][1] >= full:
            return curve
        if not active:
            taken = np.arange(len(drawn)) < taken.sum() + size
            continue
        known = pl.DataFrame(pl.from_arrow(posteriors(so_far, REPLAYED)))
        risk = np.full(len(names), 0.5)
        place = np.searchsorted(names, known["pair_id"].to_numpy())
        risk[place] = known.select(pl.min_horizontal("a", "b")).to_series().to_numpy()
        risk[asked >= last] = -1.0
        chosen = np.argsort(-risk, kind="stable")[: min(size, int((asked < last).sum()))]
        asked[chosen] += 1
        taken = turn < asked[unit]


def reached(curve: list[tuple[float, float]], wanted: float) -> float:
    """Share of the votes at which the accuracy is first reached; 1 where never."""
    return next((share for share, found in curve if found >= wanted), 1.0)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def main() -> None:
    chosen = harness.options(__doc__ or "", seeds=5)
    seeds = list(range(chosen.seeds))
    votes, pairs, gold = load(4 if chosen.quick else None)
    table = votes.to_arrow()
    result = harness.Result("crowd", seeds)
    figures = result.figures
    figures["votes"], figures["pairs"] = len(votes), votes["unit"].n_unique()
    figures["people"] = votes["judge"].n_unique()

    for name, (method, pool) in METHODS.items():
        config = AggregateConfig.model_validate({"method": method, "pool_below": pool})
        labels, seconds = _timed(lambda c=config: aggregate(table, c, pairs=pairs))  # type: ignore[misc]
        truth = np.array([gold.get(p, 0.0) for p in labels["pair_id"].to_pylist()])
        figures[f"accuracy_{name}"] = accuracy(labels, gold)
        figures[f"stated_error_{name}"] = float(labels["error"].to_numpy()[truth != 0].mean())
        figures[f"seconds_{name}"] = seconds
        figures[f"held_out_{name}"] = held_out(votes, pairs, config, 0)
        harness.say(f"{name}: {figures[f'accuracy_{name}']:.4f} {figures[f'held_out_{name}']:.4f}")

    found = quality(table, QualityConfig(), gold=gold)
    people = pl.DataFrame(pl.from_arrow(found.annotators))
    result.tables["agreement"] = [vars(a) for a in found.agreement]
    result.tables["overlap"] = found.overlap.to_pylist()
    spent = cost(table, 10.0)
    figures |= {
        "gold_accuracy_mean": float(np.nanmean(people["gold_accuracy"].to_numpy())),
        "gold_below_chance": int(people["flags"].str.contains("gold_below_chance").sum()),
        "position_bias_flagged": int(people["flags"].str.contains("position_bias").sum()),
        "time_outliers": len(found.outliers),
        "votes_per_person_median": float(np.median(people["votes"].to_numpy())),
        "seconds_per_vote_median": spent.seconds_per_vote or 0.0,
        "rest_and_gold_correlation": _correlation(people),
    }
    if found.first_share is not None:
        figures["first_share"], *ends = found.first_share
        result.intervals["first_share"] = (ends[0], ends[1])

    full = accuracy(aggregate(table, REPLAYED), gold)
    figures["accuracy_full_replayed"] = full
    for name, active in (("active", True), ("random", False)):
        curves = [replay(votes, gold, seed, active, full) for seed in seeds]
        for goal, wanted in (("full", full), ("near", full - 0.01)):
            shares = [reached(curve, wanted) for curve in curves]
            mean, ends_of = harness.mean_interval(shares)
            figures[f"labels_to_{goal}_{name}"] = mean
            if ends_of:
                result.intervals[f"labels_to_{goal}_{name}"] = ends_of
        result.tables[f"curves_{name}"] = curves
        harness.say(f"{name}: {figures[f'labels_to_full_{name}']:.3f} of the votes")
    harness.report(result, chosen)


def _correlation(people: pl.DataFrame) -> float:
    """Of accuracy against the others with that on gold, over people with 20 votes or more of both."""
    known = people.filter((pl.col("rest_asked") >= 20) & (pl.col("gold_asked") >= 20))
    if len(known) < 3:
        return 0.0
    rest, gold = known["rest_accuracy"].to_numpy(), known["gold_accuracy"].to_numpy()
    return float(np.corrcoef(rest, gold)[0, 1])


if __name__ == "__main__":
    main()
