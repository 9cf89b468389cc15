"""The truth table of rule posterior-1: the cheapest action, people, hostile responses."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.consistency.decide import (
    POSTERIOR_RULE,
    PosteriorConfig,
    changed,
    changed_by_people,
    decide_by_posterior,
    said_by_people,
)
from schemas.records import Belief, Decision, HumanLabel, Pair
from schemas.table import validate

ONE = Pair(prompt_id="q", response_a="x", response_b="y", label="a")


def belief(p: float, label: Any = "a", pair: Pair = ONE, **more: Any) -> Belief:
    row = {
        "strength": 0.5,
        "judges": 3,
        "slice": "all",
        "calibrated": True,
        "human": None,
        "humans": 0,
    }
    return Belief(pair_id=pair.id, label=label, probability=p, **(row | more))


def decided(one: Belief, pair: Pair = ONE, hostile: Any = (), **config: Any) -> Decision:
    table = decide_by_posterior(
        Belief.to_table([one]), Pair.to_table([pair]), PosteriorConfig(**config), hostile
    )
    validate(Decision, table)
    (row,) = Decision.from_table(table)
    assert row.rule == POSTERIOR_RULE and row.accepted is None
    return row


# P, whether people can be asked, action, reason: costs .05 softened, .28 dropped, .2 + .05 asked.
TABLE = [
    (0.95, True, "keep", "likely_right"),
    (0.78, True, "keep", "likely_right"),
    (0.75, True, "soften", "unsure"),
    (0.60, True, "route", "worth_asking"),
    (0.40, True, "route", "worth_asking"),
    (0.25, True, "soften", "unsure"),
    (0.20, True, "flip", "likely_wrong"),
    (0.05, True, "flip", "likely_wrong"),
    (0.60, False, "drop", "too_doubtful"),
    (0.70, False, "soften", "unsure"),
]


@pytest.mark.parametrize(("p", "route", "action", "reason"), TABLE)
def test_the_cheapest_action_is_taken(p: float, route: bool, action: str, reason: str) -> None:
    row = decided(belief(p), route=route)
    assert (row.action, row.reason) == (action, reason)
    assert row.target == p
    flipped = action == "flip"
    assert row.probability == pytest.approx(1 - p if flipped else p)
    assert row.margin == (-0.5 if flipped else 0.5)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0, 1), st.floats(0.1, 10), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
    st.floats(0.01, 0.49), st.booleans(),
)  # fmt: skip
def test_no_other_action_would_have_cost_less(
    p: float, wrong: float, soft: float, drop: float, ask: float, error: float, route: bool
) -> None:
    costs = {
        "keep": wrong * (1 - p),
        "flip": wrong * p,
        "soften": wrong * p * (1 - p) + soft,
        "drop": drop,
        "route": ask + wrong * error if route else math.inf,
    }
    row = decided(
        belief(p), wrong_label=wrong, softened=soft, dropped=drop, human_label=ask,
        human_error=error, route=route,
    )  # fmt: skip
    assert costs[row.action] <= min(costs.values()) + 1e-9


def test_dear_mistakes_are_asked_about_and_dear_people_are_not() -> None:
    assert decided(belief(0.9), wrong_label=10.0, dropped=1.0).action == "route"
    assert decided(belief(0.6), human_label=5.0).action == "drop"


def test_people_are_added_by_their_reliability() -> None:
    row = decided(belief(0.6, human=-1.0, humans=1))
    odds = 0.6 / 0.4 * (0.05 / 0.95)
    assert (row.action, row.reason) == ("flip", "people_disagree")
    assert row.target == pytest.approx(odds / (1 + odds))
    # One who errs 5% does not outweigh a belief of .999; two do.
    assert decided(belief(0.999, human=-1.0, humans=1)).action == "keep"
    assert decided(belief(0.999, human=-1.0, humans=3)).action == "flip"
    assert decided(belief(0.6, human=1.0, humans=1)).reason == "people_agree"
    # A coin's answer tells nothing.
    assert decided(belief(0.9, human=-1.0, humans=1), human_error=0.4999).action == "keep"


ONE_PERSON = math.log(0.95 / 0.05)


def together(value: float, error: float, people: int, pair: Pair = ONE) -> HumanLabel:
    """What an aggregation made of some people's votes."""
    return HumanLabel(
        pair_id=pair.id, value=value, people=people, error=error, purpose="value", propensity=1.0
    )


