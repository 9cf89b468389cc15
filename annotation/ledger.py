"""What a campaign knows on our side: what was to be asked, which task asks it, what was answered.

One SQLite file. The order in which responses are shown, purposes and propensities are here alone: a
server's annotators see everything that a task holds. The tables `tasks` and `annotations` mirror one
project of one server, and are filled anew where the project turns out to be another.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from annotation.client import Counts
from schemas.errors import UserError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
  external TEXT PRIMARY KEY, unit TEXT NOT NULL, parts TEXT NOT NULL, shown TEXT NOT NULL,
  digest TEXT NOT NULL, bytes INTEGER NOT NULL, purpose TEXT NOT NULL, propensity REAL NOT NULL,
  overlap INTEGER NOT NULL, sent REAL, pushed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tasks (
  task INTEGER PRIMARY KEY, external TEXT NOT NULL, digest TEXT NOT NULL,
  overlap INTEGER, archived INTEGER NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS tasks_of ON tasks (external, task);
CREATE TABLE IF NOT EXISTS annotations (
  id INTEGER PRIMARY KEY, task INTEGER NOT NULL, annotator TEXT, updated TEXT NOT NULL,
  cancelled INTEGER NOT NULL, seconds REAL, state TEXT NOT NULL, detail TEXT NOT NULL, result TEXT
);
CREATE INDEX IF NOT EXISTS annotations_of ON annotations (task);
"""

State = Literal["answer", "skip", "foreign"] | str
"""`answer`, `skip`, `foreign` (on a task that is not ours), or the code of what is wrong with it."""


@dataclass(frozen=True)
class Row:
    """An item as the ledger keeps it."""

    external: str
    unit: str
    parts: str
    """Ids of the unit's parts, as JSON."""
    shown: str
    """Order in which a pair is shown: ab or ba."""
    digest: str
    """Hash of the task's data."""
    bytes: int
    purpose: str
    propensity: float
    overlap: int


@dataclass(frozen=True)
class Kept:
    """An annotation as the ledger keeps it; `detail` is its answers as JSON, or what is wrong."""

    id: int
    annotator: str | None
    updated: str
    cancelled: bool
    seconds: float | None
    state: State
    detail: str
    result: str


