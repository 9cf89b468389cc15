"""Files that are there whole or not at all, and a full disk said in one line."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import StoreError
from schemas.manifest import Shard

_WRONG_PATH = (errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full; free some space and run again: all that is finished is kept"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = (
                "no permission; the store may belong to another user: take another --root, or have "
                "its owner grant you write access"
            )
        elif error.errno in _WRONG_PATH:
            why = f"{os.strerror(error.errno)}; check the path and the disk"
        else:
            raise
        raise StoreError(f"{error.filename or path}: {why}") from error


def write_table(path: Path, table: pa.Table) -> Shard:
    """Write Parquet (zstd, fixed row groups) durably; equal rows give equal bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # In one chunk: where a table's chunks end would otherwise show in the pages.
        table = table.combine_chunks()
        pq.write_table(table, temporary, compression="zstd", row_group_size=65_536)
        sync(temporary)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return describe(path, path.parent, rows=len(table))


def write_durably(path: Path, content: bytes) -> None:
    """Write a small file so that it is there whole, or as it was before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def describe(path: Path, base: Path, rows: int) -> Shard:
    """What a manifest says of a file; its name is taken from `base`."""
    with path.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    return Shard(
        file=path.relative_to(base).as_posix(),
        rows=rows,
        bytes=path.stat().st_size,
        sha256=sha256,
    )


def sync(path: Path) -> None:
    """Put a file, or a folder's list of names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
