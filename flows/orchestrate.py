"""Prefect: a flow a job, a task a unit of work. It shows, schedules and retries; it decides nothing.

Used when PREFECT_API_URL is set; otherwise the same work runs without it. No result is persisted
and no cache is read: the store alone knows what is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.jobs import Job
    from flows.runner import Call

Orchestrate = Callable[[Callable[["Call"], None]], None]


def with_prefect(job: Job, plan: Path) -> Orchestrate | None:
    """How to run a job's work under Prefect, or None where no server is named."""
    if not os.environ.get("PREFECT_API_URL"):
        return None
    _quiet()

    def orchestrate(work: Callable[[Call], None]) -> None:
        from prefect import flow

        flow(name=f"prefinery-{job}", flow_run_name=plan.stem, persist_result=False)(
            lambda: work(_as_task)
        )()

    return orchestrate


def _as_task(name: str, work: Callable[[], None]) -> None:
    from prefect import task
    from prefect.cache_policies import NO_CACHE

    task(
        work,
        name=name.rpartition("-")[0] or name,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
    )()


def _quiet() -> None:
    """No calls to the outside; a user's mistake is told by us, in one line."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
