"""Step labels under kill -9: the same bytes as an unbroken run, and no rollout asked for twice.

benchmarks.crash kills a plan's process again and again and starts it anew; here the responses are
there before the first kill, so that nearly all of the work is labelling. Every part has a token
budget that some questions come up against, and `changepoint` fits its priors after a pilot and
again at the end. `scripted`: an engine without a model, some of whose requests fail. `varying`: one
that answers the same request differently every time, as a server that is not batch-invariant does;
the unbroken run is then the killed one made once more from its journal. `local`: the bundled policy.

Figures: `identical`: share of published files that are equal byte for byte; `kills`: processes
killed while they labelled; `asked_twice`: requests asked although the journal had their reply, or
twice by one process; `asked_again_in_flight`: requests asked again that had no reply when the
process was killed; `replies_changed`: replies in the journal that a later process replaced or
lost; `asked_when_repeated`: requests that the run made once more from its journal still asked. The
table also says why labels stopped.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks import crash
from benchmarks.crash import Outcome, Part, Runs
from benchmarks.harness import Options, say, toml

Measured = tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, Any]]
"""Figures, their intervals, tables."""

METHODS: dict[str, dict[str, Any]] = {
    "changepoint": {"changepoint": {"pilot": 16, "confidence": 0.99}},
    "omega": {"omega": {"searches": 16}},
    "tree": {"tree": {"simulations": 24}},
}
SUMMED = ("asked_twice", "asked_again_in_flight", "replies_changed", "asked_when_repeated")
TOKENS = {"scripted": 60, "local": 200}
"""Budget in tokens a prompt: below what the hardest of them would take."""
SLOW = {"delay_ms": 30.0, "concurrency": 16}
"""The scripted engine: its labelling takes some seconds, and is the most of a run."""


def parts(quick: bool) -> dict[str, Part]:
    """What is killed, and how often."""
    if quick:
        return {"scripted changepoint": part("scripted", "changepoint", 60, 2)}
    found = {f"scripted {method}": part("scripted", method, 120, 8) for method in METHODS}
    found["varying changepoint"] = part("scripted", "changepoint", 120, 4, varying=True)
    found["local changepoint"] = part("local", "changepoint", 24, 4)
    return found


def part(engine: str, method: str, prompts: int, kills: int, varying: bool = False) -> Part:
    """A plan that labels steps by a method, in two shards, under a budget."""
    if engine == "scripted":
        plan = crash.scripted_plan(prompts, 0.0)
        plan["engines"]["policy"] |= SLOW
    else:
        plan = crash.local_plan(prompts, 1)
        plan = {key: value for key, value in plan.items() if key not in ("train", "evaluate")}
    plan["shard_rows"] = -(-prompts // 2)
    # One failed rollout of a question's beginning leaves all its solutions without labels.
    plan["failure_limit"] = 0.5
    plan["generate"]["samples"] = 4
    plan["process"] = {
        "engine": "policy",
        "method": method,
        "per_prompt": 4,
        "budget_tokens": TOKENS[engine] * prompts,
        "sampling": {"max_tokens": 96},
        **METHODS[method],
    }
    return Part(plan, "curate", kills, varying)


def disturbed(folder: Path, part: Part, seed: int) -> Outcome:
    """Kill a part's labelling; as `crash.crash`, but for the responses, which are there before."""
    folder.mkdir()
    before, whole = folder / "before.toml", folder / "plan.toml"
    made = {key: value for key, value in part.plan.items() if key not in ("process", "pairs")}
    before.write_text(toml(made), "utf-8")
    whole.write_text(toml(part.plan), "utf-8")
    calm, runs = (Runs(whole, folder / name, part) for name in ("calm", "killed"))
    Runs(before, calm.root, part).run()
    shutil.copytree(calm.root, runs.root)
    shutil.copy(calm.log, runs.log)
    outcome, killed = crash.disturbed(runs, calm.run(), part.kills, seed)
    if part.varying:
        outcome.varied = runs.files() != calm.files()
        again = Runs(whole, folder / "again", part)
        again.root.mkdir()
        for path in runs.root.glob("journal.sqlite*"):
            shutil.copy(path, again.root)
        Runs(before, again.root, part).run()
        again.run()
        outcome.asked_when_repeated = len(again.asks())
        calm = again
    crash.compare(outcome, calm.files(), runs.files())
    say(f"{folder.name}: {outcome}")
    say("  killed at " + ", ".join(f"{event.stage} {event.rows}" for event in killed))
    return outcome


def stopped(root: Path) -> dict[str, int]:
    """Why the labels of a store stopped, counted."""
    return dict(
        Counter(
            why
            for path in sorted((root / "stages").rglob("step_labels*.parquet"))
            for why in pq.read_table(path, columns=["stopped"])["stopped"].to_pylist()
        )
    )


def measure(chosen: Options, seeds: Sequence[int]) -> Measured:
    """Kill every part; the moments follow from the first seed."""
    outcomes: dict[str, Outcome] = {}
    tables: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="crash-") as place:
        for name, own in parts(chosen.quick).items():
            folder = Path(place, name.replace(" ", "-"))
            outcomes[name] = disturbed(folder, own, seeds[0])
            tables[name] = outcomes[name].__dict__ | {"stopped": stopped(folder / "killed")}
    figures: dict[str, float] = {
        "identical": min(outcome.identical for outcome in outcomes.values()),
        "kills": sum(outcome.killed_in.get("process", 0) for outcome in outcomes.values()),
        "kills_elsewhere": sum(
            count
            for outcome in outcomes.values()
            for stage, count in outcome.killed_in.items()
            if stage != "process"
        ),
    }
    for name in SUMMED:
        figures[name] = sum(getattr(outcome, name) for outcome in outcomes.values())
    return figures, {}, tables
