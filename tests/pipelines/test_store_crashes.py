"""The store under kills, locks, full disks and other users."""

from __future__ import annotations

import os
import random
import signal
import string
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines import durable
from pipelines import store as stores
from pipelines.store import Busy, Output, Published, Store
from schemas.errors import StoreError
from tests.pipelines.processes import next_line, start
from tests.pipelines.test_store import key, make, rows, texts

HELPERS = "tests.pipelines.test_store_crashes"

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
    process = start(HELPERS, code, tmp_path)
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
    sync = counted(durable.sync)
    monkeypatch.setattr(stores, "sync", sync)
    monkeypatch.setattr(durable, "sync", sync)
    monkeypatch.setattr(pq, "write_table", counted(pq.write_table))
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
    process = start(HELPERS, code, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    made: list[int] = []
    store = Store.open(tmp_path)
    assert store.find("stage", key().digest) is None
    output = make(store, made=made)
    assert made == []
    assert output == store.find("stage", key().digest)
    assert texts(output) == [f"{unit}-{i}" for unit in range(3) for i in range(3)]


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
    process = start(HELPERS, HOLD, tmp_path)
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
    process = start(HELPERS, code, tmp_path)
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


# --- other machines' troubles


def test_equal_work_gives_equal_bytes_in_another_process(tmp_path: Path) -> None:
    ours = make(Store.open(tmp_path / "ours"))
    run = start(HELPERS, "make(Store.open(Path(sys.argv[1])))", tmp_path / "theirs")
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    theirs = Store.open(tmp_path / "theirs").find("stage", key().digest)
    assert theirs is not None
    for path in ours.path.iterdir():
        assert path.read_bytes() == (theirs.path / path.name).read_bytes(), path.name


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
        process = start(HELPERS, code, root, closed, Path(folder) / "new")
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
