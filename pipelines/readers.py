"""Files of rows: which ones are meant, and their rows one by one, in bounded memory.

A row that cannot be read is a BadRow in its place; a file that cannot be read is a UserError.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import UserError

MAX_LINE = 64 * 2**20
"""Longest line of a text file, in bytes: a file without line ends must not fill the memory."""
BATCH_ROWS = 256
"""Rows of a columnar file that are Python objects at a time."""

Format = Literal["jsonl", "parquet", "csv", "arrow"]
SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
}


class BadRow(Exception):
    """A row that cannot be used; `code` and `detail` are those of its `Reject`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class File:
    """A file to read. `name` is unique among the files; `origin` names the data set it is of."""

    path: Path
    name: str
    format: Format
    origin: str


Row = tuple[int, dict[str, Any] | BadRow]
"""Line (of a text file, as an editor counts) or row number, from 1, and the row."""


# --- which files ---------------------------------------------------------------------------------


def files(paths: Sequence[str], format: str = "auto", split: str | None = None) -> list[File]:
    """The files that paths, globs and folders stand for, each once, in order.

    `format` is `auto`, `jsonl`, `parquet`, `csv` or `datasets` (folders only). Raises UserError
    where nothing matches, a format is not known, a file is empty or may not be read, or a folder
    holds several splits and `split` names none of them.
    """
    found: dict[Path, File] = {}
    for given in paths:
        for match in matching(given):
            for file in _folder(match, format, split) if match.is_dir() else [_file(match, format)]:
                found.setdefault(file.path.resolve(), file)
    if not found:
        raise UserError("no input files; name at least one in `paths`")
    if split is not None and not any(Path(given).is_dir() for given in paths):
        raise UserError("`split` is for folders saved as data sets; leave it out for files")
    for file in found.values():
        _check_access(file.path)
    return _with_unique_names(list(found.values()))


def matching(given: str) -> list[Path]:
    """What a path or a glob stands for. Raises UserError where it is nothing."""
    path = Path(given)
    try:
        found = [path] if path.exists() else _glob(given)
    except OSError as error:
        raise UserError(f"{given[:200]}: {error.strerror}; check the path") from error
    if not found:
        raise UserError(f"no file matches {given}; check the path")
    return found


def _glob(pattern: str) -> list[Path]:
    path = Path(pattern)
    try:
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        return sorted(p for p in found if p.is_file())
    except ValueError as error:
        raise UserError(f"{pattern!r} is not a path: {error}") from error


def _file(path: Path, format: str) -> File:
    known = SUFFIXES.get(path.suffix.lower()) if format == "auto" else format
    if known == "datasets":
        raise UserError(f"{path} is a file; format `datasets` reads a folder")
    for kind in set(SUFFIXES.values()):
        if kind == known:
            return File(path, path.name, kind, path.name)
    raise UserError(
        f"{path}: unknown format {path.suffix or 'without suffix'!r}; "
        "set `format` to jsonl, parquet or csv"
    )


def _folder(path: Path, format: str, split: str | None) -> list[File]:
    if format not in ("auto", "datasets"):
        raise UserError(f"{path} is a folder; name its files, such as {path}/*.{format}")
    if (path / "state.json").is_file():
        splits = {_split_name(path / "state.json"): sorted(path.glob("data-*.arrow"))}
    elif (path / "dataset_dict.json").is_file():
        folders = sorted(p.parent for p in path.glob("*/state.json"))
        splits = {p.name: sorted(p.glob("data-*.arrow")) for p in folders}
    else:
        splits = _hub_splits(path)
    if not any(splits.values()):
        raise UserError(f"{path} holds no readable data: no {', '.join(SUFFIXES)} files")
    if split is None and len(splits) > 1:
        raise UserError(f"{path} holds the splits {', '.join(splits)}; name one in `split`")
    chosen = next(iter(splits)) if split is None else split
    if chosen not in splits:
        raise UserError(f"{path} holds no split {chosen!r}; it holds {', '.join(splits)}")
    origin = path.resolve().name
    return [
        File(p, p.relative_to(path).as_posix(), SUFFIXES.get(p.suffix, "arrow"), origin)
        for p in splits[chosen]
    ]


def _split_name(state: Path) -> str:
    try:
        return str(json.loads(state.read_bytes())["_split"] or "all")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{state} is damaged; save the data set again") from error


def _hub_splits(path: Path) -> dict[str, list[Path]]:
    """Files of each split, by the naming conventions of `datasets`; the card's text is not trusted."""
    from datasets.data_files import DataFilesDict, EmptyDatasetError, get_data_patterns

    base = str(path.resolve())
    try:
        patterns = get_data_patterns(base)
        resolved = DataFilesDict.from_patterns(patterns, base, allowed_extensions=[*SUFFIXES])
    except (EmptyDatasetError, FileNotFoundError):
        return {}
    return {
        str(name): [path / os.path.relpath(file, base) for file in sorted(found)]
        for name, found in resolved.items()
        if found
    }


