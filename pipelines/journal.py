"""The journal: every reply is durable before anyone uses it, so nothing paid for is asked twice.

One SQLite file (WAL, synchronous=FULL) for all engines of a store: it survives torn tails, and
several processes may use it at once. Replies that arrive together share one commit, so durability
costs one fsync a batch, not one a reply. A reply that was unusable is kept too: a resumed run then
gives the same bytes as an undisturbed one.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Self

from pipelines.engines.base import Engine, Identity, Reply, Request, Tokens, request_key
from schemas.errors import BadReply, StoreError

OPEN_WITHIN_S = 60.0

_TABLE = """
create table if not exists replies (
    key blob not null,        -- hash of the engine's identity and the request, see request_key
    sample integer not null,
    engine text not null,     -- digest of the engine's identity
    reply text not null,      -- JSON: [text, finish_reason, prompt, completion, logprob] or [code, detail]
    unique (key, sample)
)
"""

_AHEAD = 1024
"""Requests to have under way beyond what the engine wants: those whose replies are being written."""
_AT_ONCE = 1000
"""Most rows a statement: SQLite takes 32,766 parameters, older ones fewer."""
_FIELDS = tuple(field.name for field in fields(Reply))
_encode = json.JSONEncoder().encode

Outcome = Reply | BadReply
"""What a request came to."""


class Journal:
    """A file of replies. Thread-safe; used by one process at a time or by several."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        """Open the file, made if it is not there.

        SQLite does not wait where two processes make one file at once (it refuses to switch to WAL
        while the other looks), so this does.
        """
        deadline = time.monotonic() + OPEN_WITHIN_S
        with _explained(self.path):
            while True:
                connection = sqlite3.connect(
                    self.path, timeout=120, isolation_level=None, check_same_thread=False
                )
                try:
                    connection.execute("pragma journal_mode = wal")
                    connection.execute("pragma synchronous = full")
                    connection.execute(_TABLE)
                    return connection
                except sqlite3.OperationalError as error:
                    connection.close()
                    if "locked" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
                except sqlite3.Error:
                    connection.close()
                    raise

    def close(self) -> None:
        """Close the file; what was put is on disk already."""
        self._connection.close()

    def get(self, key: bytes, sample: int) -> Outcome | None:
        """A kept reply, or None."""
        with self._guard, _explained(self.path):
            row = self._connection.execute(
                "select reply from replies where key = ? and sample = ?", (key, sample)
            ).fetchone()
        return None if row is None else _read(row[0])

    def put(self, rows: list[tuple[bytes, int, str, Outcome]]) -> bool:
        """Keep rows of (key, sample, engine, outcome). On return they are on disk.

        False where another process had asked the same at the same moment: its reply stays, to be
        got with `get`.
        """
        # One statement for many rows: each statement gives up the interpreter's lock and then waits
        # for it, up to 5 ms where the event loop is busy.
        pieces = [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
        statements = []
        for piece in pieces:
            places = ", ".join(["(?, ?, ?, ?)"] * len(piece))
            values: list[Any] = []
            for key, sample, engine, outcome in piece:
                values += (key, sample, engine, _written(outcome))
            statements.append((f"insert or ignore into replies values {places}", values))
        added = 0
        with self._guard, _explained(self.path):
            self._connection.execute("begin immediate")
            try:
                for statement, values in statements:
                    added += self._connection.execute(statement, values).rowcount
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise
        return added == len(rows)

    def forget_failures(self, engine: str) -> None:
        """Drop an engine's unusable replies, so that they are asked again."""
        with self._guard, _explained(self.path):
            self._connection.execute(
                "delete from replies where engine = ? and json_array_length(reply) = 2", (engine,)
            )

    def count(self) -> int:
        """Replies kept."""
        with self._guard, _explained(self.path):
            found = self._connection.execute("select count(*) from replies").fetchone()
        return int(found[0])


def _written(outcome: Outcome) -> str:
    if isinstance(outcome, BadReply):
        return _encode([outcome.code, outcome.detail])
    return _encode([getattr(outcome, name) for name in _FIELDS])


def _read(text: str) -> Outcome:
    values = json.loads(text)
    return BadReply(*values) if len(values) == 2 else Reply(*values)


def _clean(outcome: Outcome) -> Outcome:
    """Without lone surrogates, which cannot be written as UTF-8, neither here nor in Parquet."""
    if isinstance(outcome, BadReply):
        return BadReply(outcome.code, outcome.detail.encode("utf-8", "replace").decode())
    text = outcome.text.encode("utf-8", "replace").decode()
    return outcome if text == outcome.text else replace(outcome, text=text)


