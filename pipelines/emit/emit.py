"""Emit: decided pairs and step labels as a dataset folder that `datasets`, TRL and DuckDB read.

    preference/SPLIT.parquet           prompt, chosen, rejected as messages (TRL's conversational format)
    preference_standard/SPLIT.parquet  the same as plain text
    steps/SPLIT.parquet                solutions split into steps, with all that is known of each step
    steps_VIEW/SPLIT.parquet           the same in another shape, for each of the plan's `step_views`
    rejects.parquet                    every row that stopped, and why
    README.md                          the dataset card

A split without rows has no file. Equal input gives equal bytes, whatever the order of its votes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from annotated_types import Ge, Le, Lt, MinLen
from pydantic import Field, model_validator

from pipelines import config
from pipelines.emit.card import PlanFacts, card
from pipelines.emit.ledger import (
    Frames,
    Tables,
    all_rejects,
    assign_splits,
    frame,
    pair_ledger,
    sibling_ledger,
    step_ledger,
    with_votes,
)
from pipelines.emit.split import SPLITS
from pipelines.emit.texts import answer, gather, pieces, prompt_text
from pipelines.emit.view_text import VIEWS, StepView, folder
from pipelines.emit.views import counted, left_out, sibling_rows, step_rows, step_view
from schemas.record import Record
from schemas.records import Preference, StepExample
from schemas.table import with_ids

__all__ = ["NAME", "VERSION", "Config", "PlanFacts", "Tables", "emit"]

NAME = "emit"
VERSION = 3
ROW_GROUP = 10_000
"""Rows of a Parquet row group, and of the text that is held in memory at once."""

STANDARD = pa.schema(
    [
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("chosen", pa.string(), nullable=False),
        pa.field("rejected", pa.string(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
        pa.field("margin", pa.float64(), nullable=False),
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
    ]
)
"""Columns of `preference_standard`."""


class Config(config.Config):
    """What is emitted."""

    name: Annotated[str, MinLen(1)]
    """The dataset's name, as its card shows it."""
    formats: Annotated[tuple[Literal["conversational", "standard"], ...], MinLen(1)] = Field(
        default=("conversational", "standard"), strict=False
    )
    """Shapes of the preferences: lists of messages, plain text, or both."""
    step_views: tuple[StepView, ...] = Field(default=(), strict=False)
    """Other shapes of the step labels, beside `steps`: TRL's stepwise format (`trl`; `trl_int` with
    -100), `soft` targets, `processbench`, `chat` turns with + and -, `siblings` of a tree search."""
    validation: Annotated[float, Ge(0.0), Lt(1.0)] = 0.1
    """Share of prompts held out for validation."""
    test: Annotated[float, Ge(0.0), Lt(1.0)] = 0.1
    """Share of prompts held out for testing."""
    min_probability: Annotated[float, Ge(0.0), Le(1.0)] = 0.0
    """Preferences, of steps too, less probable than this are rejected as `low_probability`."""
    accepted_only: bool = False
    """Emit only what lies within the plan's error bound; others are rejected as `outside_bound`."""
    licence: str | None = None
    """Licence of the whole dataset, as the Hub spells it (`apache-2.0`); none: not stated."""

    @model_validator(mode="after")
    def _leaves_train(self) -> Self:
        if self.validation + self.test >= 1.0:
            raise ValueError("validation + test must be below 1: nothing is left to train on")
        return self


def emit(
    config: Config, tables: Tables, out: Path, plan_facts: PlanFacts | None = None
) -> dict[str, Any]:
    """Write the dataset folder `out` and return what was counted, as the card states it.

    Only `keep`, `flip` and `soften` decisions are emitted. `chosen` is the side that the decision's
    target favours (at exactly 0.5: the side its label names after the action, else response a),
    `probability` is that side's, and votes are turned to it. Rows stand in the prompts' order,
    then by pair id (steps: by trajectory id).

    Raises SchemaError where a pair was decided twice, or where a table is not its record's.
    """
    frames = Frames.of(tables)
    siblings = sibling_ledger(frames, config.min_probability)
    if "siblings" not in config.step_views:
        siblings = siblings.clear()
    (pairs, steps, siblings), promoted = assign_splits(
        [
            pair_ledger(frames, config.min_probability, config.accepted_only),
            step_ledger(frames),
            siblings,
        ],
        config.validation,
        config.test,
    )
    kept = with_votes(pairs.filter(pl.col("fate") == "emitted"), frames.votes)
    labelled = steps.filter(pl.col("fate") == "emitted")
    views: dict[StepView, pl.DataFrame] = {
        view: step_view(view, labelled)
        for view in VIEWS
        if view in config.step_views and view != "siblings"
    }
    stopped = [left_out(view, part) for view, part in views.items()]
    rejects = all_rejects(frames, pairs, steps, siblings, stopped, config.min_probability)

    rows: dict[str, dict[str, int]] = {}
    if "conversational" in config.formats:
        rows["preference"] = _write_splits(
            out / "preference", kept, lambda part: _ided(Preference, _preference(part, frames))
        )
    if "standard" in config.formats:
        rows["preference_standard"] = _write_splits(
            out / "preference_standard",
            kept,
            lambda part: _standard(part, frames).to_arrow().cast(STANDARD),
        )
    rows["steps"] = _write_splits(
        out / "steps", labelled, lambda part: _ided(StepExample, _step_example(part, frames))
    )
    for view, held in views.items():
        rows[folder(view)] = _write_splits(
            out / folder(view),
            held.filter(pl.col("left_out").is_null()),
            lambda part, view=view: step_rows(view, part, frames),  # type: ignore[misc]
        )
    if "siblings" in config.step_views:
        rows[folder("siblings")] = _write_splits(
            out / folder("siblings"),
            siblings.filter(pl.col("fate") == "emitted"),
            lambda part: sibling_rows(part, frames),
        )
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(rejects, out / "rejects.parquet", compression="zstd", row_group_size=ROW_GROUP)
    of_action = pl.when(fate="emitted").then("action").otherwise("fate")
    counts: dict[str, Any] = {
        "prompts": len(frames.prompts),
        "responses": len(frames.responses),
        "votes": len(frames.votes),
        "trajectories": len(frames.trajectories),
        "pairs": _by_fate(pairs.with_columns(fate=of_action)),
        "step_labels": _by_fate(steps),
        "step_pairs": _by_fate(siblings),
        "views": {view: counted(view, held) for view, held in views.items()},
        "rows": rows,
        "promoted": promoted,
        "rejects": _tally(frame(rejects), "stage", "code"),
        "accepted": int(kept["accepted"].fill_null(False).sum()),
        **_provenance(frames, kept, labelled),
    }
    text = card(config.name, config.licence, counts, plan_facts or PlanFacts())
    (out / "README.md").write_text(text, encoding="utf-8", newline="\n")
    return counts


