"""What the stages that ask an engine share: sampling settings, and what a request opens with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.config import Config
from pipelines.engines.base import Sampling
from schemas.records import Message


class SamplingConfig(Config):
    """How tokens are drawn."""

    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the smallest set of tokens with this much probability; 1: from all."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Draw from the k likeliest tokens; 0: from all."""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Longest answer, in tokens; a longer one is cut and counted as truncated."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they are not part of it."""

    def with_seed(self, seed: int) -> Sampling:
        """The engine's form."""
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_tokens, self.stop, seed)


def opening(messages: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    """A prompt's messages after the plan's system message; one of the prompt's own goes before it."""
    if not system or messages[0].role == "system":
        return messages
    return (Message(role="system", content=system), *messages)
