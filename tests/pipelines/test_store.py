"""What is published is whole and stays; what is finished outlives any crash."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import select
import signal
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import store as stores
from pipelines.store import Busy, Draft, Key, Output, Published, Store, write_table
from schemas.errors import SchemaError, StoreError
from schemas.record import DOC_KEY, RECORD_KEY
from schemas.records import Pair, Reject

ROOT = Path(__file__).parents[2]


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


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that runs `code` after the helpers of this file."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from tests.pipelines.test_store import *\n{code}",
            *map(str, arguments),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    assert ready, "the other process says nothing"
    return process.stdout.readline().strip()


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
    whole = rows(0, 5000, "some text")["rejects"][1]
    pieces = pa.concat_tables([whole.slice(0, 7), whole.slice(7, 2400), whole.slice(2407)])
    assert pieces["id"].num_chunks == 3
    one, other = tmp_path / "one", tmp_path / "other"
    assert write_table(one, whole).sha256 == write_table(other, pieces).sha256
    assert one.read_bytes() == other.read_bytes()
    assert pq.read_table(other) == whole


def test_equal_work_gives_equal_bytes_in_another_process(tmp_path: Path) -> None:
    ours = make(Store.open(tmp_path / "ours"))
    run = start("make(Store.open(Path(sys.argv[1])))", tmp_path / "theirs")
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    theirs = Store.open(tmp_path / "theirs").find("stage", key().digest)
    assert theirs is not None
    for path in ours.path.iterdir():
        assert path.read_bytes() == (theirs.path / path.name).read_bytes(), path.name


# --- crashes -------------------------------------------------------------------------------------


def test_units_done_before_a_kill_are_kept(tmp_path: Path) -> None:
    code = """
with Store.open(Path(sys.argv[1])).draft(key()) as draft:
    draft.write(0, rows(0), {})
    draft.write(1, rows(1), {})
    (draft.folder / ".rejects-00002.parquet.1").write_bytes(b"half")
    print("two are done", flush=True)
    time.sleep(600)
"""
    process = start(code, tmp_path)
    assert next_line(process) == "two are done"
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = Store.open(tmp_path)
    assert store.find("stage", key().digest) is None
    made: list[int] = []
    output = make(store, made=made)  # the killed process left no lock
    assert made == [2]
    assert texts(output) == texts(make(Store.open(tmp_path / "undisturbed")))
    assert not list(output.path.glob(".*"))


class Killed(BaseException):
    """Stands for a kill: nothing on the way up expects it."""


def test_a_kill_at_any_moment_loses_no_finished_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop before the n-th operation on the file system, for every n; then go on."""
    undisturbed = make(Store.open(tmp_path / "undisturbed"))
    steps = 0

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            steps -= 1
            if steps == 0:
                raise Killed
            return real(*arguments, **named)

        return call

    for name in ("rename", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    monkeypatch.setattr(stores, "_sync", counted(stores._sync))
    monkeypatch.setattr(stores.pq, "write_table", counted(pq.write_table))
    for moment in range(1, 200):
        store = Store.open(tmp_path / str(moment))
        made: list[int] = []
        steps = moment
        try:
            make(store, made=made)
        except Killed:
            steps = 0
            before = len(made)
            output = make(store, made=made)
            again = f"killed at {moment}: made {made[:before]}, then {made[before:]}"
            assert len(made) == len(set(made)), again
            assert output.manifest == undisturbed.manifest
            assert sorted(p.name for p in output.path.iterdir()) == sorted(
                p.name for p in undisturbed.path.iterdir()
            )
            assert [p.name for p in output.path.parent.iterdir()] == [key().digest]
        else:
            break
    assert 15 < moment < 199


def test_a_kill_after_the_manifest_publishes_what_was_made(tmp_path: Path) -> None:
    code = """
def stop(self, target):
    if self.name.endswith(".partial"):
        os.kill(os.getpid(), signal.SIGKILL)
    return os.rename(self, target)
Path.rename = stop
make(Store.open(Path(sys.argv[1])))
"""
    process = start(code, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    made: list[int] = []
    store = Store.open(tmp_path)
    assert store.find("stage", key().digest) is None
    output = make(store, made=made)
    assert made == []
    assert output == store.find("stage", key().digest)
    assert texts(output) == [f"{unit}-{i}" for unit in range(3) for i in range(3)]


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


# --- locks ---------------------------------------------------------------------------------------

HOLD = """
with Store.open(Path(sys.argv[1])).draft(key()) as draft:
    print("holds", flush=True)
    sys.stdin.readline()
    for unit in range(3):
        draft.write(unit, rows(unit), {})
    draft.publish(3)
"""


def test_a_second_process_waits_and_gets_what_the_first_published(tmp_path: Path) -> None:
    process = start(HOLD, tmp_path)
    assert next_line(process) == "holds"
    store = Store.open(tmp_path)
    made: list[int] = []
    got: list[Published] = []
    waiter = threading.Thread(target=lambda: got.append(make(store, made=made)))
    waiter.start()
    time.sleep(0.3)
    assert waiter.is_alive() and not got
    process.communicate("go\n", timeout=120)
    waiter.join(60)
    assert process.returncode == 0
    assert made == []
    assert got == [store.find("stage", key().digest)]


def test_a_held_lock_is_refused_with_its_holder_and_a_killed_holder_holds_none(
    tmp_path: Path,
) -> None:
    code = """
with Store.open(Path(sys.argv[1])).lock("run-x", wait=False):
    print("holds", flush=True)
    time.sleep(600)
"""
    process = start(code, tmp_path)
    assert next_line(process) == "holds"
    store = Store.open(tmp_path)
    with pytest.raises(StoreError) as refused, store.lock("run-x", wait=False):
        pass
    assert isinstance(refused.value, Busy)
    assert str(refused.value) == (
        f"run-x: process {process.pid} is at work on it; wait for it to end, or stop it, "
        "then run again"
    )
    with store.lock("run-y", wait=False):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with store.lock("run-x", wait=False):
        assert (tmp_path / "locks" / "run-x").read_text() == str(os.getpid())
    with store.lock("run-x", wait=False):
        pass


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


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 512 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "none", folder],
            capture_output=True,
            text=True,
        )
        if mounted.returncode:
            pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def bulky(unit: int) -> Output:
    """About 60 KB that do not compress."""
    letters = random.Random(unit).choices(string.printable, k=75_000)
    return rows(unit, 1, "".join(letters))


