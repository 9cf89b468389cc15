"""The consistency benchmark's own measures, and what it plants."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.consistency import asking, data, noise
from benchmarks.consistency.__main__ import GOALS, goals
from benchmarks.consistency.measures import auroc, ece
from pipelines.consistency.calibrate import CalibrateConfig

real = pytest.mark.skipif(not data.DATA.is_dir(), reason="the shared data is not there")


def test_auroc_and_ece_by_hand() -> None:
    assert auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True])) == 0.875
    assert auroc(np.array([1.0]), np.array([True])) == 0.5
    p = np.array([0.95, 0.95, 0.15, 1.0])
    assert ece(p, np.array([True, False, False, True])) == pytest.approx((0.9 + 0.15) / 4)


def test_labels_needed_are_read_between_batches() -> None:
    assert asking.needed([(100, 0.08), (400, 0.04)]) == pytest.approx(200.0)
    assert asking.needed([(100, 0.05)]) == 100.0
    assert asking.needed([(100, 0.09), (400, 0.07)]) == 400.0


def test_a_goal_missed_is_said() -> None:
    figures = {name: 0.0 for name in GOALS} | {"ece_max": 0.5, "auroc_10": 0.99}
    met = {row["figure"]: row["met"] for row in goals(figures)}
    assert met["auroc_10"] and met["noise_left_10"] and not met["ece_max"] and not met["auroc_25"]


@real
@pytest.mark.parametrize("flips", ["random", "length"])
def test_flips_are_planted_as_said(flips: data.Flips) -> None:
    world = data.rewardmath(3, 0.25, flips, per_prompt=3)
    assert len(world.truth) == 3 * 483
    assert (~world.right).mean() == pytest.approx(0.25, abs=0.03)
    given = np.where(np.array(world.pairs["label"].to_pylist()) == "a", 1, -1)
    assert ((given == world.truth) == world.right).all()
    assert abs(world.truth.mean()) < 0.1  # neither side is the right one's
    length = world.features["length"].to_numpy()
    lean = length[~world.right].mean() - length[world.right].mean()
    assert lean > 0.5 if flips == "length" else abs(lean) < 0.15


@real
def test_figures_of_a_small_world() -> None:
    world = data.rewardmath(3, 0.25, "random", problems=120, per_prompt=5)
    found = noise.measure_one(world, 3, CalibrateConfig(), 150)
    assert found["auroc"] > 0.9 and found["noise_left_humans"] <= found["noise_left"] < 0.15
    assert 0 <= found["joint_error"] < found["accepted"] <= 1
