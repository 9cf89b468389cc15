"""Hashes, densities and the spread of choices."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines import routing_select
from pipelines.routing_select import density, spread, uniform, units


def test_hashes_are_uniform_and_of_id_and_salt_alone() -> None:
    ids = [f"pair {i}" for i in range(5000)]
    drawn = uniform(ids, 3, "audit")
    assert ((drawn >= 0) & (drawn < 1)).all()
    counts = np.histogram(drawn, 10, (0, 1))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 34  # 9 degrees of freedom: once in 10,000
    assert uniform(ids[::-1], 3, "audit")[::-1].tolist() == drawn.tolist()
    assert abs(np.corrcoef(drawn, uniform(ids, 4, "audit"))[0, 1]) < 0.05
    assert uniform(["a"], 1)[0] == uniform(["a"], "1")[0]
    assert uniform([], 1).shape == (0,)


def test_density_is_one_on_the_mean_and_clipped() -> None:
    same = units(np.ones((4, 3), np.float32))
    assert density(same, same) == pytest.approx(np.ones(4))
    mixed = units(np.array([[1, 0]] * 3 + [[0, 1]], np.float32))
    # Kernel means .75 (+ .25 e^-10) and .25; their mean .625.
    assert density(mixed, mixed) == pytest.approx([1.2] * 3 + [0.5], abs=1e-3)
    assert units(np.zeros((1, 2), np.float32)).tolist() == [[0.0, 0.0]]


def test_k_center_takes_the_best_then_the_farthest() -> None:
    angles = np.radians([0, 1, 90, 180, 91])
    around = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert spread(around, 1).tolist() == [0]
    assert spread(around, 2).tolist() == [0, 3]
    assert spread(around, 3).tolist() == [0, 2, 3]
    assert spread(around, 9).tolist() == [0, 1, 2, 3, 4]


def test_blocks_choose_as_many_and_keep_away_from_the_block_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routing_select, "BLOCK", 2)
    angles = np.radians([0, 180, 1, 179, 0.5, 90, 180.5, 270])
    around = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert spread(around, 4).tolist() == [0, 1, 5, 7]
    many = np.random.default_rng(0).normal(size=(101, 4)).astype(np.float32)
    chosen = spread(units(many), 33)
    assert len(set(chosen.tolist())) == 33
