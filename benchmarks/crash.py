"""Crash: a run that is killed again and again ends in the same bytes, and asks nothing twice.

A plan runs undisturbed. Then it runs in a fresh store and is killed with SIGKILL, and started again
each time, until it is complete. The moments are random over the undisturbed run's length, one in
each of as many equal parts as there are kills. A moment is mapped to progress (the stage, the rows
it had counted, the time since), so that the kills lie all over the run although a resumed run
passes quickly over what is done.

Three parts: `scripted` (the bundled plan up to the dataset, with an engine without a model),
`local` (a small cut of the whole bundled plan with its real engine, training and evaluation) and
`varying` (as `scripted`, but the engine answers the same request differently every time, as a
server that is not batch-invariant does: the undisturbed run is then the killed run made once more
from its journal, with every stage deleted).

Figures: `kills`: processes killed while they were at work. `identical`: the share of the published
files (Parquet, dataset, model weights, manifests) that are equal byte for byte in both stores, 1 if
all are; a file that only one store has counts as different. `asked_twice`: requests asked although
their reply was in the journal, or asked twice by one process. `asked_again_in_flight`: requests
asked again that had no reply in the journal when the process was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from benchmarks.harness import REPO, Result, demo_plan, options, report, say, toml

REPLIES = ["3+4=7\n7-2=5\n#5", "1+1=2\n#16", "14-2=12\n12+9=21\n21-5=16\n#16", "#8", "#12", "huh"]
Ask = tuple[str, int]
"""A request's key in hexadecimal, and its sample index."""


@dataclass(frozen=True)
class Part:
    """A plan to be disturbed: how far it is run, how often it is killed."""

    plan: dict[str, Any]
    job: Literal["curate", "all"]
    kills: int
    varying: bool = False


@dataclass(frozen=True)
class Event:
    """A line of progress; `at` in seconds since the line `start`."""

    at: float
    stage: str
    rows: int


@dataclass
class Attempt:
    """One process: what it told, and how it ended."""

    startup_s: float = 0.0
    """Seconds from its start to its line `start`: the interpreter and imports."""
    events: list[Event] = field(default_factory=list)
    killed: bool = False
    summary: dict[str, int] | None = None


