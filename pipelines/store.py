"""The store: what is published never changes, and only what is whole is published.

    root/
      stages/STAGE/DIGEST/          a published output: shards, files, manifest.json
      stages/STAGE/DIGEST.partial/  one being made: finished shards outlive a crash
      runs/RUN/                     run.json, the plan, the report, links to dataset and models
      journal.sqlite                every reply of every engine
      damaged/                      outputs found broken, kept for the curious

A shard is written to a temporary name, synced and renamed; the manifest is written last and the
folder renamed into its place, so an output that can be found is whole. Locks are flock(2) locks:
a killed process holds none.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.durable import describe, explained, sync, write_durably, write_table
from schemas.errors import StoreError
from schemas.manifest import Manifest, Shard
from schemas.record import Record, digest
from schemas.records import ALL
from schemas.table import adapt, validate

log = logging.getLogger(__name__)

RECORDS: dict[str, type[Record]] = {record.__name__: record for record in ALL}
Output = Mapping[str, tuple[type[Record], pa.Table]]
"""What a unit of work gives: table name to (record, rows)."""


class Busy(StoreError):
    """A lock that another process holds."""


@dataclass(frozen=True)
class Key:
    """What an output is made from; its digest is the output's address."""

    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]
    seed: int
    engine: dict[str, Any] | None = None

    @property
    def digest(self) -> str:
        """32 hex digits over everything that can change the output."""
        return digest(self.stage, self.version, self.config, self.inputs, self.seed, self.engine)


@dataclass(frozen=True)
class Published:
    """A whole output."""

    path: Path
    manifest: Manifest

    def shards(self) -> int:
        """Units of work the output was made in; tables have a shard for each."""
        return max((len(shards) for shards in self.manifest.tables.values()), default=0)

    def paths(self, table: str) -> list[Path]:
        """Parquet files of a table, in row order."""
        return [self.path / shard.file for shard in self.manifest.tables[table]]

    def shard(self, table: str, index: int) -> pa.Table:
        """Rows of one shard, under today's record."""
        record = RECORDS[self.manifest.records[table]]
        path = self.path / self.manifest.tables[table][index].file
        try:
            with explained(path):
                table = pq.read_table(path, memory_map=True)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{path}: cannot be read ({error}); move {self.path} away and run again: it is made "
                "again from the journal"
            ) from error
        return adapt(record, table, str(path))

    def table(self, table: str) -> pa.Table:
        """All rows of a table, under today's record."""
        record = RECORDS[self.manifest.records[table]]
        parts = [self.shard(table, i) for i in range(len(self.manifest.tables[table]))]
        return pa.concat_tables(parts) if parts else record.arrow_schema().empty_table()


