"""What is published is whole and stays; what is finished outlives any crash."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import string
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.durable import write_table
from pipelines.store import Draft, Key, Output, Published, Store
from schemas.errors import SchemaError, StoreError
from schemas.record import DOC_KEY, RECORD_KEY
from schemas.records import Pair, Reject


def key(config: int = 0) -> Key:
    return Key("stage", 1, {"n": config}, {"prompts": "d1"}, 7, {"model": "m"})


def rows(unit: int, size: int = 3, text: str = "x") -> Output:
    rejects = [Reject(unit=f"{unit}-{i}", stage="s", code="c", detail=text) for i in range(size)]
    return {"rejects": (Reject, Reject.to_table(rejects))}


def make(
    store: Store,
    units: int = 3,
    work: Callable[[int], Output] = rows,
    made: list[int] | None = None,
) -> Published:
    """Publish an output of several units, as a run does."""
    with store.draft(key()) as draft:
        if isinstance(draft, Published):
            return draft
        for unit in range(units):
            if draft.done(unit) is None:
                draft.write(unit, work(unit), {"rows": 3, "tokens": 0.5, "name": "n"})
                if made is not None:
                    made.append(unit)
        return draft.publish(units)


def texts(output: Published) -> list[str]:
    return [row.unit for row in Reject.from_table(output.table("rejects"))]


# --- publish and find ----------------------------------------------------------------------------


def test_publish_and_find(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert store.find("stage", key().digest) is None
    made = make(store)
    assert made.path == tmp_path / "stages" / "stage" / key().digest
    assert sorted(p.name for p in made.path.iterdir()) == [
        "manifest.json",
        *(f"rejects-0000{unit}.parquet" for unit in range(3)),
    ]
    assert [p.name for p in made.path.parent.iterdir()] == [key().digest]
    found = store.find("stage", key().digest)
    assert found == made
    assert texts(made) == [f"{unit}-{i}" for unit in range(3) for i in range(3)]
    manifest = made.manifest
    assert manifest.config == {"n": 0}
    assert manifest.inputs == {"prompts": "d1"}
    assert (manifest.engine, manifest.seed, manifest.version) == ({"model": "m"}, 7, 1)
    assert manifest.rows("rejects") == 9
    assert made.shards() == 3
    assert manifest.facts == {"rows": 9, "tokens": 1.5, "name": "n"}
    for shard in manifest.tables["rejects"]:
        content = (made.path / shard.file).read_bytes()
        assert shard.sha256 == hashlib.sha256(content).hexdigest()
        assert (shard.bytes, shard.rows) == (len(content), 3)


def test_published_work_is_not_done_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    first = make(store)
    again: list[int] = []
    assert make(store, made=again) == first
    assert again == []


@pytest.mark.parametrize(
    "other",
    [
        Key("other", 1, {"n": 0}, {"prompts": "d1"}, 7, {"model": "m"}),
        Key("stage", 2, {"n": 0}, {"prompts": "d1"}, 7, {"model": "m"}),
        Key("stage", 1, {"n": 1}, {"prompts": "d1"}, 7, {"model": "m"}),
        Key("stage", 1, {"n": 0}, {"prompts": "d2"}, 7, {"model": "m"}),
        Key("stage", 1, {"n": 0}, {"prompts": "d1", "more": "d"}, 7, {"model": "m"}),
        Key("stage", 1, {"n": 0}, {"prompts": "d1"}, 8, {"model": "m"}),
        Key("stage", 1, {"n": 0}, {"prompts": "d1"}, 7, {"model": "x"}),
        Key("stage", 1, {"n": 0}, {"prompts": "d1"}, 7, None),
    ],
)
def test_whatever_can_change_an_output_changes_its_address(other: Key) -> None:
    assert other.digest != key().digest


def test_files_are_described_and_a_tables_record_travels_with_it(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with store.draft(key()) as draft:
        assert isinstance(draft, Draft)
        (draft.files() / "left.txt").write_text("from a killed try")
        folder = draft.files()
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_bytes(b"w" * 10)
        plain = Reject.to_table([Reject(unit="u", stage="s", code="c", detail="d")])
        draft.write(0, {"rejects": (Reject, plain.replace_schema_metadata(None))}, {})
        made = draft.publish(1)
    assert [(f.file, f.bytes, f.rows) for f in made.manifest.files] == [
        ("files/model/weights", 10, 0)
    ]
    schema = pq.read_schema(made.paths("rejects")[0])
    assert schema.metadata[RECORD_KEY] == b"Reject"
    assert schema.field("code").metadata[DOC_KEY] == b"Stable reason code."
    assert made.table("rejects") == plain


def test_a_table_that_is_not_its_record_is_refused_before_it_is_written(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    twice = [Reject(unit="u", stage="s", code="c", detail="d")] * 2
    with store.draft(key()) as draft:
        assert isinstance(draft, Draft)
        with pytest.raises(SchemaError, match=r"^Reject.id: \w+ stands more than once$"):
            draft.write(0, {"rejects": (Reject, Reject.to_table(twice))}, {})
        with pytest.raises(SchemaError, match=r"^Pair: columns differ"):
            draft.write(0, {"rejects": (Pair, Reject.to_table([]))}, {})
        assert list(draft.folder.iterdir()) == []
        with pytest.raises(StoreError, match=r"unit 0 is not whole; run again"):
            draft.publish(1)


# --- bytes ---------------------------------------------------------------------------------------


def test_equal_rows_give_equal_bytes_however_they_are_chunked(tmp_path: Path) -> None:
    letters = random.Random(0)
    column = ["".join(letters.choices(string.ascii_letters, k=100)) for _ in range(30_000)]
    whole = pa.table({"text": column})  # enough for several pages
    pieces = pa.concat_tables([whole.slice(0, 77), whole.slice(77, 20_000), whole.slice(20_077)])
    assert pieces["text"].num_chunks == 3
    one, other = tmp_path / "one", tmp_path / "other"
    assert write_table(one, whole).sha256 == write_table(other, pieces).sha256
    assert one.read_bytes() == other.read_bytes()
    assert pq.read_table(other) == whole


# --- damage ----------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("file", "damage", "problem"),
    [
        ("rejects-00001.parquet", truncate, r"rejects-00001.parquet holds \d+ of \d+ bytes"),
        ("rejects-00001.parquet", Path.unlink, r"rejects-00001.parquet holds no of \d+ bytes"),
        ("manifest.json", truncate, "its manifest cannot be read"),
        ("manifest.json", lambda p: p.write_bytes(b"\xff\x00"), "its manifest cannot be read"),
        ("manifest.json", Path.unlink, "its manifest is gone"),
    ],
)
def test_a_damaged_output_is_set_aside_and_made_again(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    damage: Callable[[Path], None],
    problem: str,
) -> None:
    store = Store.open(tmp_path)
    first = make(store)
    for again in ("", "+"):
        damage(first.path / file)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert store.find("stage", key().digest) is None
        place = tmp_path / "damaged" / f"stage-{key().digest}{again}"
        assert place.is_dir()
        (record,) = caplog.records
        assert record.getMessage().startswith(f"{first.path}: ")
        assert record.getMessage().endswith(f"; moved to {place} and made again")
        assert re.search(problem, record.getMessage())
        made: list[int] = []
        assert make(store, made=made) == first
        assert made == [0, 1, 2]


def test_a_damaged_unit_of_a_draft_is_made_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with store.draft(key()) as draft:
        assert isinstance(draft, Draft)
        for unit in range(3):
            draft.write(unit, rows(unit), {})
        truncate(draft.folder / "rejects-00000.parquet")
        (draft.folder / "rejects-00001.parquet").unlink()
        truncate(draft.folder / "unit-00002.json")
        assert [draft.done(unit) for unit in range(4)] == [None] * 4
    made: list[int] = []
    make(store, made=made)
    assert made == [0, 1, 2]


def test_a_shard_damaged_without_changing_its_size_is_one_clear_line(tmp_path: Path) -> None:
    output = make(Store.open(tmp_path))
    path = output.paths("rejects")[1]
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(
        StoreError, match=r"cannot be read .* move .* away and run again"
    ) as refused:
        output.table("rejects")
    assert str(path) in str(refused.value)


def test_another_process_that_sees_the_damage_too_does_not_move_the_new_output(
    tmp_path: Path,
) -> None:
    """The output is looked at, found damaged, made again by another, and only then moved."""
    store = Store.open(tmp_path)
    output = make(store)
    truncate(output.paths("rejects")[0])
    other = Store.open(tmp_path)
    real, calls = store.lock, []

    def late(name: str, *, wait: bool) -> Any:
        if not calls:
            calls.append(name)
            make(other)
        return real(name, wait=wait)

    store.lock = late  # type: ignore[method-assign]
    assert store.find("stage", key().digest) == output
    assert len(list((tmp_path / "damaged").iterdir())) == 1


def test_find_does_not_wait_for_who_makes_a_damaged_output_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    output = make(store)
    with store.lock(f"stage-{key().digest}", wait=True):
        truncate(output.paths("rejects")[0])
        assert store.find("stage", key().digest) is None
        assert output.path.exists()


# --- refusals ------------------------------------------------------------------------------------


def test_a_folder_without_a_store_or_with_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no Prefinery store; name one with --root"):
        Store.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    for content in ('{"format": 2}', "[]", "no json"):
        (tmp_path / "store.json").write_text(content)
        with pytest.raises(StoreError, match=r"a store of another format"):
            Store.open(tmp_path)


def test_a_root_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"File exists; check the path and the disk"):
        Store.open(tmp_path / "file")
    with pytest.raises(StoreError, match=r"Not a directory; check the path and the disk"):
        Store.open(tmp_path / "file" / "below")


def test_the_manifest_holds_no_clock_times_and_is_sorted(tmp_path: Path) -> None:
    text = (make(Store.open(tmp_path)).path / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True)
    assert not any(word in text for word in ("time", "date", "20" + time.strftime("%y-")))
