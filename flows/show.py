"""What the terminal shows of runs: tables for people on stdout, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows import runs
from flows.progress import Reporter
from flows.query import query
from flows.session import Summary
from flows.visible import plain
from pipelines.store import Published, Store
from schemas.errors import UserError

SHOWN = 50


def list_runs(root: Path, as_json: bool) -> None:
    """All runs of a store."""
    records = runs.every(Store.open(root, create=False))
    if as_json:
        print(json.dumps([asdict(record) for record in records], indent=2))
        return
    rows = [
        (r.id, r.status, r.attempts[-1]["started"], str(len(r.attempts)), str(len(r.stages)))
        for r in records
    ]
    print_table(("run", "status", "last tried", "tries", "stages"), rows)


def show_run(root: Path, run_id: str, as_json: bool) -> None:
    """One run: stages with rows and rejects, figures, files."""
    from flows.report_data import figures

    store = Store.open(root, create=False)
    record = runs.load(store, run_id)
    outputs = list(record.outputs(store))
    numbers = figures(record.output(store, "evaluate"))
    if as_json:
        stages = {name: output.manifest.model_dump(mode="json") for name, output in outputs}
        print(json.dumps({**asdict(record), "manifests": stages, "figures": numbers}, indent=2))
        return
    print(f"{record.id}  {record.status}")
    print_table(
        ("stage", "digest", "rows", "rejects", "tokens"), [_stage(n, o) for n, o in outputs]
    )
    if numbers:
        print_table(
            ("figure", "value"), [(name, f"{value:.3f}") for name, value in numbers.items()]
        )
    print(f"files: {runs.folder(store, record.id)}")


def _stage(name: str, output: Published) -> tuple[str, ...]:
    manifest = output.manifest
    made = ", ".join(
        f"{manifest.rows(table):,} {table}" for table in manifest.tables if table != "rejects"
    )
    tokens = manifest.facts.get("completion_tokens")
    return (
        name,
        manifest.digest[:10],
        made or f"{len(manifest.files)} files",
        f"{manifest.rows('rejects'):,}" if "rejects" in manifest.tables else "",
        f"{tokens:,}" if tokens is not None else "",
    )


def print_query(root: Path, run_id: str, sql: str, as_json: bool) -> None:
    """A query's rows: a table cut to what fits, or one JSON object a line, all of them."""
    store = Store.open(root, create=False)
    columns, rows = query(store, runs.load(store, run_id), sql)
    if as_json:
        if len(set(columns)) < len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise UserError(f"query: two columns are named {twice!r}; tell them apart with `as`")
        for row in rows:
            print(json.dumps(dict(zip(columns, row, strict=True)), default=str))
        return
    shown: list[Sequence[Any]] = []
    more = 0
    for row in rows:
        if len(shown) < SHOWN:
            shown.append(row)
        else:
            more += 1
    print_table(columns, [[plain(str(value), 200) for value in row] for row in shown])
    if more:
        print(f"... and {more:,} more rows (--json prints all)")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their columns' names; wide where nobody looks at a screen."""
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=200)
    console.print(table)


def next_steps(reporter: Reporter, summary: Summary, root: Path) -> None:
    """Where everything is, and what to do next."""
    say = reporter.say
    if not summary.computed:
        say("nothing to do: every output of this plan is there already")
    say(f"run {summary.run}: {summary.status}")
    spent = f", {summary.spent:,.2f} spent" if summary.spent else ""
    kept = f"{summary.replayed:,} answered from the journal"
    say(f"  asked {summary.asked:,} requests, {kept}{spent}")
    for name, value in summary.figures.items():
        say(f"  {name:<28} {value:.3f}")
    for name, path in summary.paths.items():
        say(f"  {name:<14} {near(path)}")
    at = "" if root == Path("store") else f" --root {root}"
    command = near(sys.argv[0]) if "/" in sys.argv[0] else "prefinery"
    say("next:")
    say(f"  {command} show{at}")
    say(f'  {command} query{at} "select action, count(*) from decisions group by action"')
    if "dataset" in summary.paths:
        say(f"  {command} push {near(summary.paths['dataset'])} --repo ORG/NAME")


def near(path: str) -> str:
    """A path from where the command was called."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
