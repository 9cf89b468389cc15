"""The journal's file under kills, damage, full disks and other users."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import tempfile
import threading
from collections.abc import Awaitable
from pathlib import Path

import pytest

from pipelines.engines.base import Request, request_key
from pipelines.journal import Journal, Journaled
from pipelines.pool import bounded
from schemas.errors import BadReply, StoreError
from tests.pipelines.processes import next_line, start
from tests.pipelines.test_journal import ask, echo, journaled, request, slow_echo
from tests.pipelines.told import Answer, reply

HELPERS = "tests.pipelines.test_journal_file"


# --- durability ----------------------------------------------------------------------------------


def test_a_reply_is_in_the_file_before_it_is_used(tmp_path: Path) -> None:
    code = """
engine, _ = journaled(Path(sys.argv[1]))
async def main():
    async with engine:
        for i in range(50):
            print(i, (await engine.complete(request(i))).text, flush=True)
            if i == 29:
                os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    process = start(HELPERS, code, tmp_path)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert said.splitlines() == [f"{i} x{i}" for i in range(30)]
    engine, told = journaled(tmp_path)
    assert ask(engine, *(request(i) for i in range(30))) == [echo(request(i)) for i in range(30)]
    assert told.asked == []


KILL_AFTER = """
journal = Journal(Path(sys.argv[1]) / "journal.sqlite")
for i in range(20):
    journal.put([(b"k" * 16, i, "e", reply("text " * 50))])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("torn", [1, 100, 5000])
def test_a_torn_tail_of_the_log_loses_at_most_the_torn_commits(tmp_path: Path, torn: int) -> None:
    process = start(HELPERS, KILL_AFTER, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    log = tmp_path / "journal.sqlite-wal"
    size = log.stat().st_size
    os.truncate(log, size - torn)
    journal = Journal(tmp_path / "journal.sqlite")
    kept = [i for i in range(20) if journal.get(b"k" * 16, i) is not None]
    pages = -(-torn // (4096 + 24))
    assert kept == list(range(len(kept)))
    assert 20 - pages <= len(kept) < 20
    assert journal.put([(b"k" * 16, 19, "e", reply("again"))])
    assert journal.get(b"k" * 16, 19) == reply("again")


def test_what_is_used_is_what_is_durable(tmp_path: Path) -> None:
    """Another process asked the same at the same moment, and its reply was there first."""
    path = tmp_path / "journal.sqlite"
    other = Journal(path)

    def told(asked: Request) -> Answer:
        if asked.sample == 0:
            key = request_key(engine.identity.digest, asked)
            other.put([(key, 0, engine.identity.digest, reply("theirs"))])
        if asked.sample == 1:
            key = request_key(engine.identity.digest, asked)
            other.put([(key, 1, engine.identity.digest, BadReply("refused", "theirs"))])
        return reply(f"ours {asked.sample}")

    engine, _ = journaled(tmp_path, told)
    first, second, third = ask(engine, request(0), request(1), request(2))
    assert first == reply("theirs")
    assert isinstance(second, BadReply) and second.detail == "theirs"
    assert third == reply("ours 2")
    assert ask(engine, request(0)) == [reply("theirs")]


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    code = """
own = int(sys.argv[2])
engine, told = journaled(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
async def main():
    async with engine:
        await bounded(lambda i: engine.complete(request(i, "yz"[own] if i % 2 else "x")), range(400), 16)
asyncio.run(main())
print(len(told.asked))
"""
    processes = [start(HELPERS, code, tmp_path, own) for own in range(2)]
    for process in processes:
        assert next_line(process) == "ready"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    # 200 that both ask, and 200 of each alone
    engine, told = journaled(tmp_path)
    assert engine.journal.count() == 600
    everything = [request(i, t) for i in range(400) for t in ("yz" if i % 2 else "x")]
    assert ask(engine, *everything) == [echo(r) for r in everything]
    assert told.asked == []


def test_a_new_journal_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    """SQLite refuses at once to switch a file to WAL while another connection writes to it."""
    path = tmp_path / "journal.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("create table making (x)")
    other.execute("begin immediate")
    release = threading.Timer(0.5, lambda: other.execute("commit"))
    release.start()
    assert Journal(path).count() == 0
    release.join()


# --- refusals ------------------------------------------------------------------------------------


def test_a_garbage_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is no journal " * 500)
    with pytest.raises(StoreError) as refused:
        Journal(path)
    assert str(refused.value) == (
        f"{path}: the journal is damaged; save what can be saved with "
        "`sqlite3 journal.sqlite .recover | sqlite3 new.sqlite` and put that in its place"
    )
    assert isinstance(refused.value.__cause__, sqlite3.Error)


def test_damage_inside_the_file_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    journal.put([(b"%016d" % i, 0, "e", reply("text " * 100)) for i in range(500)])
    journal.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(StoreError, match=r"the journal is damaged"):
        Journal(path).get(b"%016d" % 1, 0)


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no permission to write; the store may belong to"):
        Journal(tmp_path / "none" / "journal.sqlite")


def test_a_full_disk_is_one_clear_line_and_what_was_kept_is_not_asked_again(
    small_disk: Path,
) -> None:
    def told(asked: Request) -> Answer:
        return reply(f"{asked.sample} " + "z" * 8000)

    engine, first = journaled(small_disk, told)
    (small_disk / "ballast").write_bytes(bytes(300_000))
    used: list[int] = []

    async def one(index: int) -> None:
        await engine.complete(request(index))
        used.append(index)

    async def main() -> None:
        async with engine:
            await bounded(one, range(40), 4)

    with pytest.raises(StoreError, match=r"journal.sqlite: the disk is full; free some space"):
        asyncio.run(main())
    assert 0 < len(used) < 40
    engine.journal.close()
    (small_disk / "ballast").unlink()
    again, second = journaled(small_disk, told)
    asyncio.run(_open_and_ask(again, [request(index) for index in range(20)]))
    asked_again = {r.sample for r in second.asked} & set(used)
    assert asked_again == set()
    assert {r.sample for r in first.asked + second.asked} >= set(range(20))


async def _open_and_ask(engine: Journaled, requests: list[Request]) -> None:
    async with engine:
        await bounded(engine.complete, requests, 4)


def test_another_users_journal_is_one_clear_line() -> None:
    if os.geteuid() != 0:
        pytest.skip("taking another user's id needs root")
    code = """
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    Journal(Path(sys.argv[1])).put([(b"k", 0, "e", reply("x"))])
except StoreError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "journal.sqlite"
        Journal(path).close()
        process = start(HELPERS, code, path)
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert said == (
            f"{path}: no permission to write; the store may belong to another user: "
            "take another --root\n"
        )


def test_a_failed_commit_reaches_every_waiter(tmp_path: Path) -> None:
    engine, _ = journaled(tmp_path)
    engine.journal.put = lambda rows: (_ for _ in ()).throw(StoreError("full"))  # type: ignore[method-assign]
    results = ask(engine, request(0), request(0), request(1))
    assert [str(result) for result in results] == ["full"] * 3


def test_awaitable_answers_are_awaited(tmp_path: Path) -> None:
    answer: Awaitable[Answer] = slow_echo(request(5))
    engine, _ = journaled(tmp_path, lambda r: answer)
    assert ask(engine, request(5)) == [echo(request(5))]
