"""A latent truth behind votes: synthetic judges of known accuracy, copies and noise."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.consistency.latent import noisy_agreement, one_coin, pooled_coins, redundancy


def votes(
    accuracies: list[float], n: int = 4000, seed: int = 0, missing: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    right = rng.random((n, len(accuracies))) < accuracies
    found = np.where(right, truth[:, None], -truth[:, None])
    found[rng.random(found.shape) < missing] = np.nan
    return found, truth


def test_accuracies_and_the_truth_are_found() -> None:
    wanted = [0.9, 0.8, 0.7, 0.6, 0.3]
    found, truth = votes(wanted)
    coin = one_coin(found)
    assert coin.accuracy == pytest.approx(wanted, abs=0.03)
    assert coin.weight[-1] < 0 < coin.weight[-2] < coin.weight[0]
    assert (np.sign(coin.log_odds) == truth).mean() > 0.88  # the best judge alone: .82


def test_copies_count_once() -> None:
    found, truth = votes([0.75, 0.75, 0.75, 0.6], missing=0.0)
    copied = np.hstack([found, *[found[:, 3:]] * 9])
    assert redundancy(copied)[3:] == pytest.approx([10.0] * 10, rel=0.1)
    assert redundancy(found) == pytest.approx([1.0] * 4, abs=0.1)
    plain, weighed = one_coin(found), one_coin(copied)
    blind = one_coin(copied, np.ones(13))
    right = [(np.sign(c.log_odds) == truth).mean() for c in (plain, weighed, blind)]
    assert right[1] == pytest.approx(right[0], abs=0.02)
    assert right[2] < right[1] - 0.1


def test_nothing_at_all_takes_no_side() -> None:
    assert one_coin(np.full((3, 2), np.nan)).log_odds.tolist() == [0.0] * 3
    assert one_coin(np.zeros((3, 0))).log_odds.tolist() == [0.0] * 3


def test_a_crowd_of_few_votes_each_beats_its_majority() -> None:
    rng = np.random.default_rng(1)
    truth = np.where(rng.random(3000) < 0.5, 1.0, -1.0)
    accuracy = rng.choice([0.95, 0.55], 600)
    units = np.repeat(np.arange(3000), 5)
    who = rng.integers(0, 600, len(units))
    side = np.where(rng.random(len(units)) < accuracy[who], truth[units], -truth[units])
    log_odds, found = pooled_coins(units, who, side)
    majority = np.bincount(units, side, 3000)
    assert (np.sign(log_odds) == truth).mean() > (np.sign(majority) == truth).mean() + 0.02
    assert found[accuracy > 0.9].mean() > 0.85 > 0.65 > found[accuracy < 0.9].mean()


def test_a_unit_on_which_all_are_tied_keeps_its_place() -> None:
    log_odds, accuracy = pooled_coins(np.array([0, 1]), np.array([0, 1]), np.array([1.0, 0.0]))
    assert log_odds[0] > 0 and log_odds[1] == 0.0 and len(accuracy) == 2


@pytest.mark.parametrize("error", [0.05, 0.25])
def test_the_share_of_wrong_labels_is_estimated(error: float) -> None:
    rng = np.random.default_rng(2)
    log_odds = rng.normal(0, 3, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-log_odds))
    given = truth ^ (rng.random(20_000) < error)
    found, worth = noisy_agreement(np.where(given, log_odds, -log_odds) / 2)
    assert found == pytest.approx(error, abs=0.03)
    assert worth == pytest.approx(2.0, rel=0.3)


def test_useless_scores_tell_no_error() -> None:
    assert noisy_agreement(np.zeros(50)) == (0.25, 1.0)
    assert noisy_agreement(np.zeros(50), 0.1) == (0.1, 1.0)
