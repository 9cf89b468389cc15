"""From beliefs to decisions, by posterior and costs.

What a pair would cost under each action is reckoned, in the costs' own unit, and the cheapest action
is taken. With P the probability that the label is right, after the people who voted on the pair:

- keep: wrong_label * (1 - P); flip: wrong_label * P;
- soften: wrong_label * P * (1 - P) + softened: the squared error of a target P, and what a soft
  target teaches less than a hard one;
- drop: dropped; route: human_label + wrong_label * human_error.

What people add to a belief is their log-odds: of each vote by one person's error, or, where votes
were put together by a model of the people, of the model's own.

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
    people: pa.Table | None = None,
) -> pa.Table:
    """Decision table: one row a pair, in the pairs' order.

    Args:
        beliefs: `Belief` table of these pairs, in any order; votes of judges that failed a probe
            are to be left out before (`votes_matrix(..., excluded_judges=...)`).
        pairs: `Pair` table.
        config: Costs.
        hostile: Ids of responses that are master keys or off topic. A pair is never kept, flipped or
            softened in favour of one by the machine: people are asked, or it is dropped.
        people: `HumanLabel` rows, where people's votes were put together by more than their mean:
            what they say of a pair is then that label's own (`said_by_people`).

    A pair that came as a tie, or of which nothing is believed, is dropped. Where people voted, their
    log-odds, by `human_error` or by `people`, are added to the belief's, and the pair is not routed
    again. `target` is the probability that a is better under every action.
    """
    weight = _weight(config)
    p = pl.col("belief").clip(1e-9, 1 - 1e-9)
    asked = (pl.col("humans") > 0) & pl.col("human").is_not_null()
    if people is None:
        said = weight * pl.col("human") * pl.col("humans")
        labels = pl.LazyFrame(schema={"pair_id": pl.String, "for_a": pl.Float64})
    else:
        said = pl.when(pl.col("label") == "b").then(-pl.col("for_a")).otherwise("for_a")
        labels = pl.LazyFrame(pl.from_arrow(said_by_people(people, config)))
    evidence = pl.when(asked).then(said.fill_null(0.0)).otherwise(0.0)
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
        .join(labels, left_on="id", right_on="pair_id", how="left", maintain_order="left")
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


def said_by_people(labels: pa.Table, config: PosteriorConfig) -> pa.Table:
    """What `HumanLabel` rows say of their pairs: pair_id, for_a (log-odds that a is better).

    The log-odds of the side that a label is on, by its error e: log((1 - e) / e). A value nearer to
    nought than e alone would bring it, 1 - 2e, tells of ties, of weak votes, or of people who
    disagree: the log-odds are softened by that ratio. An error of a half says nothing. However sure a
    model is of them, people are never surer than as many of `human_error` who are all of one mind:
    an error of nought is a model's, never a person's.
    """
    error = pl.col("error").clip(1e-12, 0.5)
    sided = (pl.col("value").abs() / (1 - 2 * error)).clip(0.0, 1.0)
    sure = pl.min_horizontal((1 / error - 1).log() * sided, _weight(config) * pl.col("people"))
    frame = pl.DataFrame(pl.from_arrow(labels)).select(
        "pair_id",
        for_a=pl.when((error < 0.5) & (pl.col("value") != 0))
        .then(sure * pl.col("value").sign())
        .otherwise(0.0),
    )
    return frame.to_arrow()


def _weight(config: PosteriorConfig) -> float:
    """Log-odds of one person's answer."""
    return math.log((1 - config.human_error) / config.human_error)


def changed_by_people(
    beliefs: pa.Table,
    pairs: pa.Table,
    config: PosteriorConfig,
    decisions: pa.Table,
    hostile: Collection[str] = (),
) -> int:
    """Pairs that people voted on and that `decisions` decide otherwise than without those votes.

    The probabilities stay, though people's votes on other pairs may have taught them. Without votes
    nobody is asked either: what would be put to people has to be decided by what is there.
    """
    frame = pl.DataFrame(pl.from_arrow(beliefs))
    voted = frame.filter((pl.col("humans") > 0) & pl.col("human").is_not_null())["pair_id"]
    silent = frame.with_columns(human=pl.lit(None, pl.Float64), humans=pl.lit(0))
    alone = config.model_copy(update={"route": False})
    before = decide_by_posterior(silent.to_arrow(), pairs, alone, hostile)
    after = pl.DataFrame(pl.from_arrow(decisions)).filter(pl.col("pair_id").is_in(voted.implode()))
    return changed(before, after.to_arrow())


def changed(before: pa.Table, after: pa.Table) -> int:
    """Pairs, of both tables of `Decision` rows, whose action, or the side of whose target, differs."""
    columns = ["pair_id", "action", "target"]
    old, new = (pl.DataFrame(pl.from_arrow(table)).select(columns) for table in (before, after))
    both = old.join(new, on="pair_id", suffix="_new").select(
        (pl.col("action") != pl.col("action_new"))
        | ((pl.col("target") - 0.5).sign() != (pl.col("target_new") - 0.5).sign())
    )
    return int(both.to_series().sum())


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
