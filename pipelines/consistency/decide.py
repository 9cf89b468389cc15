"""From beliefs to decisions, by posterior and costs.

What a pair would cost under each action is reckoned, in the costs' own unit, and the cheapest action
is taken. With P the probability that the label is right, after the people who voted on the pair:

- keep: wrong_label * (1 - P); flip: wrong_label * P;
- soften: wrong_label * P * (1 - P) + softened: the squared error of a target P, and what a soft
  target teaches less than a hard one;
- drop: dropped; route: human_label + wrong_label * human_error.

A flipped pair is recycled, not lost. No share of the pairs is ever flipped for its rank alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated

import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from pipelines.consistency.majority import NAME as NAME
from pipelines.consistency.majority import RULE as RULE
from pipelines.consistency.majority import VERSION as VERSION
from pipelines.consistency.majority import DecideConfig as DecideConfig
from pipelines.consistency.majority import decide as decide
from schemas.records import Decision
from schemas.table import with_ids

POSTERIOR_RULE = "posterior-1"
ACTIONS = ("keep", "flip", "soften", "drop", "route")
"""Of actions that cost the same, the first is taken."""


class PosteriorConfig(Config):
    """Costs of the decision, all in one unit of the plan's choice."""

    wrong_label: Annotated[float, Field(gt=0)] = 1.0
    """Cost of a pair whose label is wrong."""
    softened: Annotated[float, Field(ge=0)] = 0.05
    """Cost of a soft target where a hard one would have been right."""
    dropped: Annotated[float, Field(ge=0)] = 0.28
    """Cost of a dropped pair."""
    human_label: Annotated[float, Field(ge=0)] = 0.2
    """Cost of asking people about a pair."""
    human_error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How often one person's answer is wrong."""
    route: bool = True
    """Whether people can be asked at all."""


def decide_by_posterior(
    beliefs: pa.Table,
    pairs: pa.Table,
    config: PosteriorConfig,
    hostile: Collection[str] = (),
) -> pa.Table:
    """Decision table: one row a pair, in the pairs' order.

    Args:
        beliefs: `Belief` table of these pairs, in any order; votes of judges that failed a probe
            are to be left out before (`votes_matrix(..., excluded_judges=...)`).
        pairs: `Pair` table.
        config: Costs.
        hostile: Ids of responses that are master keys or off topic. A pair is never kept, flipped or
            softened in favour of one by the machine: people are asked, or it is dropped.

    A pair that came as a tie, or of which nothing is believed, is dropped. Where people voted, their
    log-odds, by `human_error`, are added to the belief's, and the pair is not routed again. `target`
    is the probability that a is better under every action.
    """
    weight = math.log((1 - config.human_error) / config.human_error)
    p = pl.col("belief").clip(1e-9, 1 - 1e-9)
    asked = (pl.col("humans") > 0) & pl.col("human").is_not_null()
    evidence = pl.when(asked).then(weight * pl.col("human") * pl.col("humans")).otherwise(0.0)
    frame = (
        pl.LazyFrame(pl.from_arrow(pairs))
        .select("id", "response_a", "response_b", given="label")
        .join(
            pl.LazyFrame(pl.from_arrow(beliefs)).select(
                "pair_id",
                "label",
                "strength",
                "judges",
                "human",
                "humans",
                belief="probability",
            ),
            left_on="id",
            right_on="pair_id",
            how="left",
            maintain_order="left",
        )
        .with_columns(asked=asked, log_odds=((p / (1 - p)).log() + evidence).clip(-30.0, 30.0))
        # Exactly what was believed, where nobody was asked.
        .with_columns(
            p=pl.when("asked").then(1 / (1 + (-pl.col("log_odds")).exp())).otherwise("belief")
        )
    )
    frame = frame.with_columns(**_costs(config))
    names = [f"cost_{action}" for action in ACTIONS]
    cheapest = pl.concat_list(names).list.arg_min()
    after_a = (pl.col("label") == "a") != (pl.col("p") < 0.5)
    winner = pl.when(after_a).then("response_a").otherwise("response_b")
    rescued = winner.is_in(sorted(hostile)) & ~pl.col("asked")
    out = "route" if config.route else "drop"
    tie = ((pl.col("given") == "tie") | (pl.col("label") == "tie")).fill_null(False)
    nothing = pl.col("p").is_null() | pl.col("label").is_null()
    action = (
        pl.when(tie | nothing)
        .then(pl.lit("drop"))
        .when(rescued)
        .then(pl.lit(out))
        .otherwise(cheapest.replace_strict(dict(enumerate(ACTIONS)), return_dtype=pl.String))
    )
    frame = frame.with_columns(action=action, tie=tie, nothing=nothing, rescued=rescued)
    flipped = pl.col("action") == "flip"
    turned = pl.when(flipped).then(-pl.col("strength")).otherwise("strength")
    decided = frame.select(
        pair_id="id",
        action="action",
        probability=pl.when(flipped).then(1 - pl.col("p")).otherwise("p").fill_null(0.5),
        target=pl.when(tie | nothing)
        .then(0.5)
        .when(pl.col("label") == "a")
        .then("p")
        .otherwise(1 - pl.col("p"))
        .fill_null(0.5),
        margin=turned.fill_null(0.0) + 0.0,
        reason=_reason(),
        rule=pl.lit(POSTERIOR_RULE),
        accepted=pl.lit(None, pl.Boolean),
    ).collect()
    return with_ids(Decision, decided.to_arrow())


def _costs(config: PosteriorConfig) -> dict[str, pl.Expr]:
    p, wrong = pl.col("p"), config.wrong_label
    asking = config.human_label + wrong * config.human_error
    open_ = ~pl.col("asked") if config.route else pl.lit(False)
    return {
        "cost_keep": wrong * (1 - p),
        "cost_flip": wrong * p,
        "cost_soften": wrong * p * (1 - p) + config.softened,
        "cost_drop": pl.lit(config.dropped),
        "cost_route": pl.when(open_).then(asking).otherwise(float("inf")),
    }


def _reason() -> pl.Expr:
    """The stable reason code of each row."""
    people, action = pl.col("asked"), pl.col("action")
    return (
        pl.when("tie")
        .then(pl.lit("tie"))
        .when("nothing")
        .then(pl.lit("no_belief"))
        .when("rescued")
        .then(pl.lit("hostile_response"))
        .when(action == "keep")
        .then(pl.when(people).then(pl.lit("people_agree")).otherwise(pl.lit("likely_right")))
        .when(action == "flip")
        .then(pl.when(people).then(pl.lit("people_disagree")).otherwise(pl.lit("likely_wrong")))
        .when(action == "soften")
        .then(pl.lit("unsure"))
        .when(action == "route")
        .then(pl.lit("worth_asking"))
        .otherwise(pl.lit("too_doubtful"))
    )
