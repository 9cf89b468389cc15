"""Rubrics as training data: Parquet tables in the shapes that trainers read, and a card.

    generator  a prompt and its rubric: supervised training of a rubric generator
    contrasts  a helpful and a misleading rubric of a prompt: preferences over rubrics (C2)
    judge      a response, a criterion, and a judge's reasoning and verdict
    rewards    a prompt with the criteria, weights and code checks that reward its responses

`prompt`, `completion`, `chosen` and `rejected` are lists of messages, as TRL reads them. The same
tables give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from pipelines.prompting import Template, load
from pipelines.rubrics.drafting import TEMPLATES
from schemas.errors import SchemaError

Export = Literal["generator", "contrasts", "judge", "rewards"]

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_CRITERION = pa.struct(
    [
        ("criterion_id", pa.string()),
        ("kind", pa.string()),
        ("text", pa.string()),
        ("weight", pa.float64()),
        ("category", pa.string()),
        ("verifier", pa.string()),
        ("parent", pa.string()),
    ]
)
SCHEMAS: dict[Export, pa.Schema] = {
    "generator": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("completion", _MESSAGES),
            ("prompt_id", pa.string()),
            ("rubric_id", pa.string()),
            ("method", pa.string()),
            ("status", pa.string()),
        ]
    ),
    "contrasts": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("chosen", _MESSAGES),
            ("rejected", _MESSAGES),
            ("chosen_value", pa.float64()),
            ("rejected_value", pa.float64()),
            ("judge", pa.string()),
            ("prompt_id", pa.string()),
            ("chosen_rubric", pa.string()),
            ("rejected_rubric", pa.string()),
        ]
    ),
    "judge": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("completion", _MESSAGES),
            ("verdict", pa.string()),
            ("judge", pa.string()),
            ("prompt_id", pa.string()),
            ("response_id", pa.string()),
            ("criterion_id", pa.string()),
        ]
    ),
    "rewards": pa.schema(
        [
            ("prompt", _MESSAGES),
            ("criteria", pa.list_(_CRITERION)),
            ("scoring", pa.string()),
            ("verifiers", pa.list_(pa.string())),
            ("reference", pa.string()),
            ("answer_verifier", pa.string()),
            ("prompt_id", pa.string()),
            ("rubric_id", pa.string()),
        ]
    ),
}

_VERDICTS = {1.0: "yes", 0.5: "partly", 0.0: "no"}


def generator_rows(prompts: pa.Table, rubrics: pa.Table, criteria: pa.Table) -> pa.Table:
    """A row for every rubric of a prompt that is not retired, in the prompts' order.

    Rubrics of prompts that are not given, and those for any prompt, have no row. Raises SchemaError
    where a rubric names a criterion that is not given.
    """
    texts = _rubric_texts(_items(rubrics, criteria))
    frame = (
        _prompts(prompts)
        .join(_rubrics(rubrics).filter(pl.col("status") != "retired"), on="prompt_id")
        .sort("place", "id")
    )
    rows = [
        {
            "prompt": _filled("generate", prompt=asked),
            "completion": _answer(texts[row["id"]]),
            "prompt_id": row["prompt_id"],
            "rubric_id": row["id"],
            "method": row["method"],
            "status": row["status"],
        }
        for row in frame.iter_rows(named=True)
        for asked in [_transcript(row["messages"])]
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["generator"])


def contrast_rows(
    prompts: pa.Table, rubrics: pa.Table, criteria: pa.Table, values: pa.Table
) -> pa.Table:
    """A row for every prompt and judge whose values name a helpful and a misleading rubric.

    `values`: RubricValue rows, of which those of whole rubrics are read. Helpful: kept, with a value
    above 0; misleading: with one below (C2, by the value's sign). Of each the extreme one is taken.
    Raises SchemaError as above.
    """
    texts = _rubric_texts(_items(rubrics, criteria))
    known = _rubrics(rubrics).select("prompt_id", "status", rubric_id="id").drop_nulls("prompt_id")
    valued = (
        _frame(values)
        .filter(pl.col("criterion_id").is_null() & pl.col("value").is_not_null())
        .select("rubric_id", "judge", "value", "action")
        .join(known, on="rubric_id")
    )
    helpful = valued.filter(
        (pl.col("value") > 0) & (pl.col("action") == "keep") & (pl.col("status") != "retired")
    ).sort(["value", "rubric_id"], descending=[True, False])
    misleading = valued.filter(pl.col("value") < 0).sort("value", "rubric_id")
    cell = ["prompt_id", "judge"]
    frame = (
        helpful.group_by(cell)
        .first()
        .join(misleading.group_by(cell).first(), on=cell, suffix="_rejected")
        .join(_prompts(prompts), on="prompt_id")
        .sort("place", "judge")
    )
    rows = [
        {
            "prompt": _filled("generate", prompt=_transcript(row["messages"])),
            "chosen": _answer(texts[row["rubric_id"]]),
            "rejected": _answer(texts[row["rubric_id_rejected"]]),
            "chosen_value": row["value"],
            "rejected_value": row["value_rejected"],
            "judge": row["judge"],
            "prompt_id": row["prompt_id"],
            "chosen_rubric": row["rubric_id"],
            "rejected_rubric": row["rubric_id_rejected"],
        }
        for row in frame.iter_rows(named=True)
    ]
    return pa.Table.from_pylist(rows, SCHEMAS["contrasts"])


def judge_rows(
    prompts: pa.Table, responses: pa.Table, criteria: pa.Table, votes: pa.Table
) -> pa.Table:
    """A row for every verdict in words: a criterion's vote of 1, 1/2 or 0 with a reason, not code's.

    In the votes' order. A vote on a response, prompt or criterion that is not given has no row.
    """
    asked = _prompts(prompts).select("prompt_id", "messages")
    answers = _frame(responses).select("prompt_id", unit="id", answer="text")
    known = _frame(criteria).select(criterion="id", requirement="text")
    frame = (
        _frame(votes)
        .with_row_index("row")
        .filter(
            (pl.col("unit_kind") == "criterion")
            & (pl.col("judge_kind") != "code")
            & pl.col("value").is_in(list(_VERDICTS))
            & (pl.col("reason").str.strip_chars() != "")
        )
        .select("row", "unit", "criterion", "judge", "value", "reason")
        .join(answers, on="unit")
        .join(known, on="criterion")
        .join(asked, on="prompt_id")
        .sort("row")
    )
    batches = [
        pa.RecordBatch.from_pylist(
            [_verdict(row) for row in part.iter_rows(named=True)], SCHEMAS["judge"]
        )
        for part in frame.iter_slices(4096)
    ]
    return pa.Table.from_batches(batches, SCHEMAS["judge"])


def _verdict(row: dict[str, Any]) -> dict[str, Any]:
    said = {"justification": row["reason"], "verdict": _VERDICTS[row["value"]]}
    return {
        "prompt": _filled(
            "grade",
            prompt=_transcript(row["messages"]),
            response=row["answer"],
            criterion=row["requirement"],
        ),
        "completion": _answer(json.dumps(said, ensure_ascii=False)),
        "verdict": said["verdict"],
        "judge": row["judge"],
        "prompt_id": row["prompt_id"],
        "response_id": row["unit"],
        "criterion_id": row["criterion"],
    }


def reward_rows(prompts: pa.Table, rubrics: pa.Table, criteria: pa.Table) -> pa.Table:
    """A row for every prompt and rubric that applies to it and is not retired, in the prompts' order.

    A rubric for any prompt applies to all. `verifiers` are the names of its code checks. Raises
    SchemaError where a rubric names a criterion that is not given.
    """
    name = pl.col("verifier").str.split(" ").list.first()
    held = (
        _items(rubrics, criteria)
        .group_by("rubric_id", maintain_order=True)
        .agg(
            criteria=pl.struct(field.name for field in _CRITERION),
            verifiers=name.drop_nulls().unique().sort(),
        )
    )
    known = (
        _rubrics(rubrics)
        .filter(pl.col("status") != "retired")
        .select("scoring", rubric_id="id", of="prompt_id")
        .join(held, on="rubric_id")
    )
    asked = _prompts(prompts)
    own = asked.join(known.drop_nulls("of"), left_on="prompt_id", right_on="of")
    general = asked.join(known.filter(pl.col("of").is_null()).drop("of"), how="cross")
    frame = (
        pl.concat([own, general.select(own.columns)])
        .sort("place", "rubric_id")
        .rename({"messages": "prompt", "verifier": "answer_verifier"})
    )
    schema = SCHEMAS["rewards"]
    return frame.select(schema.names).to_arrow().cast(schema)


# --- parts ------------------------------------------------------------------------------------------


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def _prompts(prompts: pa.Table) -> pl.DataFrame:
    """Prompts with their place in the table."""
    return (
        _frame(prompts)
        .with_row_index("place")
        .select("place", "messages", "reference", "verifier", prompt_id="id")
    )


def _rubrics(rubrics: pa.Table) -> pl.DataFrame:
    """Rubrics that have criteria."""
    return _frame(rubrics).filter(pl.col("criteria").list.len() > 0)


def _items(rubrics: pa.Table, criteria: pa.Table) -> pl.DataFrame:
    """The rubrics' criteria, in their order, by rubric."""
    listed = _rubrics(rubrics).select("criteria", rubric_id="id").explode("criteria")
    listed = listed.rename({"criteria": "criterion_id"})
    known = _frame(criteria).rename({"id": "criterion_id"})
    found = listed.join(known, on="criterion_id", how="left", maintain_order="left")
    if len(lost := found.filter(pl.col("text").is_null())):
        row = lost.row(0, named=True)
        raise SchemaError(
            f"rubric {row['rubric_id']} names the criterion {row['criterion_id']}, which is not given"
        )
    return found


def _rubric_texts(items: pl.DataFrame) -> dict[str, str]:
    """Rubrics as JSON, by id; a child names its parent by its place in the list, from 1."""
    texts: dict[str, str] = {}
    for (rubric,), part in items.group_by("rubric_id", maintain_order=True):
        places = {id: place for place, id in enumerate(part["criterion_id"], start=1)}
        listed = []
        for row in part.iter_rows(named=True):
            item = {"text": row["text"], "kind": row["kind"], "weight": row["weight"]}
            if row["parent"] is not None:
                item["parent"] = places.get(row["parent"])
            listed.append(item)
        texts[str(rubric)] = json.dumps({"criteria": listed}, ensure_ascii=False)
    return texts


def _filled(name: str, **values: str) -> list[dict[str, str]]:
    template: Template = load(TEMPLATES, name)
    return [{"role": m.role, "content": m.content} for m in template.fill(values)]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _transcript(messages: Iterable[Mapping[str, str]]) -> str:
    """A prompt as one text."""
    said = list(messages)
    if len(said) == 1:
        return said[0]["content"]
    return "\n\n".join(f"{message['role']}:\n{message['content']}" for message in said)
