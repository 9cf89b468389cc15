"""Throughput: how fast replies become durable rows, and how much memory that takes.

The `generate` stage of a plan as a run has it: requests through the journal (one durable SQLite
commit a batch of replies), records, ids, checks, Parquet shards in the store. The engine costs
nothing: in-process it returns a constant; over HTTP it is the `openai` engine against a server in a
process of its own that answers at once. Every measurement has a fresh process and a fresh store.

Figures: `inprocess_rows_per_s`, `http_rows_per_s` (wall clock, best of the repetitions: others on
the machine only ever slow a run down), `peak_mib` at the full number of rows, `peak_growth_mib`
from a fifth of the rows to all of them, and the same rates per CPU second of the measured process.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.harness import REPO, Result, options, peak_mib, report, say, toml
from benchmarks.instant_server import TEXT

SAMPLES = 8
ROWS = {"full": (100_000, 20_000), "quick": (20_000, 4_000)}
"""Requests in-process and over HTTP."""


def measure(folder: str, rows: int, url: str | None) -> dict[str, float]:
    """Make `rows` responses in a new store under `folder`; rates and peak memory of this process."""
    from flows import engines
    from flows.jobs import generate_responses, ingest_prompts
    from flows.plan import load
    from flows.progress import Reporter
    from flows.runner import Run
    from pipelines.journal import Journal
    from pipelines.store import Store

    place = Path(folder)
    with (place / "prompts.jsonl").open("w", encoding="utf-8") as lines:
        for index in range(rows // SAMPLES):
            text = f"Ana has {index} pens. Gets 4 more. Loses 2. How many pens?"
            row = {"prompt": text, "reference": str(index + 2), "verifier": "numeric"}
            lines.write(json.dumps(row) + "\n")
    engine: dict[str, Any] = {"kind": "scripted", "replies": [TEXT]}
    if url is not None:
        engine = {"kind": "openai", "base_urls": [url]}
    written = {
        "name": "throughput",
        "prompts": {"paths": ["prompts.jsonl"]},
        "engines": {"policy": engine},
        "generate": {"engine": "policy", "samples": SAMPLES},
        "emit": {"name": "throughput"},
    }
    (place / "plan.toml").write_text(toml(written), "utf-8")
    plan = load(place / "plan.toml")
    store = Store.open(place / "store")
    journal = Journal(store.root / "journal.sqlite")
    try:
        built = engines.build(plan, store, journal)
        run = Run(plan, store, built, Reporter(Console(file=StringIO())))
        prompts = ingest_prompts(run, "ingest", plan.prompts)
        wall, cpu = time.perf_counter(), time.process_time()
        made = generate_responses(run, "generate", plan.generate, prompts, plan.seed)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        kept = journal.count()
    finally:
        journal.close()
    done = made.manifest.rows("responses")
    if done != rows or kept != rows:
        raise RuntimeError(f"{rows} rows asked for, {done} made, {kept} in the journal")
    return {
        "rows": rows,
        "wall_s": wall,
        "cpu_s": cpu,
        "rows_per_s": rows / wall,
        "rows_per_cpu_s": rows / cpu,
        "peak_mib": peak_mib(),
    }


def fresh(rows: int, url: str | None = None) -> dict[str, float]:
    """`measure` in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(1) as pool:
            found = pool.apply(measure, (folder, rows, url))
    say(f"{'http' if url else 'inprocess'}: {found}")
    return found


@contextmanager
def instant_server() -> Iterator[str]:
    """Base URL of the instant server, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.instant_server"]
    process = subprocess.Popen(
        command, cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    chosen = options(__doc__ or "", seeds=3, argv=argv)
    rows, http_rows = ROWS["quick" if chosen.quick else "full"]
    inside = [fresh(rows) for _ in range(chosen.seeds)]
    small = fresh(rows // 5)
    with instant_server() as url:
        http = [fresh(http_rows, url) for _ in range(chosen.seeds)]
    result = Result("throughput", list(range(chosen.seeds)))
    for name, runs in (("inprocess", inside), ("http", http)):
        for rate in ("rows_per_s", "rows_per_cpu_s"):
            values = [run[rate] for run in runs]
            result.figures[f"{name}_{rate}"] = max(values)
            result.intervals[f"{name}_{rate}"] = (min(values), max(values))
    result.figures["peak_mib"] = max(run["peak_mib"] for run in inside)
    result.figures["peak_growth_mib"] = result.figures["peak_mib"] - small["peak_mib"]
    result.tables = {"inprocess": inside, "inprocess_fifth": small, "http": http}
    return report(result, chosen)


if __name__ == "__main__":
    main()
