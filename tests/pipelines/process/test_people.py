"""People's verdicts on steps: read from files, and what they make of the labels."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.process import people
from schemas.records import Response, StepLabels
from tests.pipelines.rows import step_labels

RESPONSE = Response(
    prompt_id="p", engine="e", model="m", sample_index=0, text="", prompt_tokens=0,
    completion_tokens=0, finish_reason="stop",
)  # fmt: skip


def labels(count: int, **changes: Any) -> StepLabels:
    return step_labels(RESPONSE, *[None] * count).model_copy(update=changes)


def test_labels_follow_the_most_and_a_divided_step_keeps_its_own() -> None:
    before = labels(3, label=("right", "right", "wrong"), source=("rollouts",) * 3, first_error=2)
    after = people.with_people(before, {0: [True, False], 1: [False, False, True]}, 0.1)
    assert after.label == ("right", "wrong", "wrong")
    assert after.source == ("rollouts", "human", "rollouts")
    assert after.first_error == 1
    assert after.value == before.value and after.id != before.id


def test_beliefs_are_bayes_by_hand() -> None:
    prior = (0.2, 0.3, 0.1)
    before = labels(3, error=prior, no_error=0.4, sound=(0.8, 0.5, 0.4), resolved=False)
    # Step 0 right, step 1 wrong, step 2 right; each verdict is wrong with probability 0.1.
    after = people.with_people(before, {0: [True], 1: [False], 2: [True]}, 0.1)
    likelihood = (0.1 * 0.5 * 0.5, 0.9 * 0.9 * 0.5, 0.9 * 0.1 * 0.1, 0.9 * 0.1 * 0.9)
    joint = [p * q for p, q in zip((*prior, 0.4), likelihood, strict=True)]
    expected = [p / sum(joint) for p in joint]
    assert after.error == pytest.approx(expected[:3])
    assert after.no_error == pytest.approx(expected[3])
    assert after.sound == pytest.approx([1 - expected[0], 1 - sum(expected[:2]), expected[3]])
    assert after.resolved


@given(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.dictionaries(st.integers(0, n - 1), st.lists(st.booleans(), max_size=40)),
            st.none() | st.lists(st.floats(0, 1), min_size=n + 1, max_size=n + 1),
        )
    )
)
def test_beliefs_are_probabilities_whatever_is_said(given: Any) -> None:
    count, said, prior = given
    before = labels(count)
    if prior is not None and sum(prior) > 0:
        whole = [p / sum(prior) for p in prior]
        before = labels(count, error=tuple(whole[:-1]), no_error=whole[-1])
    after = people.with_people(before, said, 0.05)
    assert after.no_error is not None
    error = [e for e in after.error if e is not None]
    assert math.fsum(error) + after.no_error == pytest.approx(1.0)
    assert all(0 <= s <= 1 for s in after.sound if s is not None)
    StepLabels.model_validate(after.model_dump())


def test_agreement_counts_steps_with_a_side_and_a_label() -> None:
    row = labels(3, label=("right", "wrong", None))
    said = {"t": {0: [True], 1: [True, True, False], 2: [True]}}
    assert people.agreement([row], said) == {"solutions": 1, "compared": 2, "agreed": 1}
