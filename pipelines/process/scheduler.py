"""One queue over hundreds of questions: the engine never idles while any of them can use it.

Requests wait in one line, served by the question that has had the fewest tokens so far; a wave's
requests stand together, so that draws of a prefix follow each other and a prefix cache hits. New
questions are let in as long as the line is short. What a question asks, and what its budget lets it
ask, depends on its own rollouts alone, never on the time at which they came: a resumed run asks the
same.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from pipelines.config import Advance, silent
from pipelines.process.search import (
    Ask,
    BudgetSpent,
    Drawn,
    Finding,
    Prefix,
    Query,
    Question,
    Search,
    Wave,
)
from schemas.errors import BadReply

Draw = Callable[[Question, Prefix, int, bool], Awaitable[Drawn]]
"""Draw the n-th rollout of a prefix, from the prover or not; raises BadReply."""
Judge = Callable[[Question, Query], Awaitable[str]]
"""The judge's reply to a query; raises BadReply."""


class Line:
    """Turns at an engine: at most `places` at once, the least served first."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.queued = 0
        """Requests that wait or are under way."""
        self._free = places
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    async def turn(self, served: int) -> None:
        """Wait for a place; `served`: what the question has had so far."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (served, next(self._order), future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to the next."""
        while self._waiting:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
                return
        self._free += 1


@dataclass(eq=False)
class _Job:
    question: Question
    search: Search
    allowance: float
    wave: Wave | None = None
    finding: Finding | None = None

    def move(self, spent: bool = False) -> None:
        """Let the method go on to its next wave, or to what it found."""
        self.wave = None
        try:
            self.wave = self.search.throw(BudgetSpent()) if spent else next(self.search)
        except StopIteration as stop:
            self.finding = stop.value


