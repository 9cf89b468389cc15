"""Small scripted plans, and the command run on them: in this process or as one of its own."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flows import cli, session

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "data" / "policy"
STAGES = ["ingest", "generate", "verify", "process", "pairs", "judge", "decide", "emit"]
"""Stages of `scripted()`, in the order in which they are made."""
REPLIES = ["3+4=7\n#7", "3+5=8\n#8", "2+5=7\n7+0=7\n#7", "3+4=6\n6+3=9\n#9", "no idea"]


def prompt(number: int, **changes: Any) -> dict[str, Any]:
    """A prompt's row; 7 is right."""
    row = {"id": f"p{number}", "prompt": f"What is 3 and 4? ({number})", "reference": "7"}
    return {**row, "verifier": "numeric", "source": "tests", **changes}


def scripted(**changes: Any) -> dict[str, Any]:
    """A plan that a scripted engine answers; `changes` are merged into it, None takes a key out."""
    plan: dict[str, Any] = {
        "name": "scripted",
        "seed": 3,
        "shard_rows": 2,
        "prompts": {"paths": ["prompts.jsonl"]},
        "engines": {"policy": {"kind": "scripted", "replies": REPLIES}},
        "generate": {"engine": "policy", "samples": 4},
        "process": {"engine": "policy", "k": 2},
        "emit": {"name": "scripted"},
    }
    return merged(plan, changes)


def merged(plan: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A plan with changes merged in, tables by key; None takes a key out."""
    made = copy.deepcopy(dict(plan))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(made.get(key), dict):
            made[key] = merged(made[key], value)
        elif value is None:
            made.pop(key, None)
        else:
            made[key] = copy.deepcopy(value)
    return made


def write_plan(
    folder: Path, plan: Mapping[str, Any] | None = None, rows: Iterable[Any] | int = 5
) -> Path:
    """Write plan.toml and prompts.jsonl; rows are a count, or rows (text and bytes as they are)."""
    folder.mkdir(parents=True, exist_ok=True)
    given = [prompt(n) for n in range(rows)] if isinstance(rows, int) else rows
    (folder / "prompts.jsonl").write_bytes(b"".join(_line(row) + b"\n" for row in given))
    path = folder / "plan.toml"
    path.write_text(toml(scripted() if plan is None else plan), "utf-8")
    return path


def _line(row: Any) -> bytes:
    if isinstance(row, bytes):
        return row
    return (row if isinstance(row, str) else json.dumps(row)).encode()


def toml(table: Mapping[str, Any]) -> str:
    """A table as TOML, its inner ones inline."""
    return "".join(f"{json.dumps(key)} = {_inline(value)}\n" for key, value in table.items())


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str
    cpu: float = 0.0
    """Seconds of user and system time, of a process of its own."""

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    def refused(self) -> str:
        """The one line of a user's mistake, without its `prefinery: `."""
        assert self.code == 2, (self.code, self.err)
        assert self.out == ""
        assert "Traceback" not in self.err
        said = [line for line in self.err.splitlines() if line.startswith("prefinery: ")]
        assert len(said) == 1 and self.err.endswith(said[0] + "\n"), self.err
        return said[0].removeprefix("prefinery: ")


def command(*args: object) -> list[str]:
    """The command line of `prefinery` in a process of its own."""
    return [sys.executable, "-m", "flows.cli", *map(str, args)]


def surroundings(**more: str) -> dict[str, str]:
    """The environment of a process of its own: no Prefect server, the repository importable."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "PYTHONPATH")}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


def prefinery(*args: object, cwd: Path | None = None, **environment: str) -> Done:
    """Run the command in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command(*args),
        cwd=cwd,
        env=surroundings(**environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Done(done.returncode, done.stdout, done.stderr, cpu)


def call(*args: object) -> Done:
    """Run the command in this process, which saves the imports, without waiting for the disk."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        patch.object(sys, "argv", ["prefinery", *map(str, args)]),
        patch.dict(os.environ),
        patch.object(os, "fsync"),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        os.environ.pop("PREFECT_API_URL", None)
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
    return Done(code, out.getvalue(), err.getvalue())


def run(plan: Path, root: Path) -> session.Summary:
    """Run a plan to its end in this process, without a word and without waiting for the disk."""
    with redirect_stderr(io.StringIO()), patch.object(os, "fsync"):
        return session.start(plan, root)


def asked(log: Path) -> list[str]:
    """What a scripted engine was asked, a line a request."""
    return log.read_text().splitlines() if log.exists() else []
