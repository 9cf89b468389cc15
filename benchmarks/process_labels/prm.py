"""Process reward models trained on labels that cost the same: `changepoint` against Math-Shepherd.

A seed is three runs of the bundled plan in one store, which share responses and test answers:
Math-Shepherd (k = 8, nothing curtailed) labels four responses a question; `changepoint` may take as
many rollout tokens as that took, on as many responses as it has use for. A step model is trained on
what each emits, and finds the first error of fresh solutions, which the checker knows.

Figures: `prm_f1_ours`, `prm_f1_math_shepherd`: ProcessBench F1 (the threshold is chosen on the other
half of the prompts), trained towards P(no error so far) and towards Math-Shepherd's soft value, the
better of its two published targets here (`prm_f1_math_shepherd_hard`: its hard labels);
`prm_f1_gain`: paired over seeds. `prm_tokens_ratio`: rollout tokens of ours over its. Intervals:
Student's t at 95% over the seeds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from benchmarks.harness import Options, demo_plan, mean_interval, say, toml

Measured = tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, Any]]
"""Figures, their intervals, tables."""

SHEPHERD = {"method": "monte_carlo", "k": 8, "stop_at": 0, "per_prompt": 4}
OURS = {"method": "changepoint", "per_prompt": 8}
QUICK_PROMPTS = 60


def measure(chosen: Options, seeds: Sequence[int]) -> Measured:
    """All seeds, one after the other."""
    rows = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_seed(Path(folder), seed, chosen.quick))
        say(f"seed {seed}: {rows[-1]}")
    figures: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name in rows[0]:
        figures[f"prm_{name}"], interval = mean_interval([row[name] for row in rows])
        if interval is not None:
            intervals[f"prm_{name}"] = interval
    return figures, intervals, {"seeds": rows}


def _seed(folder: Path, seed: int, quick: bool) -> dict[str, float]:
    soft = _run(folder, seed, quick, SHEPHERD, "value")
    hard = _run(folder, seed, quick, SHEPHERD, "label")
    ours = _run(folder, seed, quick, OURS | {"budget_tokens": int(soft["tokens"])}, "sound")
    return {
        "f1_ours": ours["first_error_f1"],
        "f1_math_shepherd": soft["first_error_f1"],
        "f1_math_shepherd_hard": hard["first_error_f1"],
        "f1_gain": ours["first_error_f1"] - max(soft["first_error_f1"], hard["first_error_f1"]),
        "tokens_ratio": ours["tokens"] / soft["tokens"],
        "tokens": soft["tokens"],
        "solutions_ours": ours["solutions"],
        "solutions_math_shepherd": soft["solutions"],
        "f1_chance": soft["first_error_f1_chance"],
    }


def _run(
    folder: Path, seed: int, quick: bool, process: dict[str, Any], target: str
) -> dict[str, float]:
    """One run of the plan: figures of its step model, tokens of its rollouts, labelled solutions."""
    from flows import runs, session
    from pipelines.store import Store

    plan = demo_plan() | {"seed": seed}
    for key in ("k", "stop_at", "per_prompt", "method"):
        plan["process"].pop(key, None)
    plan["process"] |= process
    plan["train"] = {"steps": {"base": plan["train"]["steps"]["base"], "target": target}}
    plan["evaluate"]["seeds"] = 1
    if quick:
        plan["prompts"]["limit"] = QUICK_PROMPTS
    path = folder / "plan.toml"
    path.write_text(toml(plan), "utf-8")
    summary = session.start(path, folder / "store")
    store = Store.open(folder / "store", create=False)
    made = runs.load(store, summary.run).output(store, "process")
    if made is None:
        raise RuntimeError(f"seed {seed}: the run labelled nothing")
    tokens = pc.sum(made.table("rollouts")["completion_tokens"]).as_py()
    found = {"tokens": float(tokens), "solutions": float(made.manifest.rows("step_labels"))}
    return summary.figures | found
