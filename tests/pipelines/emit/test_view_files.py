"""Views of the step labels as files: split, described, read back, and nothing is lost on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.emit.emit import Config, emit
from pipelines.emit.split import split_of
from pipelines.emit.view_text import VIEWS
from tests.pipelines.emit.solutions import CONFIG, SOLUTIONS, R, W, label, rejects, rows, sibling

OF_STEPS = tuple(view for view in VIEWS if view != "siblings")


def test_rows_are_split_by_prompt_and_stand_in_prompt_order(run, make, tmp_path) -> None:
    label(run, make, *[{"labels": (R, W), "final_right": False}] * 10)
    run.step_pairs += [sibling(prompt.id) for prompt in run.prompts]
    config = Config(name="n", step_views=VIEWS, validation=0.2, test=0.5)
    counts = emit(config, run.tables(), tmp_path)
    order = [prompt.id for prompt in run.prompts]
    for view in VIEWS:
        seen = {}
        for file in (tmp_path / f"steps_{view}").glob("*.parquet"):
            prompts = pq.read_table(file)["prompt_id"].to_pylist()
            assert {split_of(p, 0.2, 0.5) for p in prompts} == {file.stem}
            assert prompts == sorted(prompts, key=order.index)
            seen[file.stem] = len(prompts)
        assert counts["rows"][f"steps_{view}"] == seen
        assert sum(seen.values()) == 10 and len(seen) == 3


def test_views_depend_on_content_alone_and_not_on_row_groups(
    run, make, tmp_path, monkeypatch
) -> None:
    label(run, make, *SOLUTIONS)
    run.step_pairs += [sibling(prompt.id) for prompt in run.prompts]
    emit(CONFIG, run.tables(), tmp_path / "one")
    for part in (run.responses, run.trajectories, run.step_labels, run.step_pairs):
        part.reverse()
    monkeypatch.setattr("pipelines.emit.emit.ROW_GROUP", 2)
    emit(CONFIG, run.tables(), tmp_path / "two")
    for view in VIEWS:
        assert rows(tmp_path / "one", view) == rows(tmp_path / "two", view)
        meta = pq.ParquetFile(tmp_path / "two" / f"steps_{view}" / "train.parquet").metadata
        assert meta.num_row_groups == -(-meta.num_rows // 2)


def test_the_card_says_what_each_view_holds_and_leaves_out(run, make, tmp_path) -> None:
    label(run, make, *SOLUTIONS)
    run.step_pairs.append(sibling(run.prompts[0].id))
    emit(CONFIG, run.tables(), tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (
        "| `steps_trl` | 4 | 2: its first step is not labelled | 8 "
        "| 1 cut, after the first error; 3 cut, unlabelled, and after it |"
    ) in text
    assert "| `steps_soft` | 5 | 1: no step has a value or a P(sound) | 14 |" in text
    assert "| emit | trl\\_unlabelled\\_start | 2 |" in text
    for view in VIEWS:
        assert f'load_dataset("PATH", "steps_{view}", split="train")' in text
        assert f"- config_name: steps_{view}\n" in text
        assert f"`steps_{view}`: " in text


def test_a_view_without_rows_says_so_and_has_no_file(run, make, tmp_path) -> None:
    label(run, make, {"labels": (None, R), "final_right": True})
    counts = emit(Config(name="n", step_views=("trl", "siblings")), run.tables(), tmp_path)
    assert counts["rows"] == {
        **{name: {} for name in ("preference", "preference_standard")},
        "steps": {"train": 1},
        "steps_trl": {},
        "steps_siblings": {},
    }
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| `steps_trl` | 0 | 1: its first step is not labelled | 0 |" in text
    assert text.count("It has no rows here.") == 2
    assert "config_name: steps_trl" not in text and not (tmp_path / "steps_trl").exists()


def test_loading_examples_of_the_card_are_python(run, make, tmp_path) -> None:
    label(run, make, *SOLUTIONS)
    run.step_pairs.append(sibling(run.prompts[0].id))
    emit(CONFIG, run.tables(), tmp_path)
    blocks = (tmp_path / "README.md").read_text(encoding="utf-8").split("```python\n")[1:]
    assert len(blocks) == 1 + len(VIEWS)
    for block in blocks:
        compile(block.split("```")[0], "card", "exec")


marks = st.lists(st.sampled_from([R, W, None]), min_size=1, max_size=4).map(tuple)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            marks,
            st.booleans(),
            st.sampled_from([True, False, None]),
            st.lists(st.sampled_from(["𝒳", "a b", " c\t"]), min_size=4, max_size=4),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_every_solution_is_whole_and_in_a_view_or_counted(make, tmp_path_factory, drawn) -> None:
    out = tmp_path_factory.mktemp("views")
    run = make["run"]()
    label(run, make)
    texts: dict[str, str] = {}
    for number, (labels, resolved, right, words, grown) in enumerate(drawn):
        text = "\n" * (number % 2) + "".join(f"{word}\n\n" for word in words[: len(labels)])
        response = make["response"](run.prompts[number], 0, "own" if grown else text)
        trajectory, made = (
            make["steps"](
                response, labels, text if grown else None, resolved=resolved, final_right=right
            )
            if not text.startswith("\n")
            else _led(make, response, labels, text, resolved, right)
        )
        run.responses.append(response)
        run.trajectories.append(trajectory)
        run.step_labels.append(made)
        texts[trajectory.id] = text if trajectory.text is not None else response.text
    counts = emit(CONFIG, run.tables(), out)
    emitted = counts["step_labels"].get("emitted", 0)
    codes = Counter(code for _, _, code, _ in rejects(out))
    lengths = {t.id: len(t.steps) for t in run.trajectories}
    for view in OF_STEPS:
        of, held = counts["views"][view], rows(out, view)
        assert of["rows"] == len(held) == sum(counts["rows"][f"steps_{view}"].values())
        assert of["rows"] + sum(of["left_out"].values()) == emitted
        assert all(codes[f"{view}_{why}"] == n for why, n in of["left_out"].items())
        ids = [row.get("trajectory_id") or row["id"] for row in held]
        assert of["steps"] + sum(of["cut"].values()) == sum(lengths[i] for i in ids)
        for row in held:
            if "completions" in row:
                joined, text = "".join(row["completions"]), texts[row["trajectory_id"]]
                assert text.startswith(joined) if view == "trl" else text == joined
                assert len(row["labels"]) == len(row["completions"])
        if view == "trl_int":
            masked = sum(row["labels"].count(-100) for row in held)
            assert masked == sum(of["masked"].values())
    assert sum(counts["step_labels"].values()) == len(drawn)


def _led(make, response, labels, text, resolved, right):  # type: ignore[no-untyped-def]
    """A grown path whose first step has blank lines before it."""
    trajectory, made = make["steps"](response, labels, text.lstrip("\n"))
    trajectory = trajectory.model_copy(
        update={"text": text, "ends": tuple(end + 1 for end in trajectory.ends)}
    )
    trajectory.__dict__.pop("id", None)
    made = made.model_copy(
        update={"trajectory_id": trajectory.id, "resolved": resolved, "final_right": right}
    )
    made.__dict__.pop("id", None)
    return trajectory, made


def test_datasets_reads_every_view_offline(run, make, tmp_path: Path) -> None:
    label(run, make, *SOLUTIONS)
    run.step_pairs.append(sibling(run.prompts[0].id))
    emit(CONFIG, run.tables(), tmp_path / "out")
    script = """
import sys
from datasets import load_dataset
from datasets.utils.logging import disable_progress_bar
disable_progress_bar()
for view in sys.argv[2:]:
    found = load_dataset(sys.argv[1], f"steps_{view}")
    print(view, sum(split.num_rows for split in found.values()), *found["train"].column_names[:3])
trl = load_dataset(sys.argv[1], "steps_trl", split="train")
assert {type(x) for row in trl["labels"] for x in row} == {bool}, trl["labels"]
assert type(trl[0]["prompt"]) is str
soft = load_dataset(sys.argv[1], "steps_soft", split="train")
assert {type(x) for row in soft["labels"] for x in row} == {float, type(None)}
"""
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out"), *VIEWS],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "trl 4 prompt completions labels",
        "trl_int 5 prompt completions labels",
        "soft 5 prompt completions labels",
        "processbench 2 id generator problem",
        "chat 4 messages trajectory_id prompt_id",
        "siblings 1 prompt chosen rejected",
    ]
