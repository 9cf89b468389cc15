"""The audited data set, written as it came: same format, same columns, same order of rows.

`drop` leaves rows out, `flip` turns them round, `soften` adds a column `probability`. Rows that could
not be used are left out by `drop`; else they stay, without a probability, if they can be written at all.
Of rated responses the response is the unit: its probability is the mean over its pairs.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import readers
from pipelines.audit import read as reading
from pipelines.audit.audit import Audit
from pipelines.audit.config import AuditConfig
from pipelines.durable import explained
from pipelines.readers import BadRow, File
from schemas.errors import UserError
from schemas.record import digest

COLUMN = "probability"
ROW_GROUP = 65_536


@dataclass
class Plan:
    """What becomes of each row of a file, shape [rows] each."""

    known: np.ndarray
    """Whether the row gave a pair."""
    keep: np.ndarray
    flip: np.ndarray
    probability: np.ndarray
    """NaN where it is not known."""
    places: dict[int, dict[int, float]]
    """Probability of each rated response of a row that holds several, by row from 0 and place."""


def plan(found: Audit, file: int) -> Plan:
    """What becomes of the rows of one file."""
    size = found.pairs.rows[file]
    known, flip = np.zeros(size, bool), np.zeros(size, bool)
    keep: np.ndarray = np.zeros(size, bool)
    total, count = np.zeros(size), np.zeros(size)
    sums: dict[int, dict[int, list[float]]] = {}
    for at in np.flatnonzero(np.array(found.pairs.file) == file):
        row, place, other, other_place = found.pairs.at[at]
        p = float(found.probability[at])
        for r, where in ((row - 1, place), (other - 1, other_place)):
            sums.setdefault(r, {}).setdefault(where, []).append(p)
            known[r] = True
            total[r] += p
            count[r] += 1
        keep[row - 1] |= found.decisions[at] != "drop"
        flip[row - 1] |= found.decisions[at] == "flip"
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    places: dict[int, dict[int, float]] = {}
    if found.pairs.rated:
        keep = known & ~(mean < 0.5)
        places = {
            row: {place: float(np.mean(ps)) for place, ps in by.items()} for row, by in sums.items()
        }
    return Plan(known, keep, flip, mean, places)


def write(found: Audit, config: AuditConfig, folder: Path) -> list[Path]:
    """Write the data set under `folder` (made anew) and name its files.

    Raises UserError where the data has a column `probability` already (soften), or one that cannot be
    turned round.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    written: list[Path] = []
    with explained(folder):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        shards: dict[str, list[int]] = {}
        for at, file in enumerate(found.pairs.files):
            if file.format == "arrow":
                shards.setdefault(found.pairs.splits[at], []).append(at)
                continue
            target = fresh / _name(file, found.pairs.files)
            target.parent.mkdir(parents=True, exist_ok=True)
            made = plan(found, at)
            if file.format == "parquet":
                _parquet(file, made, config, target)
            else:
                _text(file, made, config, target)
            written.append(target)
        for split, files in shards.items():
            tables = [
                _edited(_arrow(found.pairs.files[at]), plan(found, at), config) for at in files
            ]
            target = fresh / split if len(set(found.pairs.splits)) > 1 else fresh
            _save(pa.concat_tables(tables), target, split)
            written.append(target)
        if len(shards) > 1:
            index = json.dumps({"splits": list(shards)})
            (fresh / "dataset_dict.json").write_text(index, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    return [folder / path.relative_to(fresh) for path in written]


def _name(file: File, files: list[File]) -> str:
    """The file's own name below the folder; never a path that leads out of it."""
    name = Path(file.name)
    if name.is_absolute() or ".." in name.parts:
        return f"{files.index(file)}-{name.name}"
    return file.name


# --- tables --------------------------------------------------------------------------------------


def _parquet(file: File, made: Plan, config: AuditConfig, target: Path) -> None:
    with pq.ParquetFile(file.path) as source:
        writer, start = None, 0
        for batch in source.iter_batches(8192):
            part = _slice(made, start, batch.num_rows)
            table = _edited(pa.Table.from_batches([batch]), part, config)
            writer = writer or pq.ParquetWriter(target, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=ROW_GROUP)
            start += batch.num_rows
        if writer is not None:
            writer.close()


def _slice(made: Plan, start: int, count: int) -> Plan:
    at = slice(start, start + count)
    places = {row - start: by for row, by in made.places.items() if start <= row < start + count}
    return Plan(made.known[at], made.keep[at], made.flip[at], made.probability[at], places)


def _arrow(file: File) -> pa.Table:
    with pa.memory_map(str(file.path)) as memory, pa.ipc.open_stream(memory) as stream:
        return stream.read_all()


def _edited(table: pa.Table, made: Plan, config: AuditConfig) -> pa.Table:
    """Rows of a table after the action."""
    names = dict.fromkeys(table.column_names)
    several = reading.column(config.responses, reading.RESPONSES, names)
    if made.places and several and pa.types.is_list(_plain(table.schema.field(several).type)):
        return _edited_lists(table, made, config)
    if config.action == "soften":
        _free(table.column_names)
        values = pa.array(made.probability, mask=np.isnan(made.probability))
        return table.append_column(COLUMN, values)
    if config.action == "flip":
        return _flipped(table, made, config)
    return table.filter(pa.array(made.keep))


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.list_(kind.value_type) if pa.types.is_large_list(kind) else kind


def _flipped(table: pa.Table, made: Plan, config: AuditConfig) -> pa.Table:
    names = dict.fromkeys(table.column_names)
    chosen = reading.column(config.chosen, reading.CHOSEN, names)
    rejected = reading.column(config.rejected, reading.REJECTED, names)
    assert chosen and rejected
    if table.schema.field(chosen).type != table.schema.field(rejected).type:
        raise UserError(f"{chosen} and {rejected} differ in type; they cannot be turned round")
    n = len(table)
    both = pa.chunked_array([*table[chosen].chunks, *table[rejected].chunks])
    row = np.arange(n)
    result = table
    for name, index in (
        (chosen, np.where(made.flip, row + n, row)),
        (rejected, np.where(made.flip, row, row + n)),
    ):
        field = table.schema.field(name)
        result = result.set_column(
            table.column_names.index(name), field, both.take(pa.array(index))
        )
    return result.replace_schema_metadata(table.schema.metadata)


def _edited_lists(table: pa.Table, made: Plan, config: AuditConfig) -> pa.Table:
    rows = [_row(row, at, made, config) for at, row in enumerate(table.to_pylist())]
    schema = table.schema
    if config.action == "soften":
        schema = schema.append(pa.field(COLUMN, pa.list_(pa.float64())))
    return pa.Table.from_pylist([row for row in rows if row is not None], schema=schema)


def _save(table: pa.Table, folder: Path, split: str) -> None:
    """A folder as `datasets` saves one, the same bytes for the same rows."""
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    mark = digest("clean", split, len(table), str(table.schema))[:16]
    made = Dataset(InMemoryTable(table.combine_chunks()), fingerprint=mark)
    made.save_to_disk(folder, num_shards=1)
    state = folder / "state.json"
    told = json.loads(state.read_bytes())
    told |= {"_fingerprint": mark, "_split": split}
    state.write_text(json.dumps(told, indent=2, sort_keys=True), encoding="utf-8")


# --- text ----------------------------------------------------------------------------------------


def _text(file: File, made: Plan, config: AuditConfig, target: Path) -> None:
    rows = _rows(file, made, config)
    with target.open("w", encoding="utf-8", newline="") as handle:
        if file.format == "csv":
            writer = None
            for row in rows:
                if writer is None:
                    writer = csv.DictWriter(handle, list(row), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
        else:
            for row in rows:
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rows(file: File, made: Plan, config: AuditConfig) -> Iterator[dict[str, Any]]:
    for at, (_, row) in enumerate(readers.rows(file, (), lambda names: None)):
        if isinstance(row, BadRow):
            continue
        edited = _row(row, at, made, config)
        if edited is not None and _writable(edited):
            yield edited


def _writable(row: dict[str, Any]) -> bool:
    """Whether it has no lone surrogate in it: such a row was rejected, too."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _row(row: dict[str, Any], at: int, made: Plan, config: AuditConfig) -> dict[str, Any] | None:
    """A row after the action; None: it is left out."""
    places = made.places.get(at, {})
    several = reading.column(config.responses, reading.RESPONSES, row)
    listed = bool(made.places) and several is not None and isinstance(row[several], list)
    p = float(made.probability[at])
    if config.action == "soften":
        _free(list(row))
        if listed and several is not None:
            of_all = [places.get(i) for i in range(len(row[several]))]
            return row | {COLUMN: of_all}
        return row | {COLUMN: None if np.isnan(p) else p}
    if config.action == "flip":
        chosen = reading.column(config.chosen, reading.CHOSEN, row)
        rejected = reading.column(config.rejected, reading.REJECTED, row)
        if made.flip[at] and chosen and rejected:
            return row | {chosen: row[rejected], rejected: row[chosen]}
        return row
    if not listed or several is None:
        return row if made.keep[at] else None
    kept = [i for i in range(len(row[several])) if places.get(i, 1.0) >= 0.5]
    if not made.known[at] or len(kept) < 2:
        return None
    ratings = reading.column(config.ratings, reading.RATINGS, row)
    cut = {several: [row[several][i] for i in kept]}
    if ratings and isinstance(row[ratings], list) and len(row[ratings]) == len(row[several]):
        cut[ratings] = [row[ratings][i] for i in kept]
    return row | cut


def _free(names: list[str]) -> None:
    if COLUMN in names:
        raise UserError(
            f"the data has a column {COLUMN!r} already; rename it or take --action drop"
        )
