"""Bounded concurrency for item stages."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def bounded(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], limit: int
) -> list[Result]:
    """Await `work(item)` for every item, `limit` at a time; results in the items' order.

    The first failure cancels the rest and is raised as it is.
    """
    results: dict[int, Result] = {}
    numbered = enumerate(items)

    # No more workers than items: a limit may be any number.
    first = list(islice(numbered, min(max(1, limit), sys.maxsize)))
    in_order = chain(first, numbered)

    async def worker() -> None:
        for index, item in in_order:
            results[index] = await work(item)

    workers = [asyncio.create_task(worker()) for _ in first]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [results[index] for index in range(len(results))]
