"""What the LLM judges share: their settings, what a request shows, how a reply becomes an opinion.

Everything shown is untrusted: it stands in blocks of a template (pipelines/prompting.py) that no
text can close. A reply is read strictly (pipelines/structured.py), never guessed at.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, NamedTuple, Self

from pydantic import Field, model_validator

from pipelines.config import Advance, Config
from pipelines.engines.base import Engine
from pipelines.judge.cases import MAX_REASON, STAGE, Case
from pipelines.pool import bounded
from pipelines.prompting import Template, load, numbered, tagged
from pipelines.sampling import SamplingConfig
from pipelines.structured import RETRY_STRIDE, ask_json, object_form
from schemas.errors import BadReply, UserError
from schemas.records import Criterion, Message, Reject

TEMPLATES = Path(__file__).parent / "templates"
MAX_REASONING = 1500
"""Longest reasoning, in characters; a bound lets a constrained judge come to an end."""


class LLMConfig(Config):
    """Settings of every LLM judge."""

    engine: str
    """Name of the engine that is asked."""
    reference: bool = False
    """Show the prompt's reference answer, where it has one."""
    rubric: bool = False
    """Show the criteria of the case's rubric, where it has one."""
    dimensions: tuple[str, ...] = ()
    """What to judge by alone, such as `factual accuracy`; empty: how well the person is served."""
    think: bool = False
    """Reason first, then judge: the reply's first field is its reasoning."""
    logits: bool = False
    """Read the verdict from the log-probabilities of its words, on engines that give them."""
    samples: Annotated[int, Field(ge=1, lt=RETRY_STRIDE)] = 1
    """Replies a request; their verdicts are averaged."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.3, max_tokens=1024)
    """How tokens are drawn. At temperature 0 an unusable reply may come out the same again."""
    template: str | None = None
    """Name of the prompt, a file of pipelines/judge/templates; none: the kind's own."""
    system: str | None = None
    """Text put before the prompt's own system message."""

    @model_validator(mode="after")
    def _one_way_to_score(self) -> Self:
        if self.logits and self.think:
            raise ValueError("logits reads the verdict at once: leave think off")
        if self.logits and self.samples > 1:
            raise ValueError("log-probabilities do not vary: leave samples at 1")
        return self


class Shown(NamedTuple):
    """What one request shows. Equal ones are one request."""

    prompt: str
    reference: str | None
    criteria: str | None
    responses: tuple[str, ...]


class Verdict(NamedTuple):
    """What one reply says: a value with the judge's words, or no value, a code and what was found."""

    value: float | None
    words: str
    detail: str = ""


class Opinion(NamedTuple):
    """What the samples of a request come to: the mean of the usable ones; all that failed."""

    value: float | None
    reason: str
    failures: tuple[tuple[int, Verdict], ...] = ()
    """Sample and verdict of the unusable replies."""


@dataclass(frozen=True)
class Form:
    """One way to judge: what is shown, what is to be replied, and what that is worth."""

    template: str
    slots: tuple[str, ...]
    """Of the template, for the responses, in their order."""
    properties: dict[str, Any]
    """JSON schema of the verdict's fields; reasoning goes before them."""
    value: Callable[[dict[str, Any]], float]
    """A verdict as a number."""
    measure: Callable[[Engine, tuple[Message, ...], int], Awaitable[float]]
    """That number from log-probabilities: of an engine, messages and a seed."""

    def schema(self, think: bool) -> str:
        """JSON schema of a reply, within the subset of pipelines/structured.py."""
        reasoning = {"reasoning": {"type": "string", "maxLength": MAX_REASONING}}
        return json.dumps(object_form(**(reasoning if think else {}), **self.properties))


