"""Choose which responses to one prompt are compared.

Right against wrong where the verifier found both; otherwise best against worst by the mean value of
the response's steps; otherwise, where the plan wants it, any two, without a label. Choice and order
are by hash, so they depend on nothing but content and seed.
"""

from __future__ import annotations

from typing import Annotated

import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from schemas.record import digest
from schemas.records import Pair, Reject
from schemas.table import with_ids

NAME = "pairs"
VERSION = 2


class PairsConfig(Config):
    """Settings of pairing."""

    per_prompt: Annotated[int, Field(ge=1)] = 4
    """Most pairs of a prompt."""
    best_worst: bool = True
    """Also pair best against worst by step values where the verifier gives no contrast."""
    min_gap: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Least difference of mean step value between best and worst."""
    unlabelled: bool = False
    """Also pair responses of which nothing yet says which is better: the judges decide."""


def pair_up(
    prompts: pa.Table,
    responses: pa.Table,
    votes: pa.Table,
    step_labels: pa.Table | None,
    config: PairsConfig,
    seed: int,
) -> tuple[pa.Table, pa.Table]:
    """Pairs and rejects of Prompt, Response, Vote and StepLabels tables.

    Every prompt without a pair gives a Reject: `no_response`, `no_contrast`.
    """
    order = _frame(prompts).select("id").with_row_index("order").rename({"id": "prompt_id"})
    verdict = (
        _frame(votes)
        .filter(pl.col("judge") == "verifier")
        .select(response="unit", right=pl.col("value"))
    )
    # Equal texts teach nothing apart: the first sample stands for all of them.
    candidates = (
        _frame(responses)
        .select("prompt_id", "sample_index", "text", response="id")
        .unique(["prompt_id", "text"], keep="first", maintain_order=True)
        .join(verdict, on="response", how="left")
    )
    values = pl.LazyFrame(schema={"response": pl.String, "mean_value": pl.Float64})
    if step_labels is not None:
        # A path that a search grew is no response: it has no id to be found by.
        values = (
            _frame(step_labels)
            .drop_nulls("response_id")
            .select(response="response_id", mean_value=pl.col("value").list.mean())
        )
    candidates = (
        candidates.join(values, on="response", how="left")
        .with_columns(rank_key=_hashes("response", seed))
        .collect()
        .lazy()
    )
    # A prompt needs at most per_prompt of either kind, which bounds the join below.
    right = _first(candidates.filter(pl.col("right") == 1), config.per_prompt)
    wrong = _first(candidates.filter(pl.col("right") == 0), config.per_prompt)
    verified = right.join(wrong, on="prompt_id", suffix="_w").select(
        "prompt_id", better="response", worse="response_w", label_source=pl.lit("verifier")
    )
    found = [verified]
    if config.best_worst:
        rest = candidates.join(verified, on="prompt_id", how="anti").drop_nulls("mean_value")
        best = rest.sort("mean_value", "rank_key", descending=[True, False]).group_by(
            "prompt_id", maintain_order=True
        )
        found.append(
            best.agg(
                better=pl.col("response").first(),
                worse=pl.col("response").last(),
                gap=pl.col("mean_value").first() - pl.col("mean_value").last(),
            )
            .filter((pl.col("gap") >= config.min_gap) & (pl.col("gap") > 0))
            .select("prompt_id", "better", "worse", label_source=pl.lit("step_values"))
        )
    if config.unlabelled:
        found.append(_any_two(candidates, pl.concat(found), config.per_prompt))
    chosen = (
        pl.concat(found)
        .with_columns(pair_key=_hashes(["better", "worse"], seed))
        .sort("prompt_id", "pair_key")
        .group_by("prompt_id", maintain_order=True)
        .head(config.per_prompt)
        .join(order, on="prompt_id")
        .sort("order", "pair_key")
        # The last digit, since the small keys were chosen: their first digits are mostly low.
        .with_columns(first=pl.col("pair_key").str.slice(-1).is_in(list("01234567")))
        .select(
            "prompt_id",
            response_a=pl.when("first").then("better").otherwise("worse"),
            response_b=pl.when("first").then("worse").otherwise("better"),
            label=pl.when(pl.col("label_source").is_null())
            .then(pl.lit(None, pl.String))
            .when("first")
            .then(pl.lit("a"))
            .otherwise(pl.lit("b")),
            label_source="label_source",
        )
        .collect()
    )
    return with_ids(Pair, _arrow(chosen)), _unpaired(order, candidates, chosen.lazy())


def _any_two(candidates: pl.LazyFrame, paired: pl.LazyFrame, most: int) -> pl.LazyFrame:
    """Pairs of prompts that have none yet: in hash order two by two, then other neighbours, and on."""
    rest = candidates.join(paired.select("prompt_id").unique(), on="prompt_id", how="anti")
    ranked = rest.sort("prompt_id", "rank_key").select(
        "prompt_id", "response", rank=pl.col("response").cum_count().over("prompt_id") - 1
    )
    # m pairs need at most 2 m responses.
    ranked = ranked.filter(pl.col("rank") < 2 * most)
    both = ranked.join(ranked, on="prompt_id", suffix="_w").filter(
        pl.col("rank") < pl.col("rank_w")
    )
    apart = pl.col("rank_w") - pl.col("rank")
    disjoint = (apart == 1) & (pl.col("rank") % 2 == 0)
    return (
        both.sort("prompt_id", ~disjoint, apart, "rank")
        .group_by("prompt_id", maintain_order=True)
        .head(most)
        .select(
            "prompt_id",
            better="response",
            worse="response_w",
            label_source=pl.lit(None, pl.String),
        )
    )


def _unpaired(order: pl.LazyFrame, candidates: pl.LazyFrame, chosen: pl.LazyFrame) -> pa.Table:
    counts = candidates.group_by("prompt_id").agg(
        texts=pl.len(), right=(pl.col("right") == 1).sum(), wrong=(pl.col("right") == 0).sum()
    )
    rejects = (
        order.join(chosen, on="prompt_id", how="anti")
        .join(counts, on="prompt_id", how="left")
        .sort("order")
        .select(
            unit="prompt_id",
            stage=pl.lit(NAME),
            code=pl.when(pl.col("texts").is_null())
            .then(pl.lit("no_response"))
            .otherwise(pl.lit("no_contrast")),
            detail=pl.format(
                "{} different responses, {} right, {} wrong",
                pl.col("texts").fill_null(0),
                pl.col("right").fill_null(0),
                pl.col("wrong").fill_null(0),
            ),
        )
        .collect()
    )
    return with_ids(Reject, _arrow(rejects))


def _first(candidates: pl.LazyFrame, most: int) -> pl.LazyFrame:
    return (
        candidates.sort("prompt_id", "rank_key")
        .group_by("prompt_id", maintain_order=True)
        .head(most)
        .select("prompt_id", "response")
    )


def _hashes(columns: str | list[str], seed: int) -> pl.Expr:
    """A stable pseudo-random order: hashes of ids and seed."""
    names = [columns] if isinstance(columns, str) else columns
    return pl.concat_str(names, separator="|").map_elements(
        lambda text: digest(seed, text), return_dtype=pl.String
    )


def _frame(table: pa.Table) -> pl.LazyFrame:
    return pl.LazyFrame(pl.from_arrow(table))


def _arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow()
