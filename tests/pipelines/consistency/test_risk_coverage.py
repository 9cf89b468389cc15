"""Over many draws the bounds hold as often as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.consistency.risk import RiskConfig, bound

DRAWS = 120
ALPHA = 0.05
PER = 5
IDS = [f"{i:04}" for i in range(1500)]


def population(rng: np.random.Generator, alike: float) -> tuple[Any, Any, Any]:
    """Prompts, scores (with ties) and truth; pairs of a prompt share their fate that often."""
    n = len(IDS)
    prompt = np.repeat(np.arange(n // PER), PER)
    score = np.where(rng.random(n) < alike, rng.beta(4, 1, n // PER)[prompt], rng.beta(4, 1, n))
    luck = np.where(rng.random(n) < alike, rng.random(n // PER)[prompt], rng.random(n))
    return prompt, np.round(0.5 + score / 2, 3), luck < score**0.6


def errors(drawn: str, alike: float, error: float = 0.0, **config: Any) -> tuple[Any, Any]:
    """True error of what was accepted, and the share accepted, in each of many draws."""
    n = len(IDS)
    found, accepted = [], []
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        prompt, score, right = population(rng, alike)
        chance = np.full(n, 0.2)
        purpose = np.full(n, "audit", object)
        if drawn == "pairs":
            picked = rng.permutation(n)[: n // 5]
        elif drawn == "prompts":
            picked = np.flatnonzero(np.isin(prompt, rng.permutation(n // PER)[: n // PER // 3]))
        elif drawn == "unequal":  # doubtful pairs three times as often
            chance = np.where(score < np.median(score), 0.45, 0.15)
            picked = np.flatnonzero(rng.random(n) < chance)
        else:  # routed: the most doubtful ones for their value, beside a uniform audit
            audit = rng.permutation(n)[: n // 5]
            value = np.setdiff1d(np.argsort(score, kind="stable")[: n // 5], audit)
            picked = np.concatenate([audit, value])
            purpose[value] = "value"
            chance[value] = 1.0
        said = right[picked] ^ (rng.random(len(picked)) < error)
        made, _ = bound(
            pa.table({"pair_id": IDS, "slice": ["all"] * n, "probability": score}),
            pa.table(
                {
                    "pair_id": [IDS[i] for i in picked],
                    "right": said,
                    "purpose": purpose[picked].tolist(),
                    "propensity": chance[picked],
                }
            ),
            pa.table({"pair_id": IDS, "prompt_id": prompt.astype(str)}),
            RiskConfig(alpha=ALPHA, label_error=error, **config),
        )
        chosen = made["accepted"].to_numpy(zero_copy_only=False)
        wrong = (chosen & ~right).sum()
        joint = config.get("kind", "joint") == "joint"
        found.append(wrong / (n if joint else max(1, chosen.sum())))
        accepted.append(chosen.mean())
    return np.array(found), np.array(accepted)


CASES = [
    ("pairs", 0.0, 0.0, {}),
    ("pairs", 0.9, 0.0, {}),
    ("pairs", 0.0, 0.05, {}),
    ("prompts", 0.9, 0.0, {"units": "prompts"}),
    ("prompts", 0.9, 0.0, {}),  # found out
    ("routed", 0.0, 0.0, {}),
    ("routed", 0.0, 0.0, {"weighted": True}),
    ("unequal", 0.0, 0.0, {"weighted": True}),
]


@pytest.mark.parametrize(("drawn", "alike", "error", "config"), CASES)
def test_joint_error_is_at_most_alpha_on_average(
    drawn: str, alike: float, error: float, config: dict[str, Any]
) -> None:
    found, accepted = errors(drawn, alike, error, **config)
    # Three standard errors of the mean: chance fails one test in seven hundred.
    assert found.mean() <= ALPHA + 3 * found.std() / np.sqrt(DRAWS)
    assert accepted.mean() > 0.5  # it does not hold by accepting nothing


@pytest.mark.parametrize(("drawn", "alike", "error", "config"), CASES)
def test_conditional_error_is_at_most_alpha_nine_times_in_ten(
    drawn: str, alike: float, error: float, config: dict[str, Any]
) -> None:
    found, accepted = errors(drawn, alike, error, kind="conditional", **config)
    held = (found <= ALPHA).mean()
    assert held >= 0.9 - 3 * np.sqrt(0.9 * 0.1 / DRAWS)
    if drawn == "pairs" and not error:
        assert accepted.mean() > 0.1


def test_naive_use_of_routed_labels_would_break_the_promise() -> None:
    """Counting labels that were drawn for their score as if they were uniform is what fails."""
    rng = np.random.default_rng(0)
    prompt, score, right = population(rng, 0.0)
    sure = np.argsort(-score, kind="stable")[:600]
    labels = {
        "pair_id": [IDS[i] for i in sure],
        "right": right[sure],
        "purpose": ["value"] * 600,
        "propensity": [1.0] * 600,
    }
    table = pa.table({"pair_id": IDS, "slice": ["all"] * len(IDS), "probability": score})
    prompts = pa.table({"pair_id": IDS, "prompt_id": prompt.astype(str)})
    _, refused = bound(table, pa.table(labels), prompts, RiskConfig(alpha=ALPHA))
    assert refused["accepted"].to_pylist() == [0]
    labels["purpose"] = ["audit"] * 600
    made, _ = bound(table, pa.table(labels), prompts, RiskConfig(alpha=ALPHA))
    chosen = made["accepted"].to_numpy(zero_copy_only=False)
    assert (chosen & ~right).mean() > ALPHA