class Ledger:
    """The SQLite file of one campaign; one process at a time writes it (the campaign's lock)."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=60)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: cannot be used ({error})") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing is on disk."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def get(self, key: str) -> str | None:
        """A setting."""
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def put(self, key: str, value: str) -> None:
        """Keep a setting."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def belong_to(self, instance: str) -> None:
        """The mirror is of this project; that of another is forgotten (items and orders stay)."""
        if self.get("instance") != instance:
            with self.transaction():
                for table in ("tasks", "annotations"):
                    self._db.execute(f"DELETE FROM {table}")
                # The other project's tasks are nobody's loss here: they are to be sent again.
                self._db.execute("UPDATE items SET pushed = 0, sent = NULL")
                self._db.execute("DELETE FROM meta WHERE key IN ('cursor', 'swept')")
                self.put("instance", instance)

    # items

    def add(self, rows: Iterable[Row]) -> None:
        """Items that are to be asked. Of one that is known, its order and text stay as they were shown;
        a pair drawn at random (`audit`) stays so, and the larger overlap holds."""
        with self.transaction():
            self._db.executemany(
                "INSERT INTO items (external, unit, parts, shown, digest, bytes, purpose, "
                "propensity, overlap) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "propensity = CASE WHEN excluded.purpose = 'audit' AND purpose != 'audit' "
                "THEN excluded.propensity ELSE propensity END, "
                "purpose = CASE WHEN excluded.purpose = 'audit' THEN 'audit' ELSE purpose END, "
                "overlap = max(overlap, excluded.overlap)",
                [
                    (r.external, r.unit, r.parts, r.shown, r.digest, r.bytes, r.purpose,
                     r.propensity, r.overlap)
                    for r in rows
                ],
            )  # fmt: skip

    def missing(self, externals: Sequence[str], again: bool) -> set[str]:
        """Those without a task. One whose task was there and is gone counts only with `again`."""
        found: set[str] = set()
        for part in _parts(externals):
            marks = ",".join("?" * len(part))
            rows = self._db.execute(
                f"SELECT external FROM items WHERE external IN ({marks}) AND (pushed = 0 OR ?) "
                "AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.external = items.external)",
                (*part, again),
            )
            found.update(row[0] for row in rows)
        return found

    def item(self, external: str) -> Row | None:
        """An item by its external id."""
        row = self._db.execute(
            "SELECT external, unit, parts, shown, digest, bytes, purpose, propensity, overlap "
            "FROM items WHERE external = ?",
            (external,),
        ).fetchone()
        return None if row is None else Row(*row)

    def send(self, rows: Sequence[Row], when: float) -> None:
        """These are on their way from now on, with these texts."""
        with self.transaction():
            self._db.executemany(
                "UPDATE items SET sent = ?, digest = ?, bytes = ? WHERE external = ?",
                [(when, r.digest, r.bytes, r.external) for r in rows],
            )

    def unsend(self) -> None:
        """Nothing is on its way: what was has not arrived, and will not."""
        self._db.execute("UPDATE items SET sent = NULL WHERE sent IS NOT NULL")

    def sending(self) -> dict[str, float]:
        """Items on their way whose arrival nobody saw, with the clock time of sending."""
        rows = self._db.execute("SELECT external, sent FROM items WHERE sent IS NOT NULL")
        return dict(rows.fetchall())

    def largest(self) -> int:
        """Bytes of the largest task's data."""
        return int(self._db.execute("SELECT coalesce(max(bytes), 0) FROM items").fetchone()[0])

    # tasks

    def arrived(self, rows: Iterable[tuple[int, str, str]], sweep: int = 0) -> None:
        """Tasks that are on the server: id, external id, hash of their data."""
        rows = list(rows)
        with self.transaction():
            self._db.executemany(
                "INSERT INTO tasks (task, external, digest, seen) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET digest = excluded.digest, "
                # A server on SQLite gives the id of a deleted task to the next one.
                "archived = CASE WHEN external = excluded.external THEN archived ELSE 0 END, "
                "overlap = CASE WHEN external = excluded.external THEN overlap ELSE NULL END, "
                "external = excluded.external, seen = max(seen, excluded.seen)",
                [(*row, sweep) for row in rows],
            )
            self._db.executemany(
                "UPDATE items SET sent = NULL, pushed = 1 WHERE external = ?",
                [(external,) for _, external, _ in rows],
            )

    def forget_unseen(self, sweep: int) -> None:
        """Tasks that a whole listing did not show are gone, with what was answered on them."""
        with self.transaction():
            self._db.execute(
                "DELETE FROM annotations WHERE task IN (SELECT task FROM tasks WHERE seen != ?)",
                (sweep,),
            )
            self._db.execute("DELETE FROM tasks WHERE seen != ?", (sweep,))

    def task_count(self) -> int:
        """Tasks that are known."""
        return int(self._db.execute("SELECT count(*) FROM tasks").fetchone()[0])

    def last_task(self) -> int:
        """The highest task id that is known."""
        return int(self._db.execute("SELECT coalesce(max(task), 0) FROM tasks").fetchone()[0])

    def doubles(self) -> list[int]:
        """Tasks that ask what an earlier task asks, and are not archived yet."""
        rows = self._db.execute(
            "SELECT task FROM tasks t WHERE NOT archived AND external != '' AND EXISTS "
            "(SELECT 1 FROM tasks e WHERE e.external = t.external AND e.task < t.task) ORDER BY task"
        )
        return [row[0] for row in rows]

    def archive(self, task: int) -> None:
        """This double is out of the way on the server."""
        self._db.execute("UPDATE tasks SET archived = 1 WHERE task = ?", (task,))

    def other_overlaps(self, usual: int) -> list[tuple[int, int]]:
        """Tasks whose number of annotators is to be set: id, number."""
        rows = self._db.execute(
            "SELECT t.task, i.overlap FROM tasks t JOIN items i USING (external) "
            "WHERE coalesce(t.overlap, ?) != i.overlap AND NOT archived ORDER BY t.task",
            (usual,),
        )
        return rows.fetchall()

    def overlaps(self, task: int, overlap: int) -> None:
        """The server knows this task's number of annotators."""
        self._db.execute("UPDATE tasks SET overlap = ? WHERE task = ?", (overlap, task))

    # annotations

    def answered(self, task: int, kept: Iterable[Kept]) -> None:
        """All annotations of a task, in place of those that were known (within a transaction)."""
        self._db.execute("DELETE FROM annotations WHERE task = ?", (task,))
        self._db.executemany(
            "INSERT OR REPLACE INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (k.id, task, k.annotator, k.updated, k.cancelled, k.seconds, k.state, k.detail,
                 k.result)
                for k in kept
            ],
        )  # fmt: skip

    def known(self) -> Counts:
        """What the mirror holds, as the server counts it."""
        answers, skips = self._db.execute(
            "SELECT coalesce(sum(NOT cancelled), 0), coalesce(sum(cancelled), 0) FROM annotations"
        ).fetchone()
        return Counts(self.task_count(), answers, skips)

    def annotations(self) -> Iterator[tuple[Any, ...]]:
        """Every annotation of our own items, those of one item and annotator together, the one that
        counts first: one that can be read before others, an answer before a skip, the latest first.

        Rows: unit, parts, shown, purpose, propensity, annotator, id, task, updated, seconds,
        state, detail.
        """
        return self._db.execute(
            "SELECT i.unit, i.parts, i.shown, i.purpose, i.propensity, a.annotator, a.id, a.task, "
            "a.updated, a.seconds, a.state, a.detail FROM annotations a JOIN tasks t USING (task) "
            "JOIN items i USING (external) ORDER BY i.unit, i.external, a.annotator, "
            "a.state NOT IN ('answer', 'skip'), a.state, a.updated DESC, a.id DESC"
        )

    def tally(self) -> dict[str, int]:
        """Figures of the campaign: items, waiting, doubles, edited, gone, foreign and states."""
        one = {
            "items": "SELECT count(*) FROM items",
            "pushed": "SELECT count(DISTINCT external) FROM tasks JOIN items USING (external)",
            "doubles": "SELECT count(*) - count(DISTINCT external) FROM tasks WHERE external != ''",
            "edited": "SELECT count(*) FROM tasks t JOIN items i USING (external) "
            "WHERE t.digest != i.digest",
            "gone": "SELECT count(*) FROM items WHERE pushed AND external NOT IN "
            "(SELECT external FROM tasks)",
            "foreign": "SELECT count(*) FROM tasks WHERE external NOT IN "
            "(SELECT external FROM items)",
            "answered": "SELECT count(DISTINCT t.external) FROM annotations a JOIN tasks t USING "
            "(task) JOIN items i USING (external) WHERE a.state = 'answer'",
        }
        found = {name: int(self._db.execute(sql).fetchone()[0]) for name, sql in one.items()}
        states = self._db.execute("SELECT state, count(*) FROM annotations GROUP BY state")
        return found | {f"annotations_{state}": n for state, n in states}

    def people(self) -> dict[str, int]:
        """Answers by annotator."""
        rows = self._db.execute(
            "SELECT annotator, count(*) FROM annotations WHERE state = 'answer' GROUP BY annotator "
            "ORDER BY annotator"
        )
        return {str(name): int(n) for name, n in rows}


def _parts(values: Sequence[str], size: int = 500) -> Iterator[Sequence[str]]:
    for i in range(0, len(values), size):
        yield values[i : i + size]


def as_text(value: Any) -> str:
    """JSON as the ledger keeps it."""
    return json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
