"""Do the error bounds hold, and what do they let through? 22 real judges, planted flips.

The right solution of each problem against each of its nine wrong ones; a share of the labels is
flipped. 300 pairs, drawn uniformly, are labelled without error; they also fit the score, a ridge
logistic of the judges' votes with the label as one judge more (its intercept), cross-fitted by
prompt. `bound_held_share_*` is the share of seeds in which the error was at most alpha. That is what
a conditional bound promises (its confidence is .9); a joint one promises it of `error_*`, the mean
over seeds. `accepted_*` is the mean share accepted. `by_prompt` takes prompts as units, for bounds
that are to hold for new problems too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from benchmarks import harness
from pipelines.consistency.risk import RiskConfig, bound

Floats = npt.NDArray[np.float64]

DATA = harness.REPO.parent / "shared" / "data" / "rewardmath_scores.parquet"
LABELS = 300
ALPHA = 0.02
FOLDS = 5


def judges(path: Path = DATA) -> tuple[npt.NDArray[np.int64], Floats]:
    """Prompt of each pair [n], and votes [n, 22] for the right solution: rank-scaled differences."""
    wide = pl.read_parquet(path).unique(["problem", "judge"], keep="first", maintain_order=True)
    of_all = pl.len().over("problem") == wide["judge"].n_unique()
    wide = wide.filter(of_all).sort("problem", "judge")
    names = wide["judge"].unique().sort().to_list()
    per = [
        np.stack(wide.filter(pl.col("judge") == name)["scores"].to_list()).astype(float)
        for name in names
    ]
    columns = []
    for scores in per:  # [prompts, 10]
        gap = (scores[:, :1] - scores[:, 1:]).ravel()
        sizes = np.sort(np.abs(gap))
        rank = np.searchsorted(sizes, np.abs(gap), side="right") / len(gap)
        columns.append(np.sign(gap) * rank)
    prompts = np.repeat(np.arange(len(per[0])), per[0].shape[1] - 1)
    return prompts, np.stack(columns, axis=1)


def fit(votes: Floats, right: npt.NDArray[np.bool_], ridge: float = 0.3) -> Floats:
    """Weights [judges] of a ridge logistic, by Newton's method."""
    x = votes * np.where(right, 1.0, -1.0)[:, None]
    weights = np.zeros(x.shape[1])
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (1 - p) - ridge * weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        weights += step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def scored(
    prompts: npt.NDArray[np.int64], votes: Floats, audit: npt.NDArray[np.int64],
    right: npt.NDArray[np.bool_], seed: int,
) -> Floats:  # fmt: skip
    """P(label is right) [n]: a pair's fold of prompts never fits its own score."""
    fold = np.random.default_rng([seed, 1]).integers(FOLDS, size=prompts.max() + 1)[prompts]
    p = np.empty(len(prompts))
    for k in range(FOLDS):
        train = audit[fold[audit] != k]
        inside = fold == k
        p[inside] = 1 / (1 + np.exp(-votes[inside] @ fit(votes[train], right[train])))
    return p


def trial(
    prompts: npt.NDArray[np.int64], better: Floats, noise: float, seed: int, config: RiskConfig
) -> tuple[float, float, str]:
    """Share accepted, its error as the bound defines it, and the bound's reason."""
    rng = np.random.default_rng(seed)
    n = len(prompts)
    right = rng.random(n) >= noise
    votes = better * np.where(right, 1.0, -1.0)[:, None]  # oriented to the label
    votes = np.column_stack([votes, np.ones(n)])
    audit = rng.choice(n, LABELS, replace=False)
    p = scored(prompts, votes, audit, right, seed)
    settled = right == (p >= 0.5)
    ids = pa.array(np.arange(n).astype(str))
    accepted, bounds = bound(
        pa.table({"pair_id": ids, "slice": ["all"] * n, "probability": np.maximum(p, 1 - p)}),
        pa.table(
            {
                "pair_id": ids.take(pa.array(audit)),
                "right": settled[audit],
                "purpose": ["audit"] * LABELS,
                "propensity": [LABELS / n] * LABELS,
            }
        ),
        pa.table({"pair_id": ids, "prompt_id": pa.array(prompts.astype(str))}),
        config,
    )
    chosen = accepted["accepted"].to_numpy(zero_copy_only=False)
    wrong = float((~settled & chosen).sum())
    whole = n if config.kind == "joint" else max(1, int(chosen.sum()))
    return float(chosen.mean()), wrong / whole, bounds["reason"][0].as_py()


def main() -> None:
    chosen = harness.options(__doc__ or "", seeds=200)
    seeds = list(range(20 if chosen.quick else chosen.seeds))
    prompts, better = judges()
    result = harness.Result("risk", seeds)
    for noise in (0.10, 0.25):
        for kind, units in (("joint", "pairs"), ("joint", "prompts"), ("conditional", "pairs")):
            config = RiskConfig.model_validate({"kind": kind, "units": units, "alpha": ALPHA})
            rows = [trial(prompts, better, noise, seed, config) for seed in seeds]
            name = f"{kind}_{'' if units == 'pairs' else 'by_prompt_'}{round(noise * 100)}"
            errors = np.array([row[1] for row in rows])
            figures = {
                f"bound_held_share_{name}": float((errors <= ALPHA).mean()),
                f"accepted_{name}": float(np.mean([row[0] for row in rows])),
                f"error_{name}": float(errors.mean()),
                f"some_accepted_share_{name}": float(np.mean([row[2] == "holds" for row in rows])),
            }
            result.figures.update(figures)
            result.intervals[f"error_{name}"] = harness.mean_interval(errors.tolist())[1] or (0, 1)
            harness.say(f"{name}: {figures}")
    harness.report(result, chosen)


if __name__ == "__main__":
    main()
