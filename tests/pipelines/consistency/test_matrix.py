"""Votes become a matrix: oriented, orders averaged, clashes 0, missing stays missing."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.consistency.matrix import human_labels, votes_matrix
from schemas.errors import UserError
from schemas.records import Pair, Vote
from tests.pipelines.rows import vote


def pair(label: Any = "a", name: str = "p") -> Pair:
    return Pair(prompt_id=name, response_a="x", response_b="y", label=label)


def matrix(pairs: list[Pair], votes: list[Vote], **options: Any) -> dict[str, list[Any]]:
    return votes_matrix(Pair.to_table(pairs), Vote.to_table(votes), **options).to_pydict()


def test_rows_are_in_the_pairs_order_and_columns_in_the_judges() -> None:
    two, one = pair(name="2"), pair(name="1")
    found = matrix([two, one], [vote(one, "z", 0.25), vote(two, "y", -0.5)])
    assert list(found) == ["pair_id", "y", "z"]
    assert found == {"pair_id": [two.id, one.id], "y": [-0.5, None], "z": [None, 0.25]}


@pytest.mark.parametrize(
    ("label", "value"), [("a", 0.75), ("b", -0.75), ("tie", 0.75), (None, 0.75)]
)
def test_votes_are_oriented_to_the_label_and_to_a_where_there_is_none(
    label: Any, value: float
) -> None:
    one = pair(label)
    assert matrix([one], [vote(one, "j", 0.75)])["j"] == [value]


@pytest.mark.parametrize(
    ("ab", "ba", "value"),
    [(1.0, 0.5, 0.75), (1.0, -0.5, 0.0), (-1.0, 0.25, 0.0), (0.0, 1.0, 0.5), (1.0, None, 1.0)],
)
def test_orders_are_averaged_and_a_clash_takes_no_side(
    ab: float, ba: float | None, value: float
) -> None:
    one = pair()
    votes = [vote(one, "j", ab, order="ab"), vote(one, "j", ba, order="ba")]
    assert matrix([one], votes)["j"] == [value]


def test_a_judge_asked_twice_in_one_order_counts_once() -> None:
    one = pair()
    votes = [vote(one, "j", v, order="ab") for v in (1.0, 0.5)] + [vote(one, "j", 0.25, order="ba")]
    assert matrix([one], votes)["j"] == [0.5]


def test_a_judge_that_could_never_judge_has_no_column_and_zero_is_not_negative() -> None:
    one = pair("b")
    found = matrix([one], [vote(one, "mute", None), vote(one, "j", 0.0)])
    assert list(found) == ["pair_id", "j"]
    assert str(found["j"]) == "[0.0]"


def test_people_excluded_judges_and_other_units_are_left_out() -> None:
    one = pair()
    human = vote(one, "ana", 1.0).model_copy(update={"judge_kind": "human"})
    response = vote(one, "rm", 1.0).model_copy(update={"unit_kind": "response"})
    found = matrix(
        [one],
        [human, response, vote(one, "fooled", 1.0), vote(one, "j", -1.0)],
        excluded_judges=["fooled"],
    )
    assert list(found) == ["pair_id", "j"]


def test_a_judge_may_not_take_the_keys_name() -> None:
    one = pair()
    with pytest.raises(UserError, match="may not be named 'pair_id'"):
        matrix([one], [vote(one, "pair_id", 1.0)])


def test_without_votes_there_are_pairs_only() -> None:
    one = pair()
    assert matrix([one], []) == {"pair_id": [one.id]}


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_the_order_of_votes_changes_no_byte(rng: random.Random, count: int) -> None:
    pairs = [pair(rng.choice(["a", "b", None]), str(i)) for i in range(4)]
    votes = [
        vote(
            rng.choice(pairs),
            f"j{rng.randrange(3)}",
            rng.gauss(0, 1),
            order=rng.choice(["ab", "ba"]),
        )
        for _ in range(count)
    ]
    first = votes_matrix(Pair.to_table(pairs), Vote.to_table(votes))
    rng.shuffle(votes)
    assert votes_matrix(Pair.to_table(pairs), Vote.to_table(votes)).equals(first)


def test_human_labels_are_averaged_by_annotator_and_keep_their_side() -> None:
    one, two = pair("b", "1"), pair("a", "2")
    votes = [vote(one, "j", 1.0)]
    for unit, who, value in (
        (one, "ana", 1.0),
        (one, "ana", -0.5),
        (one, "bo", -1.0),
        (two, "bo", 1.0),
    ):
        votes.append(vote(unit, who, value).model_copy(update={"judge_kind": "human"}))
    elsewhere = vote(pair("a", "3"), "bo", 1.0).model_copy(update={"judge_kind": "human"})
    found = human_labels(Pair.to_table([one, two]), Vote.to_table([*votes, elsewhere]))
    rows = {(r["pair_id"], r["annotator"]): r["value"] for r in found.to_pylist()}
    assert rows == {(one.id, "ana"): 0.25, (one.id, "bo"): -1.0, (two.id, "bo"): 1.0}
    assert isinstance(found, pa.Table) and found.column_names == ["pair_id", "value", "annotator"]
