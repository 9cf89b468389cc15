"""Human labels needed for a given accuracy: routed by value, by uncertainty, at random.

rewardmath_scores, 25% random flips, all pairs, every pair by itself (`shared_responses = false`: with
shared responses nearly nothing is left to ask). All three begin with the same 100 labels drawn
uniformly; then ever larger batches are asked, each answer of one person who errs 5%, and after each
batch everything is calibrated again. Only who is asked differs. The goal is `NOISE` left in the whole
set; labels are interpolated between batches on a log scale. `labels_to_goal_*` and
`labels_ratio_to_random`, `labels_ratio_to_uncertainty`. Ours is `pipelines.routing` with a tenth of
the budget on its uniform audit; the others spend all on their own rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.consistency.data import World, rewardmath
from benchmarks.consistency.noise import HUMAN_ERROR, KEEP_OR_FLIP, drawn, wrong_after
from pipelines.consistency.calibrate import CalibrateConfig, calibrate
from pipelines.consistency.decide import decide_by_posterior
from pipelines.routing import RoutingConfig, route

NOISE = 0.06
FIRST = 100
BATCHES = (100, 100, 100, 200, 200, 400, 800, 1000)
CONFIG = CalibrateConfig(shared_responses=False)
RULES = ("ours", "uncertainty", "random")


def curve(world: World, rule: str, seed: int) -> list[tuple[int, float]]:
    """Labels and noise left after each batch, up to the goal."""
    asked = drawn(world, FIRST, seed)
    answers = world.people(np.arange(len(world.truth)), HUMAN_ERROR, seed)
    rng = np.random.default_rng([seed, 6])
    points = []
    before: pa.Table | None = None
    for turn, size in enumerate((*BATCHES, 0)):
        people = answers.take(pa.array(np.sort(asked)))
        beliefs, _ = calibrate(world.matrix, world.features, people, None, CONFIG, seed)
        decisions = decide_by_posterior(beliefs, world.pairs, KEEP_OR_FLIP)
        points.append((len(asked), float(wrong_after(decisions, world.truth).mean())))
        if points[-1][1] <= NOISE:
            break
        open_ = np.setdiff1d(np.arange(len(world.truth)), asked)
        if rule == "ours":
            config = RoutingConfig(
                answers=size or 1, error_cost=10.0, human_error=HUMAN_ERROR, candidates=1.0
            )
            queue = route(beliefs, decisions, config, seed=seed, round=turn, asked=before)
            before = queue if before is None else pa.concat_tables([before, queue])
            place = {name: row for row, name in enumerate(world.pairs["id"].to_pylist())}
            chosen = np.array([place[name] for name in queue["pair_id"].to_pylist()], dtype=int)
            chosen = np.setdiff1d(chosen, asked)
        elif rule == "uncertainty":
            p = beliefs["probability"].to_numpy()[open_]
            chosen = open_[np.argsort(np.abs(p - 0.5), kind="stable")[:size]]
        else:
            chosen = rng.permutation(open_)[:size]
        asked = np.r_[asked, chosen]
    return points


def needed(points: list[tuple[int, float]]) -> float:
    """Labels at which the noise falls to the goal; where it never does, the labels spent (a bound)."""
    for (few, high), (many, low) in pairwise(points):
        if low <= NOISE < high:
            share = (high - NOISE) / (high - low)
            return float(np.exp(np.log(few) + share * (np.log(many) - np.log(few))))
    return float(points[0][0] if points[0][1] <= NOISE else points[-1][0])


def measure(seeds: Sequence[int], quick: bool) -> dict[str, Any]:
    """`found`: figures by name, a value a seed; and tables."""
    found: dict[str, list[float]] = {}
    rows = []
    for seed in seeds:
        world = rewardmath(seed, 0.25, "random", problems=200 if quick else None)
        labels = {}
        for rule in RULES:
            points = curve(world, rule, seed)
            labels[rule] = needed(points)
            found.setdefault(f"labels_to_goal_{rule}", []).append(labels[rule])
            rows += [{"seed": seed, "rule": rule, "labels": n, "noise": y} for n, y in points]
        for rule in ("random", "uncertainty"):
            ratio = labels["ours"] / labels[rule]
            found.setdefault(f"labels_ratio_to_{rule}", []).append(ratio)
    return {"found": found, "tables": {"labels": rows}}
