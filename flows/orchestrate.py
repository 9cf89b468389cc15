"""Prefect around a run: it shows, schedules and retries; it decides nothing.

Used when PREFECT_API_URL is set; otherwise the same work runs without it, and Prefect is not even
imported.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import UserError

if TYPE_CHECKING:
    from flows.jobs import Job
    from flows.progress import Reporter
    from flows.runner import Call

log = logging.getLogger(__name__)

Orchestrate = Callable[[Callable[["Call"], None]], None]

PROBE_S = 5.0
"""How long a Prefect server may take to say that it is there."""


def with_prefect(job: Job, plan: Path, reporter: Reporter) -> Orchestrate | None:
    """How to run a job's work as a flow, or None where no server is named."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return None

    def orchestrate(work: Callable[[Call], None]) -> None:
        ended: list[BaseException | None] = []

        def noted(call: Call) -> None:
            try:
                work(call)
            except BaseException as error:
                ended.append(error)
                raise
            ended.append(None)

        try:
            with _server(url, "or unset PREFECT_API_URL to run without Prefect"):
                from flows.prefect_flows import run_here

                run_here(job, plan.stem, noted, reporter)
        except UserError as error:
            # How the work ended counts; that the server could not be told is worth a warning.
            if not ended or error is ended[0]:
                raise
            if ended[0] is not None:
                raise ended[0] from error
            log.warning("%s", error)

    return orchestrate


def serve(plan: Path, root: Path, job: Job, cron: str, reporter: Reporter) -> None:
    """Register the plan as a deployment and run it by its schedule until stopped.

    Runs of one plan never overlap here: one that falls due during another waits for it, and then
    finds what is left to do, which mostly is nothing.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        raise UserError(
            "deploy needs a Prefect server: start one with `prefect server start`, then set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    from flows.plan import load

    name = load(plan).name
    with _server(url, "then deploy again"):
        from prefect.client.schemas.schedules import CronSchedule
        from prefect.types.entrypoint import EntrypointType

        from flows.prefect_flows import FLOWS

        try:
            CronSchedule(cron=cron)
        except ValueError:
            raise UserError(
                f"--cron {cron!r}: no cron schedule; give five fields, such as '0 3 * * *'"
            ) from None
        flow = FLOWS[job]
        reporter.say(f"serving {flow.name}/{name} at {cron!r} UTC from {url}; Ctrl-C ends it")
        # Its SIGTERM handler never awaits what stops the runner; leaving `serve` stops it as well.
        warnings.filterwarnings("ignore", "coroutine 'Runner.astop'", RuntimeWarning)
        # SIGTERM raises SystemExit, Ctrl-C returns; all it prints is a lost server's tracebacks.
        with suppress(SystemExit), redirect_stdout(io.StringIO()):
            flow.serve(
                name=name,
                cron=cron,
                parameters={"plan": str(plan.absolute()), "root": str(root.absolute())},
                limit=1,
                print_starting_message=False,
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        reporter.say("stopped; the schedule is paused until the same command is given again")


@contextmanager
def _server(url: str, otherwise: str) -> Iterator[None]:
    """Prefect, imported and kept quiet, at a server that answers; its troubles become one line."""
    _quiet()
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.events.clients import PrefectEventsClient
    from prefect.events.worker import EventsWorker, emit_events_to_cloud
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_not_prefect)
    logging.raiseExceptions = False  # or each line that a lost server misses is told of
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings={"timeout": PROBE_S}) as client,
    ):
        trouble = client.api_healthcheck()
    if trouble is not None:
        raise UserError(
            f"no Prefect server answers at {url} ({_short(trouble)}): start one with `prefect "
            f"server start`, check that the address ends in /api, {otherwise}"
        )
    if not emit_events_to_cloud():
        # Events that a server misses are sent again with the next; ten tries each would hold up
        # the end of a run for seven seconds a task.
        EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=1)
    try:
        yield
    except (PrefectException, httpx.HTTPError) as error:
        raise UserError(
            f"the Prefect server at {url} failed ({_short(error)}); what is finished is kept: "
            f"mend the server, {otherwise}"
        ) from error


def _short(error: Exception) -> str:
    """One line; of a status its number, as Prefect's text repeats the address."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP {status}"
    return next(iter(str(error).splitlines()), type(error).__name__)


def _is_not_prefect(record: logging.LogRecord) -> bool:
    return not record.name.startswith(("prefect", "asyncio", "EventsWorker", "APILogWorker"))


def _quiet() -> None:
    """No calls to the outside; scheduled runs' processes read these too.

    The console is for our lines: Prefect tells the server, with its own traceback of a failure.
    Our warnings go to both.
    """
    for name, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLIENT_MAX_RETRIES": "3",
        "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "pipelines,flows",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }.items():
        os.environ.setdefault(name, value)
