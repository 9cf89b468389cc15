"""The command itself: quick to start, clean streams, a mistake in the arguments is exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.plans import (
    ROOT,
    call,
    command,
    prefinery,
    run,
    scripted,
    surroundings,
    write_plan,
)

COMMANDS = (
    *("run", "curate", "train", "evaluate", "plan", "runs", "show", "query", "report", "doctor"),
    *("steps", "deploy", "push"),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    run(write_plan(folder, scripted(process=None), 40), folder / "store")
    return folder / "store"


def test_help_takes_less_than_half_a_second() -> None:
    done = min((prefinery("--help") for _ in range(2)), key=lambda done: done.cpu)
    assert (done.code, done.err) == (0, "")
    assert all(f"  {name} " in done.out for name in COMMANDS)
    assert done.cpu < 0.5, f"{done.cpu:.2f} s of user and system time"


def test_importing_the_command_imports_nothing_heavy() -> None:
    code = "import sys, flows.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=surroundings(), capture_output=True, text=True, check=True
    )
    heavy = {"pydantic", "pyarrow", "polars", "duckdb", "prefect", "torch", "aiohttp", "datasets"}
    assert heavy & set(done.stdout.split()) == set()


def test_a_run_without_models_imports_no_torch_and_no_prefect(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, scripted(), 2)
    code = (
        "import sys; from flows import cli; sys.argv = ['prefinery', 'run', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, plan, "--root", tmp_path / "store"],
        env=surroundings(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"torch", "transformers", "prefect", "vllm"} & set(done.stdout.split()) == set()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run",), "Missing argument 'PLAN'"),
        (("runn", "x"), "No such command 'runn'"),
        (("run", "plan.toml", "--jsn"), "No such option: --jsn"),
        (("train", "plan.toml", "--kind", "best"), "'best' is not one of 'reward', 'steps'"),
        (("train", "plan.toml", "--seed", "-1"), "Invalid value for '--seed'"),
        (("push", "folder"), "Missing option '--repo'"),
    ],
)
def test_wrong_arguments(args: tuple[str, ...], words: str) -> None:
    done = call(*args)
    assert (done.code, done.out) == (2, "")
    assert words in done.err and "Traceback" not in done.err, done.err


def test_a_command_alone_is_help() -> None:
    for args in ((), ("plan",)):
        done = call(*args)
        assert "Usage: " in done.out + done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("run", "gone.toml"), "gone.toml: no such plan; the bundled one is data/plans/demo.toml"),
        (("plan", "check", "gone.toml"), "gone.toml: no such plan; the bundled one is"),
        (("train", "{folder}"), "train DATASET needs --base MODEL and --out DIR"),
        (("evaluate", "{folder}"), "evaluate DATASET needs --reward MODEL_FOLDER"),
        (
            ("train", "{folder}", "--base", "{folder}", "--out", "{folder}/new"),
            "{folder}: not an emitted dataset (no README.md); name its folder",
        ),
        (
            ("train", "{folder}", "--base", "{folder}", "--out", "{folder}"),
            "{folder}: not empty; name a new folder for the model",
        ),
        (
            ("evaluate", "{folder}", "--reward", "{folder}"),
            "{folder}: not an emitted dataset (no README.md); name its folder",
        ),
        (("deploy", "{folder}", "--cron", "x"), "deploy needs a Prefect server: start one with"),
    ],
)
def test_a_users_mistake_is_one_line(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    given = [arg.format(folder=tmp_path) for arg in args]
    assert call(*given).refused().startswith(said.format(folder=tmp_path))


def test_a_users_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = prefinery("run", tmp_path / "gone.toml", "--root", tmp_path / "store", "--json")
    assert done.refused().startswith(f"{tmp_path / 'gone.toml'}: no such plan; ")
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_json_stands_alone_on_stdout(store: Path) -> None:
    plan = store.parent / "plan.toml"
    for args in (("run", plan), ("runs",), ("show",), ("doctor", plan)):
        done = call(*args, "--root", store, "--json")
        assert json.loads(done.out), args
        assert done.out.startswith(("{\n", "[\n"))
    rows = call("query", "select * from votes", "--root", store, "--json").out.splitlines()
    assert len(rows) > 300 and all(json.loads(row)["id"] for row in rows)


def test_a_reader_that_leaves_is_no_trouble(store: Path) -> None:
    """`prefinery query ... --json | head -1`"""
    process = subprocess.Popen(
        command("query", "select * from votes, range(500)", "--root", store, "--json"),
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    assert json.loads(process.stdout.readline())["judge"]
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    assert process.wait(60) in (1, 141)
    process.stderr.close()


def test_the_command_is_installed_under_its_name() -> None:
    installed = Path(sys.executable).with_name("prefinery")
    if not installed.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run(
        [installed, "plan", "check", ROOT / "data" / "plans" / "demo.toml"],
        env=surroundings(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("demo.toml: fine (word-problems: engines policy)\n")
