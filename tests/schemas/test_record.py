"""Ids, Arrow schemas and round trips of every record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError, create_model

from schemas.record import DOC_KEY, RECORD_KEY, VERSION_KEY, Record, digest
from schemas.records import ALL, Message, Pair, Prompt, Vote
from schemas.table import with_ids
from tests.schemas.strategies import record_rows

few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
every_record = pytest.mark.parametrize("record", ALL, ids=lambda r: r.__name__)

PAIR: dict[str, Any] = {"prompt_id": "p", "response_a": "a", "response_b": "b"}
VOTE: dict[str, Any] = {
    "unit": "u",
    "unit_kind": "pair",
    "judge": "j",
    "judge_kind": "code",
    "value": 0.5,
}


def test_equal_content_has_equal_id_and_other_content_another() -> None:
    assert Pair(**PAIR).id == Pair(**PAIR).id
    assert len(Pair(**PAIR).id) == 32
    changed = [{"prompt_id": "q"}, {"response_a": "x"}, {"response_b": "x"}, {"label": "a"}]
    ids = {Pair(**PAIR).id, *(Pair(**(PAIR | change)).id for change in changed)}
    assert len(ids) == 5


def test_ids_do_not_change_between_releases() -> None:
    assert digest("x", {"b": 1, "a": "é"}) == "40c9dcc88973c1549fe6e72a1f1a3d3c"
    assert Pair(**PAIR, label="a").id == "8eeb46515ef8535b15c7b6e7aac822b5"


def test_id_is_equal_in_another_process_with_another_hash_seed() -> None:
    code = (
        "from schemas.records import Pair;"
        "print(Pair(prompt_id='p', response_a='a', response_b='b').id)"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == Pair(**PAIR).id


def test_rows_of_different_records_with_the_same_fields_have_different_ids() -> None:
    other = create_model("Other", __base__=Pair)
    assert other(**PAIR).id != Pair(**PAIR).id


def test_unhashed_fields_do_not_matter_and_others_do() -> None:
    vote = Vote(**VOTE)
    assert Vote(**VOTE, seconds=3.5, cost=0.1).id == vote.id
    assert Vote(**VOTE, reason="because").id != vote.id
    assert Vote(**(VOTE | {"value": None})).id != vote.id


def test_a_copy_with_other_content_has_another_id() -> None:
    pair = Pair(**PAIR)
    assert pair.model_copy(update={"label": "b"}).id == Pair(**PAIR, label="b").id != pair.id
    assert pair.model_copy().id == pair.id


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_without_an_order_or_json_are_refused(number: float) -> None:
    with pytest.raises(ValidationError, match=r"finite"):
        Vote(**(VOTE | {"value": number}))


def test_records_are_frozen_and_know_no_other_fields() -> None:
    pair = Pair(**PAIR)
    with pytest.raises(ValidationError, match=r"frozen"):
        pair.label = "a"  # type: ignore[misc]
    with pytest.raises(ValidationError, match=r"Extra inputs"):
        Pair(**PAIR, colour="red")


@every_record
@few
@given(data=st.data())
def test_a_new_field_with_a_default_leaves_ids_unchanged(
    record: type[Record], data: st.DataObject
) -> None:
    row = data.draw(record_rows(record))
    later = create_model(  # the record as a later release may have it
        record.__name__,
        __base__=record,
        added_text=(str | None, None),
        added_list=(tuple[str, ...], ()),
        added_number=(float, 0.5),
    )
    assert later(**row.model_dump()).id == row.id
    assert later(**row.model_dump(), added_list=("x",)).id != row.id


@every_record
@few
@given(data=st.data())
def test_ids_made_from_tables_are_those_of_the_records(
    record: type[Record], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(record_rows(record), max_size=4))
    table = record.to_table(rows)
    ids = [row.id for row in rows]
    assert table["id"].to_pylist() == ids
    bare = table.drop(["id"])
    assert with_ids(record, bare) == table
    # ... in any order of columns, and by way of Polars, which has string types of its own
    shuffled = bare.select(sorted(bare.column_names))
    assert with_ids(record, shuffled)["id"].to_pylist() == ids
    frame = pl.DataFrame(pl.from_arrow(bare))
    assert with_ids(record, frame.to_arrow())["id"].to_pylist() == ids


@every_record
@few
@given(data=st.data())
def test_arrow_round_trip(record: type[Record], data: st.DataObject) -> None:
    rows = data.draw(st.lists(record_rows(record), max_size=4))
    table = record.to_table(rows)
    back = list(record.from_table(table))
    assert back == rows
    assert [row.id for row in back] == [row.id for row in rows]
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    read = pq.read_table(pa.BufferReader(sink.getvalue()))
    # Parquet names a list's items otherwise, which Arrow's equality of types passes over.
    assert read.schema.equals(record.arrow_schema())
    assert read.schema.metadata == record.arrow_schema().metadata
    assert list(record.from_table(read)) == rows


@every_record
def test_parquet_tells_record_version_and_what_each_field_means(
    record: type[Record], tmp_path: Path
) -> None:
    pq.write_table(record.to_table([]), tmp_path / "t.parquet")
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert schema.metadata[RECORD_KEY].decode() == record.__name__
    assert schema.metadata[VERSION_KEY].decode() == str(record.version)
    assert schema.names == ["id", *record.model_fields]
    for name, info in record.model_fields.items():
        doc = schema.field(name).metadata[DOC_KEY].decode()
        assert doc == " ".join(info.description.split()) != ""
    assert schema.field("id").metadata[DOC_KEY] == b"Content id."


def test_nullable_columns_are_those_that_may_be_none() -> None:
    schema = Prompt.arrow_schema()
    assert {f.name for f in schema if f.nullable} == {
        "reference",
        "verifier",
        "source_id",
        "licence",
    }
    assert str(schema.field("messages").type) == (
        "list<item: struct<role: string not null, content: string not null> not null>"
    )


def test_the_order_of_rows_is_kept_over_batches() -> None:
    rows = [Pair(prompt_id=str(i), response_a="a", response_b="b") for i in range(9000)]
    back = [row.prompt_id for row in Pair.from_table(Pair.to_table(rows))]
    assert back == [str(i) for i in range(9000)]


def test_an_id_is_canonical_json_hashed() -> None:
    prompt = Prompt(messages=(Message(role="user", content="é\n"),), source="s")
    content = {"messages": [{"content": "é\n", "role": "user"}], "source": "s"}
    assert prompt.id == digest("Prompt", json.loads(json.dumps(content)))


def test_an_annotation_without_an_arrow_type_is_an_error() -> None:
    odd = create_model("Odd", __base__=Record, value=(dict[str, int], ...))
    with pytest.raises(TypeError, match=r"no Arrow type for dict"):
        odd.arrow_schema()
