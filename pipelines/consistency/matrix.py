"""Votes to a matrix: one row a pair, one column a judge, oriented to the pair's label."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.errors import UserError

KEY = "pair_id"


def votes_matrix(
    pairs: pa.Table, votes: pa.Table, excluded_judges: Collection[str] = ()
) -> pa.Table:
    """The matrix of the machine judges' votes on these pairs.

    Args:
        pairs: `Pair` table.
        votes: `Vote` table; votes on other units than pairs, and people's, are left aside (people's
            votes are labels: see `human_labels`).
        excluded_judges: Judges whose votes count for nothing, such as those that a master key moves.

    Returns:
        `pair_id` and a float column a judge, in the judges' order of name; rows in the pairs' order.
        Above 0: the judge sides with the pair's label, or with response a where there is none or a
        tie. The orders a judge saw are averaged, and orders that contradict each other give 0. Null:
        the judge has no vote there. Values keep the judge's own scale.
    """
    judged = (
        pl.LazyFrame(pl.from_arrow(votes))
        .filter(
            (pl.col("unit_kind") == "pair")
            & (pl.col("judge_kind") != "human")
            & pl.col("value").is_not_null()
            & pl.col("value").is_finite()
            & ~pl.col("judge").is_in(sorted(excluded_judges))
        )
        .select("unit", "judge", "order", "value")
    )
    judges = judged.select(pl.col("judge").unique().sort()).collect()["judge"].to_list()
    if KEY in judges:
        raise UserError(f"a judge may not be named {KEY!r}: rename it in the votes")
    units = pl.LazyFrame(pl.from_arrow(pairs)).select(unit="id").with_row_index("row")
    cells = (
        judged.join(units, on="unit", how="inner")
        .select(
            cell=pl.col("row").cast(pl.Int64) * len(judges)
            + pl.col("judge").cast(pl.Enum(judges)).to_physical().cast(pl.Int64),
            order=pl.col("order")
            .cast(pl.Enum(["ab", "ba"]))
            .to_physical()
            .cast(pl.Int8)
            .fill_null(2),
            value=pl.col("value"),
        )
        .collect()
    )
    filled = _fill(cells, len(pairs) * len(judges)).reshape(len(pairs), len(judges))
    label = pl.Series(pairs["label"])
    # Added 0.0: 0.0 * -1.0 is -0.0, which is other bytes.
    filled = filled * np.where(label.eq_missing("b").to_numpy(), -1.0, 1.0)[:, None] + 0.0
    columns = {name: pa.array(filled[:, at], from_pandas=True) for at, name in enumerate(judges)}
    return pa.table({KEY: pairs["id"].combine_chunks(), **columns})


def _fill(cells: pl.DataFrame, count: int) -> np.ndarray:
    """Value of each cell, NaN where there is no vote, shape [count].

    One vote a cell, or two, is worked in place; more of them are sorted first, as a sum of floats
    depends on its order.
    """
    cell, value = cells["cell"].to_numpy(), cells["value"].to_numpy()
    votes = np.bincount(cell, minlength=count)
    filled = np.full(count, np.nan)
    times = votes[cell]
    once = times == 1
    filled[cell[once]] = value[once]
    two = np.flatnonzero(times == 2)
    if len(two):
        two = two[np.argsort(cell[two], kind="stable")]
        pair, orders = value[two].reshape(-1, 2), cells["order"].to_numpy()[two].reshape(-1, 2)
        clash = (orders[:, 0] != orders[:, 1]) & (pair.min(axis=1) < 0) & (pair.max(axis=1) > 0)
        filled[cell[two[::2]]] = np.where(clash, 0.0, (pair[:, 0] + pair[:, 1]) / 2)
    if (times > 2).any():
        value_list = pl.col("value").list
        several = (
            cells.lazy()
            .filter(pl.Series(times > 2))
            .group_by("cell", "order")
            .agg(pl.col("value").sort())
            .with_columns(value_list.mean())
            .group_by("cell")
            .agg(pl.col("value").sort())
            .select(
                "cell",
                value=pl.when((value_list.first() < 0) & (value_list.last() > 0))
                .then(0.0)
                .otherwise(value_list.mean()),
            )
            .collect()
        )
        filled[several["cell"].to_numpy()] = several["value"].to_numpy()
    return filled


def human_labels(pairs: pa.Table, votes: pa.Table) -> pa.Table:
    """People's votes on these pairs: `pair_id`, `value` (above 0: a is better), `annotator`.

    One row an annotator and pair, sorted by both; an annotator's values are averaged.
    """
    return (
        pl.LazyFrame(pl.from_arrow(votes))
        .filter(
            (pl.col("unit_kind") == "pair")
            & (pl.col("judge_kind") == "human")
            & pl.col("value").is_not_null()
        )
        .join(
            pl.LazyFrame(pl.from_arrow(pairs)).select("id"),
            left_on="unit",
            right_on="id",
            how="semi",
        )
        .group_by(pl.col("unit").alias(KEY), pl.col("judge").alias("annotator"))
        .agg(pl.col("value").sort())
        .select(KEY, pl.col("value").list.mean(), "annotator")
        .sort(KEY, "annotator")
        .collect()
        .to_arrow()
    )
