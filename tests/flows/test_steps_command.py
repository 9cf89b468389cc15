"""`prefinery steps RUN ID`: one question's page from a run that was really made."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import runs
from pipelines.store import Store
from schemas.records import Reject, StepLabels
from tests.flows.plans import Done, call, prefinery, run, scripted, write_plan
from tests.flows.test_report import assert_safe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    run(write_plan(folder, scripted(), 3), folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def labels(root: Path) -> list[StepLabels]:
    store = Store.open(root)
    output = runs.load(store, "latest").output(store, "process")
    assert output is not None
    return list(StepLabels.from_table(output.table("step_labels")))


def steps(root: Path, unit: str, *more: object) -> Done:
    return call("steps", "latest", unit, "--root", root, *more)


def test_the_page_of_a_question(root: Path, labels: list[StepLabels], tmp_path: Path) -> None:
    row = labels[0]
    own = [labels for labels in labels if labels.prompt_id == row.prompt_id]
    assert len(own) > 1 and row.response_id is not None
    for unit in (row.prompt_id, row.response_id, row.trajectory_id, row.id, row.id[:12]):
        out = tmp_path / f"{unit}.html"
        done = steps(root, unit, "--out", out)
        assert (done.code, done.out, done.err) == (0, f"{out}\n", "")
        page = out.read_text("utf-8")
        assert_safe(page)
        assert "What is 3 and 4?" in page and f"response <code>{row.response_id}</code>" in page
        assert page.count('<section class="solution"') == len(own)
        named = '<section class="solution" id="s'
        first = page.index(f"<code>{row.trajectory_id}</code>")
        # A solution that is asked for by its own id stands first.
        assert unit == row.prompt_id or page.count(named, 0, first) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".html"] * 5


def test_the_page_lies_here_where_no_place_is_named(
    root: Path, labels: list[StepLabels], tmp_path: Path
) -> None:
    done = prefinery("steps", "latest", labels[0].id, "--root", root, cwd=tmp_path)
    assert (done.code, done.out, done.err) == (0, "steps.html\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["steps.html"]


def test_ids_that_name_no_question(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "steps.html"

    def say(unit: str) -> str:
        return steps(root, unit, "--out", out).refused()

    nothing = "no prompt, response, trajectory or step labels of this run begin so"
    assert say("0" * 32) == f"{'0' * 32}: {nothing}"
    no_id = "no id; give at least 4 hex digits of a row's id"
    for unit in ("abc", "../../etc/passwd", "x' or 1=1", "ABCDEF12", "0" * 33):
        assert say(unit) == f"{unit!r}: {no_id}"
    store = Store.open(root)
    output = runs.load(store, "latest").output(store, "process")
    assert output is not None
    left_out = next(iter(Reject.from_table(output.table("rejects"))))
    assert say(left_out.unit) == (
        f"{left_out.unit}: it was left out: same_text, another sample of this prompt says the same"
    )
    assert call("steps", "nosuchrun", "0" * 8, "--root", root).refused() == (
        "nosuchrun: no run begins so; `prefinery runs` lists them"
    )
    assert not out.exists()


def test_a_run_without_step_labels(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, scripted(process=None), 2)
    run(plan, tmp_path / "store")
    assert steps(tmp_path / "store", "0" * 8).refused() == (
        "this run has no step labels; add a process stage to the plan"
    )
    assert steps(tmp_path / "none", "0" * 8).refused().startswith(f"{tmp_path / 'none'}: ")


def test_a_place_that_cannot_be_written(
    root: Path, labels: list[StepLabels], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for out, why in (
        (tmp_path, f"{tmp_path}: a folder; name a file with --out"),
        (
            tmp_path / "file" / "steps.html",
            f"{tmp_path / 'file'}: File exists; check the path and the disk",
        ),
    ):
        assert steps(root, labels[0].id, "--out", out).refused() == why
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
