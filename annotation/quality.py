"""How good the answers are: each annotator, the times, the overlap, the agreement.

Nothing is thrown away here: a person is left out by name (`aggregate(..., without=...)`), by whoever
reads these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import polars as pl
import pyarrow as pa
from pydantic import Field

from annotation.agreement import Agreement, Level, krippendorff
from pipelines.config import Config
from pipelines.intervals import share_ends

NAME = "quality"
VERSION = 1

_MAD = 0.6745
"""Median absolute deviation of a standard normal: makes a robust z comparable to a plain one."""


class QualityConfig(Config):
    """When something is worth a look."""

    outlier: Annotated[float, Field(gt=0)] = 3.5
    """Robust z of the log time from which an answer is an outlier (Iglewicz and Hoaglin 1993)."""
    seed: int = 0
    """Seed of the bootstrap intervals."""


@dataclass(frozen=True)
class Quality:
    """What is known of a campaign's answers; every table is sorted by its first columns."""

    annotators: pa.Table
    """A row an annotator: judge, votes, abstained (could not judge), ties; on gold questions
    gold_right of gold_asked, gold_accuracy with gold_low and gold_high; against the majority of the
    others rest_right of rest_asked, rest_accuracy, rest_low, rest_high; first_chosen of first_asked,
    first_share, first_low, first_high (share of the sides taken that fell on what was shown first);
    seconds (median), fast and slow (time outliers), flags (comma-separated codes: `gold_below_chance`,
    `position_bias`, `fast`). All intervals are Wilson's, 95%."""
    outliers: pa.Table
    """Answers whose time is an outlier: unit, judge, seconds, z."""
    overlap: pa.Table
    """people, units: how many units that many people answered."""
    agreement: tuple[Agreement, ...]
    """Alpha of the sides (nominal) and of the whole scale (ordinal, interval)."""
    first_share: tuple[float, float, float] | None
    """Share of all sides taken that fell on what was shown first, and its interval; none: no order."""


def quality(
    votes: pa.Table, config: QualityConfig, *, gold: Mapping[str, float] | None = None
) -> Quality:
    """Quality of people's votes on pairs.

    Args:
        votes: `Vote` rows; people's votes on pairs count, of one person's on a pair the last.
        config: The limits.
        gold: Known answers: pair id to a number above 0 where a is better, below 0 where b is, 0 for
            a tie. A vote is right when it is on that side.
    """
    frame = (
        pl.DataFrame(pl.from_arrow(votes))
        .filter((pl.col("unit_kind") == "pair") & (pl.col("judge_kind") == "human"))
        .unique(["unit", "judge"], keep="last", maintain_order=True)
        .sort("unit", "judge")
        .with_columns(side=pl.col("value").sign())
    )
    known = pl.DataFrame(
        {"unit": list(gold or {}), "truth": list((gold or {}).values())},
        schema={"unit": pl.String, "truth": pl.Float64},
    )
    frame = frame.join(known, on="unit", how="left", maintain_order="left")
    others = pl.col("side").sum().over("unit") - pl.col("side")
    shown = pl.when(pl.col("order") == "ab").then(1.0).when(pl.col("order") == "ba").then(-1.0)
    frame = frame.with_columns(
        truth=pl.col("truth").sign(),
        rest=pl.when(pl.len().over("unit") > 1).then(others.sign()),
        first=pl.when(pl.col("side") != 0).then(pl.col("side") == shown),
        z=_robust_z(frame["seconds"]),
    )
    outliers = frame.filter(pl.col("z").abs() > config.outlier)
    counted = frame.drop_nulls("value")
    overlap = (
        counted.group_by("unit")
        .agg(people=pl.len().cast(pl.Int64))
        .group_by("people")
        .agg(units=pl.len().cast(pl.Int64))
        .sort("people")
    )
    firsts = counted["first"].drop_nulls()
    share = None
    if len(firsts):
        whole = pl.DataFrame({"k": [int(firsts.sum())], "n": [len(firsts)]})
        row = whole.select(_share("first", pl.col("k"), pl.col("n"))).row(0)
        share = (row[0], row[1], row[2])
    return Quality(
        _annotators(frame, config).to_arrow(),
        outliers.select("unit", "judge", "seconds", "z").to_arrow(),
        overlap.to_arrow(),
        _agreements(counted, config),
        share,
    )


