"""Prefect around a run: it shows, schedules and retries; it decides nothing.

Used when PREFECT_API_URL is set; otherwise the same work runs without it, and Prefect is not even
imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import UserError

if TYPE_CHECKING:
    from flows.jobs import Job
    from flows.runner import Call

Orchestrate = Callable[[Callable[["Call"], None]], None]


def with_prefect(job: Job, plan: Path) -> Orchestrate | None:
    """How to run a job's work as a flow, or None where no server is named."""
    if not os.environ.get("PREFECT_API_URL"):
        return None

    def orchestrate(work: Callable[[Call], None]) -> None:
        _quiet()
        from prefect import flow

        from flows.prefect_flows import as_task

        def run() -> None:
            work(as_task)

        flow(name=f"prefinery-{job}", flow_run_name=plan.stem, persist_result=False)(run)()

    return orchestrate


def serve(plan: Path, root: Path, job: Job, cron: str) -> None:
    """Register the plan as a deployment and run it by its schedule until stopped."""
    if not os.environ.get("PREFECT_API_URL"):
        raise UserError(
            "deploy needs a Prefect server: start one with `prefect server start`, then set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    from flows.plan import load

    name = load(plan).name
    _quiet()
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import PrefectException
    from prefect.types.entrypoint import EntrypointType

    from flows.prefect_flows import FLOWS

    try:
        CronSchedule(cron=cron)
    except ValueError:
        raise UserError(f"--cron {cron!r}: not five cron fields, such as '0 3 * * *'") from None
    try:
        FLOWS[job].serve(
            name=name,
            cron=cron,
            parameters={"plan": str(plan.absolute()), "root": str(root.absolute())},
            limit=1,  # two runs of one plan would only wait for each other
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    except PrefectException as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{os.environ['PREFECT_API_URL']}: {first}") from error


def _quiet() -> None:
    """No calls to the outside, and no tracebacks of ours told twice: the server has its log."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