def _check_access(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is not a regular file")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UserError(f"{path} holds no rows")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _with_unique_names(found: list[File]) -> list[File]:
    if len({file.name for file in found}) == len(found):
        return [replace(file, name=_utf8(file.name), origin=_utf8(file.origin)) for file in found]
    base = os.path.commonpath([file.path.resolve().parent for file in found])
    return [
        replace(
            file,
            name=_utf8(Path(os.path.relpath(file.path.resolve(), base)).as_posix()),
            origin=_utf8(file.origin),
        )
        for file in found
    ]


def _utf8(name: str) -> str:
    """A file's name as text that can be stored, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- rows ----------------------------------------------------------------------------------------


def rows(file: File, columns: Sequence[str], check: Callable[[list[str]], None]) -> Iterator[Row]:
    """Rows of a file; of a columnar one, only these columns.

    `check` is called with the names of a table's columns before its first row (never for JSON
    lines, whose rows are free) and may raise UserError. Raises UserError for a damaged file and for
    one without rows.
    """
    reader: Iterator[Row]
    if file.format == "jsonl":
        reader = _json_rows(file.path)
    elif file.format == "csv":
        reader = _csv_rows(file.path, check)
    else:
        reader = _table_rows(file, columns, check)
    empty = True
    try:
        for row in reader:
            empty = False
            yield row
    except OSError as error:
        raise UserError(f"{file.path} cannot be read: {error}".splitlines()[0]) from error
    if empty:
        raise UserError(f"{file.path} holds no rows")


def nearest(name: str, names: Sequence[str]) -> str:
    """In words, the name most like the one that is not there."""
    lower = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), lower, n=1, cutoff=0.5)
    if close:
        return f"the nearest is {lower[close[0]]!r}"
    shown = ", ".join(repr(other[:40]) for other in names[:10])
    return f"there are {shown}" if names else "there are none"


def _lines(path: Path) -> Generator[tuple[int, bytes | None]]:
    """Numbered lines as bytes, without a byte order mark; None for one beyond MAX_LINE."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if number == 1:
                if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise UserError(f"{path} is UTF-16; save it as UTF-8")
                line = line.removeprefix(b"\xef\xbb\xbf")
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
                    pass
                yield number, None
            else:
                yield number, line


def _json_rows(path: Path) -> Iterator[Row]:
    with closing(_lines(path)) as lines:
        for number, line in lines:
            if line is None:
                yield number, BadRow("too_long", f"a line of more than {MAX_LINE} bytes")
            elif line.strip():
                if number == 1 and path.suffix == ".json" and line.lstrip().startswith(b"["):
                    raise UserError(f"{path} is one JSON array; write one object a line (JSONL)")
                yield number, _json_row(line)


def _json_row(line: bytes) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return BadRow("invalid_utf8", f"byte {error.object[error.start]:#04x} at {error.start}")
    except RecursionError:
        return BadRow("not_json", "nested too deeply")
    except ValueError as error:
        return BadRow("not_json", f"{error}: {line[:100].decode(errors='replace')!r}")
    if not isinstance(row, dict):
        return BadRow(
            "not_an_object", f"a {type(row).__name__}: {line[:100].decode(errors='replace')!r}"
        )
    return row


def _csv_rows(path: Path, check: Callable[[list[str]], None]) -> Iterator[Row]:
    csv.field_size_limit(max(MAX_LINE, csv.field_size_limit()))
    with closing(_lines(path)) as lines:
        reader = csv.reader(_decoded(path, lines), strict=True)
        header: list[str] = []
        while True:
            start = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if not header:
                    raise UserError(f"{path} is not CSV: {error} in line {start}") from error
                yield start, BadRow("bad_csv", str(error))
                continue
            if not fields:
                continue
            if not header:
                header = [name.strip() for name in fields]
                if len(set(header)) < len(header):
                    raise UserError(f"{path}: two columns have the same name; rename one")
                check(header)
            else:
                yield start, _csv_row(header, fields)


def _decoded(path: Path, lines: Iterator[tuple[int, bytes | None]]) -> Iterator[str]:
    for number, line in lines:
        if line is None:
            raise UserError(f"{path}: line {number} has more than {MAX_LINE} bytes")
        # Invalid bytes become lone surrogates, so that only their own row is refused.
        yield line.decode("utf-8", "surrogateescape")


def _csv_row(header: list[str], fields: list[str]) -> dict[str, Any] | BadRow:
    if len(fields) != len(header):
        return BadRow("bad_csv", f"{len(fields)} fields, the header has {len(header)}")
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return BadRow("invalid_utf8", "bytes that are not UTF-8")
    return {name: field or None for name, field in zip(header, fields, strict=True)}


def _table_rows(
    file: File, columns: Sequence[str], check: Callable[[list[str]], None]
) -> Iterator[Row]:
    number = 0
    try:
        for batch in _batches(file, columns, check):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                for row in _objects(batch.slice(start, BATCH_ROWS)):
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        kind = "Parquet" if file.format == "parquet" else "Arrow"
        raise UserError(
            f"{file.path} is not a readable {kind} file: {error}".splitlines()[0]
        ) from (error)


def _batches(
    file: File, columns: Sequence[str], check: Callable[[list[str]], None]
) -> Iterator[pa.RecordBatch]:
    if file.format == "parquet":
        with pq.ParquetFile(file.path) as parquet:
            names = parquet.schema_arrow.names
            check(names)
            yield from parquet.iter_batches(BATCH_ROWS, columns=_wanted(file, names, columns))
    else:
        with pa.memory_map(str(file.path)) as memory, pa.ipc.open_stream(memory) as stream:
            names = stream.schema.names
            check(names)
            for batch in stream:
                yield batch.select(_wanted(file, names, columns))


def _wanted(file: File, names: Sequence[str], columns: Sequence[str]) -> list[str]:
    wanted = [name for name in dict.fromkeys(columns) if name in names]
    for name in wanted:
        if names.count(name) > 1:
            raise UserError(f"{file.path}: two columns are named {name!r}; rename one")
    return wanted


def _objects(batch: pa.RecordBatch) -> list[dict[str, Any] | BadRow]:
    try:
        return batch.to_pylist()  # type: ignore[no-any-return]
    except ValueError as error:
        if batch.num_rows > 1:
            return [row for i in range(batch.num_rows) for row in _objects(batch.slice(i, 1))]
        code = "invalid_utf8" if isinstance(error, UnicodeDecodeError) else "bad_type"
        return [BadRow(code, str(error)[:200])]
