"""Order, bound, and what a failure does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pipelines.pool import bounded


def test_results_are_in_the_items_order_whatever_finishes_first() -> None:
    finished: list[int] = []

    async def work(item: int) -> int:
        await asyncio.sleep(0.001 * (10 - item))
        finished.append(item)
        return item * item

    results = asyncio.run(bounded(work, range(10), 10))
    assert results == [item * item for item in range(10)]
    assert finished != sorted(finished)


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 3), (50, 20), (0, 1)])
def test_no_more_than_the_limit_are_under_way(limit: int, most: int) -> None:
    now = peak = 0

    async def work(item: int) -> None:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        await asyncio.sleep(0.001)
        now -= 1

    assert asyncio.run(bounded(work, range(20), limit)) == [None] * 20
    assert peak == most


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    async def work(item: int) -> None:
        await asyncio.sleep(0)
        if item == 5:
            raise ValueError("five")

    with pytest.raises(ValueError, match=r"five"):
        asyncio.run(bounded(work, items(), 2))
    assert len(taken) < 12


def test_nothing_gives_nothing() -> None:
    async def work(item: int) -> int:
        return item

    assert asyncio.run(bounded(work, [], 5)) == []


def test_the_first_failure_is_raised_as_it_is_and_the_rest_are_cancelled() -> None:
    error = LookupError("second")
    cancelled: list[int] = []
    ended: list[int] = []

    async def work(item: int) -> None:
        try:
            await asyncio.sleep(0.01 if item == 2 else 600)
        except asyncio.CancelledError:
            cancelled.append(item)
            await asyncio.sleep(0.01)  # tidying up takes its time, and is waited for
            ended.append(item)
            raise
        raise error

    with pytest.raises(LookupError) as raised:
        asyncio.run(bounded(work, range(10), 4))
    assert raised.value is error
    assert cancelled == ended == [0, 1, 3]


def test_items_that_cannot_be_read_are_a_failure() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    async def work(item: int) -> int:
        await asyncio.sleep(0)
        return item

    with pytest.raises(OSError, match=r"disk"):
        asyncio.run(bounded(work, items(), 3))


def test_a_stop_from_outside_stops_all_of_them() -> None:
    stopped: list[int] = []

    async def work(item: int) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            stopped.append(item)

    async def main() -> None:
        await asyncio.wait_for(bounded(work, range(9), 3), 0.02)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert stopped == [0, 1, 2]
