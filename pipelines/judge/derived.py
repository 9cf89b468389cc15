"""Votes on pairs by what the run already knows: verifier, step values, agreement, likelihood.

Each judge gives a pair the difference of its two responses' scores, in [-1, 1], above 0 where it
sides with a. Where a judge cannot say, its vote has no value and a reason; it is never a 0.
"""

from __future__ import annotations

from typing import Annotated, Literal

import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.answers import final_answer, parse_number
from pipelines.config import Config
from schemas.records import Vote
from schemas.table import with_ids

NAME = "judge"
VERSION = 1

DerivedName = Literal["verifier", "step_values", "agreement", "likelihood"]


class DerivedConfig(Config):
    """Which judges vote."""

    judges: Annotated[tuple[DerivedName, ...], Field(min_length=1)] = (
        "verifier",
        "step_values",
        "agreement",
        "likelihood",
    )
    """`verifier`: the checked final answer. `step_values`: the lowest step value. `agreement`: the
    share of the prompt's other samples with the same final answer (self-consistency, Wang et al.
    2023). `likelihood`: the policy's log-probability a token, squashed by tanh."""


def judge(
    pairs: pa.Table,
    responses: pa.Table,
    votes: pa.Table,
    step_labels: pa.Table | None,
    config: DerivedConfig,
) -> pa.Table:
    """Vote table: for every pair, in order, one vote of every judge."""
    frames = [
        _pair_votes(pairs, _scores(name, responses, votes, step_labels), name, rank)
        for rank, name in enumerate(config.judges)
    ]
    ordered = pl.concat(frames).sort("row", "rank").drop("row", "rank")
    return with_ids(Vote, ordered.to_arrow())


def _scores(
    name: DerivedName, responses: pa.Table, votes: pa.Table, step_labels: pa.Table | None
) -> pl.DataFrame:
    """Columns response, score (null: the judge cannot say), why."""
    frame = pl.DataFrame(pl.from_arrow(responses))
    every = frame.select(response="id")
    if name == "verifier":
        found = (
            pl.DataFrame(pl.from_arrow(votes))
            .filter(pl.col("judge") == "verifier")
            .select(response="unit", score="value", why="reason")
        )
    elif name == "step_values":
        if step_labels is None:
            found = every.select("response", score=pl.lit(None, pl.Float64), why=pl.lit(""))
        else:
            # A path that a search grew is no response: it has no id to be found by.
            labelled = pl.DataFrame(pl.from_arrow(step_labels)).drop_nulls("response_id")
            found = labelled.select(
                response="response_id",
                score=pl.col("value").list.min(),
                why=pl.format("lowest of {} steps", pl.col("steps").list.len()),
            )
    elif name == "agreement":
        found = _agreement(frame)
    else:
        found = frame.select(
            response="id",
            score=pl.when(pl.col("completion_tokens") > 0).then(
                pl.col("logprob") / pl.col("completion_tokens")
            ),
            why=pl.lit("log-probability a token"),
        )
    return every.join(found, on="response", how="left")


def _agreement(responses: pl.DataFrame) -> pl.DataFrame:
    """Share of a prompt's other samples whose final answer is the same; none without an answer."""
    answers = [
        _canonical(text, reason == "length")
        for text, reason in zip(responses["text"], responses["finish_reason"], strict=True)
    ]
    frame = responses.select("prompt_id", response="id").with_columns(
        answer=pl.Series(answers, dtype=pl.String)
    )
    same = pl.len().over("prompt_id", "answer")
    samples = pl.len().over("prompt_id")
    return frame.select(
        "response",
        score=pl.when(pl.col("answer").is_not_null() & (samples > 1)).then(
            (same - 1) / (samples - 1)
        ),
        why=pl.format("{} of {} samples agree", same, samples),
    )


def _canonical(text: str, cut: bool) -> str | None:
    answer = final_answer(text, cut=cut)
    if answer is None:
        return None
    number = parse_number(answer)
    return str(number) if number is not None else answer.strip().casefold()


def _pair_votes(
    pairs: pa.Table, scores: pl.DataFrame, name: DerivedName, rank: int
) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(pairs)).with_row_index("row")
    both = frame.join(scores, left_on="response_a", right_on="response", how="left").join(
        scores, left_on="response_b", right_on="response", how="left", suffix="_b"
    )
    gap = pl.col("score") - pl.col("score_b")
    value = gap.tanh() if name == "likelihood" else gap
    known = gap.is_not_null()
    return both.select(
        "row",
        rank=pl.lit(rank),
        unit="id",
        unit_kind=pl.lit("pair"),
        judge=pl.lit(name),
        judge_kind=pl.lit("code"),
        order=pl.lit(None, pl.String),
        value=value,
        criterion=pl.lit(None, pl.String),
        step=pl.lit(None, pl.Int64),
        span_start=pl.lit(None, pl.Int64),
        span_end=pl.lit(None, pl.Int64),
        reason=pl.when(known)
        .then(
            pl.format(
                "a: {} ({}); b: {} ({})",
                pl.col("score").round(3),
                pl.col("why").fill_null(""),
                pl.col("score_b").round(3),
                pl.col("why_b").fill_null(""),
            )
        )
        .otherwise(pl.lit("no_score")),
        seconds=pl.lit(None, pl.Float64),
        cost=pl.lit(None, pl.Float64),
    )
