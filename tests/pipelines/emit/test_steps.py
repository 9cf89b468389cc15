"""Emitted step labels: whole solutions, paths that a search grew, and why some are left out."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.emit.emit import Config, emit
from schemas.records import StepExample
from schemas.table import validate
from tests.pipelines.emit.solutions import rejects

CONFIG = Config(name="n")


def rows(folder: Path) -> list[dict]:
    files = sorted((folder / "steps").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_completions_joined_are_the_response(run, make, tmp_path: Path) -> None:
    prompt = run.prompts[0]
    led = make["response"](prompt, 7, "\n\n  one\ntwo 𝒳\n\nthree  \n\n")
    trajectory, labels = make["steps"](run.responses[0], ("right", None, "wrong"))
    # a split that leaves out what stands before the first step and after the last
    ends = (8, 15, 20)
    trajectory = trajectory.model_copy(
        update={"response_id": led.id, "starts": (4, 8, 15), "ends": ends}
    )
    labels = labels.model_copy(update={"response_id": led.id, "trajectory_id": trajectory.id})
    for record in (trajectory, labels):
        record.__dict__.pop("id", None)
    labels = labels.model_copy(update={"trajectory_id": trajectory.id})
    run.responses.append(led)
    run.trajectories.append(trajectory)
    run.step_labels.append(labels)
    emit(CONFIG, run.tables(), tmp_path)
    examples = {row["response_id"]: row for row in rows(tmp_path)}
    texts = {response.id: response.text for response in run.responses}
    assert len(examples) == 11
    for response_id, row in examples.items():
        assert "".join(row["completions"]) == texts[response_id]
        assert row["labels"] == [1, -100, 0]
        assert row["values"] == [0.25, None, 0.25]
        assert row["n"] == [8, 0, 8]
        assert row["first_error"] == 2
    assert examples[run.responses[0].id]["completions"] == ["a says 0\n\n", "é𝒳 then\n", "end"]
    assert examples[led.id]["completions"] == ["\n\n  one\n", "two 𝒳\n\n", "three  \n\n"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ends": (10, 5, 22)}, "bad_split"),
        ({"ends": (10, 18, 99)}, "bad_split"),
        ({"ends": (10, 22)}, "bad_split"),
        ({"response_id": "0" * 32}, "bad_split"),
    ],
)
def test_steps_that_do_not_make_up_the_response_are_rejected(
    run, tmp_path: Path, change: dict, code: str
) -> None:
    broken = run.trajectories[0].model_copy(update=change)
    broken.__dict__.pop("id", None)
    labels = run.step_labels[0].model_copy(update={"trajectory_id": broken.id})
    labels.__dict__.pop("id", None)
    run.trajectories[0] = broken
    run.step_labels[0] = labels
    counts = emit(CONFIG, run.tables(), tmp_path)
    assert counts["step_labels"] == {code: 1, "emitted": 9}
    found = (labels.id, "emit", code, "its steps do not make up the solution")
    assert found in rejects(tmp_path)


def test_steps_without_any_label_are_rejected(run, make, tmp_path: Path) -> None:
    run.step_labels[0] = make["steps"](run.responses[0], (None, None, None))[1]
    counts = emit(CONFIG, run.tables(), tmp_path)
    assert counts["step_labels"] == {"emitted": 9, "unlabelled": 1}
    assert (
        run.step_labels[0].id,
        "emit",
        "unlabelled",
        "no step has a label or a value",
    ) in rejects(tmp_path)


def test_what_the_method_could_not_resolve_is_rejected_unless_it_says_something(
    run, make, tmp_path: Path
) -> None:
    nothing, some = (
        make["steps"](run.responses[i], (None, None, None), resolved=False, **change)[1]
        for i, change in ((0, {}), (2, {"sound": (0.9, None, 0.4), "no_error": 0.3}))
    )
    run.step_labels[:2] = [nothing, some]
    counts = emit(CONFIG, run.tables(), tmp_path)
    assert counts["step_labels"] == {"emitted": 9, "unresolved": 1}
    detail = "the labelling method found no label and no value for any step"
    assert (nothing.id, "emit", "unresolved", detail) in rejects(tmp_path)
    (row,) = (r for r in rows(tmp_path) if r["response_id"] == run.responses[2].id)
    assert row["labels"] == [-100, -100, -100] and row["values"] == [None, None, None]
    assert row["sound"] == [0.9, None, 0.4] and row["no_error"] == 0.3
    assert row["resolved"] is False and row["final_right"] is None


def test_a_grown_path_is_emitted_with_its_own_text_and_its_prompts_first_model(
    run, make, tmp_path: Path
) -> None:
    asked = run.responses[0]
    early = make["response"](run.prompts[0], 0, "zz", "early")
    run.responses[0:2] = [run.responses[1], early]  # by sample, not by row
    text = "  grown 𝒳\n\nand so on\n"
    path, labels = make["steps"](
        asked, ("right", "wrong"), text, advantage=(0.25, None), final_right=False
    )
    lost = make["steps"](asked, ("right",), "another prompt", prompt_id="0" * 32)
    blank = make["steps"](asked, ("right",), "its text is gone")
    gone = blank[0].model_copy(update={"text": None})
    gone.__dict__.pop("id", None)
    blank = gone, blank[1].model_copy(update={"trajectory_id": gone.id})
    blank[1].__dict__.pop("id", None)
    bare = make["prompt"](60)
    run.prompts.append(bare)
    alone = make["steps"](make["response"](bare, 0, ""), ("right",), "nobody answered this")
    run.trajectories[:1] = [path, lost[0], gone, alone[0]]
    run.step_labels[:1] = [labels, lost[1], blank[1], alone[1]]
    counts = emit(CONFIG, run.tables(), tmp_path)
    (row,) = (r for r in rows(tmp_path) if r["response_id"] is None)
    assert row["completions"] == ["  grown 𝒳\n\n", "and so on\n"]
    assert "".join(row["completions"]) == text
    assert row["model"] == min((early, run.responses[0]), key=lambda r: r.sample_index).model
    assert row["model"] == "early" and row["source"] == "words.jsonl"
    assert (row["labels"], row["first_error"]) == ([1, 0], 1)
    assert (row["advantages"], row["final_right"]) == ([0.25, None], False)
    assert (row["trajectory_id"], row["prompt_id"]) == (path.id, run.prompts[0].id)
    assert counts["step_labels"] == {
        "bad_split": 1,
        "emitted": 10,
        "missing_prompt": 1,
        "missing_response": 1,
    }
    found = {(unit, code) for unit, _, code, _ in rejects(tmp_path)}
    assert {
        (lost[1].id, "missing_prompt"),
        (blank[1].id, "bad_split"),
        (alone[1].id, "missing_response"),
    } <= found
    validate(StepExample, pq.read_table(tmp_path / "steps" / "train.parquet"))
