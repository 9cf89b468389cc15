"""How often the stated bounds hold: 200 draws of 300 labels over rewardmath_scores.

Every draw is calibrated and bounded anew, on as many planted worlds as there are seeds (25% random
flips, the harder rate), each pair by itself (with shared responses nearly no error is left to bound).
`bound_held_share`: share of draws in which the true error among the accepted is at most alpha, under
the conditional bound (alpha .05, confidence .9). `joint_error_mean`: mean over the draws of the true
joint error under conformal risk control at alpha .02, which is to be at most .02; `joint_accepted`
and `conditional_accepted` beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.consistency.data import World, rewardmath
from benchmarks.consistency.noise import LABELS, accepted, drawn
from benchmarks.harness import Options, say
from pipelines.consistency.calibrate import CalibrateConfig, calibrate
from pipelines.consistency.risk import RiskConfig, answers, bound, final

DRAWS = 200
CONFIDENCE = 0.9
CONDITIONAL = 0.05


def _conditional(world: World, beliefs: pa.Table, people: pa.Table) -> tuple[float, float]:
    """Share accepted under the conditional bound, and the true error among them."""
    n = len(people)
    asked = people.append_column("purpose", pa.array(["audit"] * n)).append_column(
        "propensity", pa.array([n / len(world.truth)] * n)
    )
    config = RiskConfig(kind="conditional", alpha=CONDITIONAL, confidence=CONFIDENCE)
    prompts = world.features.select(["pair_id", "prompt_id"])
    taken, _ = bound(final(beliefs), answers(beliefs, asked), prompts, config)
    inside = taken["accepted"].to_numpy(zero_copy_only=False)
    wrong = (beliefs["probability"].to_numpy() >= 0.5) != world.right
    return float(inside.mean()), float((inside & wrong).sum() / max(1, inside.sum()))


def measure(chosen: Options, seeds: Sequence[int]) -> dict[str, Any]:
    """`found`: figures by name, a value a draw; and tables."""
    found: dict[str, list[float]] = {}
    draws = 4 if chosen.quick else DRAWS
    config = CalibrateConfig(shared_responses=False)
    worlds = [rewardmath(seed, 0.25, "random") for seed in seeds]
    for draw in range(draws):
        world = worlds[draw % len(worlds)]
        rows = drawn(world, LABELS, 1000 + draw)
        people = world.people(rows, 0.0, draw)
        beliefs, _ = calibrate(world.matrix, world.features, people, None, config, 1000 + draw)
        joint, error = accepted(world, beliefs, people)
        inside, among = _conditional(world, beliefs, people)
        for name, value in {
            "joint_accepted": joint,
            "joint_error_mean": error,
            "conditional_accepted": inside,
            "bound_held_share": float(among <= CONDITIONAL),
        }.items():
            found.setdefault(name, []).append(value)
        if draw % 20 == 19:
            say(
                f"{draw + 1} draws: "
                + str({k: round(float(np.mean(v)), 4) for k, v in found.items()})
            )
    return {"found": found, "tables": {"draws": draws}}
