"""One run from a plan file to its report: what the command line, Prefect and the schedule call."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import engines, runs
from flows.jobs import Job, run_job
from flows.plan import Plan, load
from flows.progress import Reporter
from flows.runner import Call, Missing, Run, plainly
from pipelines import humans, ingest
from pipelines.journal import Journal
from pipelines.store import Store
from schemas.errors import UserError
from schemas.record import digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What a run came to, as `prefinery run --json` prints it."""

    run: str
    status: str
    computed: list[str]
    asked: int
    replayed: int
    spent: float
    rows: dict[str, dict[str, int]]
    figures: dict[str, float]
    paths: dict[str, str]


def start(
    path: Path,
    root: Path,
    job: Job = "all",
    reporter: Reporter | None = None,
    orchestrate: Callable[[Callable[[Call], None]], None] | None = None,
) -> Summary:
    """Run a plan to its end, or go on where it stopped.

    `orchestrate` is given the work still to be done, as a function of a `Call`: the Prefect flows
    pass one that makes every unit of work a task. It is not called when all is published already.
    """
    reporter = reporter or Reporter()
    plan = load(path)
    store = Store.open(root)
    journal = Journal(store.root / "journal.sqlite")
    try:
        if plan.review is not None:
            from flows import circle

            plan = circle.with_votes(plan, plan.review, store, reporter)
        built = engines.build(plan, store, journal)
        run_id = _run_id(path, plan, {name: e.identity.digest for name, e in built.items()})
        run = Run(plan, store, built, reporter)
        with store.lock(f"run-{run_id}", wait=False):
            record = _record(store, run_id, plan)
            attempt: dict[str, Any] = {"started": runs.now(), "pid": os.getpid(), "job": job}
            record.attempts.append(attempt)
            record.status = "started"
            _keep_plan(path, store, record)
            runs.save(store, record)
            ended = "failed"
            try:
                _go(run, job, orchestrate)
                ended = "complete"
            except KeyboardInterrupt:
                ended = "stopped"
                raise
            finally:
                record.status = ended
                # Added to what earlier jobs of this run made: `curate` after `run` forgets nothing.
                record.stages |= {
                    name: {"stage": out.manifest.stage, "digest": out.manifest.digest}
                    for name, out in run.published.items()
                }
                attempt |= {"ended": runs.now(), "status": ended, "computed": run.computed}
                runs.save(store, record)
            summary = _finish(run, record)
        if plan.review is not None:
            circle.put_to_people(store, summary.run, plan.review, reporter)
        return summary
    finally:
        journal.close()


def _go(run: Run, job: Job, orchestrate: Callable[[Callable[[Call], None]], None] | None) -> None:
    """Look first: where nothing is left to do, no orchestrator need be started."""
    run.dry = True
    try:
        run_job(run, job)
        return
    except Missing as missing:
        log.debug("%s is to be made", missing)
    finally:
        run.dry = False

    def work(call: Call) -> None:
        run.call = call
        run_job(run, job)

    if orchestrate is None:
        work(plainly)
    else:
        orchestrate(work)


def _run_id(path: Path, plan: Plan, identities: dict[str, str]) -> str:
    """One id for one plan on one input with these engines."""
    raw = tomllib.loads(path.read_text("utf-8"))
    inputs = {"prompts": ingest.inputs_digest(plan.prompts)}
    if plan.evaluate is not None:
        inputs["evaluate"] = ingest.inputs_digest(plan.evaluate.prompts)
    if plan.humans is not None:
        inputs["humans"] = humans.inputs_digest(plan.humans)
    if plan.route is not None and plan.route.known:
        inputs["known"] = humans.files_digest(plan.route.known)
    return f"{plan.name}-{digest(raw, inputs, identities)[:10]}"


def _record(store: Store, run_id: str, plan: Plan) -> runs.RunRecord:
    """The record of the run's earlier tries, or a new one."""
    if (runs.folder(store, run_id) / "run.json").exists():
        return runs.load(store, run_id)
    return runs.RunRecord(run_id, plan.name)


def _keep_plan(path: Path, store: Store, record: runs.RunRecord) -> None:
    place = runs.folder(store, record.id)
    place.mkdir(parents=True, exist_ok=True)
    kept = place / "plan.toml"
    if path.resolve() != kept.resolve():  # it may be the kept one that is run
        shutil.copyfile(path, kept)


def _finish(run: Run, record: runs.RunRecord) -> Summary:
    """Links, the report and the summary of a complete run."""
    from flows.report_data import figures

    store, paths = run.store, {}
    links = {"dataset": "emit", "models/reward": "train.reward", "models/steps": "train.steps"}
    for name, made in links.items():
        output = run.published.get(made)
        if output is not None:
            paths[name] = runs.link(store, record.id, name, output.path / "files")
    page = runs.folder(store, record.id) / "report.html"
    if run.computed or not page.exists():
        _write_pages(store, record, page)
    paths["report"] = page
    return Summary(
        run=record.id,
        status=record.status,
        computed=run.computed,
        asked=sum(engine.asked for engine in run.engines.values()),
        replayed=sum(engine.replayed for engine in run.engines.values()),
        spent=sum(engine.spent for engine in run.engines.values()),
        rows={
            name: {table: out.manifest.rows(table) for table in out.manifest.tables}
            for name, out in run.published.items()
        },
        figures=figures(run.published.get("evaluate")),
        paths={name: str(place) for name, place in paths.items()} | {"store": str(store.root)},
    )


def rerender(store: Store, record: runs.RunRecord) -> Path:
    """Make a run's pages again; the report's path."""
    if not record.stages:
        raise UserError(f"{record.id}: nothing is published yet; go on with: prefinery run PLAN")
    gone = set(record.stages) - {name for name, _ in record.outputs(store)}
    if gone:
        raise UserError(
            f"{record.id}: the output of {', '.join(sorted(gone))} is gone from the store; "
            "prefinery run PLAN makes it again"
        )
    page = runs.folder(store, record.id) / "report.html"
    _write_pages(store, record, page)
    return page


def _write_pages(store: Store, record: runs.RunRecord, page: Path) -> None:
    """The pages of step labels first: the report links to them where they are."""
    from flows.report import write_report
    from flows.report_data import collect
    from flows.steps_page import write_pages

    write_pages(store, record)
    write_report(collect(store, record), page)


def as_json(summary: Summary) -> str:
    """The summary as one JSON object."""
    return json.dumps(summary.__dict__, indent=2)
