"""Views of the step labels: the same rows in the shapes that trainers and benchmarks read.

Each is a configuration of its own, `steps_VIEW`, with the splits of `steps`. What a view cannot hold
is counted: steps that it cuts or masks, and rows that it leaves out, each with a reason.

    trl           TRL's stepwise format: prompt as text, completions, boolean labels
    trl_int       the same over whole solutions, with integers: -100 teaches nothing
    soft          the same over whole solutions, with values and P(sound)
    processbench  the columns of Qwen/ProcessBench (arXiv 2412.06559): the first error's index
    chat          a turn a step, answered by + or - (RLHFlow's process reward models)
    siblings      two steps after the same prefix as a preference
"""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from pipelines.emit.ledger import Frames
from pipelines.emit.texts import answer, gather, pieces, prompt_text
from pipelines.emit.view_text import REASONS, StepView

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_STEPS = [("prompt", pa.string()), ("completions", pa.list_(pa.string()))]
_IDS = [("trajectory_id", pa.string()), ("prompt_id", pa.string())]
SCHEMAS: dict[StepView, pa.Schema] = {
    "trl": pa.schema([*_STEPS, ("labels", pa.list_(pa.bool_())), *_IDS]),
    "trl_int": pa.schema([*_STEPS, ("labels", pa.list_(pa.int64())), *_IDS]),
    "soft": pa.schema(
        [
            *_STEPS,
            ("labels", pa.list_(pa.float64())),
            ("sound", pa.list_(pa.float64())),
            *_IDS,
        ]
    ),
    "processbench": pa.schema(
        [
            ("id", pa.string()),
            ("generator", pa.string()),
            ("problem", pa.string()),
            ("steps", pa.list_(pa.string())),
            ("final_answer_correct", pa.bool_()),
            ("label", pa.int64()),
            ("prompt_id", pa.string()),
        ]
    ),
    "chat": pa.schema([("messages", _MESSAGES), *_IDS]),
    "siblings": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("chosen", _MESSAGES),
            ("rejected", _MESSAGES),
            ("prefix", pa.string()),
            ("probability", pa.float64()),
            ("margin", pa.float64()),
            ("step_pair_id", pa.string()),
            ("prompt_id", pa.string()),
        ]
    ),
}
"""Columns of every view."""


def step_view(view: StepView, labelled: pl.DataFrame) -> pl.DataFrame:
    """The emitted rows of `step_ledger` with `left_out` (the reason; null: they are in the view),
    `length` (steps), `error` (index of the first error; null: none) and `kept` (steps up to the
    first error that come before any without a label).
    """
    missing = pl.col("label").list.eval(pl.element().is_null().arg_true()).list.first()
    length, error, kept = pl.col("length"), pl.col("error"), pl.col("kept")
    until = pl.coalesce(error + 1, length)
    rows = labelled.with_columns(
        length=pl.col("label").list.len().cast(pl.Int64),
        error=pl.col("first_error"),
        missing=missing.cast(pl.Int64),
    ).with_columns(kept=pl.min_horizontal(until, pl.coalesce("missing", length)))
    why: pl.Expr
    if view in ("trl", "chat"):
        why = pl.when(kept == 0).then(pl.lit("unlabelled_start"))
    elif view == "trl_int":
        why = pl.when(_known("label") == 0).then(pl.lit("no_label"))
    elif view == "soft":
        why = pl.when(_known("value") + _known("sound") == 0).then(pl.lit("no_value"))
    else:
        right = pl.col("final_right")
        why = (
            pl.when(~pl.col("resolved"))
            .then(pl.lit("unresolved"))
            .when(kept < until)
            .then(pl.lit("unlabelled_before_error"))
            .when(right.is_null())
            .then(pl.lit("no_final_answer"))
            .when(error.is_null() & ~right)
            .then(pl.lit("error_not_found"))
        )
    return rows.with_columns(left_out=why.otherwise(None))


def left_out(view: StepView, rows: pl.DataFrame) -> pl.DataFrame:
    """Rejects (unit, stage, code, detail) of the rows that `step_view` leaves out."""
    return rows.filter(pl.col("left_out").is_not_null()).select(
        unit="label_id",
        stage=pl.lit("emit"),
        code=pl.format(f"{view}_{{}}", "left_out"),
        detail=pl.col("left_out").replace_strict(REASONS, return_dtype=pl.String),
    )