class Runs:
    """Processes that run one plan on one store."""

    def __init__(self, plan: Path, root: Path, part: Part) -> None:
        self.root = root
        self.log = root.with_name(root.name + ".asked")
        self.log.touch()
        words = ["--plan", plan, "--root", root, "--job", part.job, "--log", self.log]
        self.command = [sys.executable, "-m", "benchmarks.crash_worker", *map(str, words)]
        self.command += ["--varying"] if part.varying else []

    def run(self, until: Callable[[Event], bool] | None = None, after_s: float = 0.0) -> Attempt:
        """Run to the end, or kill the process `after_s` seconds after the event that `until` names.

        Raises RuntimeError with the process's last words where it fails by itself.
        """
        attempt = Attempt()
        began = time.monotonic()
        with (
            tempfile.TemporaryFile() as words,
            subprocess.Popen(
                self.command, cwd=REPO, stdout=subprocess.PIPE, stderr=words, text=True
            ) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                now = time.monotonic()
                if line.startswith("{"):
                    attempt.summary = json.loads(line)
                    break
                stage, rows = line.rsplit(" ", 1)
                if stage == "start":
                    attempt.startup_s, began = now - began, now
                event = Event(now - began, stage, int(rows))
                attempt.events.append(event)
                if until is not None and until(event):
                    attempt.killed = _kill(process, after_s)
                    break
            process.stdout.read()
            status = process.wait()
            if not attempt.killed and status != 0:
                words.seek(0)
                said = words.read().decode(errors="replace")[-2000:]
                raise RuntimeError(f"the run failed by itself ({status}): {said}")
        return attempt

    def asks(self) -> list[Ask]:
        """Every request asked so far, by all processes."""
        lines = self.log.read_text("ascii").splitlines()
        return [(key, int(sample)) for key, sample in map(str.split, lines)]

    def kept(self) -> dict[Ask, str]:
        """Replies that are durable now. Read from a copy: the next process is to find what was left."""
        with tempfile.TemporaryDirectory(prefix="crash-") as place:
            for path in self.root.glob("journal.sqlite*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, place)
            copied = Path(place, "journal.sqlite")
            if not copied.exists():
                return {}
            connection = sqlite3.connect(copied)
            try:
                rows = connection.execute("select key, sample, reply from replies").fetchall()
            except sqlite3.OperationalError:
                return {}  # killed before the table was made
            finally:
                connection.close()
        return {(key.hex(), sample): reply for key, sample, reply in rows}

    def files(self) -> dict[str, str]:
        """SHA-256 of every published file, by path."""
        stages = self.root / "stages"
        return {
            str(path.relative_to(stages)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(stages.rglob("*"))
            if path.is_file()
        }


def _kill(process: subprocess.Popen[str], after_s: float) -> bool:
    """SIGKILL after a while; false where the process had ended by then."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
    return False


@dataclass
class Outcome:
    """What one disturbed run came to."""

    kills: int = 0
    kills_missed: int = 0
    identical: float = 0.0
    files: int = 0
    parquet_files: int = 0
    asked: int = 0
    asked_twice: int = 0
    asked_again_in_flight: int = 0
    replies_changed: int = 0
    """Replies in the journal that a later process replaced or lost."""
    asked_when_repeated: int = 0
    """Requests that the run made once more from the journal asked (part `varying`)."""
    varied: bool = False
    """Whether another run gave other rows (part `varying`): the engine did answer differently."""
    undisturbed_s: float = 0.0
    disturbed_s: float = 0.0
    startup_s: float = 0.0
    """Mean seconds of interpreter and imports a process."""
    catch_up_s: float = 0.0
    """Mean seconds of work until a process was where the one before it was killed."""
    killed_in: dict[str, int] = field(default_factory=dict)
    """Kills by stage."""


def disturbed(runs: Runs, reference: Attempt, kills: int, seed: int) -> tuple[Outcome, list[Event]]:
    """Run to the end with `kills` kills on the way; the last events of the killed processes."""
    rng = random.Random(seed)
    events = reference.events
    order = {name: place for place, name in enumerate(dict.fromkeys(e.stage for e in events))}
    # The last twentieth is left out: a resumed run may be faster and over before the kill.
    length = 0.95 * events[-1].at
    moments = [(place + rng.random()) / kills * length for place in range(kills)]
    outcome = Outcome(undisturbed_s=events[-1].at)
    kept: dict[Ask, str] = {}
    asked: set[Ask] = set()
    killed: list[Event] = []
    startups: list[float] = []
    caught_up: list[float] = []
    lines = 0
    began = time.monotonic()
    for moment in [*moments, None]:
        if moment is None:
            attempt = runs.run()
        else:
            target = next(event for event in reversed(events) if event.at <= moment)
            where = (order[target.stage], target.rows)

            def reached(event: Event, where: tuple[int, int] = where) -> bool:
                return (order[event.stage], event.rows) >= where

            attempt = runs.run(reached, moment - target.at)
        startups.append(attempt.startup_s)
        if killed:
            last = (order[killed[-1].stage], killed[-1].rows)
            there = (e.at for e in attempt.events if (order[e.stage], e.rows) >= last)
            caught_up += [at for at in there][:1]
        asks = runs.asks()[lines:]
        lines += len(asks)
        twice = Counter(asks)
        outcome.asked_twice += sum(1 for ask in asks if ask in kept) + len(asks) - len(twice)
        outcome.asked_again_in_flight += sum(1 for ask in twice if ask in asked - kept.keys())
        asked.update(asks)
        now = runs.kept()
        outcome.replies_changed += sum(1 for ask, reply in kept.items() if now.get(ask) != reply)
        kept = now
        if not attempt.killed:
            break
        killed.append(attempt.events[-1])
    outcome.disturbed_s = time.monotonic() - began
    outcome.kills = len(killed)
    outcome.kills_missed = kills - len(killed)
    outcome.asked = lines
    outcome.startup_s = fmean(startups)
    outcome.catch_up_s = fmean(caught_up) if caught_up else 0.0
    outcome.killed_in = dict(Counter(event.stage for event in killed))
    return outcome, killed


def compare(outcome: Outcome, one: dict[str, str], other: dict[str, str]) -> None:
    """Note how many of two stores' published files are equal."""
    names = one.keys() | other.keys()
    same = sum(1 for name in names if one.get(name) == other.get(name))
    outcome.files = len(names)
    outcome.parquet_files = sum(1 for name in names if name.endswith(".parquet"))
    outcome.identical = same / len(names)


def crash(folder: Path, part: Part, seed: int) -> Outcome:
    """One part, in `folder`: the undisturbed run, the killed one, and what they came to."""
    folder.mkdir(parents=True)
    path = folder / "plan.toml"
    path.write_text(toml(part.plan), "utf-8")
    calm = Runs(path, folder / "calm", part)
    reference = calm.run()
    runs = Runs(path, folder / "killed", part)
    outcome, killed = disturbed(runs, reference, part.kills, seed)
    if part.varying:
        once = runs.files()
        outcome.varied = once != calm.files()
        shutil.rmtree(runs.root / "stages")
        shutil.rmtree(runs.root / "runs")
        before = len(runs.asks())
        runs.run()
        outcome.asked_when_repeated = len(runs.asks()) - before
        compare(outcome, once, runs.files())
    else:
        compare(outcome, calm.files(), runs.files())
    say(f"{folder.name}: {outcome}")
    say("  killed at " + ", ".join(f"{e.stage} {e.rows}" for e in killed))
    return outcome


# --- the parts -----------------------------------------------------------------------------------


def scripted_plan(prompts: int, delay_ms: float) -> dict[str, Any]:
    """The bundled plan up to the dataset, asking an engine without a model."""
    plan = demo_plan()
    plan["prompts"]["limit"] = prompts
    plan["engines"]["policy"] = {
        "kind": "scripted",
        "replies": REPLIES,
        "fail_share": 0.005,
        "delay_ms": delay_ms,
        "concurrency": 64,
    }
    return {key: value for key, value in plan.items() if key not in ("train", "evaluate")}


def local_plan(prompts: int, fresh: int) -> dict[str, Any]:
    """A small cut of the whole bundled plan: the local engine, training and evaluation."""
    plan = demo_plan()
    plan["shard_rows"] = max(1, prompts // 4)
    plan["prompts"]["limit"] = prompts
    plan["engines"]["policy"]["threads"] = 1
    plan["generate"]["samples"] = 4
    plan["process"]["k"] = 4
    for model in plan["train"].values():
        model |= {"epochs": 1, "threads": 1}
    plan["evaluate"]["seeds"] = 1
    plan["evaluate"]["metrics"] = {"bootstrap": 100}
    plan["evaluate"]["prompts"]["limit"] = fresh
    plan["evaluate"]["generate"]["samples"] = 8
    return plan


def main(argv: list[str] | None = None) -> dict[str, Any]:
    chosen = options(__doc__ or "", seeds=1, argv=argv)
    if chosen.quick:
        parts = {
            "scripted": Part(scripted_plan(30, 10.0), "curate", 10),
            "local": Part(local_plan(16, 16), "all", 1),
        }
    else:
        parts = {
            "scripted": Part(scripted_plan(200, 10.0), "curate", 20),
            "local": Part(local_plan(60, 40), "all", 20),
            "varying": Part(scripted_plan(200, 10.0), "curate", 20, varying=True),
        }
    result = Result("crash", list(range(chosen.seeds)))
    outcomes: list[Outcome] = []
    for name, part in parts.items():
        with tempfile.TemporaryDirectory(prefix="crash-") as folder:
            done = [
                crash(Path(folder, f"{name}-{seed}"), part, seed) for seed in range(chosen.seeds)
            ]
        outcomes += done
        result.tables[name] = [outcome.__dict__ for outcome in done]
    result.figures = {
        name: sum(getattr(outcome, name) for outcome in outcomes)
        for name in (
            "kills",
            "kills_missed",
            "asked",
            "asked_twice",
            "asked_again_in_flight",
            "replies_changed",
            "asked_when_repeated",
        )
    }
    result.figures["identical"] = min(outcome.identical for outcome in outcomes)
    return report(result, chosen)


if __name__ == "__main__":
    main()