def test_a_full_disk_is_one_clear_line_and_finished_units_are_kept(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(250_000))
    store = Store.open(small_disk / "store")
    made: list[int] = []
    with pytest.raises(StoreError) as full:
        make(store, 6, bulky, made)
    assert "the disk is full; free some space and run again" in str(full.value)
    assert "\n" not in str(full.value)
    assert 1 <= len(made) < 6
    ballast.unlink()
    before = len(made)
    output = make(store, 6, bulky, made)
    assert made == list(range(6)) and before < 6  # none was made twice
    assert texts(output) == [f"{unit}-0" for unit in range(6)]


def test_a_disk_that_is_full_to_the_last_byte_is_still_one_clear_line(small_disk: Path) -> None:
    store = Store.open(small_disk / "store")
    with (small_disk / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError):
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(StoreError, match=r"the disk is full"):
        make(store)
    with pytest.raises(StoreError, match=r"the disk is full"):
        Store.open(small_disk / "another")
    (small_disk / "ballast").unlink()
    assert len(texts(make(store))) == 9


def test_a_store_of_another_user_is_one_clear_line() -> None:
    if os.geteuid() != 0:
        pytest.skip("taking another user's id needs root")
    code = """
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for root in sys.argv[1:]:
    try:
        make(Store.open(Path(root)))
    except StoreError as error:
        print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "store"
        published = make(Store.open(root))
        closed = Path(folder) / "closed"
        Store.open(closed)
        closed.chmod(0o700)
        process = start(code, root, closed, Path(folder) / "new")
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        lines = said.splitlines()
        assert len(lines) == 3
        for line, place in zip(lines, (root, closed, Path(folder) / "new"), strict=True):
            assert line.startswith(str(place))
            assert line.endswith(
                "no permission; the store may belong to another user: take another --root, or "
                "have its owner grant you write access"
            )
        assert Store.open(root).find("stage", key().digest) == published


def test_the_manifest_holds_no_clock_times_and_is_sorted(tmp_path: Path) -> None:
    text = (make(Store.open(tmp_path)).path / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True)
    assert not any(word in text for word in ("time", "date", "20" + time.strftime("%y-")))
