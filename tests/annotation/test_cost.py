import pytest

from annotation.cost import cost
from schemas.records import ReviewItem
from tests.annotation.votes import table, vote


def item(rank: int, value: float) -> ReviewItem:
    return ReviewItem(
        pair_id=f"p{rank}", round=0, rank=rank, purpose="value", value=value, propensity=1.0,
        overlap=1, seconds=30.0, why="",
    )  # fmt: skip


def test_seconds_and_money_a_label() -> None:
    votes = [vote("p", "a", 1.0, seconds=20), vote("p", "b", 1.0, seconds=40)]
    votes += [vote("q", "a", 1.0, seconds=30)]
    found = cost(table(votes), 36.0)  # a hundredth a second
    assert (found.votes, found.labels, found.timed, found.seconds) == (3, 2, 3, 90.0)
    assert (found.seconds_per_vote, found.seconds_per_label) == (30.0, 45.0)
    assert found.money == pytest.approx(0.9)
    assert found.money_per_label == pytest.approx(0.45)


def test_a_page_left_open_is_no_work_and_unknown_times_are_as_the_others() -> None:
    votes = [
        vote("p", "a", 1.0, seconds=80_000),
        vote("q", "a", 1.0),
        vote("r", "a", 1.0, seconds=0),
    ]
    found = cost(table(votes), 36.0, longest=100)
    assert (found.timed, found.seconds) == (1, 100.0)
    assert found.money == pytest.approx(3.0)


def test_what_was_paid_is_the_money() -> None:
    paid = vote("p", "a", 1.0, seconds=100).model_copy(update={"cost": 0.25})
    machine = paid.model_copy(update={"judge_kind": "llm"})
    found = cost(table([paid, machine]), 36.0)
    assert (found.money, found.votes) == (0.25, 1)


def test_what_a_changed_decision_costs() -> None:
    votes = table([vote(p, "a", 1.0, seconds=50) for p in "pqrs"])
    found = cost(votes, 36.0, changed=3)
    assert (found.changed, found.money_per_change) == (3, pytest.approx(2 / 3))
    assert cost(votes, 36.0, changed=0).money_per_change is None
    assert (cost(votes, 36.0).changed, cost(votes, 36.0).money_per_change) == (None, None)


def test_what_nobody_knows_is_not_nought() -> None:
    timed, untimed = vote("p", "a", 1.0, seconds=50), vote("q", "a", 1.0)
    found = cost(table([timed]), None, changed=1)
    assert (found.money, found.money_per_label, found.money_per_change) == (None, None, None)
    assert found.seconds == 50.0
    assert cost(table([untimed]), 36.0).money is None
    paid = untimed.model_copy(update={"cost": 0.5})
    assert cost(table([paid]), None).money == 0.5
    assert cost(table([paid, timed]), None).money is None


def test_what_the_next_hundred_are_worth() -> None:
    queue = [item(rank, 1.0 if rank < 100 else 50.0) for rank in range(150)]
    found = cost(table([]), 36.0, queue=ReviewItem.to_table(reversed(queue)))
    assert (found.next_pairs, found.next_worth) == (100, 100.0)


def test_nothing_costs_nothing() -> None:
    found = cost(table([]), 36.0)
    assert (found.votes, found.money, found.money_per_label, found.seconds_per_vote) == (0, 0.0, None, None)  # fmt: skip
    assert (found.changed, found.money_per_change, found.next_pairs) == (None, None, 0)
