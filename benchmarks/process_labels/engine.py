"""The chain policy as an engine, so that the real stage can be run against exact values."""

from __future__ import annotations

import re
from typing import Self

from benchmarks.process_labels.chain import Cell, Chain, Policy
from pipelines.engines.base import Identity, Reply, Request
from schemas.record import digest


class ChainEngine:
    """Continues solutions of chain questions, exactly from the prefix; tokens are words.

    The question is the last message's text. What is written depends on the sampling's seed, the
    question, the prefix and the sample's index, on nothing else.
    """

    def __init__(self, cell: Cell, concurrency: int = 64) -> None:
        self.cell = cell
        self._concurrency = concurrency
        self._identity = Identity("chain", cell.name, digest("chain", cell.name), "", "simulated")
        self._policies: dict[str, Policy] = {}

    @property
    def identity(self) -> Identity:
        """Covers the cell."""
        return self._identity

    @property
    def concurrency(self) -> int:
        """As given."""
        return self._concurrency

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    async def complete(self, request: Request) -> Reply:
        """The rest of a solution, cut after `max_tokens` words."""
        asked = request.messages[-1].content
        if asked not in self._policies:
            self._policies[asked] = Policy(self.cell, Chain.parse(asked))
        drawn = self._policies[asked].draw(request.prefix, request.sample, request.sampling.seed)
        read = sum(len(m.content.split()) for m in request.messages) + len(request.prefix.split())
        most = request.sampling.max_tokens
        if drawn.tokens <= most:
            return Reply(drawn.text, "stop", read, drawn.tokens)
        kept = re.match(rf"(?:\s*\S+){{{most}}}", drawn.text)
        assert kept is not None
        return Reply(kept[0], "length", read, most)
