"""The error rate of labels: right where scores tell it, wide where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.audit.noise import estimate, log_odds


def scored(n: int, error: float, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores oriented to labels that are flipped at this rate, and which are wrong."""
    rng = np.random.default_rng(seed)
    score = rng.normal(0, strength, n)
    truth = np.where(rng.random(n) < 1 / (1 + np.exp(-score)), 1, -1)
    wrong = rng.random(n) < error
    return score * np.where(wrong, -truth, truth), wrong


@pytest.mark.parametrize("error", [0.0, 0.1, 0.25])
def test_the_planted_rate_is_found_and_the_interval_holds(error) -> None:
    held = 0
    for seed in range(10):
        score, _ = scored(4000, error, 3.0, seed)
        found = estimate(score, np.arange(4000), seed)
        assert found.rate == pytest.approx(error, abs=0.05) and found.told
        held += found.low - 0.005 <= error <= found.high + 0.005
    assert held >= 9


def test_probabilities_are_what_they_say() -> None:
    score, wrong = scored(20_000, 0.2, 3.0, 1)
    p = 1 / (1 + np.exp(-log_odds(score, np.ones(20_000), estimate(score, np.arange(20_000), 0))))
    for low in np.arange(0.1, 1.0, 0.2):
        rows = (p >= low) & (p < low + 0.2)
        assert (~wrong[rows]).mean() == pytest.approx(p[rows].mean(), abs=0.06)


def test_useless_scores_say_so() -> None:
    score, _ = scored(500, 0.2, 0.05, 2)
    assert not estimate(score, np.arange(500), 0).told
    none = estimate(np.zeros(10), np.arange(10), 0)
    assert (none.rate, none.told) == (0.25, False)


def test_labels_of_few_prompts_give_a_wider_interval() -> None:
    rng = np.random.default_rng(3)
    group = np.arange(3000) // 300
    score = np.abs(rng.normal(0, 3, 3000)) * np.where(group < 2, -1, 1)  # two prompts are all wrong
    few, many = estimate(score, group, 0), estimate(score, np.arange(3000), 0)
    assert few.high - few.low > many.high - many.low
    assert few.rate == many.rate


def test_labels_that_contradict_each_other_say_nothing() -> None:
    found = estimate(scored(500, 0.1, 3.0, 0)[0], np.arange(500), 0)
    assert log_odds(np.zeros(1), np.zeros(1), found)[0] == 0
    assert log_odds(np.zeros(1), np.ones(1), found)[0] > 1
