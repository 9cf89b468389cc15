"""How strongly and how unanimously the judges side with a pair's label."""

from __future__ import annotations

from typing import Annotated

import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from pipelines.consistency.matrix import KEY


class StrengthConfig(Config):
    """Settings of the strengths."""

    penalty: Annotated[float, Field(ge=0)] = 1.0
    """Lambda of the mean less lambda times the variance (UWO, Coste et al. 2023)."""


def strength(matrix: pa.Table, config: StrengthConfig) -> pa.Table:
    """Strengths of a matrix: one row a pair, in its order; values on the judges' own scale.

    Columns: `pair_id`; `mean` and `std` (of the population) of the votes (preference strength,
    Secrets of RLHF II, Wang et al. 2024); `share` of the votes that take a side which side with the
    label; `min` (worst case) and `penalised` = mean - penalty * variance (Coste et al. 2023);
    `judges` that took a side. Missing votes are left out; a pair without a vote has nulls.
    """
    frame = pl.LazyFrame(pl.from_arrow(matrix))
    judges = [name for name in matrix.column_names if name != KEY]
    if not judges:
        empty = {name: pl.lit(None, pl.Float64) for name in ("mean", "std", "share", "min")}
        return (
            frame.select(
                KEY, **empty, penalised=pl.lit(None, pl.Float64), judges=pl.lit(0, pl.Int64)
            )
            .collect()
            .to_arrow()
        )
    votes = [pl.col(name) for name in judges]
    count = pl.sum_horizontal([vote.is_not_null().cast(pl.Int64) for vote in votes])
    mean = pl.sum_horizontal(votes) / count
    # Around the mean: the difference of two large sums would cancel.
    squares = pl.sum_horizontal([(vote - pl.col("mean")) ** 2 for vote in votes])
    sides = pl.sum_horizontal([(vote > 0).cast(pl.Int64) for vote in votes])
    against = pl.sum_horizontal([(vote < 0).cast(pl.Int64) for vote in votes])
    some = pl.col("count") > 0
    return (
        frame.with_columns(count=count, sides=sides, against=against)
        .with_columns(mean=pl.when(some).then(mean))
        .with_columns(variance=pl.when(some).then(squares / pl.col("count")))
        .select(
            KEY,
            "mean",
            std=pl.col("variance").sqrt(),
            share=pl.when(pl.col("sides") + pl.col("against") > 0).then(
                pl.col("sides") / (pl.col("sides") + pl.col("against"))
            ),
            min=pl.min_horizontal(votes),
            penalised=pl.col("mean") - config.penalty * pl.col("variance"),
            judges=(pl.col("sides") + pl.col("against")).cast(pl.Int64),
        )
        .collect()
        .to_arrow()
    )


def rank_agreement(pairs: pa.Table, earlier: pa.Table, later: pa.Table) -> pa.Table:
    """How alike two rounds rank a prompt's responses: (tau + 1) / 2 (CREAM, Wang et al. 2024).

    Args:
        pairs: `Pair` table.
        earlier: `pair_id` and `mean` of a round, oriented alike in both (as `strength` gives them).
        later: The same of the next round.

    Returns:
        `prompt_id`, `agreement` in [0, 1] and `pairs` compared, sorted by prompt. tau is the mean
        product of the signs over the pairs that both rounds ranked: a tie in one adds nothing, and
        a pair that is missing from a round is left out, not counted as a disagreement. A prompt
        without a common pair has a null.
    """
    rounds = [
        pl.LazyFrame(pl.from_arrow(table)).select(KEY, pl.col("mean").alias(name))
        for name, table in (("earlier", earlier), ("later", later))
    ]
    frame = pl.LazyFrame(pl.from_arrow(pairs)).select(pl.col("id").alias(KEY), "prompt_id")
    for table in rounds:
        frame = frame.join(table, on=KEY, how="left")
    product = (pl.col("earlier").sign() * pl.col("later").sign()).cast(pl.Int64)
    return (
        frame.group_by("prompt_id")
        .agg(total=product.sum(), pairs=product.count().cast(pl.Int64))
        .select(
            "prompt_id",
            agreement=pl.when(pl.col("pairs") > 0).then(
                (pl.col("total") / pl.col("pairs") + 1.0) / 2.0
            ),
            pairs="pairs",
        )
        .sort("prompt_id")
        .collect()
        .to_arrow()
    )
