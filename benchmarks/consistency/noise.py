"""Planted flips on rewardmath_scores: what is found, what is left, what is accepted.

Of 4,347 pairs (9 a problem, 22 judges) 300, drawn uniformly, have a human label; figures are of the
pairs of the problems that have none (about half), the bound's of all pairs. `*_10`, `*_25`: share of
labels flipped at random; `*_length_*`: flips that favour the longer response. `auroc`: of P(label is
right) against the flips. `noise_left`: share of wrong labels after keep and flip alone (a drop would
flatter). `noise_left_humans`: after the 10% of pairs worth most to ask about went to one person each
who errs 5%. `accepted`: share accepted under a joint error of .02 by conformal risk control on the 300
labels; `joint_error` beside it is the true one. `ece`: ten bins.

The nine pairs of a problem share the right response, which is a strong thing to know, although no
method is told which response it is. So `*_alone_*` repeats all of it with every pair judged by itself
(`shared_responses = false`), and a table gives the figures by pairs a problem. `*_free_*`: without
any human label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.consistency.data import Flips, World, rewardmath
from benchmarks.consistency.measures import auroc, ece
from benchmarks.harness import Options, mean_interval, say
from pipelines.consistency.calibrate import CalibrateConfig, calibrate
from pipelines.consistency.decide import PosteriorConfig, decide_by_posterior
from pipelines.consistency.risk import RiskConfig, accept, answers, bound, final

LABELS = 300
ALPHA = 0.02
ASKED = 0.1
HUMAN_ERROR = 0.05
KEEP_OR_FLIP = PosteriorConfig(softened=1.0, dropped=1.0, route=False, human_error=HUMAN_ERROR)
"""Nothing softened, dropped or routed: every label that is left is counted."""
CASES: tuple[tuple[Flips, float], ...] = (
    ("random", 0.10),
    ("random", 0.25),
    ("length", 0.10),
    ("length", 0.25),
)
GOALS = {
    "auroc_10": 0.95,
    "auroc_25": 0.95,
    "auroc_length_10": 0.93,
    "auroc_length_25": 0.93,
    "noise_left_10": 0.055,
    "noise_left_25": 0.095,
    "noise_left_humans_10": 0.025,
    "noise_left_humans_25": 0.065,
    "accepted_10": 0.85,
    "accepted_25": 0.65,
}
Figures = dict[str, list[float]]


def wrong_after(decisions: pa.Table, truth: np.ndarray) -> np.ndarray:
    """Whether the label after the action is wrong, shape [n]."""
    target = decisions["target"].to_numpy()
    return np.asarray((target > 0.5) != (truth > 0))


def drawn(world: World, count: int, seed: int) -> np.ndarray:
    """Rows that are labelled, drawn uniformly, sorted."""
    rng = np.random.default_rng([seed, 2])
    return np.sort(rng.choice(len(world.truth), count, replace=False))


def apart(world: World, rows: np.ndarray) -> np.ndarray:
    """Rows of the prompts without any of those rows."""
    return np.flatnonzero(~np.isin(world.prompts, world.prompts[rows]))


def accepted(world: World, beliefs: pa.Table, people: pa.Table) -> tuple[float, float]:
    """Share accepted under the joint bound, and the true joint error."""
    n = len(people)
    asked = people.append_column("purpose", pa.array(["audit"] * n)).append_column(
        "propensity", pa.array([n / len(world.truth)] * n)
    )
    prompts = world.features.select(["pair_id", "prompt_id"])
    taken, _ = bound(
        final(beliefs), answers(beliefs, asked), prompts, RiskConfig(kind="joint", alpha=ALPHA)
    )
    silent = beliefs.set_column(
        beliefs.column_names.index("human"), "human", pa.nulls(len(beliefs), pa.float64())
    )
    decisions = accept(decide_by_posterior(silent, world.pairs, KEEP_OR_FLIP), beliefs, taken)
    inside = decisions["accepted"].to_numpy(zero_copy_only=False)
    return float(inside.mean()), float((inside & wrong_after(decisions, world.truth)).mean())


def measure_one(world: World, seed: int, config: CalibrateConfig, labels: int) -> dict[str, float]:
    """All figures of one world."""
    rows = drawn(world, labels, seed)
    people = world.people(rows, 0.0, seed)
    beliefs, _ = calibrate(world.matrix, world.features, people, None, config, seed)
    p = beliefs["probability"].to_numpy()
    test = apart(world, rows)
    decisions = decide_by_posterior(beliefs, world.pairs, KEEP_OR_FLIP)
    share, error = accepted(world, beliefs, people)
    return {
        "auroc": auroc(-p[test], ~world.right[test]),
        "ece": ece(p[test], world.right[test]),
        "noise_left": float(wrong_after(decisions, world.truth)[test].mean()),
        "noise_left_humans": with_people(world, beliefs, test, seed),
        "accepted": share,
        "joint_error": error,
    }


def with_people(world: World, beliefs: pa.Table, test: np.ndarray, seed: int) -> float:
    """Noise left on the test rows after the most valuable tenth of them went to people."""
    p = beliefs["probability"].to_numpy()
    value = np.minimum(p, 1 - p)[test] - HUMAN_ERROR
    asked = test[np.argsort(-value, kind="stable")[: int(ASKED * len(test))]]
    votes = world.people(asked, HUMAN_ERROR, seed + 1)["value"].to_numpy()
    own = np.where(np.array(beliefs["label"].to_pylist()) == "a", 1.0, -1.0)
    human = np.full(len(p), np.nan)
    human[asked] = votes * own[asked]
    told = beliefs.drop_columns(["human", "humans"])
    told = told.append_column("human", pa.array(human, mask=np.isnan(human)))
    told = told.append_column("humans", pa.array(np.isfinite(human).astype(np.int64)))
    decisions = decide_by_posterior(told, world.pairs, KEEP_OR_FLIP)
    return float(wrong_after(decisions, world.truth)[test].mean())


def free(world: World, seed: int) -> dict[str, float]:
    """The figures without any human label, on all pairs."""
    beliefs, report = calibrate(world.matrix, world.features, None, None, CalibrateConfig(), seed)
    p = beliefs["probability"].to_numpy()
    decisions = decide_by_posterior(beliefs, world.pairs, KEEP_OR_FLIP)
    return {
        "auroc_free": auroc(-p, ~world.right),
        "ece_free": ece(p, world.right),
        "noise_left_free": float(wrong_after(decisions, world.truth).mean()),
        "noise_estimated_free": report["estimated_label_error"],
    }


def measure(chosen: Options, seeds: Sequence[int]) -> dict[str, Any]:
    """`found`: figures by name, a value a seed; and tables."""
    found: Figures = {}
    for flips, rate in CASES:
        name = f"{'' if flips == 'random' else 'length_'}{round(100 * rate)}"
        for seed in seeds:
            world = rewardmath(seed, rate, flips)
            whole = measure_one(world, seed, CalibrateConfig(), LABELS)
            figures = whole
            if flips == "random" or not chosen.quick:
                alone = measure_one(world, seed, CalibrateConfig(shared_responses=False), LABELS)
                figures = whole | {f"{k}_alone": v for k, v in alone.items()} | free(world, seed)
            for key, value in figures.items():
                found.setdefault(f"{key}_{name}", []).append(value)
        say(f"{name}: " + ", ".join(f"{k} {np.mean(found[f'{k}_{name}']):.4f}" for k in figures))
    tables: dict[str, Any] = {}
    if not chosen.quick:
        tables["by_pairs_a_prompt"] = by_pairs(seeds)
    return {"found": found, "tables": tables}


def by_pairs(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """How the figures grow with the pairs that share a response; 25% random flips."""
    rows = []
    for count in (1, 2, 3, 5, 9):
        kept: Figures = {}
        for seed in seeds:
            world = rewardmath(seed, 0.25, "random", per_prompt=count)
            labels = min(LABELS, len(world.truth) // 3)
            for key, value in measure_one(world, seed, CalibrateConfig(), labels).items():
                kept.setdefault(key, []).append(value)
        rows.append(
            {"pairs": count, "labels": labels}
            | {key: round(mean_interval(values)[0], 4) for key, values in kept.items()}
        )
    return rows
