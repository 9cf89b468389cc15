"""What `validate`, `with_ids` and `adapt` refuse, and how they say so."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import create_model

from schemas.errors import SchemaError
from schemas.record import RECORD_KEY, VERSION_KEY, Record
from schemas.records import (
    Constraint,
    Decision,
    Message,
    Pair,
    Prompt,
    Response,
    Rollout,
    StepLabels,
    Vote,
)
from schemas.table import adapt, validate, with_ids

PAIRS = [Pair(prompt_id="p", response_a="a", response_b=b, label="a") for b in "xyz"]


def response(**change: Any) -> Response:
    row = {
        "prompt_id": "p",
        "engine": "e",
        "model": "m",
        "sample_index": 0,
        "text": "t",
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "finish_reason": "stop",
    }
    return Response(**(row | change))


def with_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """The table with other values in a column, of the same type, unchecked."""
    field = table.schema.field(name)
    index = table.schema.get_field_index(name)
    return table.set_column(index, field, pa.array(values, field.type))


# --- validate ------------------------------------------------------------------------------------


def test_a_good_table_passes() -> None:
    validate(Pair, Pair.to_table(PAIRS))
    validate(Pair, Pair.to_table([]))
    validate(Prompt, Prompt.to_table([Prompt(messages=(), source="s")]))


@pytest.mark.parametrize(
    ("record", "rows", "column", "values", "line"),
    [
        (Pair, PAIRS, "prompt_id", ["p", None, "p"], "Pair.prompt_id: holds nulls"),
        (Pair, PAIRS, "id", ["1", None, "3"], "Pair.id: holds nulls"),
        (Pair, PAIRS, "id", ["1", "2", "1"], "Pair.id: 1 stands more than once"),
        (Pair, PAIRS, "label", ["a", None, "c"], "Pair.label: 'c' is not allowed"),
        (
            Response,
            [response()],
            "sample_index",
            [-1],
            r"Response.sample_index: -1 is out of range \(0\)",
        ),
        (
            Response,
            [response()],
            "logprob",
            [float("nan")],
            "Response.logprob: nan is not a finite number",
        ),
        (
            Response,
            [response()],
            "finish_reason",
            ["cut"],
            "Response.finish_reason: 'cut' is not allowed",
        ),
        (
            Decision,
            [
                Decision(
                    pair_id="p",
                    action="keep",
                    probability=0.5,
                    target=0.5,
                    margin=0,
                    reason="r",
                    rule="r",
                )
            ],
            "target",
            [1.5],
            r"Decision.target: 1.5 is out of range \(1.0\)",
        ),
        (
            Prompt,
            [Prompt(messages=(Message(role="user", content="x"),), source="s")],
            "messages",
            [[{"role": "robot", "content": "x"}]],
            "Prompt.messages.role: 'robot' is not allowed",
        ),
        (
            Prompt,
            [Prompt(messages=(Message(role="user", content="x"),), source="s")],
            "messages",
            [[{"role": "user", "content": "x"}, {"role": "user", "content": None}]],
            "Prompt.messages.content: holds nulls",
        ),
        (
            Prompt,
            [Prompt(messages=(), source="s", constraints=(Constraint(kind="json"),))],
            "constraints",
            [[{"kind": "rhymes", "value": None}]],
            "Prompt.constraints.kind: 'rhymes' is not allowed",
        ),
    ],
)
def test_a_bad_value_is_refused_by_column_and_value(
    record: type[Record], rows: list[Any], column: str, values: list[Any], line: str
) -> None:
    table = with_column(record.to_table(rows), column, values)
    with pytest.raises(SchemaError, match=f"^{line}$"):
        validate(record, table)


def labels(n: int = 1) -> StepLabels:
    return StepLabels(
        prompt_id="p",
        response_id="r",
        trajectory_id="t",
        method="m",
        steps=("s",),
        n=(n,),
        successes=(0,),
        truncated=(0,),
        unparsed=(0,),
        value=(None,),
        low=(None,),
        high=(None,),
        sound=(None,),
        error=(None,),
        advantage=(None,),
        judge_label=(None,),
        judge_probability=(None,),
        label=("right",),
        source=("none",),
        first_error=None,
        no_error=None,
        resolved=True,
        stopped="complete",
        asked=(),
        tokens=(0,),
        final_right=None,
    )


@pytest.mark.parametrize(
    ("column", "values", "line"),
    [
        ("label", [["right", None, "maybe"]], "StepLabels.label: 'maybe' is not allowed"),
        ("source", [["none", None]], "StepLabels.source: holds nulls"),
        ("value", [[0.5, None, float("inf")]], "StepLabels.value: inf is not a finite number"),
    ],
)
def test_values_inside_lists_are_checked(column: str, values: list[Any], line: str) -> None:
    validate(StepLabels, StepLabels.to_table([labels()]))
    table = with_column(StepLabels.to_table([labels()]), column, values)
    with pytest.raises(SchemaError, match=f"^{line}$"):
        validate(StepLabels, table)


def test_bounds_hold_inside_unions_and_lists() -> None:
    from schemas.records import Count, Probability

    bounded = create_model(
        "Bounded",
        __base__=Record,
        maybe=(Probability | None, None),
        counts=(tuple[Count, ...], ()),
    )
    table = bounded.to_table([bounded(maybe=0.5, counts=(1, 2)), bounded()])
    validate(bounded, table)
    with pytest.raises(SchemaError, match=r"^Bounded.maybe: 1.5 is out of range \(1.0\)$"):
        validate(bounded, with_column(table, "maybe", [1.5, None]))
    with pytest.raises(SchemaError, match=r"^Bounded.counts: -2 is out of range \(0\)$"):
        validate(bounded, with_column(table, "counts", [[1, -2], []]))


def test_other_columns_or_types_are_refused_by_name() -> None:
    table = Pair.to_table(PAIRS)
    with pytest.raises(SchemaError, match=r"^Pair: columns differ from the record's: label$"):
        validate(Pair, table.drop(["label"]))
    with pytest.raises(SchemaError, match=r"^Pair: columns differ from the record's: more$"):
        validate(Pair, table.append_column("more", pa.array([1, 2, 3])))
    index = table.schema.get_field_index("label")
    other = table.set_column(index, "label", pa.array([1, 2, 3]))
    with pytest.raises(SchemaError, match=r"^Pair: columns differ from the record's: label$"):
        validate(Pair, other)
    loose = pa.table(table.columns, schema=pa.schema([f.with_nullable(True) for f in table.schema]))
    with pytest.raises(SchemaError, match=r"^Pair: columns differ from the record's: nullability$"):
        validate(Pair, loose)


def test_a_bad_value_in_a_later_chunk_is_found() -> None:
    good = Pair.to_table(PAIRS[:1])
    bad = with_column(Pair.to_table(PAIRS[1:2]), "label", ["?"])
    with pytest.raises(SchemaError, match=r"Pair.label: '\?' is not allowed"):
        validate(Pair, pa.concat_tables([good, bad]))


# --- with_ids ------------------------------------------------------------------------------------


def test_with_ids_names_missing_and_unknown_columns() -> None:
    bare = (
        Pair.to_table(PAIRS)
        .drop(["id", "label"])
        .append_column("colour", pa.array(["r", "g", "b"]))
    )
    with pytest.raises(
        SchemaError, match=r"^Pair: missing columns \['label'\], unknown columns \['colour'\]$"
    ):
        with_ids(Pair, bare)


def test_with_ids_refuses_what_cannot_be_cast() -> None:
    bare = Pair.to_table(PAIRS).drop(["id"])
    index = bare.schema.get_field_index("label_source")
    with pytest.raises(SchemaError, match=r"^Pair: columns cannot be cast: Unsupported cast"):
        with_ids(Pair, bare.set_column(index, "label_source", pa.array([[1]] * 3)))
    index = bare.schema.get_field_index("prompt_id")
    with pytest.raises(SchemaError, match=r"^Pair: columns cannot be cast: .*'prompt_id'.*null"):
        with_ids(Pair, bare.set_column(index, "prompt_id", pa.array(["p", None, "q"])))


# --- adapt ---------------------------------------------------------------------------------------


def old(table: pa.Table, **metadata: str) -> pa.Table:
    keys = {"name": RECORD_KEY, "version": VERSION_KEY}
    changed = {keys[k]: v.encode() for k, v in metadata.items()}
    return table.replace_schema_metadata({**table.schema.metadata, **changed})


def test_fields_added_since_are_filled_with_their_default() -> None:
    prompts = [Prompt(messages=(), source="s"), Prompt(messages=(), source="t")]
    table = Prompt.to_table(prompts)
    read = adapt(Prompt, table.drop(["task", "constraints", "licence"]), "f.parquet")
    assert read.schema.equals(Prompt.arrow_schema(), check_metadata=True)
    assert read == table
    assert [row.id for row in Prompt.from_table(read)] == [row.id for row in prompts]
    empty = adapt(Prompt, table.slice(0, 0).drop(["task", "constraints"]), "f.parquet")
    assert len(empty) == 0 and empty.schema.equals(Prompt.arrow_schema())


def test_the_order_of_columns_does_not_matter() -> None:
    table = Pair.to_table(PAIRS)
    assert adapt(Pair, table.select(table.column_names[::-1]), "f") == table


def test_a_table_as_today_is_given_back_as_it_is() -> None:
    table = Pair.to_table(PAIRS)
    assert adapt(Pair, table, "f") is table


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (
            Pair.to_table(PAIRS).drop(["response_a"]),
            "f.parquet: Pair.response_a is missing and has no default",
        ),
        (
            Pair.to_table(PAIRS).append_column("colour", pa.array(["r", "g", "b"])),
            "f.parquet: Pair has fields unknown to this Prefinery: colour",
        ),
        (old(Pair.to_table(PAIRS), name="Vote"), "f.parquet: holds Vote, not Pair"),
        (
            Pair.to_table(PAIRS).replace_schema_metadata(None),
            "f.parquet: holds no Prefinery record, not Pair",
        ),
        (
            old(Pair.to_table(PAIRS), version="0"),
            "f.parquet: Pair version 0, this Prefinery reads version 1; run the plan again with it, "
            "or read the file with the Prefinery that wrote it",
        ),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(table: pa.Table, line: str) -> None:
    with pytest.raises(SchemaError) as refused:
        adapt(Pair, table, "f.parquet")
    assert str(refused.value) == line


def test_a_changed_type_and_new_nulls_are_refused() -> None:
    table = Pair.to_table(PAIRS)
    index = table.schema.get_field_index("label")
    with pytest.raises(SchemaError, match=r"^f: Pair.label is int64, this Prefinery reads string$"):
        adapt(Pair, table.set_column(index, "label", pa.array([1, 2, 3])), "f")
    index = table.schema.get_field_index("response_a")
    nulls = table.set_column(index, "response_a", pa.array(["a", None, "b"]))
    with pytest.raises(SchemaError, match=r"^f: Pair.response_a holds nulls$"):
        adapt(Pair, nulls, "f")


def test_rollout_and_vote_tables_validate() -> None:
    rollout = Rollout(
        prompt_id="p",
        prefix_id="x",
        position=1,
        prover=False,
        draw=0,
        text="",
        outcome="unparsed",
        completion_tokens=0,
    )
    validate(Rollout, Rollout.to_table([rollout]))
    vote = Vote(unit="u", unit_kind="step", judge="j", judge_kind="llm", value=None, step=2)
    validate(Vote, Vote.to_table([vote]))
