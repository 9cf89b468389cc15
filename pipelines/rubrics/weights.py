"""Weights of criteria: those given, fitted to human labels, and for what separates responses today."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from pipelines.rubrics.scoring import labelled, members, oriented, verdicts
from schemas.errors import UserError
from schemas.record import digest
from schemas.records import Rubric

IMPORTANCE = {"essential": 1.0, "important": 0.7, "optional": 0.3, "pitfall": 0.8}
"""Weights of importance in words (Rubrics as Rewards, Gunjal et al. 2025)."""

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Ridge penalties among which cross-validation chooses."""

SCHEMA = pa.schema(
    [
        pa.field("criterion_id", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
    ]
)

Floats = np.ndarray[Any, np.dtype[np.float64]]


class FitConfig(Config):
    """How weights are fitted to labelled pairs."""

    non_negative: bool = True
    """Fit no weight below 0; false: a criterion that prefers the worse response counts against."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of the cross-validation; a prompt's pairs are in one fold."""


def fixed(criteria: pa.Table) -> pa.Table:
    """The weights that the criteria came with (SCHEMA)."""
    frame = pl.DataFrame(pl.from_arrow(criteria)).select("weight", criterion_id="id")
    return _table(frame.sort("criterion_id"))


def fitted(
    criteria: pa.Table, votes: pa.Table, pairs: pa.Table, config: FitConfig, seed: int
) -> tuple[pa.Table, dict[str, float]]:
    """Ridge logistic weights (SCHEMA) that predict the labels, and how well they do on held-out prompts.

    P(a is better) = sigmoid(sum w (v_a - v_b)), without an intercept, since a and b can be swapped;
    v is the verdict, or 1 - verdict where the criterion counts against, averaged over judges; a
    difference that is not known adds nothing. The penalty (times |w|^2 / 2, beside the summed log
    loss) is the one of PENALTIES with the least cross-validated loss, the largest of equal ones.
    Figures, of that penalty on held-out folds: `log_loss` (nats; ln 2 is chance), `accuracy` (a tie
    counts 1/2); and `penalty`, `pairs`, `prompts`. Raises UserError with fewer than two prompts.
    """
    ids = sorted(set(criteria["id"].to_pylist()))
    x, prompts = _differences(ids, criteria, votes, labelled(pairs))
    if len(set(prompts)) < 2:
        raise UserError(
            "weights cannot be fitted: labelled pairs of at least two prompts with verdicts are needed"
        )
    fold = _folds(prompts, config.folds, seed)
    losses, hits = [], []
    for penalty in PENALTIES:
        margin = np.empty(len(x))
        for held in np.unique(fold):
            out = fold == held
            margin[out] = x[out] @ _fit(x[~out], penalty, config.non_negative)
        losses.append(float(np.logaddexp(0.0, -margin).mean()))
        hits.append(float((np.sign(np.round(margin, 12)) / 2 + 0.5).mean()))
    best = max(i for i, loss in enumerate(losses) if loss <= min(losses) + 1e-9)
    weights = _fit(x, PENALTIES[best], config.non_negative)
    figures = {
        "penalty": PENALTIES[best],
        "log_loss": losses[best],
        "accuracy": hits[best],
        "pairs": float(len(x)),
        "prompts": float(len(set(prompts))),
    }
    # The solver's last digits are noise.
    frame = pl.DataFrame({"criterion_id": ids, "weight": np.round(weights, 6) + 0.0})
    return _table(frame), figures


def policy_aware(criteria: pa.Table, votes: pa.Table) -> pa.Table:
    """Weights w p (1 - p), p being the mean verdict on today's responses (POW3R's idea; SCHEMA).

    A category's weights are scaled to the sum of sizes that they had, criteria without a category
    being one of their own. A criterion without verdicts moves as its category does on the whole. A
    category in which nothing separates keeps its weights.
    """
    spread = (
        verdicts(votes)
        .drop_nulls("value")
        .group_by("criterion")
        .agg(pl.col("value").sort_by("response", "judge"))
        .with_columns(p=pl.col("value").list.mean())
        .select("criterion", factor=pl.col("p") * (1.0 - pl.col("p")))
    )
    frame = (
        pl.DataFrame(pl.from_arrow(criteria))
        .select("category", "weight", criterion="id")
        .join(spread, on="criterion", how="left")
        .sort("criterion")
        .with_columns(size=pl.col("weight").abs())
    )
    seen = pl.col("factor").is_not_null()
    scale = (
        frame.group_by("category")
        .agg(
            judged=pl.col("size").filter(seen).sort_by(pl.col("criterion").filter(seen)),
            moved=(pl.col("size") * pl.col("factor")).drop_nulls().sort(),
        )
        .with_columns(pl.col("judged", "moved").list.sum())
        # What is not judged keeps its own size, so that the judged ones share what they had.
        .select(
            "category", scale=pl.when(pl.col("moved") > 0).then(pl.col("judged") / pl.col("moved"))
        )
    )
    weight = pl.col("weight") * (pl.col("factor") * pl.col("scale")).fill_null(1.0)
    whole = frame.join(scale, on="category", how="left", nulls_equal=True)
    return _table(whole.sort("criterion").select(criterion_id="criterion", weight=weight))


def _differences(
    ids: list[str], criteria: pa.Table, votes: pa.Table, known: pl.DataFrame
) -> tuple[Floats, list[str]]:
    """Differences of better and worse (pairs, criteria), and the pairs' prompts; pairs by id."""
    every = Rubric(criteria=tuple(ids), method="weights")
    kinds = members(criteria, Rubric.to_table([every])).select("criterion", "against")
    judged = (
        verdicts(votes)
        .drop_nulls("value")
        .join(kinds, on="criterion")
        .with_columns(value=oriented())
        .group_by("response", "criterion")
        .agg(pl.col("value").sort_by("judge"))
        .with_columns(pl.col("value").list.mean())
    )
    rows = known.sort("pair").with_row_index("row")
    cells = (
        rows.join(judged, left_on="better", right_on="response")
        .join(
            judged,
            left_on=["worse", "criterion"],
            right_on=["response", "criterion"],
            suffix="_worse",
        )
        .join(pl.DataFrame({"criterion": ids}).with_row_index("column"), on="criterion")
        .select("row", "column", gap=pl.col("value") - pl.col("value_worse"))
    )
    x = np.zeros((len(rows), len(ids)))
    x[cells["row"].to_numpy(), cells["column"].to_numpy()] = cells["gap"].to_numpy()
    there = np.zeros(len(rows), bool)
    there[cells["row"].to_numpy()] = True
    prompts = rows["of"].filter(pl.Series(there)).to_list()
    return x[there], prompts


def _folds(prompts: list[str], folds: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A fold a pair: prompts in the order of a seeded hash, dealt out in turn."""
    order = sorted(set(prompts), key=lambda prompt: digest("fold", seed, prompt))
    place = {prompt: index % folds for index, prompt in enumerate(order)}
    return np.array([place[prompt] for prompt in prompts], np.int64)


def _fit(x: Floats, penalty: float, non_negative: bool) -> Floats:
    """The w that minimises sum log(1 + exp(-x w)) + penalty |w|^2 / 2: convex, one minimum."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = x @ w
        value = np.logaddexp(0.0, -margin).sum() + penalty * (w @ w) / 2.0
        return float(value), penalty * w - x.T @ expit(-margin)

    found = minimize(
        loss,
        np.zeros(x.shape[1]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0 if non_negative else None, None)] * x.shape[1],
        options={"maxiter": 5000, "ftol": 1e-13, "gtol": 1e-9},
    )
    return np.asarray(found.x, np.float64)


def _table(frame: pl.DataFrame) -> pa.Table:
    return frame.select("criterion_id", "weight").to_arrow().cast(SCHEMA)