def _write_splits(
    folder: Path, ledger: pl.DataFrame, made: Callable[[pl.DataFrame], pa.Table]
) -> dict[str, int]:
    """Write a file a split, one row group at a time; rows by split, those without rows left out."""
    rows: dict[str, int] = {}
    for split in SPLITS:
        part = ledger.filter(pl.col("split") == split)
        if not len(part):
            continue
        rows[split] = len(part)
        folder.mkdir(parents=True, exist_ok=True)
        groups = (made(group) for group in part.iter_slices(ROW_GROUP))
        first = next(groups)
        with pq.ParquetWriter(folder / f"{split}.parquet", first.schema, compression="zstd") as out:
            out.write_table(first, row_group_size=ROW_GROUP)
            for group in groups:
                out.write_table(group, row_group_size=ROW_GROUP)
    return rows


def _ided(record: type[Record], rows: pl.DataFrame) -> pa.Table:
    return with_ids(record, rows.to_arrow())


def _preference(part: pl.DataFrame, frames: Frames) -> pl.DataFrame:
    """Rows of Preference, without ids."""
    chosen, rejected = (gather(part, frames, "response", side) for side in ("chosen", "rejected"))
    same = chosen["model"] == rejected["model"]
    both = pl.concat_str(chosen["model"], pl.lit(", "), rejected["model"])
    return gather(part, frames, "prompt", "prompt").select(
        prompt="messages",
        chosen=answer(chosen["text"]),
        rejected=answer(rejected["text"]),
        **{name: part[name] for name in _CARRIED},
        model=pl.when(same).then(chosen["model"]).otherwise(both),
        source="source",
        licence="licence",
    )


_CARRIED = (
    *("probability", "margin", "votes", "label_source", "rule", "accepted"),
    *("pair_id", "prompt_id", "chosen_id", "rejected_id"),
)


def _standard(part: pl.DataFrame, frames: Frames) -> pl.DataFrame:
    """Rows of `preference_standard`."""
    return gather(part, frames, "prompt", "prompt").select(
        prompt=prompt_text(),
        chosen=gather(part, frames, "response", "chosen")["text"],
        rejected=gather(part, frames, "response", "rejected")["text"],
        **{name: part[name] for name in STANDARD.names[3:]},
    )


def _step_example(part: pl.DataFrame, frames: Frames) -> pl.DataFrame:
    """Rows of StepExample, without ids."""
    prompts = gather(part, frames, "prompt", "prompt")
    said = pl.element()
    label = pl.when(said == "right").then(1).when(said == "wrong").then(0).otherwise(-100)
    return part.select(
        prompt=prompts["messages"],
        completions=pieces(part, frames),
        labels=pl.col("label").list.eval(label),
        values="value",
        sound="sound",
        advantages="advantage",
        **{n: pl.col(n) for n in ("n", "first_error", "no_error", "resolved", "final_right")},
        method="method",
        trajectory_id="trajectory_id",
        response_id="response_id",
        prompt_id="prompt_id",
        model=gather(part, frames, "response", "model")["model"],
        source=prompts["source"],
        licence=prompts["licence"],
        rests_on=pl.col("source"),
    )


def _by_fate(ledger: pl.DataFrame) -> dict[str, int]:
    return {row["fate"]: row["rows"] for row in _tally(ledger, "fate")}


def _tally(rows: pl.DataFrame, *keys: str, **more: pl.Expr) -> list[dict[str, Any]]:
    """Rows by key, in the keys' order."""
    return rows.group_by(keys).agg(pl.len().alias("rows"), **more).sort(keys).to_dicts()


def _provenance(
    frames: Frames, kept: pl.DataFrame, labelled: pl.DataFrame
) -> dict[str, list[dict[str, Any]]]:
    """Where prompts, responses and labels came from, counted."""
    prompts = frames.prompts.select("prompt_row", "source", "licence")
    for name, ledger in (("preference", kept), ("steps", labelled)):
        used = ledger["prompt_row"].value_counts(name=name)
        prompts = prompts.join(used, on="prompt_row", how="left")
    people = pl.when(judge_kind="human").then(pl.lit("people")).otherwise("judge")
    return {
        "sources": _tally(
            prompts, "source", "licence", **{n: pl.col(n).sum() for n in ("preference", "steps")}
        ),
        "writers": _tally(frames.responses, "model", "engine"),
        "judges": _tally(
            frames.votes.with_columns(judge=people),
            *("judge_kind", "judge", "unit_kind"),
            abstained=pl.col("value").null_count(),
        ),
        "rules": _tally(frames.decisions, "rule", "action"),
        "methods": _tally(labelled, "method"),
    }
