"""What becomes of every pair and every labelled solution: one row each, decided before text is touched.

Ledgers are narrow (ids, numbers, row numbers of the texts), so a million pairs fit easily; the texts
are gathered by row number when a row group is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from pipelines.emit.card import LOCAL_PATH
from pipelines.emit.split import split_column
from schemas.errors import SchemaError
from schemas.records import Reject
from schemas.table import with_ids


@dataclass(frozen=True)
class Tables:
    """A run's tables, each under its record's Arrow schema; without step labels, empty ones."""

    prompts: pa.Table
    responses: pa.Table
    pairs: pa.Table
    votes: pa.Table
    decisions: pa.Table
    step_labels: pa.Table
    trajectories: pa.Table
    step_pairs: pa.Table
    rejects: tuple[pa.Table, ...] = ()


@dataclass(frozen=True)
class Frames:
    """The tables as Polars frames, with row numbers to gather text by.

    Sources, models and units named by an absolute path keep only its last part: what is emitted is
    meant to be published.
    """

    prompts: pl.DataFrame
    responses: pl.DataFrame
    pairs: pl.DataFrame
    votes: pl.DataFrame
    decisions: pl.DataFrame
    step_labels: pl.DataFrame
    trajectories: pl.DataFrame
    step_pairs: pl.DataFrame
    rejects: pl.DataFrame

    @classmethod
    def of(cls, tables: Tables) -> Frames:
        """Raises SchemaError where a pair was decided more than once."""
        rejects = [*tables.rejects, Reject.arrow_schema().empty_table()]
        frames = cls(
            frame(tables.prompts).with_columns(_public("source")).with_row_index("prompt_row"),
            frame(tables.responses).with_columns(_public("model")).with_row_index("response_row"),
            frame(tables.pairs),
            frame(tables.votes),
            frame(tables.decisions),
            frame(tables.step_labels),
            frame(tables.trajectories).with_row_index("trajectory_row"),
            frame(tables.step_pairs),
            pl.concat([frame(table) for table in rejects]).with_columns(_public("unit")),
        )
        twice = frames.decisions.filter(pl.col("pair_id").is_duplicated())
        if len(twice):
            raise SchemaError(f"decisions: pair {twice['pair_id'][0]} was decided more than once")
        return frames


def frame(table: pa.Table) -> pl.DataFrame:
    """An Arrow table as a Polars frame."""
    made = pl.from_arrow(table)
    assert isinstance(made, pl.DataFrame)
    return made


def _public(column: str) -> pl.Expr:
    """`card.public_name` for a column."""
    short = pl.col(column).str.replace(LOCAL_PATH, "")
    return pl.when(short == "").then(pl.lit("local")).otherwise(short).alias(column)


def pair_ledger(
    frames: Frames, min_probability: float, accepted_only: bool = False
) -> pl.DataFrame:
    """One row a pair: its `fate`, which side is chosen, row numbers of its texts.

    `fate` is `emitted` or what stopped it: `drop`, `route` (decided), `rejected` (an earlier stage
    stopped it), `undecided`, `missing_prompt`, `missing_response`, `low_probability`,
    `outside_bound` (not accepted, where only that is emitted).
    """
    of_response = frames.responses.select("response_row", response_id="id")
    target, label = pl.col("target"), pl.col("label")
    named = pl.when(label.is_in(["a", "b"])).then((label == "b") == (pl.col("action") == "flip"))
    favours_a = pl.when(target != 0.5).then(target > 0.5).otherwise(named.otherwise(True))
    stopped = frames.rejects.select(pair_id="unit", stopped=pl.lit(True)).unique()
    a, b = pl.col("row_a"), pl.col("row_b")
    first = pl.col("a_first")
    return (
        frames.pairs.rename({"id": "pair_id"})
        .join(frames.decisions.drop("id", "probability"), on="pair_id", how="left")
        .join(frames.prompts.select("prompt_row", prompt_id="id"), on="prompt_id", how="left")
        .join(of_response, left_on="response_a", right_on="response_id", how="left")
        .rename({"response_row": "row_a"})
        .join(of_response, left_on="response_b", right_on="response_id", how="left")
        .rename({"response_row": "row_b"})
        .join(stopped, on="pair_id", how="left")
        .with_columns(a_first=favours_a, probability=pl.max_horizontal(target, 1.0 - target))
        .select(
            *(
                "pair_id",
                "prompt_id",
                "prompt_row",
                "label_source",
                "action",
                "reason",
                "rule",
                "accepted",
            ),
            *("probability", "margin", "a_first"),
            chosen_row=pl.when(first).then(a).otherwise(b),
            rejected_row=pl.when(first).then(b).otherwise(a),
            chosen_id=pl.when(first).then("response_a").otherwise("response_b"),
            rejected_id=pl.when(first).then("response_b").otherwise("response_a"),
            fate=pl.when(pl.col("action").is_null() & pl.col("stopped"))
            .then(pl.lit("rejected"))
            .when(pl.col("action").is_null())
            .then(pl.lit("undecided"))
            .when(pl.col("action").is_in(["drop", "route"]))
            .then("action")
            .when(pl.col("prompt_row").is_null())
            .then(pl.lit("missing_prompt"))
            .when(a.is_null() | b.is_null())
            .then(pl.lit("missing_response"))
            .when(pl.col("probability") < min_probability)
            .then(pl.lit("low_probability"))
            .when(pl.lit(accepted_only) & ~pl.col("accepted").fill_null(False))
            .then(pl.lit("outside_bound"))
            .otherwise(pl.lit("emitted")),
        )
        .sort("prompt_row", "pair_id", nulls_last=True)
    )


def step_ledger(frames: Frames) -> pl.DataFrame:
    """One row a labelled solution: its `fate`, row numbers of its texts, where its steps end.

    `fate` is `emitted`, `missing_prompt`, `missing_response` (its own, or for a path that a search
    grew any of its prompt's), `bad_split` (the steps do not make up the solution), or, where no step
    has a label, a value or a P(sound), `unresolved` (the method did not reach its goal) or
    `unlabelled`. `model_row` is the response whose model wrote the solution. Nothing says who wrote
    a grown path: it is taken to be the model of its prompt's first response.
    """
    labels = frames.step_labels.rename({"id": "label_id"})
    paths = frames.trajectories.select(
        *("trajectory_row", "ends"),
        trajectory_id="id",
        split_response="response_id",
        path_chars=pl.col("text").str.len_chars(),
    )
    of_response = frames.responses.join(
        labels, left_on="id", right_on="response_id", how="semi"
    ).select("response_row", response_id="id", response_chars=pl.col("text").str.len_chars())
    first = (
        frames.responses.sort("sample_index", "id")
        .group_by("prompt_id", maintain_order=True)
        .agg(first_row=pl.col("response_row").first())
    )
    end = pl.col("ends").list
    whole = (
        pl.col("split_response").eq_missing(pl.col("response_id"))
        & (end.len() > 0)
        & (end.len() == pl.col("steps").list.len())
        & (end.first() >= 0)
        & (end.last() <= pl.col("chars"))
        & (end.diff().list.min().fill_null(0) >= 0)
    )
    known = pl.sum_horizontal(pl.col("label", "value", "sound").list.drop_nulls().list.len())
    grown = pl.col("response_id").is_null()
    return (
        labels.join(paths, on="trajectory_id", how="left")
        .join(frames.prompts.select("prompt_row", prompt_id="id"), on="prompt_id", how="left")
        .join(of_response, on="response_id", how="left")
        .join(first, on="prompt_id", how="left")
        .with_columns(
            chars=pl.when(grown).then("path_chars").otherwise("response_chars"),
            model_row=pl.when(grown).then("first_row").otherwise("response_row"),
        )
        .with_columns(
            fate=pl.when(pl.col("prompt_row").is_null())
            .then(pl.lit("missing_prompt"))
            .when(pl.col("model_row").is_null())
            .then(pl.lit("missing_response"))
            .when(~whole.fill_null(False))
            .then(pl.lit("bad_split"))
            .when((known == 0) & ~pl.col("resolved"))
            .then(pl.lit("unresolved"))
            .when(known == 0)
            .then(pl.lit("unlabelled"))
            .otherwise(pl.lit("emitted"))
        )
        .drop("path_chars", "response_chars", "first_row", "split_response", "steps", "asked")
        .sort("prompt_row", "trajectory_id", "label_id", nulls_last=True)
    )


def sibling_ledger(frames: Frames, min_probability: float) -> pl.DataFrame:
    """One row a pair of sibling steps; `fate`: `emitted`, `missing_prompt`, `low_probability`."""
    return (
        frames.step_pairs.join(
            frames.prompts.select("prompt_row", prompt_id="id"), on="prompt_id", how="left"
        )
        .with_columns(
            fate=pl.when(pl.col("prompt_row").is_null())
            .then(pl.lit("missing_prompt"))
            .when(pl.col("probability") < min_probability)
            .then(pl.lit("low_probability"))
            .otherwise(pl.lit("emitted"))
        )
        .sort("prompt_row", "id", nulls_last=True)
    )


def assign_splits(
    ledgers: Sequence[pl.DataFrame], validation: float, test: float
) -> tuple[list[pl.DataFrame], int]:
    """Add `split`; say how many prompts were moved to give every kind of rows a train split.

    Only a handful of prompts can leave `train` empty. Then the one whose id lies nearest to it
    moves there, in every ledger alike: a prompt is never in two splits.
    """
    split = split_column(pl.col("prompt_id"), validation, test)
    moved: list[str] = []
    for ledger in ledgers:
        prompts = ledger.filter(pl.col("fate") == "emitted")["prompt_id"].unique().to_frame()
        trained = prompts.filter((split == "train") | pl.col("prompt_id").is_in(moved))
        if len(prompts) and not len(trained):
            moved.append(prompts.select(pl.col("prompt_id").max()).item())
    final = pl.when(pl.col("prompt_id").is_in(moved)).then(pl.lit("train")).otherwise(split)
    return [ledger.with_columns(split=final) for ledger in ledgers], len(moved)


def with_votes(kept: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """Add `votes`: per judge the mean of both orders, turned to chosen, sorted by judge.

    Values are sorted before they are averaged, so the votes' order cannot change the last bit.
    """
    mean = pl.col("value").sort().mean()
    turned = (
        votes.filter(pl.col("unit_kind") == "pair")
        .join(kept.select("pair_id", "a_first"), left_on="unit", right_on="pair_id")
        .group_by("unit", "judge", "order", "a_first")
        .agg(mean)
        .group_by("unit", "judge", "a_first")
        .agg(mean)
        # + 0.0 turns -0.0 into 0.0, which hashes and prints as what it is
        .with_columns(value=pl.col("value") * pl.when("a_first").then(1.0).otherwise(-1.0) + 0.0)
        .sort("unit", "judge")
        .group_by("unit", maintain_order=True)
        .agg(votes=pl.struct("judge", "value"))
    )
    joined = kept.join(
        turned, left_on="pair_id", right_on="unit", how="left", maintain_order="left"
    )
    return joined.with_columns(pl.col("votes").fill_null([]))


def all_rejects(
    frames: Frames,
    pairs: pl.DataFrame,
    steps: pl.DataFrame,
    siblings: pl.DataFrame,
    left_out: Sequence[pl.DataFrame],
    min_probability: float,
) -> pa.Table:
    """Every Reject of the run once, sorted: those of earlier stages, of the decisions and of emit.

    `left_out`: rows (unit, stage, code, detail) that views of the step labels do not take.
    """
    low = pl.format("probability {} is below {}", pl.col("probability"), pl.lit(min_probability))
    decided = pl.col("fate").is_in(["drop", "route"])
    of_pairs = pairs.filter(~pl.col("fate").is_in(["emitted", "rejected"])).select(
        unit="pair_id",
        stage=pl.when(decided).then(pl.lit("decide")).otherwise(pl.lit("emit")),
        code=pl.when(decided).then("reason").otherwise("fate"),
        detail=pl.when(decided)
        .then(pl.format("{} by {}", "action", "rule"))
        .when(pl.col("fate") == "low_probability")
        .then(low)
        .otherwise(pl.col("fate").replace_strict(_DETAIL, default="")),
    )
    of_steps = [
        ledger.filter(pl.col("fate") != "emitted").select(
            unit=unit,
            stage=pl.lit("emit"),
            code="fate",
            detail=pl.when(pl.col("fate") == "low_probability")
            .then(said)
            .otherwise(pl.col("fate").replace_strict(_DETAIL, default="")),
        )
        for ledger, unit, said in ((steps, "label_id", pl.lit("")), (siblings, "id", low))
    ]
    stray = frames.decisions.join(
        frames.pairs, left_on="pair_id", right_on="id", how="anti"
    ).select(
        unit="id",
        stage=pl.lit("emit"),
        code=pl.lit("missing_pair"),
        detail=pl.format("decides about pair {}, which is not in the run", "pair_id"),
    )
    earlier = frames.rejects.select("unit", "stage", "code", "detail")
    # a stage may have written its own row for a drop: one is enough
    new = pl.concat([of_pairs, *of_steps, stray, *left_out]).join(
        earlier, on=["unit", "code"], how="anti"
    )
    rows = (
        pl.concat([earlier, new])
        .with_columns(pl.col("detail").str.slice(0, 500))
        .unique()
        .sort("stage", "code", "unit", "detail")
    )
    return with_ids(Reject, rows.to_arrow())


_DETAIL = {
    "outside_bound": "it is not accepted within the plan's error bound",
    "undecided": "no decision was made about this pair",
    "missing_prompt": "its prompt is not in the run",
    "missing_response": "a response of it is not in the run",
    "bad_split": "its steps do not make up the solution",
    "unresolved": "the labelling method found no label and no value for any step",
    "unlabelled": "no step has a label or a value",
}