class _explained:
    """Turn SQLite's refusals into one clear line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        words = str(error)
        if "full" in words or "disk I/O" in words:
            why = "the disk is full; free some space and run again: all that is durable is kept"
        elif "readonly" in words or "unable to open" in words:
            why = (
                "no permission to write; the store may belong to another user: take another --root"
            )
        elif "malformed" in words or "not a database" in words:
            why = (
                "the journal is damaged; save what can be saved with "
                f"`sqlite3 {self.path.name} .recover | sqlite3 new.sqlite` and put that in its place"
            )
        else:
            why = words
        raise StoreError(f"{self.path}: {why}") from error


class Journaled:
    """An engine whose replies are kept.

    A request that was answered before, by this process or another, is answered from the journal;
    one that is under way is waited for, not asked again. `asked` and `replayed` count both kinds,
    and `spent` is the money that the former cost.
    """

    def __init__(
        self, engine: Engine, journal: Journal, prices: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.engine = engine
        self.journal = journal
        self.prices = prices
        """Money per million tokens read and written."""
        self.asked = 0
        self.replayed = 0
        self.spent = 0.0
        self._digest = engine.identity.digest
        self._under_way: dict[tuple[bytes, int], asyncio.Future[Reply]] = {}
        self._unwritten: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    @property
    def identity(self) -> Identity:
        """Who answers."""
        return self.engine.identity

    @property
    def concurrency(self) -> int:
        """What the engine wants, and as many again as may wait for the disk meanwhile."""
        return self.engine.concurrency + _AHEAD

    def tokens(self, text: str) -> Tokens | None:
        """As the engine says."""
        return self.engine.tokens(text)

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            if self._writer is not None:
                # Replies that came in while the run was being stopped were paid for: keep them.
                await asyncio.shield(self._writer)
        finally:
            left, self._unwritten = self._unwritten, []
            self._writer = None
            self._under_way.clear()
            try:
                if left:  # an interrupt that ends the loop ends the writer too
                    self.journal.put(self._rows(left))
            finally:
                await self.engine.__aexit__(*exc)

    async def complete(self, request: Request) -> Reply:
        """A kept reply, or a fresh one once it is durable. Raises BadReply as the engine did."""
        key = (request_key(self._digest, request), request.sample)
        while (pending := self._under_way.get(key)) is not None:
            try:
                return await asyncio.shield(pending)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not pending.cancelled() or (task is not None and task.cancelling()):
                    raise
                # The one who asked was stopped, this one was not: it asks in its place.
        kept = self.journal.get(*key)
        if kept is not None:
            self.replayed += 1
            if isinstance(kept, BadReply):
                raise kept
            return kept
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._under_way[key] = future
        self.asked += 1
        outcome: Outcome
        try:
            outcome = await self.engine.complete(request)
            read, written = self.prices
            self.spent += outcome.prompt_tokens * read / 1e6
            self.spent += outcome.completion_tokens * written / 1e6
        except BadReply as error:
            outcome = error
        except BaseException as error:
            self._under_way.pop(key, None)
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                _fail(future, error)
            raise
        # From here on the reply is kept, and found by whoever asks the same, also if this one is
        # stopped while it waits.
        self._unwritten.append((key, _clean(outcome), future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())
        return await asyncio.shield(future)

    async def _write(self) -> None:
        """Commit what waits, in batches, until nothing does."""
        while self._unwritten:
            batch, self._unwritten = self._unwritten, []
            try:
                if not await asyncio.to_thread(self.journal.put, self._rows(batch)):
                    # What is used is what is durable, so that a resumed run gives the same.
                    batch = [(key, self.journal.get(*key) or own, f) for key, own, f in batch]
            except asyncio.CancelledError:
                self._unwritten = batch + self._unwritten
                raise
            except Exception as error:
                for key, _, future in batch:
                    self._under_way.pop(key, None)
                    _fail(future, error)
                continue
            for key, outcome, future in batch:
                self._under_way.pop(key, None)
                if isinstance(outcome, BadReply):
                    _fail(future, outcome)
                else:
                    future.set_result(outcome)

    def _rows(self, batch: list[_Waiting]) -> list[tuple[bytes, int, str, Outcome]]:
        return [(*key, self._digest, outcome) for key, outcome, _ in batch]


_Waiting = tuple[tuple[bytes, int], Outcome, asyncio.Future[Reply]]
"""A request's key and sample, what it came to, and who waits for it."""


def _fail(future: asyncio.Future[Reply], error: BaseException) -> None:
    future.set_exception(error)
    future.exception()  # those who wait raise it; where nobody does, nothing need be logged
