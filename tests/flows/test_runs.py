"""Runs: which is meant, how they stop and go on, two at once, and stores that are none."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from flows import runs
from pipelines.store import Store
from schemas.errors import StoreError
from tests.flows.plans import (
    STAGES,
    asked,
    call,
    command,
    merged,
    prefinery,
    prompt,
    run,
    scripted,
    surroundings,
    write_plan,
)

STOPPED = "prefinery: stopped; what is finished is kept: the same command goes on from there\n"
SLOW = scripted(engines={"policy": {"ask_log": "asked.txt", "delay_ms": 100.0, "concurrency": 1}})
QUICK = merged(SLOW, {"engines": {"policy": {"delay_ms": 0.0, "concurrency": 64}}})


def begin(plan: Path) -> subprocess.Popen[str]:
    """Start a run and wait until its engine was asked a few times."""
    root = plan.parent / "store"
    process = subprocess.Popen(
        command("run", plan, "--root", root, "--json"),
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(asked(plan.parent / "asked.txt")) < 3:
        assert process.poll() is None and time.monotonic() < deadline, "the run did not begin"
        time.sleep(0.02)
    return process


def test_an_interrupt_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, SLOW)
    root = tmp_path / "store"
    process = begin(plan)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.endswith(STOPPED) and "Traceback" not in err, err
    [record] = call("runs", "--root", root, "--json").json
    assert record["status"] == record["attempts"][0]["status"] == "stopped"
    assert list(record["stages"]) == record["attempts"][0]["computed"] == ["ingest"]
    assert call("report", "--root", root).code == 0  # a page of what there is
    before = asked(tmp_path / "asked.txt")
    # The same plan, but for the delay, which is no part of who answers.
    write_plan(tmp_path, QUICK)
    summary = call("run", plan, "--root", root, "--json").json
    assert (summary["status"], summary["computed"]) == ("complete", STAGES[1:])
    log = asked(tmp_path / "asked.txt")
    # What was being asked when the interrupt came is asked again: one request at most.
    assert len(log) - len(set(log)) <= 1
    assert summary["asked"] == len(log) - len(before)
    undisturbed = run(write_plan(tmp_path / "other", QUICK), tmp_path / "other" / "store")
    assert undisturbed.rows == summary["rows"]


def test_the_same_command_after_an_interrupt(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, merged(SLOW, {"process": None}), 4)
    process = begin(plan)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    done = prefinery("run", plan, "--root", tmp_path / "store", "--json")
    assert done.json["status"] == "complete"
    [record] = call("runs", "--root", tmp_path / "store", "--json").json
    assert [attempt["status"] for attempt in record["attempts"]] == ["stopped", "complete"]
    assert record["id"] == done.json["run"]


def test_a_second_run_of_a_plan_says_who_is_at_work(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, merged(SLOW, {"process": None}), 3)
    root = tmp_path / "store"
    first = begin(plan)
    first.send_signal(signal.SIGSTOP)  # so that it cannot end first
    try:
        second = prefinery("run", plan, "--root", root)
    finally:
        first.send_signal(signal.SIGCONT)
    [record] = call("runs", "--root", root, "--json").json
    assert second.refused() == (
        f"run-{record['id']}: process {first.pid} is at work on it; wait for it to end, or stop "
        "it, then run again"
    )
    assert record["status"] == "started" and len(record["attempts"]) == 1
    assert record["attempts"][0]["pid"] == first.pid
    out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert json.loads(out)["status"] == "complete"
    log = asked(tmp_path / "asked.txt")
    assert len(log) == len(set(log)) == 12


def test_a_run_that_waits_for_another_says_so_and_can_be_interrupted(tmp_path: Path) -> None:
    root = tmp_path / "store"
    short = merged(SLOW, {"process": None})
    first = begin(write_plan(tmp_path, short, 2))
    first.send_signal(signal.SIGSTOP)
    other = write_plan(tmp_path / "other", merged(short, {"emit": {"test": 0.2}}), 2)
    second = subprocess.Popen(
        command("run", other, "--root", root), env=surroundings(), stderr=subprocess.PIPE, text=True
    )
    assert second.stderr is not None
    assert re.fullmatch(
        rf"prefinery: generate-[0-9a-f]{{32}}: process {first.pid} is at work on it; waiting for "
        r"it to end\n",
        second.stderr.readline(),
    )
    second.send_signal(signal.SIGINT)
    assert second.communicate(timeout=30)[1] == STOPPED
    assert second.returncode == 130
    first.send_signal(signal.SIGCONT)
    assert json.loads(first.communicate(timeout=60)[0])["status"] == "complete"
    again = call("run", other, "--root", root, "--json").json
    assert (again["computed"], again["asked"]) == (["emit"], 0)


def test_two_plans_of_one_store_share_what_they_have_in_common(tmp_path: Path) -> None:
    root = tmp_path / "store"
    first = run(write_plan(tmp_path / "a", QUICK), root)
    second = run(write_plan(tmp_path / "b", merged(QUICK, {"emit": {"test": 0.2}})), root)
    assert (first.computed, second.computed, second.asked) == (STAGES, ["emit"], 0)
    assert first.run != second.run


# --- which run is meant -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store of three runs, and their ids, first to last."""
    folder = tmp_path_factory.mktemp("three")
    names = []
    for name in ("alpha", "alpine", "beta"):
        plan = scripted(name=name, process=None, generate={"samples": 2})
        names.append(run(write_plan(folder / name, plan, 2), folder / "store").run)
        record = runs.load(Store.open(folder / "store"), names[-1])
        record.attempts[-1]["started"] = f"2026-01-0{len(names)}T00:00:00Z"
        runs.save(Store.open(folder / "store"), record)
    return folder / "store", names