class Asker:
    """Asks one judge's requests, as many at a time as its engine wants."""

    def __init__(
        self, form: Form, config: LLMConfig, engine: Engine, seed: int, advance: Advance
    ) -> None:
        self.config = config
        self._form = form
        self._engine = engine
        self._seed = seed
        self.advance = advance
        self._sampling = config.sampling.with_seed(seed)
        self._schema = form.schema(config.think)
        self._template = _template(form, config)
        self.concurrency = engine.concurrency
        self._slots = asyncio.Semaphore(engine.concurrency)

    def shown(self, case: Case, *responses: str) -> Shown:
        """What a request on some responses to a case's prompt shows."""
        return Shown(
            _conversation(case.prompt.messages),
            case.prompt.reference if self.config.reference else None,
            _criteria(case.rubric) if self.config.rubric and case.rubric else None,
            responses,
        )

    def messages(self, shown: Shown) -> tuple[Message, ...]:
        """The messages of a request, but for what is said of the reply's form."""
        values = {"prompt": shown.prompt}
        if shown.reference is not None:
            values["reference"] = shown.reference
        if shown.criteria is not None:
            values["criteria"] = shown.criteria
        if self.config.dimensions:
            values["dimensions"] = "\n".join(self.config.dimensions)
        values.update(zip(self._form.slots, shown.responses, strict=True))
        system, user = self._template.fill(values)
        if self.config.system:
            content = f"{self.config.system}\n\n{system.content}"
            system = Message(role="system", content=content)
        return (system, user)

    async def opinions(self, asked: Collection[Shown], rows: int) -> dict[Shown, Opinion]:
        """The opinion on everything shown; `rows` rows are finished on the way."""
        samples = self.config.samples
        total, done, told = len(asked) * samples, 0, 0

        async def verdict(item: tuple[Shown, int]) -> Verdict:
            nonlocal done, told
            async with self._slots:
                found = await self._verdict(*item)
            done += 1
            finished = rows * done // total
            if finished > told:
                self.advance(finished - told, 0)
                told = finished
            return found

        items = ((shown, sample) for shown in asked for sample in range(samples))
        verdicts = await bounded(verdict, items, self.concurrency)
        starts = range(0, total, samples)
        return {
            shown: _opinion(verdicts[start : start + samples])
            for shown, start in zip(asked, starts, strict=True)
        }

    async def _verdict(self, shown: Shown, sample: int) -> Verdict:
        messages = self.messages(shown)
        try:
            if self.config.logits:
                return Verdict(await self._form.measure(self._engine, messages, self._seed), "")
            reply = await ask_json(
                self._engine,
                messages,
                self._schema,
                self._sampling,
                sample,
                heard=lambda reply: self.advance(0, reply.completion_tokens),
            )
        except BadReply as error:
            return Verdict(None, error.code, error.detail)
        said = json.loads(reply)
        return Verdict(self._form.value(said), said.get("reasoning", ""))


def rejects(name: str, unit: str, of: str, opinion: Opinion) -> list[Reject]:
    """A row for every reply that was unusable; `of` says which request it was."""
    return [
        Reject(
            unit=unit,
            stage=STAGE,
            code=failed.words,
            detail=f"{name}, {of}, sample {sample}: {failed.detail}"[:500],
        )
        for sample, failed in opinion.failures
    ]


def _opinion(verdicts: Sequence[Verdict]) -> Opinion:
    usable = [verdict for verdict in verdicts if verdict.value is not None]
    if len(usable) == len(verdicts) == 1:
        return Opinion(usable[0].value, usable[0].words[:MAX_REASON])
    failures = tuple((i, verdict) for i, verdict in enumerate(verdicts) if verdict.value is None)
    if not usable:
        return Opinion(None, verdicts[0].words, failures)
    words = "\n\n".join(verdict.words for verdict in usable if verdict.words)
    value = fmean(verdict.value for verdict in usable if verdict.value is not None)
    return Opinion(value, words[:MAX_REASON], failures)


def _template(form: Form, config: LLMConfig) -> Template:
    name = config.template or (f"{form.template}_logits" if config.logits else form.template)
    known = sorted(path.stem for path in TEMPLATES.glob("*.md"))
    if name not in known:
        raise UserError(f"no judge template {name!r}; there are: {', '.join(known)}")
    template = load(TEMPLATES, name)
    if template.slots - template.optional != {"prompt", *form.slots}:
        raise UserError(f"judge template {name!r} is not for {form.template} judging")
    return template


def _conversation(messages: tuple[Message, ...]) -> str:
    """One turn as it is; several in a block each."""
    return messages[0].content if len(messages) == 1 else _turns(messages)


# The cases of a prompt follow one another.
@lru_cache(maxsize=1024)
def _turns(messages: tuple[Message, ...]) -> str:
    return tagged([(message.role, message.content) for message in messages])


@lru_cache(maxsize=1024)
def _criteria(rubric: tuple[Criterion, ...]) -> str:
    return numbered(
        "criterion",
        [f"{c.kind.replace('_', ' ')}, weight {c.weight:g}: {c.text}" for c in rubric],
    )
