"""Scores of sampled answers by each model, by both together, and by the policy's own likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.optimize import minimize

from pipelines.evaluation.metrics import Floats
from pipelines.process.splitting import completions
from schemas.records import Preference, Prompt, Response

if TYPE_CHECKING:
    from pipelines.evaluation.evaluate import EvaluateConfig
    from pipelines.training.scoring import Answered, RewardModel, StepModel, Stepped

Samples = Sequence[tuple[Prompt, Sequence[tuple[Response, bool | None]]]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def sample_scores(
    config: EvaluateConfig,
    reward: RewardModel | None,
    steps: StepModel | None,
    samples: Samples,
    weights: Mapping[str, float] | None,
) -> list[dict[str, Floats] | None]:
    """Scores of every prompt's samples by model; none: one of them cannot be scored."""
    answers: list[Answered] = [(p.messages, r.text) for p, rows in samples for r, _ in rows]
    parts = [completions(r.text, config.splitter) for _, rows in samples for r, _ in rows]
    split_up: list[Stepped] = [(m, part) for (m, _), part in zip(answers, parts, strict=True)]
    fits = np.ones(len(answers), bool)
    if reward is not None:
        fits &= scorable(reward, answers)
    if steps is not None:
        fits &= scorable(steps, split_up)
    kept = np.flatnonzero(fits)
    columns: dict[str, Floats] = {}
    if reward is not None:
        columns["reward"] = np.zeros(len(answers))
        columns["reward"][kept] = reward.score([answers[i] for i in kept])
    if steps is not None:
        columns["steps"] = np.zeros(len(answers))
        found = steps.score([split_up[i] for i in kept])
        columns["steps"][kept] = [_aggregate(p, config.step_aggregate) for p in found]
    given = [r.logprob for _, rows in samples for r, _ in rows]
    likely = None if None in given else np.asarray(given, np.float64)
    borders = np.cumsum([len(rows) for _, rows in samples])[:-1]
    out: list[dict[str, Floats] | None] = []
    for where in np.split(np.arange(len(answers)), borders):
        if not fits[where].all() or not len(where):
            out.append(None if len(where) else {})
            continue
        row = {name: column[where] for name, column in columns.items()}
        if weights is None:
            row["combined"] = np.mean([_standard(v) for v in row.values()], axis=0)
        else:
            row["combined"] = np.sum([weights[name] * v for name, v in row.items()], axis=0)
        if likely is not None:
            row["likelihood"] = likely[where]
        out.append(row)
    return out


def both_sides(rows: Sequence[Preference]) -> tuple[list[Answered], list[Answered]]:
    """What was chosen and what was rejected, each as (conversation so far, answer)."""
    return (
        [(r.prompt + r.chosen[:-1], r.chosen[-1].content) for r in rows],
        [(r.prompt + r.rejected[:-1], r.rejected[-1].content) for r in rows],
    )


def combination(
    config: EvaluateConfig, reward: RewardModel, steps: StepModel, table: pa.Table
) -> dict[str, float] | None:
    """Weights of both models' scores in their sum: P(chosen is better) = s(weights . difference) on
    held-out preferences, with ridge; none: there are no pairs that both can score.
    """
    rows = list(Preference.from_table(table))
    sides = both_sides(rows)
    cut: list[list[Stepped]] = [
        [(messages, completions(text, config.splitter)) for messages, text in side]
        for side in sides
    ]
    fits = np.ones(len(rows), bool)
    for side, parts in zip(sides, cut, strict=True):
        fits &= scorable(reward, side) & scorable(steps, parts)
    kept = np.flatnonzero(fits)
    if not len(kept):
        return None
    scores = [
        np.stack(
            [
                reward.score([side[i] for i in kept]),
                [
                    _aggregate(p, config.step_aggregate)
                    for p in steps.score([parts[i] for i in kept])
                ],
            ]
        )
        for side, parts in zip(sides, cut, strict=True)
    ]
    difference = scores[0] - scores[1]
    scale = np.sqrt(np.square(difference).mean(axis=1)) + 1e-12

    def loss(weights: Floats) -> float:
        return float(np.logaddexp(0.0, -(weights @ (difference / scale[:, None]))).mean()) + float(
            weights @ weights / len(kept)
        )

    found = minimize(loss, np.ones(2), bounds=[(0.0, None)] * 2).x / scale
    return {"reward": float(found[0]), "steps": float(found[1])}


def _aggregate(probabilities: Sequence[float], how: str) -> float:
    if not probabilities:
        return 0.0
    if how == "last":
        return probabilities[-1]
    return min(probabilities) if how == "min" else float(np.prod(probabilities))


def _standard(values: Floats) -> Floats:
    """z-scores; zeros where all are equal."""
    spread = values.std()
    return (values - values.mean()) / spread if spread > 0 else np.zeros(len(values))


def scorable(model: RewardModel | StepModel, items: Sequence[Any]) -> Mask:
    """Which items the model can score (see its `refusals`)."""
    return np.asarray([reason is None for reason in model.refusals(items)], bool)
