"""Judge cards of 65 real judges on LLMBar (Zeng et al. 2024, arXiv 2310.07641), by the code of a run.

Every judge, a model with a way of prompting it, voted on 419 pairs whose better response people
agreed on, in both orders. Cards are made by `pipelines.judge.cards`; what a judge left out is a vote
that is not there. Where a judge was asked several times in one order, its votes are averaged.

Figures: `judges`, `pairs`, `votes`; `best_accuracy`, `median_accuracy`, `worst_accuracy`;
`share_failing`, of judges whose swap consistency is below the limit; `median_accuracy_passing` and
`median_accuracy_failing`; `median_swap_consistency`; `largest_position_preference` (either way);
`rank_correlation` (Spearman) of swap consistency and accuracy over judges; `cards_votes_per_s`.
"""

from __future__ import annotations

import time
from typing import Any

import polars as pl
import pyarrow as pa

from benchmarks.harness import REPO, Result, options, report, say
from pipelines.judge.cards import cards, failing
from schemas.records import Pair, Vote
from schemas.table import with_ids

DATA = REPO.parent / "shared" / "data"
LIMIT = 0.7
QUICK_JUDGES = 8


def tables(judges: int | None = None) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Votes, pairs with their labels, and lengths in characters; `judges`: of the first ones only."""
    items = pl.read_parquet(DATA / "llmbar.parquet").with_columns(
        unit=pl.format("{}-{}", "subset", "item")
    )
    pairs = with_ids(
        Pair,
        items.select(
            prompt_id="input",  # one prompt stands twice: its pairs are one cluster
            response_a=pl.format("{}-1", "unit"),
            response_b=pl.format("{}-2", "unit"),
            label=pl.when(pl.col("label") == 1).then(pl.lit("a")).otherwise(pl.lit("b")),
            label_source=pl.lit("llmbar"),
        ).to_arrow(),
    )
    items = items.with_columns(id=pl.Series(pairs["id"].to_pylist()))
    lengths = items.select(
        unit="id", a=pl.col("output_1").str.len_chars(), b=pl.col("output_2").str.len_chars()
    )
    cast = pl.read_parquet(DATA / "llmbar_votes.parquet").with_columns(
        name=pl.format("{} / {}", "judge", "prompt_style")
    )
    if judges is not None:
        cast = cast.filter(pl.col("name").is_in(cast["name"].unique().sort()[:judges].implode()))
    made = cast.join(items.select("subset", "item", "id"), on=["subset", "item"], how="left")
    asked = pl.int_range(pl.len()).over("name", "id", "swapped")
    votes = made.select(
        unit="id",
        unit_kind=pl.lit("pair"),
        judge="name",
        judge_kind=pl.lit("llm"),
        order=pl.when("swapped").then(pl.lit("ba")).otherwise(pl.lit("ab")),
        value=pl.when(pl.col("winner") == 1).then(1.0).otherwise(-1.0),
        criterion=pl.lit(None, pl.String),
        step=pl.lit(None, pl.Int64),
        span_start=pl.lit(None, pl.Int64),
        span_end=pl.lit(None, pl.Int64),
        reason=pl.format("asked {}", asked),  # two equal answers are two votes
        seconds=pl.lit(None, pl.Float64),
        cost=pl.lit(None, pl.Float64),
    )
    return with_ids(Vote, votes.to_arrow()), pairs, lengths.to_arrow()


def measure(votes: pa.Table, pairs: pa.Table, lengths: pa.Table) -> Result:
    began = time.perf_counter()
    table = cards(votes, pairs, lengths, {"swap_consistency": LIMIT})
    seconds = time.perf_counter() - began
    frame = pl.DataFrame(pl.from_arrow(table))
    out = failing(table)
    by = frame.pivot("measure", index="judge", values="value").with_columns(
        fails=pl.col("judge").is_in(list(out))
    )
    accuracy, swap = by["accuracy"], by["swap_consistency"]
    good, bad = by.filter(~pl.col("fails"))["accuracy"], by.filter("fails")["accuracy"]
    figures: dict[str, Any] = {
        "judges": by.height,
        "pairs": pairs.num_rows,
        "votes": votes.num_rows,
        "best_accuracy": accuracy.max(),
        "median_accuracy": accuracy.median(),
        "worst_accuracy": accuracy.min(),
        "median_swap_consistency": swap.median(),
        "share_failing": by["fails"].mean(),
        "median_accuracy_passing": good.median(),
        "median_accuracy_failing": bad.median(),
        "largest_position_preference": by["position_preference"].abs().max(),
        "rank_correlation": by.select(
            pl.corr("swap_consistency", "accuracy", method="spearman")
        ).item(),
        "cards_votes_per_s": votes.num_rows / seconds,
    }
    best = frame.filter(pl.col("measure") == "accuracy").sort("value", "judge").row(-1, named=True)
    return Result(
        "judge_cards",
        [0],
        {name: float(value) for name, value in figures.items() if value is not None},
        {"best_accuracy": (best["low"], best["high"])},
        {"cards": rows(frame), "failing": out},
    )


def rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """One row a judge, the most accurate first; of every measure its value, of accuracy its interval."""
    found = []
    for (judge,), group in frame.sort("judge").group_by("judge", maintain_order=True):
        row: dict[str, Any] = {"judge": judge}
        for card in group.iter_rows(named=True):
            row[card["measure"]] = None if card["value"] is None else round(card["value"], 4)
            if card["measure"] == "accuracy":
                row["accuracy_interval"] = [round(card["low"], 4), round(card["high"], 4)]
        found.append(row)
    return sorted(found, key=lambda row: (-row["accuracy"], row["judge"]))


def main() -> None:
    chosen = options(__doc__ or "", seeds=1)
    if not (DATA / "llmbar_votes.parquet").is_file():
        say("the shared data is not there: nothing to measure")
        raise SystemExit(2)
    report(measure(*tables(QUICK_JUDGES if chosen.quick else None)), chosen)


if __name__ == "__main__":
    main()
