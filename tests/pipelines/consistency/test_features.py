"""Features of a pair, oriented to its label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.consistency.features import TEXTS, features
from pipelines.consistency.matrix import votes_matrix
from schemas.records import Pair, Prompt, Response, Vote
from tests.pipelines.rows import prompt, response, vote

ASKED = prompt("How many pens are there")
GOOD = response(ASKED.id, 0, "There are 12 pens.")
BAD = response(ASKED.id, 1, "pens pens pens pens\nwhy")


def pair(label: Any) -> Pair:
    return Pair(prompt_id=ASKED.id, response_a=GOOD.id, response_b=BAD.id, label=label)


def seen(pairs: list[Pair], votes: list[Vote], **more: Any) -> list[dict[str, Any]]:
    table = Pair.to_table(pairs)
    matrix = votes_matrix(table, Vote.to_table(votes))
    texts = more.pop("texts", (Prompt.to_table([ASKED]), Response.to_table([GOOD, BAD])))
    found = features(table, *texts, matrix, **more)
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def test_differences_of_the_texts_by_hand() -> None:
    (row,) = seen([pair("a")], [])
    assert row["length"] == pytest.approx(np.log1p(len(GOOD.text)) - np.log1p(len(BAD.text)))
    assert row["repetition"] == pytest.approx(0.0 - (1 - 2 / 5))
    assert row["overlap"] == pytest.approx(3 / 4 - 1 / 2)
    assert row["lines"] == pytest.approx(-np.log1p(1))
    assert row["digits"] == pytest.approx(np.log1p(2))
    assert (row["questions"], row["finished"]) == (0.0, 1.0)


def test_they_turn_with_the_label_but_agreement_does_not() -> None:
    rows = []
    for label in ("a", "b", None):
        one = pair(label)
        rows += seen([one], [vote(one, "x", 1.0), vote(one, "y", 0.5), vote(one, "z", -1.0)])
    a, b, bare = rows
    assert all(a[name] == -b[name] and a[name] == bare[name] for name in TEXTS)
    assert [row["agreement"] for row in rows] == pytest.approx([1 / 3] * 3)


def test_without_texts_or_votes_there_is_still_a_row() -> None:
    (row,) = seen([pair("a")], [], texts=(None, None))
    assert row["agreement"] == 0.0 and "length" not in row
    assert (row["prompt_id"], row["response_a"], row["label"]) == (ASKED.id, GOOD.id, "a")


def test_a_response_that_is_not_there_gives_zero_differences() -> None:
    (row,) = seen([pair("a")], [], texts=(Prompt.to_table([ASKED]), Response.to_table([GOOD])))
    assert all(row[name] == 0.0 for name in TEXTS)


def test_neighbours_side_with_pairs_alike_of_other_prompts() -> None:
    asked = [prompt(f"q{i}") for i in range(4)]
    answers = [[response(p.id, i, f"{p.id} {i}") for i in range(2)] for p in asked]
    flat = [r for rs in answers for r in rs]
    # Three pairs have their label along the first axis; the last against it.
    labels = ["a", "a", "a", "b"]
    pairs = [
        Pair(prompt_id=p.id, response_a=a.id, response_b=b.id, label=label)
        for p, (a, b), label in zip(asked, answers, labels, strict=True)
    ]
    vectors = np.array([[1.0, 0.1 * i] if i % 2 == 0 else [0.0, 0.1 * i] for i in range(8)])
    texts = (Prompt.to_table(asked), Response.to_table(flat))
    near = [r["neighbours"] for r in seen(pairs, [], texts=texts, embeddings=vectors)]
    assert near[0] > 0.0 and near[3] == pytest.approx(-1.0 * 3 / 4, abs=0.3)
    # Its own prompt's pairs are no neighbours.
    alone = seen(pairs[:1], [], texts=texts, embeddings=vectors)
    assert alone[0]["neighbours"] == 0.0
    with pytest.raises(ValueError, match="7 embeddings of 8 responses"):
        seen(pairs, [], texts=texts, embeddings=vectors[:7])
    assert isinstance(Pair.to_table(pairs), pa.Table)
