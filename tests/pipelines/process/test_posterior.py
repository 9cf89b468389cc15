"""The change-point posterior against sums written out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import beta

from pipelines.process.posterior import (
    BINS,
    LAMBDAS,
    RECOVERIES,
    RIGHT,
    SAME,
    Array,
    Evidence,
    Grid,
    Posterior,
    Priors,
)
from tests.pipelines.process.plain_posterior import (
    ODD,
    WIDE,
    counts,
    information,
    outcome,
    state_at,
    worlds,
)

pytestmark = pytest.mark.filterwarnings("error")

CASES = [
    Evidence(1, False, 0, 0),
    Evidence(1, True, 3, 7),
    Evidence(2, None, 2, 5, counts((2, 0, 2), (0, 0, 4), (0, 0, 0))),
    Evidence(3, False, 2, 7, counts((2, 1, 1), (3, 0, 1), (0, 3, 1), (0, 0, 0))),
    Evidence(3, False, 0, 0, counts((0, 0, 0), (0, 0, 9), (5, 1, 0), (0, 0, 0))),
    Evidence(4, True, 7, 7, counts((0, 0, 0), (4, 0, 0), (0, 0, 8), (1, 0, 3), (0, 0, 0))),
    Evidence(4, None, 1, 3, counts((0, 0, 0), (0, 0, 4), (4, 0, 0), (0, 0, 0), (0, 0, 2))),
]
BLIND = [case for case in CASES if not case.counts[:, SAME].any()]


def cases(exact: list[Evidence]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("seen", "priors"),
        [(seen, priors) for seen in exact for priors in (WIDE, ODD)],
        ids=lambda x: f"T{x.steps}-{x.final_right}" if isinstance(x, Evidence) else "",
    )


def agree(seen: Evidence, priors: Priors, answers: bool) -> None:
    """Everything that the posterior says is what the sums say."""
    every = list(worlds(priors, seen, answers))
    total = sum(w.weight for w in every)
    found = Posterior(Grid(priors, seen.steps), seen, answers)
    first = [sum(w.weight for w in every if w.first == k) / total for k in range(seen.steps + 1)]
    assert found.first == pytest.approx(first, abs=1e-9)
    assert found.log_evidence == pytest.approx(math.log(total), abs=1e-8)
    states = found.states()
    grid = [(lam, rec) for lam in LAMBDAS for rec in RECOVERIES]
    expected = np.zeros_like(states)
    for w in every:
        g = grid.index((w.lam, w.recovery))
        for t in range(seen.steps + 1):
            state = ("sound", "between", "after").index(state_at(w.first, w.last, t))
            expected[state, g, t] += w.weight / total
    assert states == pytest.approx(expected, abs=1e-9)
    assert states.sum(axis=(0, 1)) == pytest.approx(1, abs=1e-9)


@cases(CASES)
def test_it_is_the_sum_over_all_that_may_be(seen: Evidence, priors: Priors) -> None:
    agree(seen, priors, answers=True)


@cases(BLIND)
def test_without_answers_it_is_the_sum_too(seen: Evidence, priors: Priors) -> None:
    agree(seen, priors, answers=False)


def test_without_answers_a_wrong_rollout_counts_whatever_its_answer() -> None:
    """`answers` off says that the answers tell nothing, not that such rollouts were never drawn."""
    same = Evidence(4, False, 0, 0, counts((0, 0, 0), (0, 0, 0), (0, 10, 0), *((0, 0, 0),) * 2))
    other = Evidence(4, False, 0, 0, counts((0, 0, 0), (0, 0, 0), (0, 0, 10), *((0, 0, 0),) * 2))
    grid = Grid(WIDE, 4)
    one, two = Posterior(grid, same, answers=False), Posterior(grid, other, answers=False)
    assert one.first == pytest.approx(two.first)
    assert one.information() == pytest.approx(two.information())
    assert one.value(2) == pytest.approx(two.value(2))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_it_is_the_sum_for_any_counts(data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 4))
    count = st.tuples(*(st.integers(0, 6),) * 3)
    rows = [data.draw(count) for _ in range(steps)]
    seen = Evidence(
        steps,
        data.draw(st.sampled_from([True, False, None])),
        2,
        data.draw(st.integers(2, 8)),
        counts(*rows, (0, 0, 0)),
    )
    if seen.final_right is not False:  # such a solution has no wrong answer to be met
        seen.counts[:, SAME] = 0
    agree(seen, data.draw(st.sampled_from([WIDE, ODD])), answers=True)


@cases([case for case in CASES if case.steps < 4])
def test_the_information_is_what_its_definition_says(seen: Evidence, priors: Priors) -> None:
    """Up to the improbable values of (lam, recovery) that are left out."""
    found = Posterior(Grid(priors, seen.steps), seen).information()
    assert found == pytest.approx(information(priors, seen, True), rel=0.02, abs=2e-4)
    assert (found > -1e-12).all()


def test_where_a_rollout_can_tell_nothing_its_information_is_nothing() -> None:
    """One step, one known rate: the bare question says nothing about the step."""
    certain = replace(
        WIDE,
        lambdas=tuple(float(x == 0.7) for x in LAMBDAS),
        recoveries=tuple(float(x == 0.0) for x in RECOVERIES),
    )
    assert Posterior(Grid(certain, 1), Evidence(1, None)).information()[0] == pytest.approx(0.0)
    # With rates unknown the question's own helps a little, through its difficulty alone.
    told = Posterior(Grid(WIDE, 1), Evidence(1, None)).information()
    assert told == pytest.approx(information(WIDE, Evidence(1, None), True), rel=0.02)
    assert 0 < told[0] < 0.2


# --- the prior -----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 60),
    st.lists(st.floats(0.01, 8), min_size=BINS, max_size=BINS),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_priors_of_places_and_outcomes_sum_to_one(
    steps: int, shape: list[float], spread: float
) -> None:
    grid = Grid(replace(WIDE, shape=tuple(shape), spread=spread), steps)
    assert np.exp(grid.prior).sum(axis=(1, 2)) == pytest.approx(1)
    for outcomes in (grid.outcomes, grid.blind):
        assert outcomes.sum(axis=0) == pytest.approx(1)
        assert outcomes.min() >= 0


def test_positions_that_the_model_gives_no_mistake_get_none() -> None:
    grid = Grid(replace(WIDE, shape=(0, 0, 0, 0, 1, 1, 1, 1)), 8)
    first = Posterior(grid, Evidence(8, False)).first
    assert first[:4] == pytest.approx(0, abs=1e-12)
    assert first.sum() == pytest.approx(1)


def test_about_is_centred_where_it_says() -> None:
    for rate, recovery in ((0.2, 0.0), (0.5, 0.1), (0.9, 0.3)):
        priors = Priors.about(rate, recovery, 0.5, 0.05)
        assert sum(priors.lambdas) == pytest.approx(1)
        assert sum(priors.recoveries) == pytest.approx(1)
        peak = LAMBDAS[int(np.argmax(priors.lambdas))]
        nearest = LAMBDAS[int(np.argmin(abs(np.log(LAMBDAS) - math.log(-math.log(rate)))))]
        assert peak == nearest
        assert RECOVERIES[int(np.argmax(priors.recoveries))] == recovery


# --- what evidence does --------------------------------------------------------------------------


def test_plain_evidence_is_read_rightly() -> None:
    """All right after three steps, all wrong after four: the fourth is the first error."""
    rows = np.zeros((9, 3))
    rows[3], rows[4] = (12, 0, 0), (0, 6, 6)
    found = Posterior(Grid(WIDE, 8), Evidence(8, False, 4, 7, rows))
    assert found.first[3] > 0.9
    assert np.argmax(found.first) == 3
    quiet = Posterior(Grid(WIDE, 8), Evidence(8, True, 6, 7, np.tile((8.0, 0, 0), (9, 1))))
    assert quiet.first[8] > 0.99


def test_the_own_wrong_answer_met_again_is_a_sign_of_the_error() -> None:
    rows = np.zeros((7, 3))
    rows[2] = (0, 0, 4)
    other = Posterior(Grid(WIDE, 6), Evidence(6, False, 1, 7, rows)).first
    rows = np.zeros((7, 3))
    rows[2] = (0, 4, 0)
    same = Posterior(Grid(WIDE, 6), Evidence(6, False, 1, 7, rows)).first
    assert same[:2].sum() > other[:2].sum() + 0.15


def test_a_final_answer_that_is_right_speaks_for_no_error_and_none_says_nothing() -> None:
    none, right, wrong = (
        Posterior(Grid(WIDE, 5), Evidence(5, known)).first[5] for known in (None, True, False)
    )
    assert wrong < 0.01 < none < 0.9 < right
    prior = np.exp(Grid(WIDE, 5).prior[:, 5, 0]) @ np.outer(WIDE.lambdas, WIDE.recoveries).ravel()
    assert none == pytest.approx(prior)


def test_other_responses_tell_how_hard_the_question_is() -> None:
    first = [
        Posterior(Grid(WIDE, 5), Evidence(5, None, right, 20)).first[5] for right in (0, 10, 20)
    ]
    assert first == sorted(first)
    assert first[0] < 0.2 and first[2] > 0.8


def test_evidence_taken_in_later_is_as_if_it_had_been_there() -> None:
    whole = CASES[3]
    seen = Evidence(3, False, 2, 7)
    found = Posterior(Grid(WIDE, 3), seen)
    before = found.first
    for t in (2, 0, 1):
        seen.counts[t] = whole.counts[t]
        found.update(t)
        assert found.first.sum() == pytest.approx(1)
    assert not np.allclose(found.first, before)
    assert np.array_equal(found.first, Posterior(Grid(WIDE, 3), whole).first)


@pytest.mark.parametrize("steps", [1, 2, 60])
@pytest.mark.parametrize("final", [True, False, None])
@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize(
    "row", [(0, 0, 0), (10**6, 0, 0), (0, 0, 10**6), (0, 10**6, 0), (10**6, 10**6, 10**6)]
)
def test_extremes_give_probabilities(
    steps: int, final: bool | None, answers: bool, row: tuple[int, int, int]
) -> None:
    rows = np.tile(np.array(row, dtype=float), (steps + 1, 1))
    for others in (0, 10**6):
        for priors in (WIDE, replace(ODD, recoveries=(1.0, *(0.0,) * 6), slip=1e-9)):
            found = Posterior(
                Grid(priors, steps), Evidence(steps, final, others, others, rows), answers
            )
            assert np.isfinite(found.log_evidence if found.joint is not None else 0.0)
            assert found.first.sum() == pytest.approx(1)
            assert found.first.min() >= 0
            for t in {0, steps // 2, steps}:
                value, low, high = found.value(t)
                # Rounding may take them over 1; what is published is rounded to 6 digits.
                assert 0 <= low <= value <= high <= 1 + 1e-12


@pytest.mark.parametrize("final", [True, None])
def test_information_is_finite_where_a_step_is_surely_sound(final: bool | None) -> None:
    rows = np.zeros((13, 3))
    rows[1:7, RIGHT] = 16
    found = Posterior(Grid(WIDE, 12), Evidence(12, final, 7, 7, rows))
    told = found.information()
    assert np.isfinite(told).all() and told.min() > -1e-9


# --- the value -----------------------------------------------------------------------------------


@cases([case for case in CASES if case.steps in (2, 3)])
def test_the_value_and_its_interval_are_those_of_the_mixture(
    seen: Evidence, priors: Priors
) -> None:
    """Each way that things may be gives a beta posterior of the value; shortest to a 512th."""
    every = list(worlds(priors, seen, True))
    total = sum(w.weight for w in every)
    answers = seen.final_right is False
    found = Posterior(Grid(priors, seen.steps), seen)
    for t in range(seen.steps):
        parts = []
        right, n = seen.counts[t, RIGHT], seen.counts[t].sum()
        for w in every:
            state = state_at(w.first, w.last, t)
            p = outcome(priors, seen.steps, w.lam, w.recovery, state, t, answers)[0]
            a, b = priors.kappa * p + right, priors.kappa * (1 - p) + n - right
            parts.append((w.weight / total, a, b))
        weight, a, b = (np.array(column) for column in zip(*parts, strict=True))

        def below(x: float, weight: Array = weight, a: Array = a, b: Array = b) -> float:
            # No recovery and no success: the value is 0 for sure.
            cdf = np.where(a > 0, beta.cdf(x, np.maximum(a, 1e-9), b), 1.0)
            return float(weight @ cdf)

        value, low, high = found.value(t)
        assert value == pytest.approx(float(weight @ (a / (a + b))), abs=1e-9)
        exact = []
        for tail in (0.05, 0.025, 0.075, 0.0, 0.1):
            ends = [
                0.0 if below(0.0) >= mass else brentq(lambda x, q=mass: below(x) - q, 0, 1)
                for mass in (tail, min(tail + 0.9, 1 - 1e-9))
            ]
            exact.append(ends[1] - ends[0])
        assert high - low == pytest.approx(min(exact), abs=2 / 512 + 1e-3)
        # Ways less probable than 1e-4 are left out.
        assert below(high) - (below(low) if low else 0.0) >= 0.9 - 1e-3


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_interval_holds_what_it_says(data: st.DataObject) -> None:
    """Of the posterior without its improbable ways; no more, but for what is at 0 or the mean."""
    steps = data.draw(st.integers(1, 5))
    rows = np.zeros((steps + 1, 3))
    for t in range(1, steps + 1):
        rows[t] = data.draw(st.tuples(*[st.integers(0, 12)] * 3))
    priors = replace(
        data.draw(st.sampled_from([WIDE, ODD])),
        kappa=data.draw(st.sampled_from([6.0, 20.0, 200.0])),
    )
    final = data.draw(st.sampled_from([True, False, None]))
    found = Posterior(Grid(priors, steps), Evidence(steps, final, 2, 7, rows))
    t = data.draw(st.integers(1, steps))
    coverage = data.draw(st.sampled_from([0.5, 0.9, 0.99]))
    p, which = np.unique(found.outcomes[RIGHT, :, :, t], return_inverse=True)
    weight = np.bincount(which.ravel(), found.states()[:, :, t].ravel())
    kept = weight > 1e-4
    weight, p = weight[kept] / weight[kept].sum(), p[kept]
    a = priors.kappa * p + rows[t, RIGHT]
    b = priors.kappa * (1 - p) + rows[t].sum() - rows[t, RIGHT]

    def to(x: float) -> float:
        """P(value <= x)."""
        cdf = np.where(b > 1e-9, beta.cdf(x, np.maximum(a, 1e-9), np.maximum(b, 1e-9)), x >= 1)
        return float(weight @ np.where(a > 1e-9, cdf, x >= 0))

    def before(x: float) -> float:
        """P(value < x): only at 0 does the posterior have an atom."""
        return to(x) if x > 0 else 0.0

    mean, low, high = found.value(t, coverage)
    held = to(high) - before(low)
    assert held >= coverage - 1e-9
    if low < mean < high:
        # The ends are right to 2^-24: what lies as near to them is what may be too much.
        off = 2.0**-24
        near = to(low + off) - before(low) + to(high) - before(high - off)
        assert held <= max(coverage, to(off)) + near + 1e-9


def test_an_interval_of_values_that_crowd_at_0_leaves_none_of_them_out() -> None:
    """A low end on a grid of 1/512 left out more than half: it fell on the first point."""
    rarely = replace(WIDE, recoveries=(0.0, 1.0, *(0.0,) * (len(RECOVERIES) - 2)))
    rows = np.zeros((9, 3))
    rows[1], rows[7] = (40, 0, 0), (0, 30, 30)
    _, low, high = Posterior(Grid(rarely, 8), Evidence(8, False, 0, 0, rows)).value(7)
    # After the error the value is 0.02 on average: Beta(20 * 0.02, 20 * 0.98 + 60).
    assert (low, high) == (0.0, pytest.approx(beta.ppf(0.9, 0.4, 79.6), abs=1e-6))


def test_a_wider_interval_holds_more() -> None:
    found = Posterior(Grid(WIDE, 3), CASES[3])
    narrow, wide = found.value(1, 0.5), found.value(1, 0.99)
    assert narrow[0] == wide[0]
    assert wide[1] < narrow[1] < narrow[2] < wide[2]


def test_without_recovery_a_prefix_that_is_surely_wrong_is_worth_nothing() -> None:
    never = replace(WIDE, recoveries=(1.0, *(0.0,) * (len(RECOVERIES) - 1)))
    rows = np.zeros((5, 3))
    rows[1], rows[2] = (40, 0, 0), (0, 20, 20)
    found = Posterior(Grid(never, 4), Evidence(4, False, 0, 0, rows))
    assert found.first[1] > 0.99
    value, low, high = found.value(3)
    assert low == 0.0 and value < 0.01 and high <= 0.05