def test_runs_are_listed_last_tried_first(three: tuple[Path, list[str]]) -> None:
    root, names = three
    listed = call("runs", "--root", root, "--json").json
    assert [record["id"] for record in listed] == names[::-1]
    assert {record["status"] for record in listed} == {"complete"}
    assert all(re.fullmatch(r"[a-z]+-[0-9a-f]{10}", name) for name in names)
    shown = call("runs", "--root", root).out.splitlines()
    assert shown[0].split() == ["run", "status", "last", "tried", "tries", "stages"]
    assert shown[1].split() == [names[2], "complete", "2026-01-03T00:00:00Z", "1", "7"]


def test_a_run_is_named_by_its_beginning(three: tuple[Path, list[str]]) -> None:
    root, names = three

    def shown(name: str) -> str:
        return str(call("show", name, "--root", root, "--json").json["id"])

    assert [shown(name) for name in ("alpha", "alpi", "b", names[0], "latest")] == [
        *names,
        names[0],
        names[2],
    ]


@pytest.mark.parametrize("verb", ["show", "report", "query"])
def test_a_run_that_is_not_clear(verb: str, three: tuple[Path, list[str]]) -> None:
    def say(name: str) -> str:
        args = ("query", "select 1", "--run", name) if verb == "query" else (verb, name)
        return call(*args, "--root", three[0]).refused()

    assert say("alp") == "alp: 2 runs begin so; `prefinery runs` lists them"
    assert say("") == ": 3 runs begin so; `prefinery runs` lists them"
    assert say("gamma") == "gamma: no run begins so; `prefinery runs` lists them"
    assert say("../../etc") == "../../etc: no run begins so; `prefinery runs` lists them"


def test_show_and_report_in_a_process_of_their_own(three: tuple[Path, list[str]]) -> None:
    root, names = three
    shown = prefinery("show", "--root", root)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"{names[2]}  complete\nstage ")
    assert shown.out.endswith(f"files: {root / 'runs' / names[2]}\n")
    page = root / "runs" / names[0] / "report.html"
    page.unlink()
    done = prefinery("report", "alpha", "--root", root)
    assert (done.code, done.out, done.err) == (0, f"{page}\n", "")
    assert names[0] in page.read_text()