class Scheduler:
    """Runs methods against an engine; `places`: requests worth having under way at once."""

    def __init__(
        self, draw: Draw, judge: Judge | None, places: int, advance: Advance = silent
    ) -> None:
        self._draw, self._judge, self._advance = draw, judge, advance
        self._line = Line(places)

    async def run(
        self,
        work: Iterable[tuple[Question, Search]],
        budget: int | None = None,
        question_budget: int | None = None,
    ) -> list[Finding]:
        """Findings in the order of the work. Budgets are in tokens of rollouts.

        `budget` is shared evenly. What some questions leave of their share is shared among those
        that need more, until all is spent or all are done; then, and where a question has had
        `question_budget`, the method is told to say what it knows. A question is over its share by
        no more than its last slice of rollouts, which is cut to what its responses' mean length
        lets one expect.
        """
        own = math.inf if question_budget is None else float(question_budget)
        if budget is None:
            every = await self._pass(_Job(question, search, own) for question, search in work)
            return [self._finding(job) for job in every]
        jobs = [_Job(question, search, 0.0) for question, search in work]
        left = float(budget)
        waiting = jobs
        while waiting and left >= len(waiting):
            share = left // len(waiting)
            for job in waiting:
                job.allowance = min(own, job.question.book.spent + share)
            await self._pass(waiting)
            left = budget - sum(job.question.book.spent for job in jobs)
            waiting = [j for j in waiting if j.finding is None and j.question.book.spent < own]
        return [self._finding(job) for job in jobs]

    def _finding(self, job: _Job) -> Finding:
        if job.finding is None:
            if job.wave is None:  # it has not begun, and can catch nothing yet
                job.move()
            if job.finding is None:
                job.move(spent=True)
            if job.finding is None:
                raise RuntimeError("the method asked for more after its budget was spent")
            self._advance(len(job.question.solutions), 0)
        return job.finding

    async def _pass(self, jobs: Iterable[_Job]) -> list[_Job]:
        """Take every job to its end or to that of its allowance."""
        started: list[_Job] = []
        running: set[asyncio.Task[None]] = set()
        coming = iter(jobs)
        more = True
        try:
            while more or running:
                while more and self._line.queued < 2 * self._line.places:
                    job = next(coming, None)
                    if job is None:
                        more = False
                        break
                    started.append(job)
                    running.add(asyncio.create_task(self._work(job)))
                    # The job's first wave is in the line before the next job is let in.
                    await asyncio.sleep(0)
                if not running:
                    break
                # A job may wait long for its wave, while the line runs short: look again soon.
                done, running = await asyncio.wait(
                    running, timeout=0.02 if more else None, return_when=asyncio.FIRST_COMPLETED
                )
                # All are looked at, or asyncio would tell of those that are not.
                failures = [task.exception() for task in done]
                for failure in failures:
                    if failure is not None:
                        raise failure
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return started

    async def _work(self, job: _Job) -> None:
        book = job.question.book
        while job.finding is None:
            lacking = [w for w in job.wave or () if book.lacks(w)]
            if not lacking:
                job.move()
                if job.finding is not None:
                    self._advance(len(job.question.solutions), 0)
            elif book.spent >= job.allowance:
                return
            else:
                await self._perform(job, lacking)

    async def _perform(self, job: _Job, lacking: Sequence[Ask | Query]) -> None:
        """Ask for what a wave lacks, as far as the allowance is expected to reach."""
        book, question = job.question.book, job.question
        affordable = math.inf
        if job.allowance < math.inf:
            mean = max(1.0, question.responses.tokens / max(1, question.responses.n))
            affordable = max(1, math.ceil((job.allowance - book.spent) / mean))
        asks: dict[tuple[bool, str], tuple[Ask, int, int]] = {}
        queries: dict[Query, None] = {}
        for wanted in lacking:
            if isinstance(wanted, Query):
                queries[wanted] = None
                continue
            key = (wanted.prover, wanted.prefix.text)
            first = len(book.draws.get(key, ()))
            until = max(wanted.n, asks[key][2] if key in asks else 0)
            asks[key] = (wanted, first, until)
        served = book.spent
        draws = [(ask, n) for ask, first, until in asks.values() for n in range(first, until)]
        draws = draws[: int(min(affordable, len(draws)))]
        work: list[Awaitable[Drawn | str | BadReply]] = []
        work += [self._rollout(question, ask, n, served) for ask, n in draws]
        work += [self._verdict(question, query) for query in queries]
        self._line.queued += len(draws) + len(queries)
        results = await _all(work)
        for (ask, _), result in zip(draws, results, strict=False):
            key = (ask.prover, ask.prefix.text)
            book.positions[ask.prefix.text] = ask.prefix.position
            if isinstance(result, BadReply):
                # The first draw without an answer is what the prefix comes to, whichever came
                # first in time.
                book.failed.setdefault(key, result)
            elif isinstance(result, Drawn):
                book.spent += result.tokens
                if key not in book.failed:  # a draw keeps its index
                    book.draws.setdefault(key, []).append(result)
        for query, result in zip(queries, results[len(draws) :], strict=True):
            if isinstance(result, BadReply):
                book.failed[query] = result
            elif isinstance(result, str):
                book.verdicts[query] = result

    async def _rollout(self, question: Question, ask: Ask, n: int, served: int) -> Drawn | BadReply:
        try:
            await self._line.turn(served)
            try:
                drawn = await self._draw(question, ask.prefix, n, ask.prover)
            finally:
                self._line.leave()
        except BadReply as error:
            return error
        finally:
            self._line.queued -= 1
        self._advance(0, drawn.tokens)
        return drawn

    async def _verdict(self, question: Question, query: Query) -> str | BadReply:
        assert self._judge is not None, "the plan is checked to name a judge"
        try:
            return await self._judge(question, query)
        except BadReply as error:
            return error
        finally:
            self._line.queued -= 1


async def _all(
    work: Sequence[Awaitable[Drawn | str | BadReply]],
) -> list[Drawn | str | BadReply]:
    """Await all; the first failure cancels the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