class Store:
    """A folder of published outputs."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @classmethod
    def open(cls, root: Path, *, create: bool = True) -> Store:
        """Open a store, made if it is not there. Raises StoreError in one line if it cannot be used."""
        store = cls(root)
        marker = store.root / "store.json"
        with explained(store.root):
            if not marker.exists():
                if not create:
                    raise StoreError(f"{root}: no Prefinery store; name one with --root")
                store.root.mkdir(parents=True, exist_ok=True)
                write_durably(marker, b'{"format": 1}\n')
            elif _json(marker) != {"format": 1}:
                raise StoreError(f"{root}: a store of another format; read it with its Prefinery")
            if create:
                for name in ("stages", "runs", "locks"):
                    (store.root / name).mkdir(exist_ok=True)
        return store

    def folder(self, stage: str, output_digest: str) -> Path:
        """Where an output is, or would be."""
        return self.root / "stages" / stage / output_digest

    def find(self, stage: str, output_digest: str) -> Published | None:
        """The published output, or None.

        A published file that is gone or of another size than its manifest says was damaged from
        outside: the output is moved to damaged/ and made again (from the journal, so at no cost).
        """
        found = _look(self.folder(stage, output_digest))
        if not isinstance(found, str):
            return found
        # Only the holder of the output's lock may move it: another process may have moved it and
        # published it anew since it was looked at.
        try:
            with self.lock(f"{stage}-{output_digest}", wait=False):
                return self._find_locked(stage, output_digest)
        except Busy:
            return None  # it is being made again right now

    def _find_locked(self, stage: str, output_digest: str) -> Published | None:
        path = self.folder(stage, output_digest)
        found = _look(path)
        if not isinstance(found, str):
            return found
        with explained(path):
            place = self.root / "damaged" / f"{stage}-{output_digest}"
            place.parent.mkdir(exist_ok=True)
            while place.exists():
                place = place.with_name(place.name + "+")
            path.rename(place)
        log.warning("%s: %s; moved to %s and made again", path, found, place)
        return None

    @contextmanager
    def lock(self, name: str, *, wait: bool) -> Iterator[None]:
        """Hold an exclusive lock. With `wait` false, a lock held elsewhere raises Busy."""
        path = self.root / "locks" / name
        with explained(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        told = False
        try:
            # Polled: Polars' signal handler would restart a call that blocks, unseen by Ctrl-C.
            while not _locked(handle):
                holder = os.pread(handle, 20, 0).decode(errors="replace").strip() or "another"
                at_work = f"{name}: process {holder} is at work on it"
                if not wait:
                    raise Busy(f"{at_work}; wait for it to end, or stop it, then run again")
                if not told:
                    log.warning("%s; waiting for it to end", at_work)
                told = True
                time.sleep(0.1)
            with explained(path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def draft(self, key: Key) -> Iterator[Draft | Published]:
        """Make an output: yields a Draft, or the output if another process published it meanwhile."""
        with self.lock(f"{key.stage}-{key.digest}", wait=True):
            done = self._find_locked(key.stage, key.digest)
            if done is not None:
                yield done
                return
            final = self.folder(key.stage, key.digest)
            with explained(final):
                partial = final.with_name(final.name + ".partial")
                partial.mkdir(parents=True, exist_ok=True)
                draft = Draft(key, partial, final)
                written = _look(partial)
                if isinstance(written, Published):  # killed between its manifest and its renaming
                    yield draft.rename(written.manifest)
                else:
                    yield draft


@dataclass(frozen=True)
class Draft:
    """An output being made. Finished units of work are kept over crashes."""

    key: Key
    folder: Path
    final: Path

    def done(self, unit: int) -> dict[str, Any] | None:
        """What a finished unit of work noted, or None if it is still to be done."""
        try:
            note: dict[str, Any] = json.loads((self.folder / _note(unit)).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        shards = [Shard(**shard) for shard in note["tables"].values()]
        whole = all(_size(self.folder / shard.file) == shard.bytes for shard in shards)
        return note if whole else None

    def write(self, unit: int, output: Output, facts: Mapping[str, Any]) -> None:
        """Keep one finished unit of work: its tables, then the note that says they are whole."""
        tables = {}
        for name, (record, table) in output.items():
            validate(record, table)
            # Equal types do not mean that the record's name, version and docs are there.
            table = pa.table(table.columns, schema=record.arrow_schema())
            file = f"{name}-{unit:05d}.parquet"
            tables[name] = write_table(self.folder / file, table).model_dump()
        records = {name: record.__name__ for name, (record, _) in output.items()}
        note = {"tables": tables, "records": records, "facts": dict(facts)}
        write_durably(self.folder / _note(unit), json.dumps(note, sort_keys=True).encode())

    def files(self) -> Path:
        """An empty folder for files that are no tables; what a killed try left there is gone."""
        path = self.folder / "files"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def publish(self, units: int) -> Published:
        """Write the manifest, last, and move the output to its address.

        Facts of the units are added up by name where they are numbers.
        """
        notes = [self.done(unit) for unit in range(units)]
        tables: dict[str, list[Shard]] = {}
        records: dict[str, str] = {}
        total: dict[str, Any] = {}
        for unit, note in enumerate(notes):
            if note is None:
                raise StoreError(f"{self.folder}: unit {unit} is not whole; run again")
            for name, shard in note["tables"].items():
                tables.setdefault(name, []).append(Shard(**shard))
            records |= note["records"]
            for name, value in note["facts"].items():
                counts = isinstance(value, int | float) and name in total
                total[name] = total[name] + value if counts else value
        files = sorted(p for p in (self.folder / "files").rglob("*") if p.is_file())
        for path in {*files, *(p.parent for p in files)}:
            sync(path)
        manifest = Manifest(
            stage=self.key.stage,
            version=self.key.version,
            digest=self.key.digest,
            config=self.key.config,
            inputs=self.key.inputs,
            engine=self.key.engine,
            seed=self.key.seed,
            tables={name: tuple(shards) for name, shards in tables.items()},
            records=records,
            files=tuple(describe(path, self.folder, rows=0) for path in files),
            facts=total,
        )
        text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True)
        write_durably(self.folder / "manifest.json", text.encode())
        return self.rename(manifest)

    def rename(self, manifest: Manifest) -> Published:
        """Move an output whose manifest is written to its address, without the units' notes."""
        kept = {shard.file for shards in manifest.tables.values() for shard in shards}
        kept |= {"manifest.json", "files"}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink()
        self.folder.rename(self.final)
        sync(self.final.parent)
        return Published(self.final, manifest)


def _look(path: Path) -> Published | str | None:
    """The whole output in a folder, what is wrong with it, or None where there is none."""
    with explained(path):
        try:
            manifest = Manifest.model_validate_json((path / "manifest.json").read_bytes())
        except FileNotFoundError:
            return "its manifest is gone" if path.exists() else None
        except ValueError:
            return "its manifest cannot be read"
        for shard in (*(s for table in manifest.tables.values() for s in table), *manifest.files):
            size = _size(path / shard.file)
            if size != shard.bytes:
                held = size if size is not None else "no"
                return f"{shard.file} holds {held} of {shard.bytes} bytes"
    return Published(path, manifest)


def _json(path: Path) -> Any:
    """Content of a small JSON file; None where it holds none."""
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(unit: int) -> str:
    return f"unit-{unit:05d}.json"
