"""People made up for tests: votes on pairs whose truth is known."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from schemas.records import Vote


def vote(
    unit: str, judge: str, value: float | None, order: str | None = None, seconds: float | None = None
) -> Vote:  # fmt: skip
    return Vote.model_validate(
        {
            "unit": unit,
            "unit_kind": "pair",
            "judge": judge,
            "judge_kind": "human",
            "order": order,
            "value": value,
            "seconds": seconds,
        }
    )


def table(votes: Iterable[Vote]) -> pa.Table:
    return Vote.to_table(votes)


def crowd(
    pairs: int, accuracies: Sequence[float], seed: int = 0, each: int | None = None
) -> tuple[pa.Table, dict[str, float]]:
    """Votes of people with these accuracies on pairs of known truth; `each`: voters a pair."""
    rng = np.random.default_rng(seed)
    truth = {f"p{i:04}": float(rng.choice([-1, 1])) for i in range(pairs)}
    votes = []
    for unit, side in truth.items():
        who = rng.choice(len(accuracies), each or len(accuracies), replace=False)
        for j in sorted(who):
            right = rng.random() < accuracies[j]
            votes.append(vote(unit, f"j{j:03}", side if right else -side))
    return table(votes), truth
