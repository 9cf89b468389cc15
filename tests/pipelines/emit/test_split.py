"""Splits are read off the prompt's id: right shares, never moved by other rows."""

from __future__ import annotations

import polars as pl
import pytest

from pipelines.emit.split import split_column, split_of
from schemas.record import digest

IDS = [digest("prompt", number) for number in range(5000)]


@pytest.mark.parametrize(
    ("prompt_id", "split"),
    [
        ("0" * 32, "test"),
        ("199999999999" + "9" * 20, "test"),  # just below 0.1
        ("19999999999a" + "0" * 20, "validation"),  # just above 0.1
        ("4cccccccccccc" + "0" * 19, "validation"),  # just below 0.3
        ("4cccccccccccd" + "0" * 19, "train"),
        ("f" * 32, "train"),
    ],
)
def test_split_is_where_the_ids_number_lies(prompt_id: str, split: str) -> None:
    assert split_of(prompt_id, validation=0.2, test=0.1) == split


def test_column_agrees_with_the_single_id() -> None:
    ids = pl.DataFrame({"prompt_id": IDS})
    column = ids.select(split_column(pl.col("prompt_id"), 0.2, 0.1)).to_series().to_list()
    assert column == [split_of(prompt_id, 0.2, 0.1) for prompt_id in IDS]


def test_shares_are_met_and_zero_shares_hold_nothing_out() -> None:
    splits = [split_of(prompt_id, 0.2, 0.1) for prompt_id in IDS]
    # 4 standard errors of a share of 5000
    assert splits.count("test") / 5000 == pytest.approx(0.1, abs=0.017)
    assert splits.count("validation") / 5000 == pytest.approx(0.2, abs=0.023)
    assert {split_of(prompt_id, 0.0, 0.0) for prompt_id in IDS} == {"train"}
