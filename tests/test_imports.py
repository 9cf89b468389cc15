"""Imports run one way, the core needs no torch, and importing does nothing."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT: dict[str, set[str]] = {
    "schemas": set(),
    "pipelines": {"schemas"},
    "annotation": {"schemas", "pipelines"},
    "flows": {"schemas", "pipelines", "annotation", "data"},
    "data": set(),
    "benchmarks": {"schemas", "pipelines", "annotation", "flows", "data", "tests"},
}
"""What each folder may import beside itself; nothing imports benchmarks, and tests only they (a real
server is started in one way)."""

HEAVY = {"torch", "transformers", "vllm", "accelerate", "peft", "safetensors", "prefect"}
"""Packages of the extras, and Prefect, which makes a folder when it is imported."""

MAY_BE_HEAVY = (
    "pipelines.engines.",
    "pipelines.training.",
    "data.train_policy",
    "flows.prefect_flows",
    "benchmarks.",
)
"""Where they may be imported: all else of the project works without."""

FOLDER_STAGES = {
    "pipelines.training.reward",
    "pipelines.training.steps",
    "pipelines.evaluation.evaluate",
}
"""Stages that flows/ names itself, since they run more than once in a run."""


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for folder in MAY_IMPORT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def imported(nodes: list[ast.stmt] | ast.AST, *, deep: bool) -> Iterator[str]:
    """Dotted names imported; `deep` also finds those inside functions and TYPE_CHECKING."""
    for node in ast.walk(nodes) if isinstance(nodes, ast.AST) and deep else _shallow(nodes):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _shallow(nodes: list[ast.stmt] | ast.AST) -> Iterator[ast.stmt]:
    """Statements that run on import."""
    for node in nodes if isinstance(nodes, list) else nodes.body:  # type: ignore[attr-defined]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _shallow(node.orelse)
            continue
        yield node
        for part in ("body", "orelse", "finalbody"):
            yield from _shallow(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from _shallow(handler.body)


def all_imports(module: str) -> set[str]:
    return set(imported(tree(module), deep=True))


def test_the_folders_are_there() -> None:
    assert {name.split(".")[0] for name in MODULES} >= {"schemas", "pipelines", "flows", "data"}
    assert "pipelines.process.label" in MODULES and "pipelines" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    own = module.split(".")[0]
    ours = {name.split(".")[0] for name in all_imports(module)} & (MAY_IMPORT.keys() | {"tests"})
    wrong = ours - {own} - MAY_IMPORT[own]
    assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


def stages() -> set[str]:
    """Modules that state a stage's NAME, and those that flows/ names."""
    named = {
        module
        for module in MODULES
        if module.startswith("pipelines.")
        and any(
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAME"
            for node in tree(module).body
        )
    }
    return named | FOLDER_STAGES


def unit(module: str) -> str:
    """A stage is a module of pipelines/, or a folder of them."""
    return ".".join(module.split(".")[:2])


def test_every_stage_has_a_version_and_a_config() -> None:
    assert stages() >= {"pipelines.generate", "pipelines.verify", "pipelines.process.label"}
    for module in stages() - FOLDER_STAGES:
        assigned = {
            ast.unparse(node.targets[0])
            for node in tree(module).body
            if isinstance(node, ast.Assign)
        }
        assert "VERSION" in assigned, module
        names = {node.name for node in tree(module).body if isinstance(node, ast.ClassDef)}
        names |= set(imported(tree(module), deep=False))  # where it is a module of its own
        own = {name for name in names if "." not in name or name.startswith(f"{unit(module)}.")}
        assert any(name.endswith("Config") for name in own), module


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("pipelines.")])
def test_stages_never_import_each_other(module: str) -> None:
    """What two stages share (answers, pool, splitting, a model's loader) is no stage."""
    others = {s for s in stages() if unit(s) != unit(module)}
    wrong = all_imports(module) & others
    assert not wrong, f"{module} imports the stage {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", MODULES)
def test_files_stay_small_and_have_nouns_for_names(module: str) -> None:
    assert module.split(".")[-1] not in {"utils", "helpers", "common", "misc"}
    lines = MODULES[module].read_text("utf-8").count("\n")
    assert lines <= 400, f"{module} has {lines} lines: split it"


def needs_heavy() -> set[str]:
    """Modules that import a heavy package when they are imported, also by way of another."""
    direct = {m: set(imported(tree(m), deep=False)) for m in MODULES}
    found = {m for m, names in direct.items() if {n.split(".")[0] for n in names} & HEAVY}
    while True:
        more = {m for m, names in direct.items() if names & found} - found
        if not more:
            return found
        found |= more


def test_heavy_packages_stay_where_they_are_needed() -> None:
    assert {m for m in needs_heavy() if not m.startswith(MAY_BE_HEAVY)} == set()


BARE = """
import importlib, json, logging, os, sys, threading

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
        return None

HEAVY, names = json.loads(sys.argv[1])
sys.meta_path.insert(0, Blocker())
acts = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        if arguments[0] != os.devnull:
            acts.append(["open", str(arguments[0])])
    elif event in ("os.mkdir", "os.rename", "os.remove", "socket.connect", "socket.bind",
                   "subprocess.Popen", "os.exec", "os.fork", "sqlite3.connect"):
        acts.append([event, str(arguments[0])])

sys.addaudithook(watch)
before = dict(os.environ)
for name in names:
    try:
        importlib.import_module(name)
    except BaseException as error:
        acts.append(["import", f"{name}: {type(error).__name__}: {error}"])
heavy = sorted({n.split(".")[0] for n in sys.modules} & set(HEAVY))
print(json.dumps({
    "acts": acts,
    "threads": [t.name for t in threading.enumerate() if t is not threading.main_thread()],
    "handlers": [str(h) for h in logging.root.handlers],
    "level": logging.root.level,
    "heavy": heavy,
    "environment": sorted(k for k in os.environ if os.environ.get(k) != before.get(k)),
    "argv": sys.argv[2:],
}))
"""


def test_the_core_needs_no_torch_and_importing_it_does_nothing(tmp_path: Path) -> None:
    """In a process where the heavy packages are not there, told a strange command line."""
    light = [m for m in MODULES if m not in needs_heavy() and not m.startswith("benchmarks")]
    configs = {"pipelines.engines.local", "pipelines.engines.vllm", "pipelines.training.config"}
    assert configs <= set(light)  # a plan that names them is validated without torch
    assert {"flows.cli", "flows.plan", "pipelines.store", "pipelines.journal"} <= set(light)
    run = subprocess.run(
        [sys.executable, "-c", BARE, json.dumps([sorted(HEAVY), light]), "--no-such-option"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    found = json.loads(run.stdout)
    found["environment"] = [k for k in found["environment"] if k != "_RJEM_MALLOC_CONF"]  # Polars
    assert found == {
        "acts": [],
        "threads": [],
        "handlers": [],
        "level": 30,
        "heavy": [],
        "environment": [],
        "argv": ["--no-such-option"],
    }
    assert list(tmp_path.iterdir()) == []
