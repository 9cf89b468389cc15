"""Who is asked what: values, budgets, the audit, rounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipelines.routing import (
    RoutingConfig,
    majority_error,
    purposes,
    route,
    worth_another_round,
)
from pipelines.routing_select import uniform
from schemas.errors import SchemaError
from schemas.records import Belief, Decision, ReviewItem
from schemas.table import validate


def belief(pair_id: str, p: float, humans: int = 0) -> Belief:
    return Belief(
        pair_id=pair_id, label="a", probability=p, strength=0.0, judges=3, slice="all",
        calibrated=True, human=1.0 if humans else None, humans=humans,
    )  # fmt: skip


def many(n: int, seed: int = 0) -> list[Belief]:
    rng = np.random.default_rng(seed)
    return [belief(f"pair {i:04}", float(p)) for i, p in enumerate(rng.beta(5, 1, n))]


def routed(beliefs: list[Belief], seed: int = 7, **given: Any) -> list[ReviewItem]:
    """The queue; config keys and the arguments of `route` in one."""
    keys = ("round", "asked", "embeddings", "gold", "decisions")
    rest = {key: given.pop(key) for key in keys if key in given}
    decisions = rest.pop("decisions", None)
    table = route(Belief.to_table(beliefs), decisions, RoutingConfig(**given), seed=seed, **rest)
    validate(ReviewItem, table)
    return list(ReviewItem.from_table(table))


def test_value_is_the_gain_less_the_cost_and_the_best_come_first() -> None:
    beliefs = [belief(str(i), p) for i, p in enumerate((0.5, 0.7, 0.2, 0.99, 0.94, 0.79))]
    # An answer costs 30 / 3600 * 20 = 1/6; a person errs 5%.
    items = routed(beliefs, answers=10, audit=0.0)
    assert [item.pair_id for item in items] == ["0", "1"]  # .2 is worth .15 < 1/6
    assert [item.value for item in items] == pytest.approx([0.45 - 1 / 6, 0.25 - 1 / 6])
    assert [(i.rank, i.purpose, i.propensity, i.overlap, i.seconds) for i in items] == [
        (0, "value", 1.0, 1, 30.0),
        (1, "value", 1.0, 1, 30.0),
    ]
    assert items[0].why == "its label is right with probability 0.50"
    cheap = routed(beliefs, answers=10, audit=0.0, hourly_rate=0.0)
    assert [item.pair_id for item in cheap] == ["0", "1", "5", "2", "4"]  # .99 < what people err
    dear = routed(beliefs, answers=10, audit=0.0, hourly_rate=0.0, human_error=0.2)
    assert [item.pair_id for item in dear] == ["0", "1", "5"]


def test_a_budget_in_money_is_that_in_answers() -> None:
    by_money = routed(many(300), money=5.0, error_cost=10.0)
    assert len(by_money) == 30  # 5 at 1/6 each
    assert by_money == routed(many(300), answers=30, error_cost=10.0)


def test_the_budget_is_parted_and_mixed_over_the_ranks() -> None:
    items = routed(many(500), answers=100, error_cost=50.0, audit=0.2)
    assert len(items) == 100
    counts = {p: sum(i.purpose == p for i in items) for p in ("value", "audit", "gold")}
    assert counts == {"value": 80, "audit": 20, "gold": 0}
    half = items[:50]
    assert sum(i.purpose == "audit" for i in half) == 10
    values = [i.value for i in items if i.purpose == "value"]
    assert values == sorted(values, reverse=True)
    assert [i.rank for i in items] == list(range(100))


def test_gold_questions_come_from_known_pairs() -> None:
    beliefs = many(200)
    gold = [f"gold {i}" for i in range(50)] + [beliefs[0].pair_id]
    config = RoutingConfig(answers=100, error_cost=50.0, gold=0.1)
    table = route(Belief.to_table(beliefs), None, config, seed=7, gold=gold)
    items = [i for i in ReviewItem.from_table(table) if i.purpose == "gold"]
    assert len(items) == 10
    assert {i.pair_id for i in items} <= set(gold)
    assert [i.value for i in items] == pytest.approx([-1 / 6] * 10)
    audited = {i.pair_id for i in ReviewItem.from_table(table) if i.purpose == "audit"}
    assert {i.propensity for i in items} == {10 / len(set(gold) - audited)}
    asked = [i.pair_id for i in ReviewItem.from_table(table) if i.purpose == "value"]
    assert beliefs[0].pair_id not in asked
    again = route(Belief.to_table(beliefs), None, config, seed=7, round=1, gold=gold, asked=table)
    second = {i.pair_id for i in ReviewItem.from_table(again) if i.purpose == "gold"}
    assert not second & {i.pair_id for i in items}


def test_the_audit_is_drawn_by_the_hash_alone() -> None:
    beliefs = many(400)
    first = [i for i in routed(beliefs, answers=100) if i.purpose == "audit"]
    assert len(first) == 10
    assert {i.propensity for i in first} == {10 / 400}
    other = [belief(b.pair_id, 1 - b.probability / 2) for b in beliefs]
    again = [i for i in routed(other, answers=100) if i.purpose == "audit"]
    assert {i.pair_id for i in again} == {i.pair_id for i in first}
    drawn = uniform([b.pair_id for b in beliefs], 7, "audit")
    expected = {beliefs[i].pair_id for i in np.argsort(drawn)[:10]}
    assert {i.pair_id for i in first} == expected
    moved = {i.pair_id for i in routed(beliefs, seed=8, answers=100) if i.purpose == "audit"}
    assert moved != expected


def test_every_pair_is_as_likely_to_be_audited() -> None:
    beliefs = [belief(f"{i}", 0.5 + i / 80) for i in range(40)]
    counts = dict.fromkeys((b.pair_id for b in beliefs), 0)
    for seed in range(300):
        for item in routed(beliefs, seed=seed, answers=8, audit=1.0):
            counts[item.pair_id] += 1
    expected = 300 * 8 / 40
    chi = sum((count - expected) ** 2 / (expected * 0.8) for count in counts.values())
    assert chi < 80  # 39 degrees of freedom: beyond 80 once in 8,000


def test_the_same_plan_routes_the_same_pairs_in_any_order() -> None:
    beliefs = many(300)
    vectors = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
    settings: dict[str, Any] = {"answers": 60, "error_cost": 20.0, "overlap_share": 0.3}
    items = routed(beliefs, embeddings=vectors, **settings)
    order = np.random.default_rng(2).permutation(300)
    turned = routed([beliefs[i] for i in order], embeddings=vectors[order], **settings)
    assert turned == items
    assert routed(beliefs, embeddings=vectors, **settings) == items


def test_rounds_ask_nobody_twice_and_the_audit_stays_uniform() -> None:
    beliefs = many(300)
    table = Belief.to_table(beliefs)
    config = RoutingConfig(answers=60, error_cost=20.0, audit=0.5)
    asked = None
    for number in range(3):
        queue = route(table, None, config, seed=7, round=number, asked=asked)
        assert set(queue["round"].to_pylist()) == {number}
        before = set() if asked is None else set(asked["pair_id"].to_pylist())
        assert not before & set(queue["pair_id"].to_pylist())
        asked = queue if asked is None else pa.concat_tables([asked, queue])
    made = purposes(asked, table, seed=7).to_pylist()
    assert len(made) == len(asked)
    audit = {row["pair_id"] for row in made if row["purpose"] == "audit"}
    drawn = uniform([b.pair_id for b in beliefs], 7, "audit")
    # All asked pairs up to some hash: no pair below it is missing, though some were asked by value.
    assert audit == {beliefs[i].pair_id for i in np.argsort(drawn)[: len(audit)]}
    stated = {i.pair_id for i in ReviewItem.from_table(asked) if i.purpose == "audit"}
    assert stated < audit
    assert {r["propensity"] for r in made if r["purpose"] == "audit"} == {len(audit) / 300}
    assert {r["propensity"] for r in made if r["purpose"] == "value"} == {1.0}


def test_dropped_and_answered_pairs_are_asked_for_no_value() -> None:
    beliefs = [belief("p", 0.5), belief("q", 0.5), belief("r", 0.5, humans=1)]
    made = [
        Decision(
            pair_id=b.pair_id, action="drop" if b.pair_id == "q" else "route", probability=0.5,
            target=0.5, margin=0.0, reason="tie", rule="r",
        )
        for b in beliefs
    ]  # fmt: skip
    items = routed(beliefs, decisions=Decision.to_table(made), answers=10, audit=0.0)
    assert [item.pair_id for item in items] == ["p"]


def test_overlap_takes_several_answers_of_the_budget() -> None:
    items = routed(many(500), answers=90, error_cost=50.0, overlap=3, overlap_share=1.0)
    assert {i.overlap for i in items} == {3}
    assert sum(i.overlap for i in items) <= 90
    some = routed(many(500), answers=300, error_cost=50.0, overlap_share=0.2)
    assert 0 < sum(i.overlap > 1 for i in some) < len(some) / 2
    assert sum(i.overlap for i in some) <= 300
    # Three people err less, cost three times as much.
    given: dict[str, Any] = {"answers": 3, "audit": 0.0, "overlap_share": 1.0}
    assert routed([belief("p", 0.5)], **given) == []  # .493 is less than three answers cost
    (one,) = routed([belief("p", 0.5)], error_cost=2.0, **given)
    assert one.value == pytest.approx(2 * (0.5 - majority_error(0.05, 3)) - 3 / 6)
    assert majority_error(0.1, 3) == pytest.approx(3 * 0.01 * 0.9 + 0.001)
    assert majority_error(0.1, 2) == pytest.approx(0.1)
    assert majority_error(0.1, 1) == pytest.approx(0.1)


def test_crowded_places_weigh_more_and_choices_are_spread() -> None:
    # 40 copies of one prompt, 10 pairs alone; all as doubtful.
    rng = np.random.default_rng(0)
    alone = rng.normal(size=(10, 16))
    crowd = np.tile(rng.normal(size=16), (40, 1))
    vectors = np.concatenate([crowd, alone]).astype(np.float32)
    beliefs = [belief(f"{i:02}", 0.6) for i in range(50)]
    settings: dict[str, Any] = {"answers": 5, "audit": 0.0, "embeddings": vectors}
    greedy = routed(beliefs, candidates=1.0, **settings)
    assert all(int(item.pair_id) < 40 for item in greedy)
    assert greedy[0].value > 0.35 - 1 / 6
    assert greedy[0].why == "its label is right with probability 0.60; many pairs are like it"
    wide = routed(beliefs, candidates=10.0, **settings)
    assert sum(int(item.pair_id) < 40 for item in wide) == 1


def test_another_round_is_worth_it_while_it_gains_more_than_it_costs() -> None:
    config = RoutingConfig(answers=20)
    doubtful = Belief.to_table([belief(f"{i}", 0.5) for i in range(100)])
    assert worth_another_round(route(doubtful, None, config, seed=1))
    sure = Belief.to_table([belief(f"{i}", 0.99) for i in range(100)])
    queue = route(sure, None, config, seed=1)
    assert set(queue["purpose"].to_pylist()) == {"audit"}
    assert not worth_another_round(queue)
    assert not worth_another_round(queue.slice(0, 0))


def test_nothing_to_route() -> None:
    assert routed([], answers=5) == []
    everyone = routed([belief("p", 0.5)], answers=5, audit=1.0)
    assert [(i.purpose, i.propensity) for i in everyone] == [("audit", 1.0)]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"embeddings are \[2, 3\], beliefs are 1 rows"):
        routed([belief("p", 0.5)], answers=1, embeddings=np.zeros((2, 3), np.float32))
    with pytest.raises(SchemaError, match="pair p stands in beliefs twice"):
        routed([belief("p", 0.5), belief("p", 0.6)], answers=1)
    for bad in ({}, {"answers": 1, "money": 1.0}, {"money": 1.0, "hourly_rate": 0.0},
                {"answers": 1, "audit": 0.6, "gold": 0.6}):  # fmt: skip
        with pytest.raises(ValidationError):
            RoutingConfig.model_validate(bad)
