"""[humans.aggregate] over a whole run: what decides is what the votes come to, not their mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.store import Published
from tests.flows.test_calibrating import run
from tests.flows.test_people import truth

PLAN: dict[str, Any] = {"rows": 60, "judge": {"judges": ["agreement"]}, "route": None}
MACE = {"method": "mace", "pool_below": 10}


def crowd(folder: Path, outputs: dict[str, Published], spammers: int) -> tuple[list[str], str]:
    """Three who know answer most pairs; of the rest each has one answer, a spammer's, and wrong.

    The spammers answer by a coin beside those who know; one pair splits those two to one. Returns
    the spammers' own pairs and the split one.
    """
    sides = {pair: side for pair, side in truth(outputs).items() if side}
    pairs = list(sides)
    alone, shared = pairs[:12], pairs[12:]
    coins = np.random.default_rng(0).choice([-1.0, 1.0], len(shared))
    rows = []
    for n, pair in enumerate(alone):
        rows.append({"pair_id": pair, "value": -sides[pair], "annotator": f"spam{n % spammers}"})
    for n, (pair, coin) in enumerate(zip(shared, coins, strict=True)):
        for who in ("ann", "bo", "cy"):
            wrong = n == 0 and who == "cy"
            rows.append(
                {"pair_id": pair, "value": -sides[pair] if wrong else sides[pair], "annotator": who}
            )
        if n:
            rows.append({"pair_id": pair, "value": coin, "annotator": f"spam{n % spammers}"})
    (folder / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return alone, shared[0]


def table(output: Published, name: str) -> dict[str, dict[str, Any]]:
    return {row["pair_id"]: row for row in output.table(name).to_pylist()}


@pytest.mark.parametrize("spammers", [1, 12], ids=["one of many answers", "pooled ones"])
def test_a_spammer_flips_no_label_that_the_mean_would_flip(tmp_path: Path, spammers: int) -> None:
    pytest.importorskip("crowdkit", reason="the review extra is not installed")
    alone, split = crowd(tmp_path, run(tmp_path, **PLAN), spammers)
    plain = run(tmp_path, **PLAN, humans={"paths": ["v.jsonl"]})
    mace = run(tmp_path, **PLAN, humans={"paths": ["v.jsonl"], "aggregate": MACE})
    sides = truth(plain)

    def against(outputs: dict[str, Published]) -> int:
        """Pairs of the spammers' alone that are decided against the truth."""
        decided = table(outputs["decide"], "decisions")
        return sum(
            decided[pair]["action"] in ("keep", "flip")
            and (decided[pair]["target"] > 0.5) != (sides[pair] > 0)
            for pair in alone
        )

    assert against(plain) >= 6
    assert against(mace) == 0
    # Those who know still decide.
    decided = table(mace["decide"], "decisions")
    known = set(table(mace["humans"], "labels")) - {*alone, split}
    right = [(decided[pair]["target"] > 0.5) == (sides[pair] > 0) for pair in known]
    assert len(right) > 30 and all(right)
    # Calibration was given what they came to, and how many stand behind it.
    labels, beliefs = table(mace["humans"], "labels"), table(mace["calibrate"], "beliefs")
    for pair, label in labels.items():
        turned = -1 if beliefs[pair]["label"] == "b" else 1
        assert beliefs[pair]["human"] == pytest.approx(turned * label["value"], abs=1e-12)
        assert beliefs[pair]["humans"] == label["people"]
    changed = [out["decide"].manifest.facts["changed_by_people"] for out in (plain, mace)]
    assert changed[0] >= 6 and changed[1] == 0


def test_disagreement_softens_the_label(tmp_path: Path) -> None:
    _, split = crowd(tmp_path, run(tmp_path, **PLAN), 1)
    plain = run(tmp_path, **PLAN, humans={"paths": ["v.jsonl"]})
    majority = run(
        tmp_path, **PLAN, humans={"paths": ["v.jsonl"], "aggregate": {"method": "majority"}}
    )
    # Two of three: the label is the same, what it does is not.
    for outputs in (plain, majority):
        label = table(outputs["humans"], "labels")[split]
        assert (abs(label["value"]), label["people"]) == (pytest.approx(1 / 3), 3)

    def shift(outputs: dict[str, Published]) -> float:
        """Log-odds that people add to what was believed of the split pair."""
        belief = table(outputs["calibrate"], "beliefs")[split]
        p, target = belief["probability"], table(outputs["decide"], "decisions")[split]["target"]
        if belief["label"] == "b":
            target = 1 - target
        return abs(float(np.log(target / (1 - target)) - np.log(p / (1 - p))))

    one = float(np.log(19))
    assert shift(plain) == pytest.approx(one)
    assert shift(majority) == pytest.approx(one * (1 / 3) / 0.9)
    # Where all are of one mind both say the same.
    labels = table(majority["humans"], "labels")
    agreed = [pair for pair, label in labels.items() if abs(label["value"]) == 1.0]
    of = [table(out["decide"], "decisions") for out in (plain, majority)]
    assert len(agreed) > 20
    before = [table(out["calibrate"], "beliefs") for out in (plain, majority)]
    for pair in agreed:
        assert before[0][pair]["probability"] == before[1][pair]["probability"]
        assert of[0][pair]["target"] == pytest.approx(of[1][pair]["target"], abs=1e-9)
