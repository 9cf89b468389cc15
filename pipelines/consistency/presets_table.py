"""What the presets share: the wide frame they read and the `Decision` table they write."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from schemas.errors import SchemaError, UserError
from schemas.records import Decision
from schemas.table import with_ids

Case = tuple[pl.Expr, str, str, float | pl.Expr | None]
"""When, action, reason, and the target of the side settled on (none: the pair is dropped)."""

_NO_JUDGES = frozenset({"pair_id", "prompt_id", "label", "quality", "right", "reward", "score"})


def read(frame: pl.DataFrame | pa.Table, needed: Sequence[str] = ()) -> pl.DataFrame:
    """The frame in Polars, NaN as null. Raises SchemaError on a column that is missing."""
    table = pl.DataFrame(pl.from_arrow(frame)) if isinstance(frame, pa.Table) else frame
    missing = sorted({"pair_id", "prompt_id", *needed} - set(table.columns))
    if missing:
        raise SchemaError(f"presets: missing columns {missing}")
    return table.with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None))


def judges_of(
    table: pl.DataFrame, named: Sequence[str] | None = None, *, at_least: int = 1
) -> list[str]:
    """Names of the judges' columns: those named, or every number that is nothing else."""
    names = list(named) if named is not None else [
        name
        for name, kind in table.schema.items()
        if kind.is_numeric() and name not in _NO_JUDGES
    ]  # fmt: skip
    unknown = sorted(set(names) - set(table.columns))
    if unknown or len(names) < at_least:
        raise UserError(
            f"presets: no judge {unknown}" if unknown else f"presets: needs {at_least} judges"
        )
    return names


def decisions(
    table: pl.DataFrame,
    cases: Sequence[Case],
    otherwise: tuple[str, str, float | pl.Expr | None],
    name: str,
    version: int,
) -> pa.Table:
    """The `Decision` table by the first case that holds; `mean` is the mean oriented vote, if known."""
    action, reason = pl.lit(otherwise[0]), pl.lit(otherwise[1])
    target = _target(otherwise[2])
    for when, what, why, aim in reversed(cases):
        holds = when.fill_null(False)
        action = pl.when(holds).then(pl.lit(what)).otherwise(action)
        reason = pl.when(holds).then(pl.lit(why)).otherwise(reason)
        target = pl.when(holds).then(_target(aim)).otherwise(target)
    flipped = pl.col("action") == "flip"
    for_label = pl.when(flipped).then(1 - pl.col("p")).otherwise("p")
    on_b = pl.col("label") == "b" if "label" in table.columns else pl.lit(False)
    mean = pl.col("mean").clip(-1, 1).fill_null(0.0) if "mean" in table.columns else pl.lit(0.0)
    decided = table.with_columns(action=action, reason=reason, p=target).select(
        "pair_id",
        "action",
        probability="p",
        target=pl.when(on_b).then(1 - for_label).otherwise(for_label),
        margin=pl.when(flipped).then(-mean).otherwise(mean),
        reason="reason",
        rule=pl.lit(f"{name}-{version}"),
        accepted=pl.lit(None, pl.Boolean),
    )
    return with_ids(Decision, decided.to_arrow())


def _target(aim: float | pl.Expr | None) -> pl.Expr:
    return aim if isinstance(aim, pl.Expr) else pl.lit(0.5 if aim is None else aim)