def counted(view: StepView, rows: pl.DataFrame) -> dict[str, Any]:
    """What a view holds and what it does not: `rows` + sum of `left_out` are all rows of `steps`,
    and `steps` + sum of `cut` are all steps of its rows. `masked` are among its `steps`.
    """
    stopped = rows["left_out"].drop_nulls().value_counts(name="rows").sort("left_out")
    held = rows.filter(pl.col("left_out").is_null())
    length, kept, after = pl.col("length"), pl.col("kept"), pl.col("length") - pl.col("error") - 1
    at_error = (kept == pl.col("error") + 1).fill_null(False)
    cut = {
        "after the first error": pl.when(at_error).then(length - kept).otherwise(0),
        "unlabelled, and after it": pl.when(at_error).then(0).otherwise(length - kept),
    }
    masked: dict[str, pl.Expr] = {}
    if view == "trl_int":
        until = pl.col("label").list.head(pl.coalesce(pl.col("error") + 1, length))
        masked = {
            "after the first error": after.fill_null(0),
            "unlabelled": until.list.eval(pl.element().is_null()).list.sum(),
        }
    elif view == "soft":
        masked = {f"no {name}": length - _known(name).cast(pl.Int64) for name in ("value", "sound")}
    return {
        "rows": len(held),
        "left_out": dict(stopped.iter_rows()),
        "steps": _total(held, kept if view in ("trl", "chat") else length),
        "cut": {k: _total(held, e) for k, e in cut.items()} if view in ("trl", "chat") else {},
        "masked": {k: _total(held, e) for k, e in masked.items()},
    }


def _total(rows: pl.DataFrame, steps: pl.Expr) -> int:
    return int(rows.select(steps.cast(pl.Int64).sum()).item())


def _known(column: str) -> pl.Expr:
    """How many steps have one."""
    return pl.col(column).list.drop_nulls().list.len()


def step_rows(view: StepView, part: pl.DataFrame, frames: Frames) -> pa.Table:
    """Rows of a view, under its schema. `part`: rows of `step_view` that it does not leave out."""
    prompts = gather(part, frames, "prompt", "prompt")
    rows = part.with_columns(
        messages=prompts["messages"], problem=prompts.select(prompt_text()).to_series()
    ).with_columns(completions=pieces(part, frames))
    kept, whole = pl.col("kept"), pl.col("label")
    said = pl.element()
    if view == "chat":
        made = _chat(rows)
    elif view == "processbench":
        made = rows.select(
            id="trajectory_id",
            generator=gather(part, frames, "response", "model")["model"],
            problem="problem",
            steps=pl.col("completions").list.eval(said.str.strip_chars()),
            final_answer_correct="final_right",
            label=pl.col("error").fill_null(-1),
            prompt_id="prompt_id",
        )
    elif view == "trl":
        made = rows.with_columns(
            completions=pl.col("completions").list.head(kept),
            labels=whole.list.head(kept).list.eval(said == "right"),
        )
    elif view == "trl_int":
        until = pl.coalesce(pl.col("error") + 1, pl.col("length"))
        number = pl.when(said == "right").then(1).when(said == "wrong").then(0).otherwise(-100)
        made = rows.with_columns(
            labels=pl.concat_list(
                whole.list.head(until).list.eval(number.cast(pl.Int64)),
                pl.lit(-100, pl.Int64).repeat_by(pl.col("length") - until),
            )
        )
    else:
        made = rows.with_columns(labels="value")
    names = SCHEMAS[view].names
    if "prompt" in names:
        made = made.with_columns(prompt="problem")
    return made.select(names).to_arrow().cast(SCHEMAS[view])


def _chat(rows: pl.DataFrame) -> pl.DataFrame:
    """Conversations of the first `kept` steps. The first step stands in the prompt's last turn
    after a space where that is the user's, else in a turn of its own.
    """
    last = pl.col("messages").list.last().struct
    asked = (last.field("role") == "user").fill_null(False)
    before = pl.col("messages").list.len() - 1
    step = pl.col("completions").str.strip_chars()
    first = pl.int_range(pl.len()).over("row") == 0
    told = pl.when(first).then(pl.concat_str("question", step)).otherwise(step)
    sign = pl.when(pl.col("label") == "right").then(pl.lit("+")).otherwise(pl.lit("-"))
    rows = rows.with_row_index("row")
    turns = (
        rows.select(
            "row",
            pl.col("completions", "label").list.head("kept"),
            question=pl.when(asked).then(last.field("content") + " ").otherwise(pl.lit("")),
        )
        .explode("completions", "label")
        .with_columns(
            turn=pl.concat_list(
                pl.struct(role=pl.lit("user"), content=told),
                pl.struct(role=pl.lit("assistant"), content=sign),
            )
        )
        .group_by("row", maintain_order=True)
        .agg(pl.col("turn").list.explode())
    )
    opening = pl.when(asked).then(pl.col("messages").list.head(before)).otherwise("messages")
    return rows.with_columns(messages=pl.concat_list(opening, turns["turn"]))


def sibling_rows(part: pl.DataFrame, frames: Frames) -> pa.Table:
    """Rows of `siblings`: both answers begin with the prefix, so they compare at the step alone."""
    schema = SCHEMAS["siblings"]
    made = part.select(
        prompt=gather(part, frames, "prompt", "prompt")["messages"],
        chosen=answer(pl.concat_str("prefix", "chosen")),
        rejected=answer(pl.concat_str("prefix", "rejected")),
        prefix="prefix",
        probability="probability",
        margin=pl.col("chosen_value") - pl.col("rejected_value"),
        step_pair_id="id",
        prompt_id="prompt_id",
    )
    return made.to_arrow().cast(schema)
