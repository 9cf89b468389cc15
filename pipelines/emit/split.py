"""Which split a prompt belongs to: read off its id, so it never moves when rows are added."""

from __future__ import annotations

from typing import Literal, get_args

import polars as pl

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_DIGITS = 13  # 52 bits: exact as a float


def split_of(prompt_id: str, validation: float, test: float) -> Split:
    """Split of a prompt, given the shares held out.

    The first 13 hex digits of the id, a hash, are a uniform number in [0, 1): `test` lies below
    the share `test`, `validation` in the share above it, the rest is `train`.
    """
    number = int(prompt_id[:_DIGITS], 16) / 16**_DIGITS
    if number < test:
        return "test"
    return "validation" if number < test + validation else "train"


def split_column(prompt_id: pl.Expr, validation: float, test: float) -> pl.Expr:
    """`split_of` for a column of prompt ids."""
    number = prompt_id.str.slice(0, _DIGITS).str.to_integer(base=16) / 16**_DIGITS
    return (
        pl.when(number < test)
        .then(pl.lit("test"))
        .when(number < test + validation)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )
