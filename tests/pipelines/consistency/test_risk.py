"""What is accepted under which bound: worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom

from pipelines.consistency.bounds import Labels, least_conditional, least_joint, seen
from pipelines.consistency.risk import RiskConfig, accept, answers, bound, final
from schemas.errors import SchemaError
from schemas.records import Belief, Decision, ErrorBound, HumanLabel
from schemas.table import validate


def scored(p: list[float | None], slices: list[str] | None = None) -> pa.Table:
    return pa.table(
        {
            "pair_id": [f"{i:04}" for i in range(len(p))],
            "slice": slices or ["all"] * len(p),
            "probability": pa.array(p, pa.float64()),
        }
    )


def labels(right: dict[int, bool], purpose: str = "audit", propensity: float = 0.5) -> pa.Table:
    return pa.table(
        {
            "pair_id": pa.array([f"{i:04}" for i in right], pa.string()),
            "right": pa.array(list(right.values()), pa.bool_()),
            "purpose": pa.array([purpose] * len(right), pa.string()),
            "propensity": pa.array([propensity] * len(right), pa.float64()),
        }
    )


def prompts(n: int, per: int = 1) -> pa.Table:
    return pa.table(
        {
            "pair_id": [f"{i:04}" for i in range(n)],
            "prompt_id": [f"prompt {i // per}" for i in range(n)],
        }
    )


def bounded(
    p: list[float | None], right: dict[int, bool], per: int = 1, **config: Any
) -> tuple[list[bool], ErrorBound]:
    """Which pairs are accepted, and the bound of all pairs."""
    table, bounds = bound(scored(p), labels(right), prompts(len(p), per), RiskConfig(**config))
    validate(ErrorBound, bounds)
    return table["accepted"].to_pylist(), list(ErrorBound.from_table(bounds))[-1]


FALLING = [1 - i / 200 for i in range(100)]  # 1, .995, ... .505


def test_joint_takes_the_loosest_threshold_with_one_error_to_spare() -> None:
    # alpha .05, n 99: (W + 1) / 100 <= .05 allows W = 4; the fifth wrong one is pair 60.
    wrong = {10, 20, 30, 40, 60, 70}
    right = {i: i not in wrong for i in range(99)}
    accepted, said = bounded(FALLING, right, alpha=0.05)
    assert accepted == [i < 60 for i in range(100)]
    assert (said.slice, said.kind, said.alpha, said.confidence) == ("all", "joint", 0.05, None)
    assert (said.threshold, said.bound) == (FALLING[59], 0.05)
    assert (said.accepted, said.pairs, said.labels, said.prompts) == (60, 100, 99, 99)
    assert said.reason == "holds"


def test_joint_accepts_all_where_errors_are_few() -> None:
    accepted, said = bounded(FALLING, {i: i != 50 for i in range(99)}, alpha=0.05)
    assert all(accepted)
    assert said.threshold == FALLING[-1]


def test_pairs_of_equal_probability_stand_or_fall_together() -> None:
    p = [0.9] * 50 + [0.8] * 50
    right = {i: i not in (51, 52, 53, 54, 55) for i in range(99)}
    accepted, said = bounded(p, right, alpha=0.05)
    assert accepted == [True] * 50 + [False] * 50
    assert said.threshold == 0.9
    # Five wrong ones in the only group: nothing is left.
    accepted, said = bounded([0.9] * 100, right, alpha=0.05)
    assert not any(accepted)
    assert (said.threshold, said.bound, said.accepted) == (None, None, 0)
    assert said.reason == "too_many_errors"


def test_too_few_labels_accept_nothing_and_say_how_many_it_takes() -> None:
    accepted, said = bounded(FALLING, {i: True for i in range(48)}, alpha=0.02)
    assert not any(accepted)
    assert said.reason == "too_few_labels: needs 49 clean, has 48"
    assert all(bounded(FALLING, {i: True for i in range(49)}, alpha=0.02)[0])
    assert bounded(FALLING, {}, alpha=0.02)[1].reason == "too_few_labels: needs 49 clean, has 0"
    _, said = bounded(FALLING, {i: True for i in range(44)}, kind="conditional", alpha=0.05)
    assert said.reason == "too_few_labels: needs 45 clean, has 44"
    assert all(bounded(FALLING, {i: True for i in range(45)}, kind="conditional", alpha=0.05)[0])


def test_least_labels_by_their_formulas() -> None:
    assert least_joint(0.02, 0.0, 1) == 49  # (0 + 1) / (49 + 1) = .02
    assert least_joint(0.02, 0.0, 4) == 196  # (0 + 4) / (196 + 4) = .02
    assert least_conditional(0.05, 0.9, 0.0) == math.ceil(math.log(0.1) / math.log(0.95))
    assert seen(0.02, 0.05) == pytest.approx(0.02 * 0.95 + 0.98 * 0.05)


def test_conditional_goes_down_until_the_first_failure() -> None:
    # 400 pairs, 400 labels. All of the first 200 right, then every second one wrong.
    p = [1 - i / 1000 for i in range(400)]
    right = {i: i < 200 or i % 2 == 0 for i in range(400)}
    accepted, said = bounded(p, right, kind="conditional", alpha=0.05)
    assert (said.kind, said.confidence, said.reason) == ("conditional", 0.9, "holds")
    assert accepted == [i < said.accepted for i in range(400)]

    def passes(k: int) -> bool:
        wrong = sum(not right[i] for i in range(k))
        return bool(binom.cdf(wrong, k, 0.05) <= 0.1)

    # The last that passed: a step of 5% more does not.
    assert passes(said.accepted)
    assert said.accepted >= 200
    assert not passes(math.ceil(said.accepted * 1.05))
    # The first threshold has some 150 labels and spares three wrong ones among them, not ten.
    assert bounded(p, {**right, 0: False, 1: False}, kind="conditional", alpha=0.05)[1].accepted
    poor = {**right, **{i: False for i in range(10)}}
    _, said = bounded(p, poor, kind="conditional", alpha=0.05)
    assert (said.reason, said.accepted) == ("too_many_errors", 0)


def test_pairs_without_a_probability_are_never_accepted() -> None:
    p: list[float | None] = [*FALLING[:50], *[None] * 50]
    for kind in ("joint", "conditional"):
        accepted, said = bounded(p, {i: i < 50 for i in range(100)}, kind=kind, alpha=0.1)
        assert accepted == [True] * 50 + [False] * 50
        assert said.pairs == 100
    assert bounded([None] * 99, {i: True for i in range(99)})[1].reason == "nothing_to_accept"


def test_only_the_audit_counts() -> None:
    table, given = scored(FALLING), {i: True for i in range(99)}
    for purpose in ("value", "gold"):
        _, bounds = bound(table, labels(given, purpose), prompts(100), RiskConfig())
        assert bounds["labels"].to_pylist() == [0]
        assert bounds["reason"][0].as_py().startswith("too_few_labels")


def test_prompts_as_units_spare_the_most_that_one_may_err() -> None:
    # Five labels a prompt: (W + 5) / (100 + 5) <= .1 allows W = 5; as pairs W = 9.
    p = FALLING
    right = {i: i % 10 != 9 for i in range(100)}
    as_pairs, _ = bounded(p, right, per=5, alpha=0.1)
    accepted, said = bounded(p, right, per=5, alpha=0.1, units="prompts")
    assert (sum(as_pairs), sum(accepted)) == (99, 59)
    assert said.prompts == 20


def test_labels_that_came_prompt_by_prompt_are_found_out() -> None:
    p = [1 - i / 2000 for i in range(1000)]
    whole = {i: i % 10 != 9 for i in range(100)}  # 20 prompts of 50 and more that were expected
    told = bounded(p, whole, per=5, alpha=0.1, units="prompts")
    assert bounded(p, whole, per=5, alpha=0.1) == told
    spread = {i * 10 + i % 10: i % 10 != 9 for i in range(100)}
    _, said = bounded(p, spread, per=5, alpha=0.1)
    assert said.prompts == 100
    reason = bounded(p, {i: True for i in range(60)}, per=5, kind="conditional", alpha=0.05)[
        1
    ].reason
    assert (
        reason == "too_few_labels: needs 45 clean, has 12 (as independent ones: they share prompts)"
    )


def test_design_effect_is_that_of_whole_prompts() -> None:
    some = Labels(np.arange(5.0), np.zeros(5, bool), np.array([0, 1, 0, 0, 1]), np.ones(5))
    # sum M^2 / sum M: 1, 1, 5/3, 10/4, 13/5
    assert some.design_effect.tolist() == pytest.approx([1, 1, 5 / 3, 10 / 4, 13 / 5])
    assert some.most == 3


def test_known_errors_of_people_are_taken_off() -> None:
    right = {i: i % 20 != 0 for i in range(400)}  # 5% look wrong: just what people err
    p = [1 - i / 1000 for i in range(400)]
    assert sum(bounded(p, right, alpha=0.02)[0]) < 200
    assert sum(bounded(p, right, alpha=0.02, label_error=0.05)[0]) == 400
    assert not any(bounded(p, right, alpha=0.05, kind="conditional")[0])
    _, said = bounded(p, right, alpha=0.05, kind="conditional", label_error=0.05)
    assert said.accepted > 100


def test_slices_have_thresholds_of_their_own() -> None:
    p = FALLING * 2
    slices = ["good"] * 100 + ["poor"] * 100
    right = {i: i < 100 or i % 4 != 0 for i in range(200)}
    config = RiskConfig(slices=True, alpha=0.05)
    table, bounds = bound(scored(p, slices), labels(right), prompts(200), config)
    validate(ErrorBound, bounds)
    rows = list(ErrorBound.from_table(bounds))
    assert [row.slice for row in rows] == ["good", "poor", "all"]
    assert [row.accepted for row in rows] == [100, 16, 116]  # (4 + 1) / 101 <= .05 at 116
    assert rows[2].threshold == rows[0].threshold
    assert table["accepted"].to_pylist() == [i < 116 for i in range(200)]
    config = RiskConfig(slices=True, alpha=0.1, kind="conditional", confidence=0.8)
    _, bounds = bound(scored(p, slices), labels(right), prompts(200), config)
    assert bounds["confidence"].to_pylist() == pytest.approx([0.9, 0.9, 0.8])  # Bonferroni
    assert [r.accepted > 0 for r in ErrorBound.from_table(bounds)] == [True, False, True]


def test_a_slice_named_all_is_not_taken_for_the_whole() -> None:
    slices = ["all"] * 100 + ["poor"] * 100
    right = {i: i < 100 or i % 4 != 0 for i in range(200)}
    config = RiskConfig(slices=True, alpha=0.05)
    table, bounds = bound(scored(FALLING * 2, slices), labels(right), prompts(200), config)
    validate(ErrorBound, bounds)
    assert bounds["slice"].to_pylist() == ["pooled", "poor", "all"]
    assert bounds["accepted"].to_pylist() == [100, 16, 116]
    assert sum(table["accepted"].to_pylist()) == 116


def test_weights_count_a_rare_label_for_those_it_stands_for() -> None:
    table, which = scored(FALLING), {i: i != 30 for i in range(100)}
    odd = labels(which, "value").set_column(
        3, "propensity", pa.array([0.5 if i == 30 else 1.0 for i in range(100)])
    )
    # Room: alpha N less the greatest weight 2; the wrong one weighs 2.
    _, tight = bound(table, odd, prompts(100), RiskConfig(weighted=True, alpha=0.03))
    assert tight["accepted"].to_pylist() == [30]
    _, loose = bound(table, odd, prompts(100), RiskConfig(weighted=True, alpha=0.04))
    assert loose["accepted"].to_pylist() == [100]
    _, none = bound(table, odd, prompts(100), RiskConfig(weighted=True, alpha=0.01))
    assert none["reason"].to_pylist() == ["too_few_labels: one alone weighs more than the bound"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9, 1.0]), st.booleans(), st.booleans()),
        min_size=1,
        max_size=120,
    ),
    st.sampled_from(["joint", "conditional"]),
    st.permutations(range(5)),
)
def test_order_and_ties_change_nothing(
    rows: list[tuple[float, bool, bool]], kind: str, order: list[int]
) -> None:
    p: list[float | None] = [row[0] for row in rows]
    right = {i: row[1] for i, row in enumerate(rows) if row[2]}
    config = RiskConfig.model_validate({"kind": kind, "alpha": 0.2, "confidence": 0.7})
    tables = scored(p), labels(right), prompts(len(p), 3)
    table, bounds = bound(*tables, config)
    chosen = dict(zip(table["pair_id"].to_pylist(), table["accepted"].to_pylist(), strict=True))
    fates: dict[float | None, set[bool]] = {}
    for i, one in enumerate(p):
        fates.setdefault(one, set()).add(chosen[f"{i:04}"])
    assert all(len(fate) == 1 for fate in fates.values())
    turned = [
        t.take(pa.array(sorted(range(len(t)), key=lambda i: (order[i % 5], -i)), pa.int64()))
        for t in tables
    ]
    again, same = bound(*turned, config)
    assert same.equals(bounds)
    assert dict(zip(again["pair_id"].to_pylist(), again["accepted"].to_pylist(), strict=True)) == (
        chosen
    )


def belief(pair_id: str, label: Any, p: float) -> Belief:
    return Belief(
        pair_id=pair_id, label=label, probability=p, strength=0.0, judges=3, slice="all",
        calibrated=True, human=None, humans=0,
    )  # fmt: skip


BELIEFS = [
    belief("p", "a", 0.9),
    belief("q", "b", 0.2),
    belief("r", "tie", 0.9),
    belief("s", None, 0.5),
    belief("t", "b", 0.7),
]


def test_final_is_the_more_probable_side() -> None:
    made = final(Belief.to_table(BELIEFS))
    assert made["flipped"].to_pylist() == [False, True, False, False, False]
    assert made["probability"].to_pylist() == pytest.approx([0.9, 0.8, None, None, 0.7])


def test_answers_are_about_the_final_side_and_a_split_counts_against_it() -> None:
    people = [
        HumanLabel(pair_id=name, value=value, people=1, error=0.05, purpose="audit", propensity=0.1)
        for name, value in [("p", 1.0), ("q", 1.0), ("r", 1.0), ("t", 0.0), ("other", 1.0)]
    ]
    made = answers(Belief.to_table(BELIEFS), HumanLabel.to_table(people))
    assert made.to_pylist() == [
        {"pair_id": "p", "right": True, "purpose": "audit", "propensity": 0.1},
        {"pair_id": "q", "right": True, "purpose": "audit", "propensity": 0.1},  # b, flipped
        {"pair_id": "t", "right": False, "purpose": "audit", "propensity": 0.1},
    ]


def decision(pair_id: str, action: Any) -> Decision:
    return Decision(
        pair_id=pair_id,
        action=action,
        probability=0.9,
        target=0.9,
        margin=0.0,
        reason="r",
        rule="r",
    )


def test_accept_marks_what_the_bound_is_about() -> None:
    beliefs = Belief.to_table([belief(n, "a", 0.9) for n in "pqrs"] + [belief("t", "a", 0.1)])
    made = [decision("p", "keep"), decision("q", "flip"), decision("r", "drop")]
    made += [decision("s", "soften"), decision("t", "flip"), decision("u", "keep")]
    accepted = pa.table({"pair_id": list("pqrst"), "accepted": [True] * 5})
    table = accept(Decision.to_table(made), beliefs, accepted)
    validate(Decision, table)
    # q: people overruled the machine; r: dropped; u: not bounded.
    assert table["accepted"].to_pylist() == [True, False, False, True, True, False]
    none = accept(
        Decision.to_table(made), beliefs, pa.table({"pair_id": ["p"], "accepted": [False]})
    )
    assert none["accepted"].to_pylist() == [False] * 6


def test_what_cannot_be_is_refused() -> None:
    table, given = scored([0.9, 0.8]), labels({0: True})
    with pytest.raises(SchemaError, match="no prompt is given for pair 0001"):
        bound(table, given, prompts(1), RiskConfig())
    with pytest.raises(SchemaError, match="labels holds a pair twice: 0000"):
        bound(table, pa.concat_tables([given, given]), prompts(2), RiskConfig())
    with pytest.raises(SchemaError, match="propensity of pair 0000"):
        bound(table, labels({0: True}, propensity=0.0), prompts(2), RiskConfig())
    with pytest.raises(ValidationError):
        RiskConfig(alpha=0.0)
