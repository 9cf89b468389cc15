"""From votes to decisions, first version: majority and margin.

The probability is the smoothed share of judges that side with the label, (s + 1) / (s + o + 2)
(Laplace's rule): it is not calibrated, and the card says so.
"""

from __future__ import annotations

from typing import Annotated

import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from schemas.records import Decision
from schemas.table import with_ids

NAME = "decide"
VERSION = 1
RULE = "majority-1"


class DecideConfig(Config):
    """Settings of the decision rule."""

    keep_margin: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Keep a label the majority sides with at this mean oriented vote or more; soften it below."""
    flip_margin: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Flip a label the majority is against at minus this mean vote or less; route it above."""
    min_votes: Annotated[int, Field(ge=1)] = 2
    """Drop a pair with fewer judges that took a side."""
    route: bool = True
    """Route disputed pairs to people; false: drop them."""


def decide(pairs: pa.Table, votes: pa.Table, config: DecideConfig) -> pa.Table:
    """Decision table: one row a pair, in the pairs' order.

    Orders of a judge are averaged first, so a judge counts once; a 0 takes no side. A pair without
    a label is given the one that the majority sides with.
    """
    judged = (
        pl.LazyFrame(pl.from_arrow(votes))
        .filter(pl.col("unit_kind") == "pair")
        # A float sum depends on its order, and Polars drops a sort before a sum: sorted lists are
        # summed in their order.
        .group_by("unit", "judge")
        .agg(pl.col("value").sort_by("id"))
        .with_columns(pl.col("value").list.mean())
        .group_by("unit")
        .agg(pl.col("value").sort_by("judge"))
        .select(
            "unit",
            for_a=pl.col("value").list.eval(pl.element() > 0).list.sum(),
            for_b=pl.col("value").list.eval(pl.element() < 0).list.sum(),
            mean=pl.col("value").list.mean(),
        )
    )
    frame = (
        pl.LazyFrame(pl.from_arrow(pairs))
        .with_row_index("order")
        .join(judged, left_on="id", right_on="unit", how="left")
        .with_columns(
            pl.col("for_a", "for_b").fill_null(0).cast(pl.Int64), pl.col("mean").fill_null(0.0)
        )
        .with_columns(
            sign=pl.when(pl.col("label") == "a")
            .then(1.0)
            .when(pl.col("label") == "b")
            .then(-1.0)
            .when((pl.col("label") == "tie") | (pl.col("for_a") == pl.col("for_b")))
            .then(0.0)
            .when(pl.col("for_a") > pl.col("for_b"))
            .then(1.0)
            .otherwise(-1.0)
        )
        .with_columns(
            side=pl.when(pl.col("sign") > 0).then("for_a").otherwise("for_b"),
            against=pl.when(pl.col("sign") > 0).then("for_b").otherwise("for_a"),
            margin=(pl.col("sign") * pl.col("mean")).clip(-1.0, 1.0),
        )
        .with_columns(p=(pl.col("side") + 1) / (pl.col("side") + pl.col("against") + 2))
    )
    disputed = "route" if config.route else "drop"
    few = (pl.col("side") + pl.col("against")) < config.min_votes
    ahead = pl.col("side") > pl.col("against")
    behind = pl.col("side") < pl.col("against")
    cases = [
        ((pl.col("label") == "tie").fill_null(False), "drop", "tie"),
        (few, "drop", "few_votes"),
        (pl.col("sign") == 0, "drop", "tie"),
        (ahead & (pl.col("margin") >= config.keep_margin), "keep", "majority_agrees"),
        (ahead, "soften", "small_margin"),
        (behind & (pl.col("margin") <= -config.flip_margin), "flip", "majority_disagrees"),
    ]
    action, reason = pl.lit(disputed), pl.lit("disputed")
    for condition, what, why in reversed(cases):
        action = pl.when(condition).then(pl.lit(what)).otherwise(action)
        reason = pl.when(condition).then(pl.lit(why)).otherwise(reason)
    flipped = pl.col("action") == "flip"
    decided = (
        frame.with_columns(action=action, reason=reason)
        .sort("order")
        .select(
            pair_id="id",
            action="action",
            probability=pl.when(flipped).then(1 - pl.col("p")).otherwise("p"),
            target=pl.when(pl.col("sign") > 0).then("p").otherwise(1 - pl.col("p")),
            margin=pl.when(flipped).then(-pl.col("margin")).otherwise("margin"),
            reason="reason",
            rule=pl.lit(RULE),
            accepted=pl.lit(None, pl.Boolean),
        )
        .collect()
    )
    return with_ids(Decision, decided.to_arrow())
