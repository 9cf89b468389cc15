"""Judges that ask nothing: they read what a model finds likely.

With m(text | before) for a text's mean log-probability a token (nats) after what is before it, x for
the prompt and y for the response, the measures are

| Measure            | Score of a response                                                          |
| ------------------ | ---------------------------------------------------------------------------- |
| `policy`           | m(y given x): length-normalised likelihood, SimPO's reward (Meng et al. 2024, |
|                    | arXiv:2405.14734)                                                            |
| `perplexity_ratio` | m(y given x) - m(y alone) = -log(ppl(y given x) / ppl(y)): how much the       |
|                    | prompt tells of the response; the ratio is the instruction-following          |
|                    | difficulty of Li et al. 2023, arXiv:2308.12032                               |
| `density_ratio`    | (log p(y given x) - log q(y given x)) / tokens of y: q is the model of        |
|                    | `against`, a weaker or less aligned one (Dr. SoW, Xu et al. 2024,             |
|                    | arXiv:2411.02481)                                                            |
| `reference`        | m(reference answer given x, y): after what the response says, how likely is   |
|                    | the right answer (after RLPR, Yu et al. 2025, arXiv:2506.18254, whose reward  |
|                    | is the mean probability instead)                                             |
| `follow_up`        | mean of m(s given x, y) over satisfied user turns s, less that over           |
|                    | dissatisfied ones (after Follow-up Likelihood as Reward, Zhang et al. 2024,   |
|                    | arXiv:2409.13948)                                                            |

Means a token keep long texts from losing by their length alone. "Alone" is after an empty user turn,
since a chat template needs one. An engine writes the assistant's turns only, so for `follow_up` the
roles are swapped: after one opening turn the model plays the user, and the response is what it is
told; a system message is left out. The reference stands where the response would go on, after
`LEAD`. No measure counts an end token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from annotated_types import MinLen
from pydantic import StringConstraints, model_validator

from pipelines.config import Advance, Config, silent
from pipelines.engines.base import Engine
from pipelines.judge.cases import (
    Case,
    Engines,
    Opinions,
    Outcome,
    by_case,
    opinions_of,
    responses_of,
)
from pipelines.judge.logits import likelihood
from pipelines.pool import bounded
from schemas.errors import BadReply, UserError
from schemas.record import digest
from schemas.records import Message, Prompt, Response

VERSION = 1

LEAD = "\n\nThe answer is"
"""What goes between a response and the reference, which follows after a space."""
OPENING = "Talk with me as a user talks with an assistant: write the user's messages."
"""The turn after which the model plays the user."""

Measure = Literal["reference", "perplexity_ratio", "density_ratio", "follow_up", "policy"]
Turn = Annotated[str, StringConstraints(min_length=1)]


class LikelihoodConfig(Config):
    """A judge that scores responses by log-probabilities, without a prompt of its own."""

    kind: Literal["likelihood"] = "likelihood"
    """Judge kind."""
    engine: str
    """Name of the engine that scores texts."""
    measure: Measure
    """What is scored: `reference` (the reference answer after the response), `perplexity_ratio` (the
    response after the prompt, less alone), `density_ratio` (the response under `engine`, less under
    `against`), `follow_up` (satisfied user turns after the response, less dissatisfied ones),
    `policy` (the response after the prompt). All a token."""
    against: str | None = None
    """For `density_ratio`: name of the engine of the weaker model."""
    satisfied: Annotated[tuple[Turn, ...], MinLen(1)] = (
        "Thank you, that is exactly what I needed.",
        "Great, that answers my question.",
        "That is right, and it was easy to follow.",
    )
    """For `follow_up`: what a satisfied user would say next."""
    dissatisfied: Annotated[tuple[Turn, ...], MinLen(1)] = (
        "That is not what I asked for.",
        "No, that is wrong. Please try again.",
        "This does not help me at all.",
    )
    """For `follow_up`: what a dissatisfied user would say next."""

    @model_validator(mode="after")
    def _check_against(self) -> Self:
        if (self.measure == "density_ratio") != (self.against is not None):
            raise ValueError('against goes with measure = "density_ratio", and that needs it')
        return self


def material(config: LikelihoodConfig) -> str:
    """Digest of what else decides the votes: the module's version and the words it adds."""
    return digest("likelihood", VERSION, LEAD, OPENING)


async def judge(
    name: str,
    config: LikelihoodConfig,
    cases: Sequence[Case],
    engines: Engines,
    seed: int,
    advance: Advance = silent,
) -> Opinions:
    """One vote a response, its raw score, and one a pair: 2 sigmoid(score a - score b) - 1.

    Each response is scored once; no order is shown, so pair votes have none. Without a value, with
    its code as the reason: `no_reference`, `empty_response`, and what an engine's BadReply says,
    which is a Reject too. Raises UserError where the plan names no such engine, EngineError where
    one cannot score texts.
    """
    for wanted in (config.engine, config.against):
        if wanted is not None and wanted not in engines:
            raise UserError(f"judge {name}: the plan has no engine {wanted!r}")
    engine = engines[config.engine]
    other = engines[config.against] if config.against is not None else None
    responses = responses_of(cases)
    finished = by_case(len(cases), len(responses), advance)

    async def scored(item: tuple[Prompt, Response]) -> Outcome:
        prompt, response = item
        found: Outcome
        if not response.text:
            found = "empty_response"
        elif config.measure == "reference" and not prompt.reference:
            found = "no_reference"
        else:
            try:
                found = await _score(config, prompt, response.text, engine, other, seed)
            except BadReply as error:
                found = error
        finished(1)
        return found

    found = await bounded(scored, responses.values(), engine.concurrency)
    return opinions_of(name, "llm", cases, dict(zip(responses, found, strict=True)))


async def _score(
    config: LikelihoodConfig,
    prompt: Prompt,
    text: str,
    engine: Engine,
    other: Engine | None,
    seed: int,
) -> float:
    """One response's score in nats a token. Raises BadReply and EngineError."""
    messages = prompt.messages
    if config.measure == "reference":
        wanted = f" {prompt.reference}"
        return (await likelihood(engine, messages, wanted, seed, text + LEAD)).mean
    if config.measure == "follow_up":
        after = (*_swapped(messages), Message(role="user", content=text))
        liked = [await likelihood(engine, after, turn, seed) for turn in config.satisfied]
        disliked = [await likelihood(engine, after, turn, seed) for turn in config.dissatisfied]
        return _mean([one.mean for one in liked]) - _mean([one.mean for one in disliked])
    given = await likelihood(engine, messages, text, seed)
    if config.measure == "perplexity_ratio":
        alone = await likelihood(engine, (Message(role="user", content=""),), text, seed)
        return given.mean - alone.mean
    if other is not None:  # the two may cut the text into tokens differently: it is one text
        return (given.total - (await likelihood(other, messages, text, seed)).total) / given.tokens
    return given.mean


def _swapped(messages: Sequence[Message]) -> list[Message]:
    """A conversation in which the model plays the user."""
    turns = [m for m in messages if m.role != "system"]
    swapped = [
        Message(role="user" if m.role == "assistant" else "assistant", content=m.content)
        for m in turns
    ]
    return [Message(role="user", content=OPENING), *swapped]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
