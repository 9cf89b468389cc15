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

import argparse
import asyncio
import hashlib
import importlib
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Self

from benchmarks.harness import REPO, Result, demo_plan, options, report, say, toml

REPLIES = ["3+4=7\n7-2=5\n#5", "1+1=2\n#16", "14-2=12\n12+9=21\n21-5=16\n#16", "#8", "#12", "huh"]
TOLD_EVERY_S = 0.01
"""Least time between two lines of progress: a full pipe would hold the worker up."""
_HEAVY = (
    "transformers.models.auto.modeling_auto",
    "pipelines.training.trainer",
    "pipelines.training.scoring",
)
Ask = tuple[str, int]
"""A request's key in hexadecimal, and its sample index."""


# --- the process that is killed ------------------------------------------------------------------


class Watched:
    """An engine whose asks are logged before they are answered.

    With `varying` every call draws with other randomness under the same identity.
    """

    def __init__(self, engine: Any, log: Path, varying: bool) -> None:
        self.engine = engine
        self.varying = varying
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._slots: asyncio.Semaphore

    @property
    def identity(self) -> Any:
        """As the engine says."""
        return self.engine.identity

    @property
    def concurrency(self) -> int:
        """As the engine says."""
        return int(self.engine.concurrency)

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        # As many as the engine wants: what waits here was not asked yet.
        self._slots = asyncio.Semaphore(self.concurrency)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.engine.__aexit__(*exc)

    async def complete(self, request: Any) -> Any:
        """Log, then ask."""
        from pipelines.engines.base import request_key

        key = request_key(self.identity.digest, request).hex()
        async with self._slots:
            os.write(self._log, f"{key} {request.sample}\n".encode())
            if self.varying:
                seed = random.SystemRandom().randrange(2**31)
                request = replace(request, sampling=replace(request.sampling, seed=seed))
            return await self.engine.complete(request)


def work(plan: Path, root: Path, job: Literal["curate", "all"], log: Path, varying: bool) -> None:
    """Run a plan, telling progress on stdout as `STAGE ROWS` lines after a line `start`."""
    from flows import engines, session
    from flows.progress import Reporter

    if job == "all":
        # Loaded before the clock starts: kills are to hit the work, not the imports.
        for module in _HEAVY:
            importlib.import_module(module)

    class Telling(Reporter):
        def say(self, text: str) -> None:
            pass

        @contextmanager
        def stage(
            self, name: str, total: int, price: float = 0.0
        ) -> Iterator[Callable[[int, int], None]]:
            done, told = 0, time.monotonic()
            print(name, 0, flush=True)

            def advance(rows: int, tokens: int) -> None:
                nonlocal done, told
                done += rows
                if time.monotonic() - told >= TOLD_EVERY_S:
                    told = time.monotonic()
                    print(name, done, flush=True)

            yield advance
            print(name, done, flush=True)

    make = engines._engine
    engines._engine = lambda config, memory: Watched(make(config, memory), log, varying)
    print("start", 0, flush=True)
    summary = session.start(plan, root, job, Telling())
    print(json.dumps({"asked": summary.asked, "replayed": summary.replayed}), flush=True)


# --- the one that kills --------------------------------------------------------------------------


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

    def __init__(self, plan: Path, root: Path, job: str, varying: bool = False) -> None:
        self.root = root
        self.log = root.with_name(root.name + ".asked")
        self.log.touch()
        words = ["--plan", plan, "--root", root, "--job", job, "--log", self.log]
        self.command = [sys.executable, "-m", "benchmarks.crash", "work", *map(str, words)]
        self.command += ["--varying"] if varying else []

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


def crash(
    folder: Path, plan: dict[str, Any], job: str, kills: int, seed: int, varying: bool = False
) -> Outcome:
    """One part, in `folder`: the undisturbed run, the killed one, and what they came to."""
    folder.mkdir(parents=True)
    path = folder / "plan.toml"
    path.write_text(toml(plan), "utf-8")
    calm = Runs(path, folder / "calm", job, varying)
    reference = calm.run()
    runs = Runs(path, folder / "killed", job, varying)
    outcome, killed = disturbed(runs, reference, kills, seed)
    if varying:
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
        "fail_share": 0.02,
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
    small, fresh, few, kills = (16, 16, 3, 20) if chosen.quick else (60, 40, 20, 20)
    parts: dict[str, tuple[dict[str, Any], str, int, bool]] = {
        "scripted": (scripted_plan(30 if chosen.quick else 200, 10.0), "curate", kills, False),
        "local": (local_plan(small, fresh), "all", few, False),
        "varying": (scripted_plan(30 if chosen.quick else 200, 10.0), "curate", kills, True),
    }
    if chosen.quick:
        del parts["varying"]
    result = Result("crash", list(range(chosen.seeds)))
    outcomes: list[Outcome] = []
    for name, (plan, job, count, varying) in parts.items():
        with tempfile.TemporaryDirectory(prefix="crash-") as folder:
            done = [
                crash(Path(folder, f"{name}-{seed}"), plan, job, count, seed, varying)
                for seed in range(chosen.seeds)
            ]
        outcomes += done
        result.tables[name] = [outcome.__dict__ for outcome in done]
    result.figures = {
        "kills": sum(outcome.kills for outcome in outcomes),
        "identical": min(outcome.identical for outcome in outcomes),
        "asked_twice": sum(outcome.asked_twice for outcome in outcomes),
        "asked_again_in_flight": sum(outcome.asked_again_in_flight for outcome in outcomes),
        "replies_changed": sum(outcome.replies_changed for outcome in outcomes),
        "asked_when_repeated": sum(outcome.asked_when_repeated for outcome in outcomes),
    }
    return report(result, chosen)


def _work(argv: list[str]) -> None:
    parser = argparse.ArgumentParser()
    for name in ("--plan", "--root", "--log"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--varying", action="store_true")
    given = parser.parse_args(argv)
    work(given.plan, given.root, given.job, given.log, given.varying)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        _work(sys.argv[2:])
    else:
        main()
