"""Loop: the bundled plan from prompts to evaluated reward models, once a seed.

Every seed is a whole run in a store of its own: generate, label steps by rollouts, curate, train a
reward model and a step model on what was emitted, answer fresh prompts `evaluate.seeds` times and
test on them. A figure is the mean over the seeds of the run's figure (itself the mean over its
samplings); its interval is Student's t at 95% over the seeds, or, with one seed, the run's own.

Figures: `policy_accuracy`, `best_of_8_accuracy`, `oracle_best_of_8`: share of fresh prompts answered
right by one sample, by the models' pick of 8, by a perfect pick of 8. `first_error_f1`: ProcessBench
F1 of the step model, against `first_error_f1_chance` (a step or "none" at random) and
`first_error_f1_last_step` (told whether there is an error, names the last step). `ece`: calibration
error of the step model's probabilities. The others are explained in the run's report.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.harness import Result, demo_plan, mean_interval, options, plot, report, say, toml

FIRST_SEED = 17


def loop(folder: Path, plan: dict[str, Any], seed: int) -> dict[str, Any]:
    """One whole run with a seed; its figures, their intervals and its best-of-n curve."""
    from flows import runs, session
    from pipelines.store import Store

    folder.mkdir(parents=True)
    path = folder / "plan.toml"
    path.write_text(toml({**plan, "seed": seed}), "utf-8")
    began = time.monotonic()
    summary = session.start(path, folder / "store")
    wall = time.monotonic() - began
    store = Store.open(folder / "store", create=False)
    evaluation = runs.load(store, summary.run).output(store, "evaluate")
    if evaluation is None:
        raise RuntimeError(f"seed {seed}: the run has no evaluation")
    rows = evaluation.table("figures").select(["name", "sampling", "value", "low", "high"])
    return {
        "seed": seed,
        "wall_s": wall,
        "asked": summary.asked,
        "rows": summary.rows,
        "figures": summary.figures,
        "samplings": [row for row in rows.to_pylist() if row["name"] in summary.figures],
        "curve": evaluation.table("curve").drop_columns(["id"]).to_pylist(),
    }


def _interval_of_one(run: dict[str, Any], name: str) -> tuple[float, float] | None:
    """A run's own interval: its bootstrap over prompts, or the range of several samplings."""
    found = {row["sampling"]: row for row in run["samplings"] if row["name"] == name}
    row = found[None] if len(found) > 2 else found[0]
    return None if row["low"] is None else (row["low"], row["high"])


def summarize(result: Result, runs: list[dict[str, Any]]) -> None:
    """Means over the seeds and their intervals; a figure that a run lacks is left out."""
    for name in runs[0]["figures"]:
        values = [run["figures"][name] for run in runs if name in run["figures"]]
        if len(values) < len(runs):
            continue
        result.figures[name], interval = mean_interval(values)
        if interval is None:
            interval = _interval_of_one(runs[0], name)
        if interval is not None:
            result.intervals[name] = interval
    result.tables["runs"] = runs


def draw(runs: list[dict[str, Any]]) -> str:
    """Best-of-n curves, averaged over the seeds (accuracies and ends of intervals)."""
    from flows.charts import Curve, Point, curves

    points: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for point in run["curve"]:
            points[point["scorer"]][point["n"]].append(point)

    def mean(found: list[dict[str, Any]], key: str) -> float:
        return fmean(point[key] for point in found)

    series = [
        Curve(
            scorer,
            tuple(
                Point(n, mean(found, "accuracy"), mean(found, "low"), mean(found, "high"))
                for n, found in sorted(by_n.items())
            ),
        )
        for scorer, by_n in points.items()
    ]
    return str(curves(series, "Best of n", "responses to choose from (n)", "share answered right"))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    chosen = options(__doc__ or "", seeds=3, argv=argv)
    plan = demo_plan()
    if chosen.quick:
        plan["prompts"]["limit"] = 40
        plan["evaluate"] |= {"seeds": 1, "metrics": {"bootstrap": 200}}
        plan["evaluate"]["prompts"]["limit"] = 30
        plan["evaluate"]["generate"]["samples"] = 8
    result = Result("loop", list(range(FIRST_SEED, FIRST_SEED + chosen.seeds)))
    runs = []
    for seed in result.seeds:
        with tempfile.TemporaryDirectory(prefix="loop-") as folder:
            runs.append(loop(Path(folder, "run"), plan, seed))
        say(f"seed {seed}: {runs[-1]['figures']} in {runs[-1]['wall_s']:.0f} s")
    summarize(result, runs)
    plot(draw(runs), chosen, "best-of-n")
    return report(result, chosen)


if __name__ == "__main__":
    main()