def said(label: HumanLabel, **config: Any) -> float:
    (row,) = said_by_people(HumanLabel.to_table([label]), PosteriorConfig(**config)).to_pylist()
    assert row["pair_id"] == label.pair_id
    return float(row["for_a"])


@pytest.mark.parametrize(
    ("value", "error", "people", "expected"),
    [
        # a posterior of .9 is its own log-odds, of either side
        (0.8, 0.1, 2, math.log(9)),
        (-0.8, 0.1, 2, -math.log(9)),
        # the same, where half of it is that neither is better: half the log-odds
        (0.4, 0.1, 2, math.log(9) / 2),
        # three votes of one mind are three people's; two to one is less than the one they differ by
        (1.0, 1 / (1 + 19**3), 3, 3 * ONE_PERSON),
        (1 / 3, 0.05, 3, ONE_PERSON * (1 / 3) / 0.9),
        # a model that is certain makes nobody surer than people are
        (1.0, 0.0, 1, ONE_PERSON),
        (-1.0, 0.0, 4, -4 * ONE_PERSON),
        # no side: nothing is said, whatever else is
        (0.0, 0.5, 2, 0.0),
        (0.0, 0.05, 3, 0.0),
        (0.3, 0.5, 3, 0.0),
        (0.9, 0.7, 3, 0.0),
    ],
)
def test_what_an_aggregation_says_of_a_pair(
    value: float, error: float, people: int, expected: float
) -> None:
    assert said(together(value, error, people)) == pytest.approx(expected, abs=1e-9)


@given(st.floats(-1, 1), st.floats(0, 1), st.integers(1, 9), st.floats(0.01, 0.49))
def test_an_aggregation_is_never_surer_than_people_of_one_mind(
    value: float, error: float, people: int, human_error: float
) -> None:
    found = said(together(value, error, people), human_error=human_error)
    assert math.isfinite(found)
    assert abs(found) <= people * math.log((1 - human_error) / human_error) + 1e-9
    assert found * value >= 0
    assert said(together(-value, error, people), human_error=human_error) == -found


def by_label(one: Belief, label: HumanLabel, pair: Pair = ONE) -> Decision:
    table = decide_by_posterior(
        Belief.to_table([one]),
        Pair.to_table([pair]),
        PosteriorConfig(),
        people=HumanLabel.to_table([label]),
    )
    (row,) = Decision.from_table(table)
    return row


def test_the_decision_follows_the_aggregation_where_there_is_one() -> None:
    against = belief(0.7, human=-1.0, humans=1)
    assert decided(against).reason == "people_disagree"
    # The model does not believe this one: what was believed stays.
    row = by_label(against, together(-0.04, 0.48, 1))
    assert (row.action, row.target) == ("soften", pytest.approx(0.683, abs=1e-3))
    assert by_label(against, together(-0.9, 0.05, 1)).action == "flip"
    # Two to one: the mean of votes makes it one person's word, the aggregation less.
    split = belief(0.5, human=1 / 3, humans=3)
    assert decided(split).target == pytest.approx(0.95)
    assert by_label(split, together(1 / 3, 0.05, 3)).target == pytest.approx(0.748, abs=1e-3)


def test_an_aggregation_is_turned_to_the_label() -> None:
    pair = ONE.model_copy(update={"label": "b"})
    row = by_label(belief(0.6, "b", pair, human=1.0, humans=1), together(-1.0, 0.05, 1, pair), pair)
    assert (row.action, row.reason) == ("keep", "people_agree")
    assert row.target == pytest.approx(1 - 28.5 / 29.5)


def test_pairs_that_nobody_answered_are_as_before() -> None:
    other = ONE.model_copy(update={"prompt_id": "other"})
    row = by_label(belief(0.6), together(-1.0, 0.05, 1, other))
    assert row == decided(belief(0.6))


def test_what_people_changed_is_counted_against_deciding_without_them() -> None:
    pairs = [ONE.model_copy(update={"prompt_id": f"q{i}"}) for i in range(6)]
    given = [
        (0.9, 1.0, 1),  # kept either way
        (0.9, -1.0, 2),  # kept: flipped
        (0.5, 1.0, 1),  # dropped: kept. It could have been asked, had nobody been.
        (0.7, 0.0, 2),  # softened either way: they were split
        (0.95, None, 0),  # nobody voted
        (0.5, None, 0),  # nobody voted: asked now, dropped if there were no people
    ]
    beliefs = Belief.to_table(
        belief(p, pair=one, human=human, humans=humans)
        for one, (p, human, humans) in zip(pairs, given, strict=True)
    )
    table = Pair.to_table(pairs)
    now = decide_by_posterior(beliefs, table, PosteriorConfig())
    assert now["action"].to_pylist() == ["keep", "flip", "keep", "soften", "keep", "route"]
    assert changed_by_people(beliefs, table, PosteriorConfig(), now) == 2


