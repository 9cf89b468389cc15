"""Labelled solutions for the views: one of every kind, and pairs of sibling steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.emit.emit import Config
from pipelines.emit.view_text import VIEWS
from schemas.records import StepPair

CONFIG = Config(name="n", step_views=VIEWS, validation=0.0, test=0.0)
R, W = "right", "wrong"
SOLUTIONS: tuple[dict[str, Any], ...] = (
    {"labels": (R, R, W, W), "final_right": False},
    {"labels": (R, None, W, R), "final_right": False},
    {"labels": (R, R), "final_right": True},
    {"labels": (None, R), "final_right": True},
    {"labels": (None, None), "value": (None, 0.5), "sound": (0.75, 0.25), "resolved": False},
    {"labels": (R, R), "value": (None, None), "final_right": False},
)


def rows(folder: Path, view: str) -> list[dict[str, Any]]:
    files = sorted((folder / f"steps_{view}").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def rejects(folder: Path) -> list[tuple[str, str, str, str]]:
    table = pq.read_table(folder / "rejects.parquet")
    return [(r["unit"], r["stage"], r["code"], r["detail"]) for r in table.to_pylist()]


def label(run, make, *solutions: dict[str, Any]) -> list[Any]:
    """Replace the run's labels: one solution a prompt, its lines labelled as said."""
    run.trajectories.clear()
    run.step_labels.clear()
    run.responses.clear()
    for number, solution in enumerate(solutions):
        change = dict(solution)
        marks = change.pop("labels")
        text = "".join(f" step {i} \n\n" for i in range(len(marks)))
        response = make["response"](run.prompts[number], 0, text, f"model-{number}")
        trajectory, labels = make["steps"](response, marks, **change)
        run.responses.append(response)
        run.trajectories.append(trajectory)
        run.step_labels.append(labels)
    run.pairs.clear()
    run.votes.clear()
    run.decisions.clear()
    run.rejects.clear()
    return list(run.step_labels)


def sibling(prompt_id: str, prefix: str = "one\n", **change: Any) -> StepPair:
    row = {
        "prompt_id": prompt_id,
        "prefix": prefix,
        "chosen": "two\n",
        "rejected": "too 𝒳\n",
        "chosen_value": 0.75,
        "rejected_value": 0.25,
        "chosen_n": 8,
        "rejected_n": 8,
        "probability": 0.9,
        "method": "tree()",
    }
    return StepPair(**(row | change))
