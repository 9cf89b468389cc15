from __future__ import annotations

import numpy as np
import pytest

from pipelines.rubrics.weights import IMPORTANCE, FitConfig, fitted, fixed, policy_aware
from schemas.errors import UserError
from schemas.records import Criterion, Pair, Vote
from tests.pipelines.rows import criterion_vote


def criterion(text: str, weight: float = 1.0, category: str | None = None, kind="principle"):
    return Criterion(kind=kind, text=text, weight=weight, category=category)


def said(unit: str, criterion: Criterion, value: float | None) -> Vote:
    return criterion_vote(unit, criterion.id, value)


def weights(table) -> dict[str, float]:
    return {row["criterion_id"]: row["weight"] for row in table.to_pylist()}


def test_fixed_weights_are_those_given() -> None:
    a, b = criterion("a", IMPORTANCE["important"]), criterion("b", -2.0)
    assert weights(fixed(Criterion.to_table([a, b]))) == {a.id: 0.7, b.id: -2.0}


def people(rng, criteria, truth, prompts=60, per_prompt=4, share=1.0):
    """Pairs labelled by a logistic of the truth's weights on verdict differences."""
    votes, pairs = [], []
    for p in range(prompts):
        for i in range(per_prompt):
            a, b = rng.integers(0, 2, (2, len(criteria))).astype(float)
            names = (f"a{p}.{i}", f"b{p}.{i}")
            for unit, row in zip(names, (a, b), strict=True):
                votes += [
                    said(unit, c, float(v))
                    for c, v in zip(criteria, row, strict=True)
                    if rng.random() < share
                ]
            chance = 1 / (1 + np.exp(-(a - b) @ truth))
            label = "a" if rng.random() < chance else "b"
            pairs.append(
                Pair(prompt_id=f"p{p}", response_a=names[0], response_b=names[1], label=label)
            )
    return Vote.to_table(votes), Pair.to_table(pairs)


def test_fitted_weights_find_what_people_care_for() -> None:
    criteria = [criterion(f"c{i}") for i in range(4)]
    truth = np.array([3.0, 1.0, 0.0, -2.0])
    votes, pairs = people(np.random.default_rng(0), criteria, truth, prompts=150)
    table = Criterion.to_table(criteria)
    found, figures = fitted(table, votes, pairs, FitConfig(non_negative=False), 1)
    w = [weights(found)[c.id] for c in criteria]
    assert w == pytest.approx(truth, abs=0.6)
    assert figures["log_loss"] < 0.5 and figures["accuracy"] > 0.75
    assert (figures["pairs"], figures["prompts"]) == (600, 150)
    held, _ = fitted(table, votes, pairs, FitConfig(), 1)
    w = [weights(held)[c.id] for c in criteria]
    assert w[3] == 0.0 and min(w) >= 0 and w[0] > w[1] > w[2]


def test_labels_that_follow_nothing_get_small_weights_and_chance() -> None:
    criteria = [criterion(f"c{i}") for i in range(3)]
    votes, pairs = people(np.random.default_rng(1), criteria, np.zeros(3))
    found, figures = fitted(
        Criterion.to_table(criteria), votes, pairs, FitConfig(non_negative=False), 1
    )
    assert figures["penalty"] >= 10
    assert max(abs(w) for w in weights(found).values()) < 0.4
    assert figures["log_loss"] == pytest.approx(np.log(2), abs=0.02)


def test_a_pitfall_gets_a_positive_weight_and_an_unjudged_criterion_none() -> None:
    bad, good, never = criterion("bad", kind="pitfall"), criterion("good"), criterion("never")
    votes, pairs = people(np.random.default_rng(2), [bad, good], np.array([-3.0, 1.0]), share=0.9)
    found, _ = fitted(Criterion.to_table([bad, good, never]), votes, pairs, FitConfig(), 1)
    assert weights(found)[bad.id] > weights(found)[good.id] > 0
    assert weights(found)[never.id] == 0.0


def test_swapping_the_sides_or_the_rows_changes_nothing() -> None:
    criteria = [criterion(f"c{i}") for i in range(3)]
    votes, pairs = people(np.random.default_rng(3), criteria, np.array([2.0, 1.0, 0.5]))
    swapped = [
        {**row, "response_a": row["response_b"], "response_b": row["response_a"]}
        | {"label": "ab".replace(row["label"], "")}
        for row in reversed(pairs.to_pylist())
    ]
    other = type(pairs).from_pylist(swapped, schema=pairs.schema)
    table = Criterion.to_table(criteria)
    one = fitted(table, votes, pairs, FitConfig(), 1)
    two = fitted(table, votes.take(list(reversed(range(len(votes))))), other, FitConfig(), 1)
    assert one[0].equals(two[0]) and one[1] == two[1]


def test_one_prompt_is_not_enough_to_fit_on() -> None:
    criteria = [criterion("a")]
    votes, pairs = people(np.random.default_rng(4), criteria, np.array([1.0]), prompts=1)
    with pytest.raises(UserError, match="at least two prompts"):
        fitted(Criterion.to_table(criteria), votes, pairs, FitConfig(), 1)


def test_policy_aware_weights_go_to_what_separates_within_a_category() -> None:
    split, settled = criterion("split", 1.0, "style"), criterion("settled", 3.0, "style")
    rare, unjudged = criterion("rare", 2.0, "facts"), criterion("unjudged", 1.0, "facts")
    dead = criterion("dead", 5.0, "form")
    votes = []
    for i in range(4):
        votes += [
            said(f"r{i}", split, float(i % 2)),
            said(f"r{i}", settled, 1.0),
            said(f"r{i}", rare, float(i == 0)),
            said(f"r{i}", unjudged, None),
            said(f"r{i}", dead, 0.0),
        ]
    every = [split, settled, rare, unjudged, dead]
    found = weights(policy_aware(Criterion.to_table(every), Vote.to_table(votes)))
    assert {c.text: found[c.id] for c in every} == {
        "split": 4.0,
        "settled": 0.0,
        "rare": 2.0,
        "unjudged": 1.0,
        "dead": 5.0,
    }


def test_policy_aware_weights_are_w_p_one_less_p_renormalised() -> None:
    a, b = criterion("a", 1.0), criterion("b", -3.0)
    votes = [said(f"r{i}", a, float(i < 2)) for i in range(4)]
    votes += [said(f"r{i}", b, float(i < 1)) for i in range(4)]
    found = weights(policy_aware(Criterion.to_table([a, b]), Vote.to_table(votes)))
    total = 1 * 0.25 + 3 * 0.1875
    assert found[a.id] == pytest.approx(4 * 0.25 / total)
    assert found[b.id] == pytest.approx(-4 * 3 * 0.1875 / total)
