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
from pathlib import Path
from typing import Self

from pipelines.engines.base import Engine, Identity, Reply, Request, request_key
from schemas.errors import BadReply, StoreError

_TABLE = """
create table if not exists replies (
    key blob not null,        -- hash of the engine's identity and the request, see request_key
    sample integer not null,
    engine text not null,     -- digest of the engine's identity
    reply text not null,      -- JSON: [text, finish_reason, prompt, completion, logprob] or [code, detail]
    unique (key, sample)
)
"""


class Journal:
    """A file of replies. Thread-safe; used by one process at a time or by several."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        with _explained(self.path):
            connection = sqlite3.connect(
                self.path, timeout=120, isolation_level=None, check_same_thread=False
            )
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.execute(_TABLE)
            return connection

    def close(self) -> None:
        """Close the file; what was put is on disk already."""
        self._connection.close()

    def get(self, key: bytes, sample: int) -> Reply | BadReply | None:
        """A kept reply, or None."""
        with self._guard, _explained(self.path):
            row = self._connection.execute(
                "select reply from replies where key = ? and sample = ?", (key, sample)
            ).fetchone()
        if row is None:
            return None
        values = json.loads(row[0])
        return Reply(*values) if len(values) == 5 else BadReply(*values)

    def put(self, rows: list[tuple[bytes, int, str, str]]) -> None:
        """Keep rows of (key, sample, engine, reply as JSON). On return they are on disk."""
        with self._guard, _explained(self.path):
            # `or ignore`: another process may have asked the same at the same moment; its reply stays.
            self._connection.execute("begin immediate")
            try:
                self._connection.executemany(
                    "insert or ignore into replies values (?, ?, ?, ?)", rows
                )
                self._connection.execute("commit")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                raise

    def count(self) -> int:
        """Replies kept."""
        with self._guard, _explained(self.path):
            found = self._connection.execute("select count(*) from replies").fetchone()
        return int(found[0])


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
    one that is under way is waited for, not asked again. `asked` and `replayed` count both kinds.
    """

    def __init__(self, engine: Engine, journal: Journal) -> None:
        self.engine = engine
        self.journal = journal
        self.asked = 0
        self.replayed = 0
        self._digest = engine.identity.digest
        self._under_way: dict[tuple[bytes, int], asyncio.Future[Reply]] = {}
        self._unwritten: list[tuple[bytes, int, str, str]] = []
        self._written: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    @property
    def identity(self) -> Identity:
        """Who answers."""
        return self.engine.identity

    @property
    def concurrency(self) -> int:
        """As the engine says."""
        return self.engine.concurrency

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        try:
            if self._writer is not None:
                # Replies that came in while the run was being stopped were paid for: keep them.
                await asyncio.shield(self._writer)
        finally:
            self._writer = None
            self._under_way.clear()
            await self.engine.__aexit__(*exc)

    async def complete(self, request: Request) -> Reply:
        """A kept reply, or a fresh one once it is durable. Raises BadReply as the engine did."""
        key = (request_key(self._digest, request), request.sample)
        pending = self._under_way.get(key)
        if pending is not None:
            return await asyncio.shield(pending)
        kept = self.journal.get(*key)
        if kept is not None:
            self.replayed += 1
            if isinstance(kept, BadReply):
                raise kept
            return kept
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._under_way[key] = future
        try:
            reply = await self._ask(key, request)
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
                future.exception()  # it is raised below: nobody else need wait for it
            raise
        else:
            future.set_result(reply)
            return reply
        finally:
            self._under_way.pop(key, None)

    async def _ask(self, key: tuple[bytes, int], request: Request) -> Reply:
        self.asked += 1
        try:
            reply = await self.engine.complete(request)
        except BadReply as error:
            await self._keep(key, json.dumps([error.code, error.detail]))
            raise
        # Lone surrogates cannot be written as UTF-8, neither here nor in Parquet.
        text = reply.text.encode("utf-8", "replace").decode()
        if text != reply.text:
            reply = Reply(
                text,
                reply.finish_reason,
                reply.prompt_tokens,
                reply.completion_tokens,
                reply.logprob,
            )
        await self._keep(
            key,
            json.dumps(
                [
                    reply.text,
                    reply.finish_reason,
                    reply.prompt_tokens,
                    reply.completion_tokens,
                    reply.logprob,
                ]
            ),
        )
        return reply

    async def _keep(self, key: tuple[bytes, int], reply: str) -> None:
        loop = asyncio.get_running_loop()
        self._unwritten.append((key[0], key[1], self._digest, reply))
        if self._written is None:
            self._written = loop.create_future()
        if self._writer is None or self._writer.done():
            self._writer = loop.create_task(self._write())
        await asyncio.shield(self._written)

    async def _write(self) -> None:
        """Commit what waits, in batches, until nothing does."""
        while self._unwritten:
            rows, self._unwritten = self._unwritten, []
            written, self._written = self._written, None
            assert written is not None
            try:
                await asyncio.to_thread(self.journal.put, rows)
            except Exception as error:
                written.set_exception(error)
                written.exception()  # those who wait raise it
            else:
                written.set_result(None)
