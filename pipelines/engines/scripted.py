"""An engine without a model: for dry runs of a plan at no cost, and for tests."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Literal, Self

from pydantic import Field

from pipelines.config import Config
from pipelines.engines.base import Identity, Reply, Request, Tokens, request_key, request_seed
from schemas.errors import BadReply, EngineError
from schemas.record import digest


class ScriptedConfig(Config):
    """Settings of the scripted engine."""

    kind: Literal["scripted"] = "scripted"
    """Engine kind."""
    replies: Annotated[tuple[str, ...], Field(min_length=1)]
    """Texts to choose from: the choice depends on the request alone."""
    fail_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the requests, chosen by their hash, that fail with `refused`."""
    delay_ms: Annotated[float, Field(ge=0)] = 0.0
    """Time that an answer takes, in milliseconds."""
    concurrency: Annotated[int, Field(ge=1)] = 256
    """How many requests may be under way at once."""
    ask_log: str | None = None
    """File to which every request asked is appended, as `HEXKEY SAMPLE`, before it is answered."""


class ScriptedEngine:
    """Answers every request with one of the scripted replies.

    A reply is given whole (`max_tokens`, `stop`, `prefix` and `schema` do not change it). Tokens
    are counted as words between whitespace. Sample indices of one prompt get independent choices.
    A text to be scored gets a log-probability in [-5, 0) a word, from the request's hash.
    """

    def __init__(self, config: ScriptedConfig) -> None:
        self.config = config
        content = digest("scripted", list(config.replies), config.fail_share)
        self._identity = Identity("scripted", "scripted", content, "", "scripted")
        self._slots: asyncio.Semaphore

    @property
    def identity(self) -> Identity:
        """Covers the replies and the failures; neither the delay nor the log."""
        return self._identity

    @property
    def concurrency(self) -> int:
        """As configured."""
        return self.config.concurrency

    async def __aenter__(self) -> Self:
        self._slots = asyncio.Semaphore(self.config.concurrency)
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def complete(self, request: Request) -> Reply:
        """One of the replies. Raises BadReply (`refused`) for the share that is to fail."""
        identity = self._identity.digest
        async with self._slots:
            if self.config.ask_log is not None:
                key = request_key(identity, request).hex()
                _append(self.config.ask_log, f"{key} {request.sample}\n")
            await asyncio.sleep(self.config.delay_ms / 1000)
        share, replies = self.config.fail_share, self.config.replies
        # Where nothing is left to chance none is drawn: hashing a long prompt takes its time.
        chance = bool(share) or len(replies) > 1 or bool(request.scored)
        seed = request_seed(identity, request) if chance else 0
        # Another hash than the one that chooses, so that failing says nothing about the choice.
        if share and int(digest("fail", seed), 16) < share * 2**128:
            raise BadReply("refused", "scripted failure")
        asked = [*(m.content for m in request.messages), request.prefix]
        read = sum(len(t.split()) for t in asked)
        if request.scored:
            words = max(1, len(request.scored.split()))
            return Reply("", "stop", read, words, -5.0 * words * (seed + 1) / 2**63)
        text = replies[seed % len(replies)]
        return Reply(text, "stop", read, len(text.split()))

    def tokens(self, text: str) -> Tokens | None:
        """None: there is no tokenizer."""
        return None


def _append(path: str, line: str) -> None:
    """One write of an append-only descriptor: lines of several processes do not mix."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise EngineError(f"ask_log {path} cannot be written: {error.strerror}") from error
