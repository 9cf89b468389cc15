"""Verdicts from log-probabilities: what a model would say next, without having it say so.

Nothing is drawn, so nothing has to be read from a reply. The engine has to score given texts (see
`Request.scored`); one that cannot raises EngineError.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import NamedTuple

from pipelines.engines.base import Engine, Request, Sampling
from schemas.errors import EngineError
from schemas.records import Message

YES, NO = "yes", "no"
LETTERS = ("A", "B")


class Likelihood(NamedTuple):
    """A text's log-probability in nats, summed over its tokens, and how many those are."""

    total: float
    tokens: int

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.total / self.tokens


async def likelihood(
    engine: Engine,
    messages: Sequence[Message],
    text: str,
    seed: int = 0,
    prefix: str = "",
) -> Likelihood:
    """log p(text | messages, prefix), the text being what the assistant says next.

    The text must not be empty. Raises BadReply and EngineError.
    """
    if not text:
        raise ValueError("there is no text to score")
    sampling = Sampling(temperature=0.0, max_tokens=1, seed=seed)
    asked = Request(tuple(messages), sampling, prefix=prefix, scored=text)
    reply = await engine.complete(asked)
    if reply.logprob is None or reply.completion_tokens < 1:
        raise EngineError(
            "the engine gives no log-probabilities of a given text; use another engine here"
        )
    return Likelihood(reply.logprob, reply.completion_tokens)


async def choices(
    engine: Engine,
    messages: Sequence[Message],
    options: Sequence[str],
    seed: int = 0,
    prefix: str = "",
) -> tuple[float, ...]:
    """Log-probabilities (nats) of the options as the assistant's next words, in their order.

    Each is the sum over an option's tokens, so options are to be of about one length, at best of
    one token. They need not add up to 1. Raises BadReply and EngineError.
    """
    asked = (likelihood(engine, messages, option, seed, prefix) for option in options)
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return tuple([found.total for found in await asyncio.gather(*tasks)])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def preference(
    engine: Engine,
    messages: Sequence[Message],
    seed: int = 0,
    letters: Sequence[str] = LETTERS,
    prefix: str = "",
) -> float:
    """P(A): the first letter's share of the letters' probability, in [0, 1].

    exp(l_1) / sum over i of exp(l_i), the softmax of the letters' log-probabilities. Raises as
    `choices`.
    """
    found = await choices(engine, messages, letters, seed, prefix)
    top = max(found)
    weights = [math.exp(one - top) for one in found]
    return weights[0] / math.fsum(weights)


async def yes_no(engine: Engine, messages: Sequence[Message], seed: int = 0) -> float:
    """log p(yes) - log p(no), in nats: above 0 where the model leans to yes. Raises as `choices`."""
    yes, no = await choices(engine, messages, (YES, NO), seed)
    return yes - no
