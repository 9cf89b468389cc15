"""From votes to decisions, `--part votes|bound|scale|embedding`: probabilities, decisions and bounds against the truth.

`votes` (the default): noise.py, llmbar.py, crowd.py, asking.py and rivals.py; `ece_max` is the largest
of the calibrated sets' (means over the seeds). `bound`: how often the bounds hold. `scale`: pairs a
second and memory, `--most N` for no more than N pairs. `embedding`: texts a second. Each module says what its figures are.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

from benchmarks.consistency import asking, bound, crowd, embedding, llmbar, noise, rivals, scale
from benchmarks.harness import Result, mean_interval, options, report, say
from schemas.errors import UserError

FIRST_SEED = 17
GOALS = noise.GOALS | {"llmbar_gain_points": 5.0, "labels_ratio_to_random": 0.5, "ece_max": 0.03}
SMALLER = ("noise", "labels", "ece")
"""Figures whose names begin so are to be at most their goal."""


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--part", choices=("votes", "bound", "scale", "embedding"), default="votes")
    parser.add_argument("--most", type=int, default=None)
    known, rest = parser.parse_known_args(argv)
    chosen = options(__doc__ or "", seeds=5, argv=rest)
    seeds = list(range(FIRST_SEED, FIRST_SEED + chosen.seeds))
    result = Result(f"consistency {known.part}", seeds)
    if known.part == "scale":
        result.figures, result.tables = scale.measure(chosen, known.most)
        return report(result, chosen)
    if known.part == "embedding":
        result.figures, result.tables = embedding.measure(chosen, known.most)
        return report(result, chosen)
    if known.part == "bound":
        gather(result, bound.measure(chosen, seeds))
        return report(result, chosen)
    gather(result, noise.measure(chosen, seeds))
    gather(result, llmbar.measure(seeds))
    gather(result, crowd.measure(seeds, chosen.quick))
    gather(result, asking.measure(seeds, chosen.quick))
    result.tables["filters"] = rivals.measure(seeds, chosen.quick)
    # Without human labels nothing is called calibrated.
    calibrated = [k for k in result.figures if k.startswith("ece") and "free" not in k]
    result.figures["ece_max"] = max(result.figures[k] for k in calibrated)
    result.tables["goals"] = goals(result.figures)
    return report(result, chosen)


def gather(result: Result, measured: dict[str, Any]) -> None:
    """Means over the seeds, their intervals, and tables."""
    for name, values in measured["found"].items():
        mean, interval = mean_interval([float(v) for v in values])
        result.figures[name] = mean
        if interval is not None:
            result.intervals[name] = interval
    result.tables |= measured["tables"]
    say(f"{len(result.figures)} figures")


def goals(figures: dict[str, float]) -> list[dict[str, Any]]:
    """Each goal, what was measured, and whether it is met."""
    rows = []
    for name, goal in GOALS.items():
        met = figures[name] <= goal if name.startswith(SMALLER) else figures[name] >= goal
        rows.append(
            {"figure": name, "goal": goal, "measured": round(figures[name], 4), "met": bool(met)}
        )
    say(f"goals met: {np.mean([row['met'] for row in rows]):.0%}")
    return rows


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
