"""The published filters beside ours on rewardmath_scores with random flips: one table.

`left`: share of all pairs that are kept or flipped with a wrong label; `kept`: share that is not
dropped; `wrong`: `left` over `kept`. The presets see the votes squashed to one scale (tanh of a vote
over the judge's root mean square). Ours has 300 human labels, the presets have none; `ours, free` has
none either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.consistency.data import World, rewardmath
from benchmarks.consistency.noise import KEEP_OR_FLIP, LABELS, drawn
from pipelines.consistency.calibrate import CalibrateConfig, calibrate
from pipelines.consistency.decide import PosteriorConfig, decide_by_posterior
from pipelines.consistency.presets import PRESETS

BY_RESPONSE = ("prof", "pf_ppo")
"""Presets of single responses, which these pairs are not."""


def _frame(world: World) -> pl.DataFrame:
    wide = pl.DataFrame(pl.from_arrow(world.matrix))
    judges = wide.columns[1:]
    scaled = [(pl.col(n) / (pl.col(n) ** 2).mean().sqrt()).tanh().alias(n) for n in judges]
    known = pl.DataFrame(pl.from_arrow(world.features.select(["pair_id", "prompt_id", "label"])))
    return known.join(wide.select("pair_id", *scaled), on="pair_id", maintain_order="left")


def _row(decisions: pa.Table, world: World) -> dict[str, float]:
    action = np.array(decisions["action"].to_pylist())
    kept = np.isin(action, ["keep", "flip", "soften"])
    wrong = np.where(action == "flip", world.right, ~world.right) & kept
    return {
        "left": float(wrong.mean()),
        "kept": float(kept.mean()),
        "wrong": float(wrong.sum() / max(1, kept.sum())),
    }


def measure(seeds: Sequence[int], quick: bool) -> list[dict[str, Any]]:
    """A row a filter and rate: means over the seeds."""
    rows: dict[tuple[str, float], list[dict[str, float]]] = {}
    for rate in (0.25,) if quick else (0.10, 0.25):
        for seed in seeds:
            world = rewardmath(seed, rate, "random")
            frame = _frame(world)
            for name, preset in PRESETS.items():
                if name not in BY_RESPONSE:
                    rows.setdefault((name, rate), []).append(_row(preset(frame), world))
            people = world.people(drawn(world, LABELS, seed), 0.0, seed)
            for name, labels, shared in (
                ("ours", people, True),
                ("ours, pairs alone", people, False),
                ("ours, free", None, True),
            ):
                config = CalibrateConfig(shared_responses=shared)
                beliefs, _ = calibrate(world.matrix, world.features, labels, None, config, seed)
                # People's own answers are left out: what is compared is what machines make of it.
                column = beliefs.column_names.index("human")
                silent = beliefs.set_column(column, "human", pa.nulls(len(beliefs), pa.float64()))
                costs = PosteriorConfig(softened=1.0, route=False)
                for what, rule in ((name, KEEP_OR_FLIP), (f"{name}, with drops", costs)):
                    decisions = decide_by_posterior(silent, world.pairs, rule)
                    rows.setdefault((what, rate), []).append(_row(decisions, world))
    return [
        {"filter": name, "planted": rate}
        | {key: round(float(np.mean([v[key] for v in values])), 4) for key in values[0]}
        for (name, rate), values in rows.items()
    ]
