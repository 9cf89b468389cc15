"""Priors fitted to corpora that are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.process_labels.chain import Cell
from benchmarks.process_labels.driving import World
from pipelines.process.fitting import _log_evidence, _maximise, fit
from pipelines.process.posterior import (
    LAMBDAS,
    OTHER,
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
    WIDE,
    outcome,
    share,
    state_at,
)

pytestmark = pytest.mark.filterwarnings("error")


def simulated(priors: Priors, solutions: int, steps: tuple[int, ...], seed: int) -> list[Evidence]:
    """A corpus that the model itself made: 8 rollouts at every position but the last."""
    rng = np.random.default_rng(seed)
    found: list[Evidence] = []
    while len(found) < solutions:
        own = steps[len(found) % len(steps)]
        lam = rng.choice(LAMBDAS, p=priors.lambdas)
        recovery = rng.choice(RECOVERIES, p=priors.recoveries)
        at = [share(priors, own, t) for t in range(own + 1)]
        wrong = [k for k in range(own) if rng.random() > math.exp(-lam * (at[k + 1] - at[k]))]
        final = bool(rng.random() < recovery) if wrong else True
        first, last = (wrong[0], wrong[-1]) if wrong else (own, -1)
        seen = Evidence(own, final)
        for t in range(own):
            state = state_at(first, last, t)
            chances = outcome(priors, own, lam, recovery, state, t, not final)
            p = rng.dirichlet(np.maximum(priors.kappa * np.array(chances), 1e-9))
            seen.counts[t] = rng.multinomial(8, p)
        found.append(seen)
    return found


def mean(values: Array, weights: tuple[float, ...]) -> float:
    return float(values @ np.array(weights))


LATE = replace(
    WIDE,
    lambdas=tuple(float(x == 1.2) for x in LAMBDAS),
    recoveries=tuple(float(x == 0.1) for x in RECOVERIES),
    repeat=0.8,
    chance_repeat=0.2,
    kappa=60.0,
    shape=(0.2, 0.2, 0.2, 0.2, 0.4, 1.6, 2.6, 2.6),
)


def test_the_fit_finds_the_rates_that_made_a_corpus() -> None:
    corpus = simulated(LATE, 150, (8, 16), 1)
    found = fit(corpus, WIDE)
    assert mean(LAMBDAS, found.lambdas) == pytest.approx(1.2, abs=0.15)
    assert mean(RECOVERIES, found.recoveries) == pytest.approx(0.1, abs=0.03)
    assert found.chance_repeat == pytest.approx(0.2, abs=0.03)
    assert found.kappa == 60
    assert np.mean(found.shape) == pytest.approx(1)
    assert Grid(found, 8).mass == pytest.approx(Grid(LATE, 8).mass, abs=0.07)
    # What made it explains it best; what is fitted comes near, per solution.
    gap = _log_evidence(corpus, LATE, True) - _log_evidence(corpus, found, True)
    assert gap / 150 < 0.25


def test_the_fit_tells_own_answers_from_accidents() -> None:
    """b and a are both fitted: meeting the own answer by accident is no sign of b."""
    assert fit(simulated(LATE, 150, (8, 16), 1), WIDE).repeat == pytest.approx(0.8, abs=0.1)


def test_the_fit_finds_a_shape_from_short_solutions_too() -> None:
    made = replace(WIDE, shape=(0.1,) * 6 + (3.7,) * 2)
    found = fit(simulated(made, 300, (4,), 2), WIDE)
    # EM is stopped before it is through, so the late steps' .925 is not reached; without the fit: .25.
    assert Grid(made, 4).mass[3] == pytest.approx(0.075)
    assert Grid(found, 4).mass[3] < 0.5


def test_the_fit_does_not_depend_on_where_it_begins() -> None:
    corpus = simulated(LATE, 150, (8, 16), 1)
    near, far = (fit(corpus, start) for start in (WIDE, Priors.about(0.7, 0.3, 0.4, 0.05)))
    gap = _log_evidence(corpus, near, True) - _log_evidence(corpus, far, True)
    assert abs(gap) / 150 < 0.3


def evidences(cell: Cell, count: int, n: int = 8) -> list[Evidence]:
    """The wrong and right solutions of a chain world, every prefix drawn n times."""
    world = World(cell, 3)
    found = []
    for question in world.questions(count, wrong=1, right=1):
        for solution in question.solutions:
            own = solution.final_right
            others = question.responses
            seen = Evidence(solution.steps, own, others.right - (own is True), others.counted - 1)
            for t in range(solution.steps):
                for index in range(n):
                    drawn = world.draw(question, solution.prefix(t), index)
                    met = SAME if drawn.answer == solution.answer else OTHER
                    seen.counts[t, RIGHT if drawn.outcome == "right" else met] += 1
            found.append(seen)
    return found


def test_the_fit_tells_a_policy_that_recovers_from_one_that_does_not() -> None:
    never = fit(evidences(Cell(8, 0.5, 0.0), 40), WIDE)
    often = fit(evidences(Cell(8, 0.5, 0.15), 40), WIDE)
    assert mean(RECOVERIES, never.recoveries) < 0.02
    assert mean(RECOVERIES, often.recoveries) == pytest.approx(0.15, abs=0.05)


def test_each_round_of_the_fit_raises_the_evidence() -> None:
    """Smoothing keeps it from the very maximum; it may take back no more than a little."""
    corpus = evidences(Cell(8, 0.5, 0.15), 25)
    priors = Priors.about(0.9, 0.3, 0.1, 0.3)
    scores = [_log_evidence(corpus, priors, True)]
    for _ in range(6):
        priors = _maximise(corpus, priors, True)
        scores.append(_log_evidence(corpus, priors, True))
    assert scores[1] > scores[0] + 10
    gains = np.diff(scores)
    assert gains.min() > -0.5
    assert scores[-1] >= max(scores) - 0.5
    last = _log_evidence(corpus, fit(corpus, Priors.about(0.9, 0.3, 0.1, 0.3)), True)
    assert last > scores[-1] - 0.5


@pytest.mark.parametrize(
    "corpus",
    [
        [],
        [Evidence(1, None)],
        [Evidence(1, True)],
        [Evidence(3, False)] * 3,
        [Evidence(5, None, 0, 0, np.tile((0.0, 0, 50), (6, 1)))],
        [Evidence(60, False, 0, 7, np.tile((0.0, 50, 0), (61, 1)))] * 2,
        [Evidence(2, True, 7, 7, np.tile((1e5, 0.0, 0.0), (3, 1)))],
    ],
    ids=["none", "unknown", "right", "wrong", "all-wrong", "all-same", "all-right"],
)
@pytest.mark.parametrize("answers", [True, False])
def test_a_fit_to_little_gives_priors_that_work(corpus: list[Evidence], answers: bool) -> None:
    found = fit(corpus, WIDE, answers)
    numbers = [*found.lambdas, *found.recoveries, *found.shape]
    numbers += [found.repeat, found.chance_repeat, found.kappa, found.spread]
    assert np.isfinite(numbers).all() and min(numbers) >= 0
    assert sum(found.lambdas) == pytest.approx(1)
    assert sum(found.recoveries) == pytest.approx(1)
    assert np.mean(found.shape) == pytest.approx(1)
    assert 0 < found.chance_repeat < 1 and 0 < found.repeat < 1
    assert Posterior(Grid(found, 3), Evidence(3, False)).first.sum() == pytest.approx(1)


def test_little_evidence_moves_the_priors_little() -> None:
    found = fit([Evidence(4, None)], WIDE)
    assert mean(LAMBDAS, found.lambdas) == pytest.approx(mean(LAMBDAS, WIDE.lambdas), rel=0.1)
    assert (found.repeat, found.chance_repeat) == pytest.approx((0.5, 0.05))