def _agreements(counted: pl.DataFrame, config: QualityConfig) -> tuple[Agreement, ...]:
    sides = counted.select("unit", "judge", value="side").to_arrow()
    scale = counted.select("unit", "judge", "value").to_arrow()
    levels: tuple[tuple[pa.Table, Level], ...] = (
        (sides, "nominal"),
        (scale, "ordinal"),
        (scale, "interval"),
    )
    return tuple(krippendorff(table, level, seed=config.seed) for table, level in levels)


def _robust_z(seconds: pl.Series) -> pl.Series:
    """(log time - median) * .6745 / median absolute deviation; null where there is no time."""
    times = seconds.to_frame().select(
        t=pl.when(pl.col("seconds") > 0).then(pl.col("seconds")).log()
    )["t"]
    away = times - times.median()
    spread = away.abs().median()
    if not isinstance(spread, float) or spread == 0:
        return pl.Series("z", [None] * len(times), dtype=pl.Float64)
    return (away * (_MAD / spread)).alias("z")


def _share(name: str, right: pl.Expr, asked: pl.Expr) -> list[pl.Expr]:
    """Share and Wilson's interval; null where nothing was asked."""
    n = pl.when(asked > 0).then(asked.cast(pl.Float64))
    p = right / n
    low, high = share_ends(p, n)
    return [
        p.alias(f"{name}_share" if name == "first" else f"{name}_accuracy"),
        low.alias(f"{name}_low"),
        high.alias(f"{name}_high"),
    ]


def _annotators(frame: pl.DataFrame, config: QualityConfig) -> pl.DataFrame:
    judged = pl.col("side").is_not_null()
    on_gold = judged & pl.col("truth").is_not_null()
    # Where the others are split, or saw a tie, they are no measure of anyone.
    on_rest = judged & (pl.col("rest") != 0) & (pl.col("side") != 0)
    counts = {
        "votes": pl.len(),
        "abstained": (~judged).sum(),
        "ties": (pl.col("side") == 0).sum(),
        "gold_right": (on_gold & (pl.col("side") == pl.col("truth"))).sum(),
        "gold_asked": on_gold.sum(),
        "rest_right": (on_rest & (pl.col("side") == pl.col("rest"))).sum(),
        "rest_asked": on_rest.sum(),
        "first_chosen": pl.col("first").sum(),
        "first_asked": pl.col("first").count(),
        "fast": (pl.col("z") < -config.outlier).sum(),
        "slow": (pl.col("z") > config.outlier).sum(),
    }
    rows = (
        frame.group_by("judge")
        .agg(
            *(e.cast(pl.Int64).alias(name) for name, e in counts.items()),
            seconds=pl.col("seconds").median(),
        )
        .sort("judge")
        .with_columns(
            *_share("gold", pl.col("gold_right"), pl.col("gold_asked")),
            *_share("rest", pl.col("rest_right"), pl.col("rest_asked")),
            *_share("first", pl.col("first_chosen"), pl.col("first_asked")),
        )
    )
    flags = {
        "gold_below_chance": pl.col("gold_high") < 0.5,
        "position_bias": (pl.col("first_low") > 0.5) | (pl.col("first_high") < 0.5),
        "fast": pl.col("fast") > 0,
    }
    said = [pl.when(e.fill_null(False)).then(pl.lit(name)) for name, e in flags.items()]
    return rows.with_columns(flags=pl.concat_str(said, separator=",", ignore_nulls=True))
