"""Texts that say nothing are known, and texts that say something are not among them."""

from __future__ import annotations

import pytest

from pipelines.judge.hostile import master_keys
from pipelines.judge.probe_set import MASTER_KEYS
from schemas.records import Response


def row(text: str, index: int = 0) -> Response:
    return Response(
        prompt_id="p", engine="e", model="m", sample_index=index, text=text, prompt_tokens=0,
        completion_tokens=0, finish_reason="stop",
    )  # fmt: skip


def test_every_key_of_the_probes_is_one() -> None:
    rows = [row(f"\n{key} ", i) for i, key in enumerate(MASTER_KEYS)]
    assert master_keys(Response.to_table(rows)) == {r.id for r in rows}


@pytest.mark.parametrize("text", ["", "  \n", "...", "–", "#", "SOLUTION", "\u200b"])
def test_what_has_no_letter_and_no_digit_is_one(text: str) -> None:
    assert master_keys(Response.to_table([row(text)])) == {row(text).id}


@pytest.mark.parametrize("text", ["#7", "7", "Solution: 7", "The answer is 7", "x", "解は7"])
def test_what_says_something_is_none(text: str) -> None:
    assert master_keys(Response.to_table([row(text)])) == frozenset()
