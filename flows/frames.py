"""Tables of a run's outputs, as the report reads them."""

from __future__ import annotations

from collections import Counter

import polars as pl

from pipelines.store import Published


def frame(output: Published, table: str) -> pl.DataFrame:
    """A table of an output."""
    return pl.DataFrame(pl.from_arrow(output.table(table)))


def counted(column: pl.Series) -> dict[str, int]:
    """How often each value stands there, the commonest first."""
    return dict(Counter(column.to_list()).most_common())
