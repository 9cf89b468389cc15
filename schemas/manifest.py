"""What a published stage output says of itself. Holds no clock times: equal work, equal bytes."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.record import Part


class Shard(Part):
    """One file of a stage's output."""

    file: str
    """Name within the output's folder."""
    rows: int
    """Rows held; 0 for a file that is no table."""
    bytes: int
    """Size, by which a truncated file is known."""
    sha256: str
    """Hash of the file."""


class Manifest(Part):
    """Written last: an output with a manifest is whole."""

    stage: str
    """Stage name."""
    version: int
    """Stage version: raised when its behaviour changes."""
    digest: str
    """Hash of stage, version, config, inputs, engine and seed: the output's address."""
    config: dict[str, Any]
    """The stage's whole config."""
    inputs: dict[str, str]
    """Digest of every input by name."""
    engine: dict[str, Any] | None = None
    """Identity of the engine asked, if one was."""
    seed: int
    """The plan's seed."""
    tables: dict[str, tuple[Shard, ...]]
    """Shards of every table, in row order."""
    records: dict[str, str]
    """Record name of every table."""
    files: tuple[Shard, ...] = ()
    """Files that are no tables (a model folder, a dataset card)."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """Figures the stage reports of itself, such as tokens."""

    def rows(self, table: str) -> int:
        """Rows of a table over its shards."""
        return sum(shard.rows for shard in self.tables.get(table, ()))
