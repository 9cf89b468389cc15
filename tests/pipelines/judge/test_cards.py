"""Judge cards, by hand, against a plain computation, and on real judges."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, median
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import judge_cards
from pipelines.judge.cards import DIRECTIONS, cards, failing
from schemas.errors import UserError
from schemas.records import JudgeCard, Pair, Vote
from schemas.table import validate

Given = tuple[float | None, float | None]
"""Values of one pair in the orders ab and ba; a 9 is a vote that is not there."""


def pairs_of(labels: list[Any], prompts: list[str] | None = None) -> list[Pair]:
    return [
        Pair(
            prompt_id=prompts[i] if prompts else f"p{i}",
            response_a=f"a{i}",
            response_b=f"b{i}",
            label=label,
        )
        for i, label in enumerate(labels)
    ]


def vote(pair: Pair, judge: str, value: float | None, order: Any, reason: str = "") -> Vote:
    return Vote(
        unit=pair.id,
        unit_kind="pair",
        judge=judge,
        judge_kind="llm",
        order=order,
        value=value,
        reason=reason,
    )


def votes_of(pairs: list[Pair], given: list[Given], judge: str = "j") -> list[Vote]:
    return [
        vote(pair, judge, value, order)
        for pair, values in zip(pairs, given, strict=True)
        for order, value in zip(("ab", "ba"), values, strict=True)
        if value != 9
    ]


def made(
    votes: list[Vote],
    pairs: list[Pair] | None = None,
    lengths: list[tuple[int, int]] | None = None,
    **limits: float,
) -> dict[str, JudgeCard]:
    sizes = None
    if lengths is not None:
        assert pairs is not None
        a, b = zip(*lengths, strict=True)
        sizes = pa.table({"unit": [p.id for p in pairs], "a": list(a), "b": list(b)})
    table = cards(
        Vote.to_table(votes), None if pairs is None else Pair.to_table(pairs), sizes, limits
    )
    validate(JudgeCard, table)
    found = list(JudgeCard.from_table(table))
    assert [c.judge for c in found] == sorted(c.judge for c in found)
    return {c.measure: c for c in found}


def test_the_measures_by_hand() -> None:
    pairs = pairs_of(["a", "a", "b", "b", None])
    #        right in both; clash, first; wrong; a tie and a side; unusable, then only ba
    given = [(1.0, 0.4), (0.5, -0.2), (1.0, 1.0), (0.0, -0.6), (None, -1.0)]
    found = made(votes_of(pairs, given), pairs)
    value = {name: card.value for name, card in found.items()}
    assert value == {
        "usable_share": pytest.approx(9 / 10),
        "swap_consistency": pytest.approx(3 / 4),
        # for the first one: yes no, yes yes, yes no, half yes, yes
        "position_preference": pytest.approx((1 + 0 + 1 + 1 + 1 + 0 + 0.5 + 1 + 1) / 9 - 0.5),
        "tie_share": pytest.approx(1 / 5),
        "accuracy": pytest.approx((1 + 0.5 + 0 + 1) / 4),
        "accuracy_ab": pytest.approx((1 + 1 + 0 + 0.5) / 4),
        "accuracy_ba": pytest.approx((1 + 0 + 0 + 1) / 4),
    }
    assert list(value) == [name for name in DIRECTIONS if name in value]
    assert {name: card.n for name, card in found.items()} == {
        "usable_share": 10,
        "swap_consistency": 4,
        "position_preference": 9,
        "tie_share": 5,
        "accuracy": 4,
        "accuracy_ab": 4,
        "accuracy_ba": 4,
    }
    assert {(card.limit, card.passed) for card in found.values()} == {(None, None)}


def test_without_labels_nothing_is_said_of_accuracy() -> None:
    found = made(votes_of(pairs_of(["a"]), [(1.0, 1.0)]))
    assert list(found) == ["usable_share", "swap_consistency", "position_preference", "tie_share"]


def test_votes_of_one_order_are_averaged_before_the_orders() -> None:
    pairs = pairs_of(["a"])
    votes = [vote(pairs[0], "j", value, "ab", str(value)) for value in (1.0, 0.5, -0.9)]
    found = made([*votes, vote(pairs[0], "j", -0.15, "ba")], pairs)
    assert found["swap_consistency"].value == 0.0  # .2 and -.15
    assert (found["accuracy"].value, found["accuracy_ab"].value) == (0.5, 1.0)
    assert (found["usable_share"].n, found["position_preference"].n) == (4, 2)


def test_a_judge_without_orders_has_no_position() -> None:
    pairs = pairs_of(["a", "b", "a"])
    votes = [vote(p, "rm", v, None) for p, v in zip(pairs, (0.3, 0.1, 0.0), strict=True)]
    other = Vote(unit="r", unit_kind="response", judge="rm", judge_kind="reward_model", value=9.0)
    found = made([*votes, other], pairs, swap_consistency=0.9)
    assert list(found) == ["usable_share", "tie_share", "accuracy"]
    assert found["usable_share"].n == 3
    assert found["accuracy"].value == 0.5


def test_length_preference_is_of_equal_pairs_and_bias_against_the_labels() -> None:
    pairs = pairs_of(["tie", "tie", "tie", "a", "b", "b", "tie"])
    lengths = [(9, 1), (1, 9), (5, 6), (9, 1), (9, 1), (2, 2), (4, 4)]
    given: list[Given] = [(1.0, 1.0), (-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (1.0, 1.0)]
    given += [(1.0, 1.0), (1.0, 1.0)]
    found = made(votes_of(pairs, given), pairs, lengths)
    preference, bias = found["length_preference"], found["length_bias"]
    assert (preference.value, preference.n) == (pytest.approx((1 + 1 + 0.5) / 3 - 0.5), 3)
    # it takes the longer one twice, the labels once
    assert (bias.value, bias.n) == (pytest.approx(1 - 0.5), 2)
    assert bias.low is not None and -1 <= bias.low <= 0.5
    assert found["accuracy"].n == 3  # what is labelled a tie has no better response


@pytest.mark.parametrize(
    ("limits", "broken"),
    [
        ({"swap_consistency": 0.5, "position_preference": 0.25, "tie_share": 0.5}, []),
        ({"swap_consistency": 0.51}, ["swap_consistency"]),
        ({"position_preference": 0.24}, ["position_preference"]),
        ({"accuracy": 0.75, "tie_share": 0.49}, ["tie_share"]),
        ({"accuracy": 0.76}, ["accuracy"]),
    ],
)
def test_limits_go_the_way_of_their_measure(limits: dict[str, float], broken: list[str]) -> None:
    for sign in (1, -1):  # a preference is limited either way
        pairs = pairs_of(["a", "b"])
        given: list[Given] = [(0.4, 0.4), (sign * 1.0, sign * -1.0)]
        found = made(votes_of(pairs, given), pairs, **limits)
        assert found["position_preference"].value == sign * 0.25
        assert [name for name, card in found.items() if card.passed is False] == broken
        assert {
            name: card.limit for name, card in found.items() if card.limit is not None
        } == limits


def test_a_judge_that_fails_is_named_with_its_reasons() -> None:
    pairs = pairs_of(["a", "b"])
    votes = votes_of(pairs, [(1.0, -1.0), (1.0, -1.0)], "first")
    votes += votes_of(pairs, [(1.0, 1.0), (-1.0, -1.0)], "right")
    votes += votes_of(pairs, [(None, None), (None, None)], "silent")
    table = cards(
        Vote.to_table(votes), None, None, {"swap_consistency": 0.7, "position_preference": 0.1}
    )
    assert failing(table) == {
        "first": (
            "swap_consistency 0.000 of 2, at least 0.7; "
            "position_preference 0.500 of 4, at most 0.1 either way"
        ),
        "silent": (
            "swap_consistency not measured, at least 0.7; "
            "position_preference not measured, at most 0.1 either way"
        ),
    }
    silent = [c for c in JudgeCard.from_table(table) if c.judge == "silent"]
    assert [(c.value, c.n) for c in silent if c.measure == "swap_consistency"] == [(None, 0)]
    assert silent[1].detail.startswith("no usable vote in 2 cases: pairs judged in both orders")


def test_a_limit_on_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"no measure 'swap'; the nearest is 'swap_consistency'"):
        made([], swap=0.5)


def wilson(p: float, n: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.975)
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def test_intervals_go_by_prompts() -> None:
    right: list[Given] = [(1.0, 1.0)] * 6 + [(-1.0, -1.0)] * 4
    apart = pairs_of(["a"] * 10)
    alone = made(votes_of(apart, right), apart)["accuracy"]
    assert (alone.value, alone.n) == (0.6, 10)
    assert alone.low is not None and alone.high is not None
    # of ten pairs the variance of a mean is p(1-p)/9: a little less than ten cases' worth
    assert (alone.low, alone.high) == pytest.approx(wilson(0.6, 9))
    # five prompts of two pairs that always agree are about five cases
    prompts = [f"p{i // 2}" for i in range(10)]
    grouped = pairs_of(["a"] * 10, prompts)
    fewer = made(votes_of(grouped, right), grouped)["accuracy"]
    assert (fewer.low, fewer.high) == pytest.approx(wilson(0.6, 4))
    same = pairs_of(["a"] * 10, ["p"] * 10)
    one = made(votes_of(same, right), same)["accuracy"]
    assert (one.low, one.high) == pytest.approx(wilson(0.6, 1))
    sure = made(votes_of(grouped, [(1.0, 1.0)] * 10), grouped)["accuracy"]
    assert (sure.value, sure.high) == (1.0, 1.0)
    assert sure.low == pytest.approx(wilson(1.0, 5)[0])


values = st.sampled_from([None, 9, -1.0, -0.25, 0.0, 0.5, 1.0])
rows = st.lists(
    st.tuples(values, values, st.sampled_from(["a", "b", "tie", None]), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)


def sign(x: float) -> int:
    return (x > 0) - (x < 0)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_a_plain_computation_agrees(cases: list[tuple[Any, Any, Any, int]]) -> None:
    pairs = pairs_of([label for *_, label, _ in cases], [f"p{prompt}" for *_, prompt in cases])
    votes = votes_of(pairs, [(ab, ba) for ab, ba, *_ in cases])
    found = made(votes, pairs)
    hits: dict[str, list[float]] = {}

    def add(name: str, hit: float) -> None:
        hits.setdefault(name, []).append(hit)

    for ab, ba, label, _ in cases:
        here = [v for v in (ab, ba) if v not in (None, 9)]
        for v in (ab, ba):
            if v != 9:
                add("usable_share", v is not None)
        for v, way in ((ab, 1), (ba, -1)):
            if v not in (None, 9):
                add("position_preference", (1 + way * sign(v)) / 2)
                if label in ("a", "b"):
                    name = "accuracy_ab" if way == 1 else "accuracy_ba"
                    add(name, (1 + sign(v) * (1 if label == "a" else -1)) / 2)
        if len(here) == 2:
            add("swap_consistency", sign(ab) * sign(ba) >= 0)
        if here:
            clash = len(here) == 2 and sign(ab) * sign(ba) < 0
            side = 0 if clash else sign(fmean(here))
            add("tie_share", side == 0)
            if label in ("a", "b"):
                add("accuracy", (1 + side * (1 if label == "a" else -1)) / 2)
    for name, card in found.items():
        shift = 0.5 if name == "position_preference" else 0.0
        if name not in hits:
            assert (card.value, card.n) == (None, 0)
            continue
        assert card.value == pytest.approx(fmean(hits[name]) - shift)
        assert card.n == len(hits[name])
        assert card.low is not None and card.high is not None
        assert -shift <= card.low <= card.value + 1e-12 <= card.high + 2e-12 <= 1 - shift + 3e-12
    assert set(hits) <= set(found)


@settings(max_examples=30, deadline=None)
@given(rows, st.randoms())
def test_the_order_of_rows_changes_no_byte(cases: list[tuple[Any, Any, Any, int]], r: Any) -> None:
    pairs = pairs_of([label for *_, label, _ in cases], [f"p{prompt}" for *_, prompt in cases])
    votes = votes_of(pairs, [(ab, ba) for ab, ba, *_ in cases])
    mixed = r.sample(votes, len(votes))
    known = Pair.to_table(pairs)
    assert cards(Vote.to_table(votes), known).equals(cards(Vote.to_table(mixed), known))


def test_no_votes_have_no_cards() -> None:
    table = cards(Vote.to_table([]), Pair.to_table([]), None, {"accuracy": 0.5})
    validate(JudgeCard, table)
    assert len(table) == 0 and failing(table) == {}


# --- real judges -----------------------------------------------------------------------------------

real = pytest.mark.skipif(
    not (judge_cards.DATA / "llmbar_votes.parquet").is_file(), reason="the shared data is not there"
)


@real
def test_real_judges_by_an_independent_computation() -> None:
    votes, pairs, lengths = judge_cards.tables(judges=6)
    table = cards(votes, pairs, lengths)
    validate(JudgeCard, table)
    found = {(c.judge, c.measure): c for c in JudgeCard.from_table(table)}
    truth = {
        (row["subset"], row["item"]): row["label"]
        for row in pl.read_parquet(judge_cards.DATA / "llmbar.parquet").to_dicts()
    }
    by: dict[str, dict[Any, dict[bool, list[int]]]] = {}
    for row in pl.read_parquet(judge_cards.DATA / "llmbar_votes.parquet").to_dicts():
        name = f"{row['judge']} / {row['prompt_style']}"
        orders = by.setdefault(name, {}).setdefault((row["subset"], row["item"]), {})
        orders.setdefault(row["swapped"], []).append(row["winner"])
    names = sorted(by)[:6]
    assert {judge for judge, _ in found} == set(names)
    assert {len(orders) for name in names for orders in by[name].values()} <= {1, 2}
    for name in names:
        both = held = 0
        right: list[float] = []
        first: list[float] = []
        for item, orders in by[name].items():
            sides = {}
            for swapped, winners in orders.items():
                said = sum(1 if winner == 1 else -1 for winner in winners)
                sides[swapped] = sign(said)
                first.append((1 + sign(said) * (-1 if swapped else 1)) / 2)
            if len(sides) == 2:
                both += 1
                held += sides[False] * sides[True] >= 0
            whole = sign(sum(sides.values()))
            right.append(0.5 if whole == 0 else float((1 if whole > 0 else 2) == truth[item]))
        swap, accuracy = found[name, "swap_consistency"], found[name, "accuracy"]
        assert (swap.n, accuracy.n) == (both, len(right))
        assert swap.value == pytest.approx(held / both)
        assert accuracy.value == pytest.approx(fmean(right))
        shown = found[name, "position_preference"].value
        assert shown == pytest.approx(fmean(first) - 0.5)
        low, high = wilson(fmean(right), len(right))
        assert accuracy.low == pytest.approx(low, abs=0.004)
        assert accuracy.high == pytest.approx(high, abs=0.004)


@real
def test_the_benchmark_s_figures_follow_from_its_table() -> None:
    result = judge_cards.measure(*judge_cards.tables(judges=8))
    table, figures = result.tables["cards"], result.figures
    assert len(table) == figures["judges"] == 8
    assert figures["best_accuracy"] == pytest.approx(table[0]["accuracy"], abs=1e-4)
    middle = median(row["accuracy"] for row in table)
    assert figures["median_accuracy"] == pytest.approx(middle, abs=1e-4)
    out = [row["judge"] for row in table if row["swap_consistency"] < judge_cards.LIMIT]
    assert sorted(out) == sorted(result.tables["failing"])
    assert figures["share_failing"] == len(out) / 8
