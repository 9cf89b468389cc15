"""Strengths of a matrix, and rank agreement across rounds."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from pipelines.consistency.strength import StrengthConfig, rank_agreement, strength
from schemas.records import Pair


def test_strengths_by_hand() -> None:
    matrix = pa.table({"pair_id": ["p", "q", "r"], "x": [1.0, None, 0.0], "y": [-0.5, None, 0.0],
                       "z": [0.25, None, None]})  # fmt: skip
    rows = strength(matrix, StrengthConfig(penalty=2.0)).to_pylist()
    mean = 0.25
    variance = (0.75**2 + 0.75**2 + 0.0) / 3
    assert rows[0] == {
        "pair_id": "p",
        "mean": pytest.approx(mean),
        "std": pytest.approx(math.sqrt(variance)),
        "share": pytest.approx(2 / 3),
        "min": -0.5,
        "penalised": pytest.approx(mean - 2 * variance),
        "judges": 3,
    }
    nothing = dict.fromkeys(("mean", "std", "share", "min", "penalised"))
    assert rows[1] == {"pair_id": "q", **nothing, "judges": 0}
    assert rows[2] == {
        "pair_id": "r", "mean": 0.0, "std": 0.0, "share": None, "min": 0.0, "penalised": 0.0,
        "judges": 0,
    }  # fmt: skip


def test_a_constant_vote_has_no_spread_at_all() -> None:
    matrix = pa.table({"pair_id": ["p"], **{f"j{i}": [1e8 + 0.1] for i in range(5)}})
    assert strength(matrix, StrengthConfig())["std"].to_pylist() == [0.0]


def test_without_judges_there_are_nulls() -> None:
    found = strength(pa.table({"pair_id": ["p"]}), StrengthConfig()).to_pylist()
    assert found[0]["mean"] is None and found[0]["judges"] == 0


def test_rank_agreement_leaves_out_what_a_round_misses() -> None:
    names = {"same": 3, "turned": 2, "lost": 1}
    pairs = [
        Pair(prompt_id=prompt, response_a="x", response_b=f"y{i}")
        for prompt, count in names.items()
        for i in range(count)
    ]
    ids = [p.id for p in pairs]
    earlier = pa.table({"pair_id": ids, "mean": [1.0, 2.0, 3.0, 1.0, 1.0, 1.0]})
    # Of `same` two are ranked alike and one is missing; of `turned` one is a tie; `lost` is gone.
    later = pa.table({"pair_id": ids[:2] + ids[3:5], "mean": [0.1, 0.2, -5.0, 0.0]})
    found = {
        r["prompt_id"]: r for r in rank_agreement(Pair.to_table(pairs), earlier, later).to_pylist()
    }
    assert found["same"] == {"prompt_id": "same", "agreement": 1.0, "pairs": 2}
    assert found["turned"] == {"prompt_id": "turned", "agreement": 0.25, "pairs": 2}
    assert found["lost"] == {"prompt_id": "lost", "agreement": None, "pairs": 0}
