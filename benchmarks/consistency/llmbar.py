"""llmbar_votes: 65 settings of real judges on 419 instructions, 100 human labels, no labels given.

`llmbar_accuracy`: of the more probable side, on the 319 instructions without a human label.
`llmbar_gain_points`: points above the single setting that is best on those very 319, which no one can
know beforehand; `llmbar_gain_over_chosen_points`: above the one that is best on the 100 labels, which
is what one would have used (ties shared). The five subsets are slices (a slice with labels enough has
weights of its own); `llmbar_unsliced_gain_points` is without them. `llmbar_free_accuracy`: the one-coin model without any
human label, `llmbar_majority` beside it: most of these judges side with the better-looking answer, and
agreement finds that, not the truth. `ece_llmbar`: all seeds' test pairs in one diagram (319 alone
would show .03 by chance).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.consistency.data import World, llmbar, read
from benchmarks.consistency.measures import ece
from benchmarks.consistency.noise import drawn
from pipelines.consistency.calibrate import CalibrateConfig, calibrate

LABELS = 100


def for_a(beliefs: pa.Table) -> np.ndarray:
    """Probability that response a is better, shape [n]."""
    p = beliefs["probability"].to_numpy()
    return np.where(np.array(beliefs["label"].to_pylist()) == "a", p, 1 - p)


def settings(world: World) -> np.ndarray:
    """1 where a judge setting is right, 0.5 where its two orders clash; shape [n, settings]."""
    votes = np.stack([world.matrix[n].to_numpy() for n in world.matrix.column_names[1:]], axis=1)
    taken = np.sign(np.nan_to_num(votes))
    return np.asarray((taken * world.truth[:, None] + 1) / 2)


def measure(seeds: Sequence[int]) -> dict[str, Any]:
    """`found`: figures by name, a value a seed; and tables."""
    world = llmbar()
    slices = pa.table({"pair_id": world.pairs["id"], "slice": read("llmbar")["subset"].to_arrow()})
    single = settings(world)
    found: dict[str, list[float]] = {}
    pooled: list[tuple[np.ndarray, np.ndarray]] = []
    models: list[str] = []
    for seed in seeds:
        rows = drawn(world, LABELS, seed)
        test = np.setdiff1d(np.arange(len(world.truth)), rows)
        people = world.people(rows, 0.0, seed)
        config = CalibrateConfig()
        beliefs, report = calibrate(world.matrix, world.features, people, slices, config, seed)
        pooled_one, _ = calibrate(world.matrix, world.features, people, None, config, seed)
        unsliced = float(((for_a(pooled_one) > 0.5) == (world.truth > 0))[test].mean())
        p = for_a(beliefs)
        accuracy = float(((p > 0.5) == (world.truth > 0))[test].mean())
        best = float(single[test].mean(axis=0).max())
        seen = single[rows].mean(axis=0)
        picked = float(single[test][:, seen == seen.max()].mean())
        pooled.append((np.maximum(p, 1 - p)[test], ((p > 0.5) == (world.truth > 0))[test]))
        models.append(report["model"])
        for name, value in {
            "llmbar_accuracy": accuracy,
            "llmbar_gain_points": 100 * (accuracy - best),
            "llmbar_unsliced_gain_points": 100 * (unsliced - best),
            "llmbar_gain_over_chosen_points": 100 * (accuracy - picked),
        }.items():
            found.setdefault(name, []).append(value)
    free, _ = calibrate(world.matrix, world.features, None, None, CalibrateConfig(), 0)
    right = (for_a(free) > 0.5) == (world.truth > 0)
    found["llmbar_free_accuracy"] = [float(right.mean())]
    votes = 2 * single - 1
    lean = votes.sum(axis=1)
    found["llmbar_majority"] = [float(((lean > 0) + 0.5 * (lean == 0)).mean())]
    found["ece_llmbar"] = [
        ece(np.concatenate([p for p, _ in pooled]), np.concatenate([r for _, r in pooled]))
    ]
    return {"found": found, "tables": {"llmbar_models": models}}
