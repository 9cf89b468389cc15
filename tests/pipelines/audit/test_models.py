"""The small models: what noise does to them, and that nothing is judged by what it was fitted to."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from pipelines.audit.models import choose, cross_fit, fit


def test_a_pair_turned_round_has_the_opposite_score() -> None:
    x = np.random.default_rng(0).normal(size=(200, 5))
    w = np.ones(200)
    turned = x * np.where(np.arange(200) % 2, 1.0, -1.0)[:, None]
    both = np.vstack([turned, -turned])
    assert np.abs(fit(both, np.ones(400), 0.1, 1.0)).max() < 1e-6
    assert np.allclose(fit(-x, w, 0.1, 1.0), -fit(x, w, 0.1, 1.0), atol=1e-4)


def test_knowing_the_error_rate_gives_the_direction_and_size_of_clean_labels() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([3.0, -2.0, 0.0])
    x = rng.normal(size=(6000, 3))
    right = rng.random(6000) < 1 / (1 + np.exp(-x @ truth))
    label = np.where(right, 1, -1) * np.where(rng.random(6000) < 0.25, -1, 1)
    told = fit(x * label[:, None], np.ones(6000), 0.25, 1.0)
    plain = fit(x * label[:, None], np.ones(6000), 0.0, 1.0)
    assert np.abs(told - truth).max() < 0.5
    assert np.linalg.norm(plain) < 0.6 * np.linalg.norm(truth)


def test_a_label_without_weight_and_its_own_fold_teach_nothing() -> None:
    rng = np.random.default_rng(2)
    x, w, fold = rng.normal(size=(60, 4)), np.ones(60), np.arange(60) % 3
    used = np.ones(60, bool)
    score, _ = cross_fit(x, w, fold, used, 0.0, 1.0)
    other = x.copy()
    other[fold == 1] *= -1
    changed, _ = cross_fit(other, w, fold, used, 0.0, 1.0)
    assert np.allclose(changed[fold == 1], -score[fold == 1])
    bare = x.copy()
    bare[7] = 99.0
    w[7] = 0.0
    ignored, _ = cross_fit(bare, w, fold, used, 0.0, 1.0)
    dropped, _ = cross_fit(x, w, fold, used, 0.0, 1.0)
    keep = np.arange(60) != 7
    assert np.allclose(ignored[keep], dropped[keep])


def test_sparse_and_dense_are_one_model_and_noise_takes_the_larger_ridge() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(120, 30))
    w = np.ones(120)
    assert np.allclose(fit(csr_matrix(x), w, 0.1, 2.0), fit(x, w, 0.1, 2.0), atol=1e-5)
    fold, used = np.arange(120) % 4, np.ones(120, bool)
    ticks: list[int] = []
    assert choose(x, w, fold, used, (0.01, 1000.0), ticks.append)[0] == 1000.0
    assert ticks == [1, 1]
