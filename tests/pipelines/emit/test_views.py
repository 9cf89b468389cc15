"""Views of the step labels: every value by hand."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from pipelines.emit.emit import Config, emit
from pipelines.emit.view_text import REASONS
from schemas.records import Message, Prompt
from tests.pipelines.emit.solutions import CONFIG, SOLUTIONS, R, W, label, rejects, rows, sibling


def whole(*numbers: int) -> list[str]:
    return [f" step {n} \n\n" for n in numbers]


def test_trl_rows_end_after_the_first_error_and_before_the_first_gap(run, make, tmp_path) -> None:
    label(run, make, *SOLUTIONS)
    counts = emit(CONFIG, run.tables(), tmp_path)
    assert rows(tmp_path, "trl") == [
        {
            "prompt": prompt,
            "completions": whole(*range(len(marks))),
            "labels": marks,
            "trajectory_id": run.trajectories[n].id,
            "prompt_id": run.prompts[n].id,
        }
        for n, prompt, marks in (
            (0, "system: Be brief.\n\nuser: What is 0? é𝒳", [True, True, False]),
            (1, "What is 1? é𝒳", [True]),
            (2, "What is 2? é𝒳", [True, True]),
            (5, "What is 5? é𝒳", [True, True]),
        )
    ]
    assert counts["views"]["trl"] == {
        "rows": 4,
        "left_out": {"unlabelled_start": 2},
        "steps": 8,
        "cut": {"after the first error": 1, "unlabelled, and after it": 3},
        "masked": {},
    }


def test_trl_int_masks_what_follows_the_first_error_and_what_is_not_labelled(
    run, make, tmp_path
) -> None:
    label(run, make, *SOLUTIONS)
    counts = emit(CONFIG, run.tables(), tmp_path)
    found = rows(tmp_path, "trl_int")
    assert [row["labels"] for row in found] == [
        [1, 1, 0, -100],
        [1, -100, 0, -100],
        [1, 1],
        [-100, 1],
        [1, 1],
    ]
    assert [row["completions"] for row in found] == [whole(*range(n)) for n in (4, 4, 2, 2, 2)]
    assert counts["views"]["trl_int"] == {
        "rows": 5,
        "left_out": {"no_label": 1},
        "steps": 14,
        "cut": {},
        "masked": {"after the first error": 2, "unlabelled": 2},
    }


def test_soft_rows_hold_values_and_soundness_null_where_not_known(run, make, tmp_path) -> None:
    label(run, make, *SOLUTIONS)
    counts = emit(CONFIG, run.tables(), tmp_path)
    found = rows(tmp_path, "soft")
    assert [row["labels"] for row in found] == [
        [0.25] * 4,
        [0.25, None, 0.25, 0.25],
        [0.25] * 2,
        [None, 0.25],
        [None, 0.5],
    ]
    assert [row["sound"] for row in found] == [[None] * n for n in (4, 4, 2, 2)] + [[0.75, 0.25]]
    assert counts["views"]["soft"] == {
        "rows": 5,
        "left_out": {"no_value": 1},
        "steps": 14,
        "cut": {},
        "masked": {"no value": 3, "no sound": 12},
    }


def test_processbench_rows_are_those_whose_first_error_is_settled(run, make, tmp_path) -> None:
    made = label(run, make, *SOLUTIONS, {"labels": (R, W)}, {"labels": (W,), "final_right": True})
    counts = emit(CONFIG, run.tables(), tmp_path)
    found = rows(tmp_path, "processbench")
    assert list(found[0]) == [
        *("id", "generator", "problem", "steps", "final_answer_correct", "label"),
        "prompt_id",
    ]
    assert found[0] == {
        "id": run.trajectories[0].id,
        "generator": "model-0",
        "problem": "system: Be brief.\n\nuser: What is 0? é𝒳",
        "steps": ["step 0", "step 1", "step 2", "step 3"],
        "final_answer_correct": False,
        "label": 2,
        "prompt_id": run.prompts[0].id,
    }
    assert [(r["id"], r["label"], r["final_answer_correct"]) for r in found[1:]] == [
        (run.trajectories[2].id, -1, True),
        (run.trajectories[7].id, 0, True),
    ]
    reasons = {
        1: "unlabelled_before_error",
        3: "unlabelled_before_error",
        4: "unresolved",
        5: "error_not_found",
        6: "no_final_answer",
    }
    assert {r for r in rejects(tmp_path) if r[2].startswith("processbench_")} == {
        (made[n].id, "emit", f"processbench_{code}", REASONS[code]) for n, code in reasons.items()
    }
    assert counts["views"]["processbench"]["left_out"] == Counter(reasons.values())


def test_chat_turns_are_answered_by_plus_and_end_with_the_first_minus(run, make, tmp_path) -> None:
    def said(role: str, content: str) -> Message:
        return Message(role=role, content=content)  # type: ignore[arg-type]

    shapes = (
        (said("system", "S"), said("user", "A"), said("assistant", "B"), said("user", "C")),
        (said("user", "A"), said("assistant", "B")),
        (),
    )
    run.prompts[:3] = [Prompt(messages=shape, source="s") for shape in shapes]
    label(
        run,
        make,
        {"labels": (R, R, W, R), "final_right": False},
        {"labels": (R, None)},
        {"labels": (W,)},
        {"labels": (None,), "value": (0.5,)},
    )
    counts = emit(CONFIG, run.tables(), tmp_path)
    assert [
        [(m["role"], m["content"]) for m in row["messages"]] for row in rows(tmp_path, "chat")
    ] == [
        [
            ("system", "S"),
            ("user", "A"),
            ("assistant", "B"),
            ("user", "C step 0"),
            ("assistant", "+"),
            ("user", "step 1"),
            ("assistant", "+"),
            ("user", "step 2"),
            ("assistant", "-"),
        ],
        [("user", "A"), ("assistant", "B"), ("user", "step 0"), ("assistant", "+")],
        [("user", "step 0"), ("assistant", "-")],
    ]
    assert counts["views"]["chat"] == {
        "rows": 3,
        "left_out": {"unlabelled_start": 1},
        "steps": 5,
        "cut": {"after the first error": 1, "unlabelled, and after it": 1},
        "masked": {},
    }


def test_siblings_are_preferences_after_a_common_prefix(run, make, tmp_path) -> None:
    label(run, make, *SOLUTIONS)
    known, weak = sibling(run.prompts[0].id), sibling(run.prompts[1].id, "", probability=0.6)
    lost = sibling("0" * 32)
    run.step_pairs += [weak, known, lost]
    config = Config(name="n", step_views=("siblings",), min_probability=0.7)
    counts = emit(config, run.tables(), tmp_path)
    assert rows(tmp_path, "siblings") == [
        {
            "prompt": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is 0? é𝒳"},
            ],
            "chosen": [{"role": "assistant", "content": "one\ntwo\n"}],
            "rejected": [{"role": "assistant", "content": "one\ntoo 𝒳\n"}],
            "prefix": "one\n",
            "probability": 0.9,
            "margin": 0.5,
            "step_pair_id": known.id,
            "prompt_id": run.prompts[0].id,
        }
    ]
    assert counts["step_pairs"] == {"emitted": 1, "low_probability": 1, "missing_prompt": 1}
    assert set(rejects(tmp_path)) == {
        (weak.id, "emit", "low_probability", "probability 0.6 is below 0.7"),
        (lost.id, "emit", "missing_prompt", "its prompt is not in the run"),
    }


def test_views_that_are_not_asked_for_leave_no_trace(run, make, tmp_path) -> None:
    label(run, make, *SOLUTIONS)
    run.step_pairs.append(sibling("0" * 32))
    counts = emit(Config(name="n"), run.tables(), tmp_path)
    assert counts["views"] == counts["step_pairs"] == {}
    assert [f.name for f in tmp_path.iterdir() if f.is_dir()] == ["steps"]
    assert rejects(tmp_path) == []
    assert "Views of the step labels" not in (tmp_path / "README.md").read_text()


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(ValidationError, match="step_views"):
        Config.model_validate({"name": "n", "step_views": ["trl_float"]})
    assert Config.model_validate({"name": "n", "step_views": ["soft"]}).step_views == ("soft",)
