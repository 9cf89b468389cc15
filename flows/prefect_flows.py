"""The Prefect flows of a deployment, one a job. Importing this imports Prefect.

A task is a unit of work: a shard of a stage. No result is persisted and no cache is read: what is
done, only the store knows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.flows import Flow
from prefect.states import Completed

from flows.jobs import Job
from flows.progress import Reporter
from flows.runner import Call
from flows.session import start
from pipelines.store import Busy
from schemas.errors import UserError


def as_task(name: str, work: Callable[[], None]) -> None:
    """A `Call`: run a unit of work as a task of the flow that is running."""
    stage = name.rpartition("-")[0] or name
    task(name=stage, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(work)()


def run_here(job: Job, name: str, work: Callable[[Call], None], reporter: Reporter) -> None:
    """Run work as a flow in this process."""

    @flow(name=f"prefinery-{job}", flow_run_name=lambda: name, persist_result=False)
    def run() -> None:
        reporter.also = get_run_logger().info
        try:
            work(as_task)
        finally:
            reporter.also = None

    run()


def _run(plan: str, root: str, job: Job) -> State[Any]:
    """A scheduled run, in a process of its own. What it says is in the flow run's log too."""
    reporter = Reporter()
    reporter.also = get_run_logger().info

    def orchestrate(work: Callable[[Call], None]) -> None:
        work(as_task)

    try:
        summary = start(Path(plan), Path(root), job, reporter, orchestrate)
    except Busy as busy:
        reporter.say(f"nothing done: {busy}")
        return Completed(name="Skipped", message=str(busy))
    except UserError as error:
        reporter.say(f"failed: {error}")
        raise
    asked = f"asked {summary.asked:,} requests, {summary.replayed:,} answered from the journal"
    reporter.say(f"run {summary.run}: {summary.status}; {asked}")
    return Completed(message=f"run {summary.run}: {asked}")


@flow(name="prefinery-curate", persist_result=False)
def curate(plan: str, root: str) -> State[Any]:
    """Prompts to an emitted dataset."""
    return _run(plan, root, "curate")


@flow(name="prefinery-train", persist_result=False)
def train(plan: str, root: str) -> State[Any]:
    """The same, and the models trained and tested."""
    return _run(plan, root, "train")


@flow(name="prefinery-all", persist_result=False)
def everything(plan: str, root: str) -> State[Any]:
    """The whole plan."""
    return _run(plan, root, "all")


FLOWS: dict[Job, Flow[[str, str], State[Any]]] = {
    "curate": curate,
    "train": train,
    "all": everything,
}
