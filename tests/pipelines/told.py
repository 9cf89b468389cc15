"""An engine for tests: it answers what it is told to, and remembers what it was asked."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Self

from pipelines.engines.base import Identity, Reply, Request, Tokens

Answer = Reply | BaseException
Told = Callable[[Request], Answer | Awaitable[Answer]]


def reply(text: str, tokens: int = 1, finish: str = "stop") -> Reply:
    """A reply of so many tokens."""
    return Reply(text, finish, 2, tokens, None)  # type: ignore[arg-type]


class ToldEngine:
    """Answers by a function of the request; an exception it gives is raised."""

    def __init__(self, told: Told, concurrency: int = 8, model: str = "told") -> None:
        self.told = told
        self.asked: list[Request] = []
        self.opened = 0
        self._concurrency = concurrency
        self._identity = Identity("told", model, "r", "t", "e")

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def concurrency(self) -> int:
        return self._concurrency

    async def __aenter__(self) -> Self:
        self.opened += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.opened -= 1

    async def complete(self, request: Request) -> Reply:
        self.asked.append(request)
        answer = self.told(request)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def tokens(self, text: str) -> Tokens | None:
        return None