def test_a_pair_is_changed_by_its_action_or_the_side_of_its_target() -> None:
    def one(pair: str, action: Any, target: float) -> Decision:
        return Decision(
            pair_id=pair, action=action, probability=0.9, target=target, margin=0.0, reason="x",
            rule="y",
        )  # fmt: skip

    before = [one(p, "keep", 0.9) for p in "pqrs"]
    after = [one("p", "flip", 0.1), one("q", "keep", 0.8), one("r", "keep", 0.2)]
    after.append(one("s", "drop", 0.9))
    assert changed(Decision.to_table(before), Decision.to_table(after)) == 3
    assert changed(Decision.to_table(before), Decision.to_table(after[:2])) == 1


def test_who_was_asked_is_not_asked_again() -> None:
    row = decided(belief(0.5, human=0.0, humans=2))
    assert (row.action, row.reason, row.target) == ("drop", "too_doubtful", 0.5)


@pytest.mark.parametrize(
    ("label", "p", "hostile", "action"),
    [
        ("a", 0.99, ["x"], "route"),  # would be kept for the hostile one
        ("a", 0.99, ["y"], "keep"),  # it loses anyway
        ("a", 0.01, ["y"], "route"),  # would be flipped in its favour
        ("b", 0.99, ["y"], "route"),
        ("b", 0.01, ["y"], "flip"),
        ("a", 0.99, ["x", "y"], "route"),
    ],
)
def test_a_hostile_response_is_never_rescued_by_judges(
    label: Any, p: float, hostile: list[str], action: str
) -> None:
    pair = ONE.model_copy(update={"label": label})
    row = decided(belief(p, label, pair), pair, hostile)
    assert row.action == action
    assert (row.reason == "hostile_response") == (action == "route")
    if action == "route":
        assert decided(belief(p, label, pair), pair, hostile, route=False).action == "drop"


def test_people_may_side_with_a_hostile_response() -> None:
    row = decided(belief(0.9, human=1.0, humans=2), hostile=["x"])
    assert (row.action, row.reason) == ("keep", "people_agree")


def test_targets_are_of_response_a_and_a_bare_pair_takes_the_proposed_side() -> None:
    bare = ONE.model_copy(update={"label": None})
    row = decided(belief(0.9, "b", bare), bare)
    assert (row.action, row.target, row.probability) == ("keep", pytest.approx(0.1), 0.9)


def test_ties_and_pairs_without_a_belief_are_dropped_with_their_reason() -> None:
    tie = ONE.model_copy(update={"label": "tie"})
    row = decided(belief(0.5, "tie", tie), tie)
    assert (row.action, row.reason, row.target) == ("drop", "tie", 0.5)
    other = Pair(prompt_id="other", response_a="x", response_b="y", label="a")
    row = decided(belief(0.9, pair=other))
    assert (row.action, row.reason, row.probability) == ("drop", "no_belief", 0.5)


def test_certainty_is_no_trouble_and_rows_are_in_the_pairs_order() -> None:
    pairs = [ONE.model_copy(update={"prompt_id": f"q{i}"}) for i in range(3)]
    beliefs = [belief(p, pair=one) for p, one in zip((1.0, 0.0, 0.5), pairs, strict=True)]
    table = decide_by_posterior(
        Belief.to_table(beliefs[::-1]), Pair.to_table(pairs), PosteriorConfig()
    )
    assert table["pair_id"].to_pylist() == [one.id for one in pairs]
    assert table["action"].to_pylist() == ["keep", "flip", "route"]
    assert decided(belief(1.0, human=-1.0, humans=1)).action == "keep"


def test_no_share_is_ever_flipped_for_its_rank() -> None:
    pairs = [ONE.model_copy(update={"prompt_id": f"q{i}"}) for i in range(50)]
    beliefs = [belief(0.9 + i / 1000, pair=one) for i, one in enumerate(pairs)]
    table = decide_by_posterior(Belief.to_table(beliefs), Pair.to_table(pairs), PosteriorConfig())
    assert set(table["action"].to_pylist()) == {"keep"}
