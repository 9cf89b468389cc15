"""The process that `benchmarks.crash` kills: one run of a plan, telling how far it is."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

TOLD_EVERY_S = 0.01
"""Least time between two lines of progress: a full pipe would hold the worker up."""
_HEAVY = (
    "transformers.models.auto.modeling_auto",
    "pipelines.training.trainer",
    "pipelines.training.scoring",
)


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

    def tokens(self, text: str) -> Any:
        """As the engine says."""
        return self.engine.tokens(text)


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


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--plan", "--root", "--log"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--varying", action="store_true")
    given = parser.parse_args()
    work(given.plan, given.root, given.job, given.log, given.varying)


if __name__ == "__main__":
    main()
