"""The strength of sibling pairs against numeric integration."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta

from pipelines.process.siblings import Child, probability_better, step_pairs

counts = st.integers(0, 40)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(counts, counts, counts, counts)
def test_the_strength_is_the_integral_over_both_posteriors(a: int, b: int, c: int, d: int) -> None:
    one, other = beta(1 + a, 1 + b), beta(1 + c, 1 + d)
    known, _ = quad(lambda x: one.sf(x) * other.pdf(x), 0, 1, points=[(1 + c) / (2 + c + d)])
    assert probability_better(a, b, c, d) == pytest.approx(known, abs=1e-7)
    assert probability_better(a, b, c, d) + probability_better(c, d, a, b) == pytest.approx(1)


def test_strengths_by_hand() -> None:
    assert probability_better(0, 0, 0, 0) == pytest.approx(1 / 2)
    # Densities 2x and 2(1 - y): P(x > y) = the integral of 2x (2x - x^2) = 4/3 - 1/2.
    assert probability_better(1, 0, 0, 1) == pytest.approx(5 / 6)
    assert probability_better(10_000, 0, 0, 10_000) == pytest.approx(1)
    assert probability_better(0, 10_000, 10_000, 0) == pytest.approx(0)


def test_pairs_are_siblings_whose_values_differ_enough() -> None:
    children = [
        Child("p\n", "a\n", 3, 1),
        Child("p\n", "b\n", 1, 1),
        Child("p\n", "c\n", 0, 4),
        Child("p\n", "c", 4, 0),
        Child("p\n", "d\n", 0, 0),  # nothing is known of it
        Child("q\n", "a\n", 0, 9),  # another prefix
    ]
    pairs = step_pairs("prompt", children, 0.25, "m()")
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [
        ("a\n", "b\n"),
        ("a\n", "c\n"),
        ("c", "a\n"),
        ("b\n", "c\n"),
        ("c", "b\n"),
    ]  # "c" and its line are one step
    first = pairs[0]
    assert (first.prefix, first.chosen_value, first.rejected_value) == ("p\n", 0.75, 0.5)
    assert (first.chosen_n, first.rejected_n) == (4, 2)
    assert first.probability == pytest.approx(probability_better(3, 1, 1, 1))
    assert (first.prompt_id, first.method) == ("prompt", "m()")
    assert len(step_pairs("prompt", children, 0.6, "m()")) == 1
    same = [Child("p", "a", 1, 1), Child("p", "b", 2, 2)]
    assert step_pairs("prompt", same, 0.0, "m()") == ()  # neither is better
