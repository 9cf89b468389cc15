"""What is remembered of a run: its plan, its outputs, when it was tried and how that ended."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.durable import explained, write_durably
from pipelines.store import Published, Store
from schemas.errors import StoreError, UserError


@dataclass
class RunRecord:
    """The content of runs/RUN/run.json. Clock times stand here and nowhere in Parquet."""

    id: str
    plan: str
    status: str = "started"
    """`started` (at work, or killed), `stopped`, `failed` or `complete`."""
    attempts: list[dict[str, Any]] = field(default_factory=list)
    """Of every try: when it started and ended, what it computed, how it ended."""
    stages: dict[str, dict[str, str]] = field(default_factory=dict)
    """Stage and digest of every output by its name in the run."""

    def outputs(self, store: Store) -> Iterator[tuple[str, Published]]:
        """The run's published outputs, in the order they were made."""
        for name, place in self.stages.items():
            output = store.find(place["stage"], place["digest"])
            if output is not None:
                yield name, output

    def output(self, store: Store, name: str) -> Published | None:
        """One output by its name in the run."""
        place = self.stages.get(name)
        return store.find(place["stage"], place["digest"]) if place else None


def folder(store: Store, run_id: str) -> Path:
    """Where a run's record, plan, report and links are."""
    return store.root / "runs" / run_id


def save(store: Store, record: RunRecord) -> None:
    """Write the record."""
    path = folder(store, record.id)
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        write_durably(path / "run.json", json.dumps(asdict(record), indent=1).encode())


def load(store: Store, run_id: str) -> RunRecord:
    """A run by its id, any unambiguous beginning of it, or `latest`."""
    known = every(store)
    if not known:
        raise UserError(f"{store.root}: no runs yet; start one with: prefinery run PLAN")
    if run_id == "latest":
        return known[0]
    found = [record for record in known if record.id.startswith(run_id)]
    if len(found) != 1:
        what = "no run begins so" if not found else f"{len(found)} runs begin so"
        raise UserError(f"{run_id}: {what}; `prefinery runs` lists them")
    return found[0]


def every(store: Store) -> list[RunRecord]:
    """All runs, last tried first."""
    records = []
    for path in (store.root / "runs").glob("*/run.json"):
        try:
            with explained(path):
                records.append(RunRecord(**json.loads(path.read_bytes())))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path}: damaged ({error}); move {path.parent} away") from error
    return sorted(records, key=lambda r: r.attempts[-1]["started"], reverse=True)


def now() -> str:
    """The time, as run records hold it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def link(store: Store, run_id: str, name: str, target: Path) -> Path:
    """Make runs/RUN/NAME a relative link to an output's folder."""
    place = folder(store, run_id) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, place.parent))
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    fresh.rename(place)
    return place
