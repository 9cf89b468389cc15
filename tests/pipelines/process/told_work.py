"""Work for the scheduler that is told, and an engine that keeps what it was asked."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pipelines.process.scheduler import Scheduler
from pipelines.process.search import (
    Ask,
    BudgetSpent,
    Drawn,
    Finding,
    Found,
    Prefix,
    Query,
    Question,
    Search,
    Tally,
    Wave,
)
from schemas.record import digest
from schemas.records import Message, Prompt
from tests.pipelines.process.methods.driving import solution

Key = tuple[str, str, int]
"""Question, prefix text, index."""


def question(name: str, mean: int = 10) -> Question:
    """A question whose responses have so many tokens on average."""
    prompt = Prompt(
        messages=(Message(role="user", content=name),),
        reference="1",
        verifier="numeric",
        source="test",
    )
    return Question(prompt, (solution("one\ntwo"),), Tally(4, 2, 2, 0, 0, 4 * mean))


def name_of(asked: Question) -> str:
    return asked.prompt.messages[0].content


def at(text: str) -> Prefix:
    return Prefix(text, text.count("\n"))


def told(*waves: Wave) -> Search:
    """A method that wants these waves."""
    for number, wave in enumerate(waves):
        try:
            yield wave
        except BudgetSpent:
            return said(f"budget after {number}")
    return said("complete")


def said(stopped: str) -> Finding:
    return Finding((Found(solution("one\ntwo"), (), stopped),))


def stopped(finding: Finding) -> str:
    return finding.found[0].stopped


def draws(count: int, text: str = "") -> list[Ask]:
    return [Ask(at(text), count)]


@dataclass
class Engine:
    """Answers draws by a function of what is asked, after some turns of the event loop."""

    tokens: Callable[[Key], int] = lambda key: 10
    turns: Callable[[Key], int] = lambda key: 1
    fails: dict[Key, BaseException] = field(default_factory=dict)
    started: list[Key] = field(default_factory=list)
    queries: list[tuple[str, Query]] = field(default_factory=list)
    advanced: list[tuple[int, int]] = field(default_factory=list)
    under_way: int = 0
    most: int = 0

    async def draw(self, asked: Question, prefix: Prefix, index: int, prover: bool) -> Drawn:
        key = (name_of(asked), ("prover " if prover else "") + prefix.text, index)
        self.started.append(key)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(self.turns(key)):
                await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        if key in self.fails:
            raise self.fails[key]
        outcome = "right" if int(digest("outcome", *key), 16) % 2 else "wrong"
        return Drawn(outcome, None, str(key), self.tokens(key))  # type: ignore[arg-type]

    async def judge(self, asked: Question, query: Query) -> str:
        self.queries.append((name_of(asked), query))
        await asyncio.sleep(0)
        failure = self.fails.get((name_of(asked), query.template, query.sample))
        if failure is not None:
            raise failure
        return f'"{query.template} {query.sample}"'

    def scheduler(self, places: int) -> Scheduler:
        return Scheduler(
            self.draw,
            self.judge,
            places,
            lambda rows, tokens: self.advanced.append((rows, tokens)),
        )


Work = Iterable[tuple[Question, Search]]


def run(engine: Engine, places: int, work: Work, **budgets: int | None) -> list[Finding]:
    """Run, and see that nothing is left behind: no task, no failure that nobody looked at."""
    unseen: list[dict[str, Any]] = []

    async def main() -> list[Finding]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unseen.append(context))
        try:
            return await engine.scheduler(places).run(work, **budgets)
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert engine.under_way == 0

    failure: BaseException | None = None
    found: list[Finding] = []
    try:
        found = asyncio.run(main())
    except BaseException as error:
        # Its traceback holds the tasks, and they speak up only as they are let go.
        failure = error.with_traceback(None)
    gc.collect()
    assert unseen == []
    if failure is not None:
        raise failure
    return found
