"""Sample responses to prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from pipelines.config import Advance, Config, silent
from pipelines.engines.base import Engine, Request
from pipelines.pool import bounded
from pipelines.sampling import SamplingConfig, opening
from schemas.errors import BadReply
from schemas.records import Prompt, Reject, Response

NAME = "generate"
VERSION = 1


class GenerateConfig(Config):
    """Settings of response generation."""

    engine: str
    """Name of the engine that answers."""
    samples: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Responses a prompt."""
    system: str | None = None
    """System message put before every prompt that has none of its own; rollouts get it too."""
    sampling: SamplingConfig = SamplingConfig()
    """How tokens are drawn."""


async def generate(
    prompts: Sequence[Prompt],
    engine: Engine,
    config: GenerateConfig,
    seed: int,
    advance: Advance = silent,
) -> tuple[list[Response], list[Reject]]:
    """Responses in order of prompt and sample; a request without a usable answer is a Reject."""
    sampling = config.sampling.with_seed(seed)
    who, model = engine.identity.digest, engine.identity.model

    async def sample(item: tuple[Prompt, int]) -> Response | Reject:
        prompt, index = item
        try:
            messages = opening(prompt.messages, config.system)
            reply = await engine.complete(Request(messages, sampling, index))
        except BadReply as error:
            advance(1, 0)
            return Reject(
                unit=f"{prompt.id}#{index}", stage=NAME, code=error.code, detail=error.detail[:500]
            )
        advance(1, reply.completion_tokens)
        return Response(
            prompt_id=prompt.id,
            engine=who,
            model=model,
            sample_index=index,
            text=reply.text,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            finish_reason=reply.finish_reason,
            logprob=reply.logprob,
        )

    items = ((prompt, index) for prompt in prompts for index in range(config.samples))
    rows = await bounded(sample, items, engine.concurrency)
    return (
        [row for row in rows if isinstance(row, Response)],
        [row for row in rows if isinstance(row, Reject)],
    )
