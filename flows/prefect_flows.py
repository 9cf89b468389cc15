"""The Prefect flows of a deployment, one a job. Importing this imports Prefect.

A task is a unit of work: a shard of a stage. No result is persisted and no cache is read: what is
done, only the store knows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.flows import Flow

from flows.jobs import Job
from flows.progress import Reporter
from flows.runner import Call
from flows.session import start


class LogReporter(Reporter):
    """Says what there is to say in the flow run's log, where the server shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.bars = False
        self.log = get_run_logger()

    def say(self, text: str) -> None:
        """One line of the log."""
        self.log.info(text)


def as_task(name: str, work: Callable[[], None]) -> None:
    """A `Call`: run a unit of work as a task of the flow that is running."""
    stage = name.rpartition("-")[0] or name
    task(name=stage, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(work)()


def _run(plan: str, root: str, job: Job) -> str:
    def orchestrate(work: Callable[[Call], None]) -> None:
        work(as_task)

    summary = start(Path(plan), Path(root), job, LogReporter(), orchestrate)
    asked = f"asked {summary.asked:,} requests, {summary.replayed:,} from the journal"
    get_run_logger().info("run %s: %s; %s", summary.run, summary.status, asked)
    return summary.run


@flow(name="prefinery-curate", persist_result=False)
def curate(plan: str, root: str) -> str:
    """Prompts to an emitted dataset."""
    return _run(plan, root, "curate")


@flow(name="prefinery-train", persist_result=False)
def train(plan: str, root: str) -> str:
    """The same, and the models trained and tested."""
    return _run(plan, root, "train")


@flow(name="prefinery-all", persist_result=False)
def everything(plan: str, root: str) -> str:
    """The whole plan."""
    return _run(plan, root, "all")


FLOWS: dict[Job, Flow[[str, str], str]] = {"curate": curate, "train": train, "all": everything}