def test_the_summary_says_what_was_made_and_where(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    done = prefinery("run", plan, "--root", "store", "--json", cwd=tmp_path)
    summary = done.json
    root = tmp_path / "store"
    assert list(summary) == [
        *("run", "status", "computed", "asked", "replayed", "spent", "rows", "figures", "paths"),
    ]
    assert (summary["status"], summary["computed"]) == ("complete", STAGES)
    assert (summary["replayed"], summary["spent"], summary["figures"]) == (0, 0.0, {})
    assert summary["rows"]["ingest"] == {"prompts": 5, "rejects": 0}
    assert summary["paths"] == {
        "dataset": str(root / "runs" / summary["run"] / "dataset"),
        "report": str(root / "runs" / summary["run"] / "report.html"),
        "store": str(root),
    }
    assert (Path(summary["paths"]["dataset"]) / "README.md").is_file()
    assert f"run {summary['run']}: complete\n" in done.err
    assert f"  dataset        store/runs/{summary['run']}/dataset\n" in done.err
    copied = root / "runs" / summary["run"] / "plan.toml"
    assert copied.read_bytes() == plan.read_bytes()
    assert done.err.count(" rows ") == len(STAGES)


# --- stores that are none ---------------------------------------------------------------------------


def test_stores_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    line = f"{empty}: no Prefinery store; name one with --root"
    for args in (("runs",), ("show",), ("report",), ("query", "select 1")):
        assert call(*args, "--root", empty).refused() == line
    assert list(empty.iterdir()) == []  # looking makes nothing
    assert (
        prefinery("runs", cwd=empty).refused() == "store: no Prefinery store; name one with --root"
    )
    there = prefinery("show", PREFINERY_ROOT=str(empty))
    assert there.refused() == line


def test_roots_that_can_be_no_store(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)

    def say(root: Path) -> str:
        return call("run", plan, "--root", root).refused()

    assert say(plan) == f"{plan}: File exists; check the path and the disk"
    assert (
        say(plan / "deeper") == f"{plan / 'deeper'}: Not a directory; check the path and the disk"
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "store.json").write_text('{"format": 9}')
    assert say(tmp_path / "other") == (
        f"{tmp_path / 'other'}: a store of another format; read it with its Prefinery"
    )
    (tmp_path / "other" / "store.json").write_text("not JSON")
    assert "another format" in say(tmp_path / "other")


def test_a_store_without_runs(tmp_path: Path) -> None:
    Store.open(tmp_path)
    assert call("runs", "--root", tmp_path, "--json").json == []
    assert call("show", "--root", tmp_path).refused() == (
        f"{tmp_path}: no runs yet; start one with: prefinery run PLAN"
    )


def test_a_run_before_anything_was_published(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, scripted(), ["{}"])
    root = tmp_path / "store"
    assert "none of 1 rows" in call("run", plan, "--root", root).refused()
    assert "ingest  " in call("show", "--root", root).out
    record = runs.load(Store.open(root), "latest")
    record.stages.clear()
    runs.save(Store.open(root), record)
    assert call("report", "--root", root).refused() == (
        f"{record.id}: nothing is published yet; go on with: prefinery run PLAN"
    )


def test_a_run_whose_outputs_are_gone(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, scripted(), [prompt(n) for n in range(3)])
    root = tmp_path / "store"
    first = run(plan, root)
    [shard] = (root / "stages" / "generate").glob("*/responses-00000.parquet")
    shard.write_bytes(b"cut off")
    assert call("report", "--root", root).refused() == (
        f"{first.run}: the output of generate is gone from the store; prefinery run PLAN makes it "
        "again"
    )
    again = run(plan, root)
    assert (again.computed, again.asked, again.rows) == (["generate"], 0, first.rows)
    assert call("report", "--root", root).code == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "x"}', '{"id": 1, "other": 2}'])
def test_a_damaged_record_is_named(content: str, tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    path = runs.folder(store, "x") / "run.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(StoreError, match=f"^{re.escape(str(path))}: damaged"):
        runs.every(store)
    assert call("runs", "--root", tmp_path).refused().endswith(f"move {path.parent} away")
