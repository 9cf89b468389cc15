"""The closed loop: what a round reads, it reads once, however many folds it has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows import rounds
from pipelines.store import Published
from tests.flows.plans import POLICY
from tests.flows.test_calibrating import run


def test_the_folds_of_a_round_share_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()
    table, crossfit = Published.table, rounds._crossfit

    def counted(self: Published, name: str) -> Any:
        reads[name] += 1
        return table(self, name)

    def watched(*args: Any) -> Published:
        with monkeypatch.context() as patch:
            patch.setattr(Published, "table", counted)
            return crossfit(*args)

    monkeypatch.setattr(rounds, "_crossfit", watched)
    # Too few pairs to train on: each fold still gathers what it would be trained on.
    reward = {"base": str(POLICY), "epochs": 1, "threads": 1}
    plan = {"count": 1, "folds": 4, "min_pairs": 10_000, "reward": reward}
    outputs = run(tmp_path, rows=12, rounds=plan)
    judges = [name for name in outputs if name == "judge" or name.startswith("panel.")]
    once = {"prompts": 1, "responses": 1, "pairs": 1, "decisions": 1}
    assert reads == {**once, "votes": len(judges)}
    votes = outputs["round.1.reward"].table("votes").to_pylist()
    assert {vote["value"] for vote in votes} == {None}
    assert all(vote["reason"].startswith("too_few_pairs: ") for vote in votes)
