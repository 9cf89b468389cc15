"""What the methods that ask a model share: asking, and reading what is drafted as criteria."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipelines.config import Advance, silent
from pipelines.engines.base import Engine, Sampling
from pipelines.pool import bounded
from pipelines.prompting import load
from pipelines.rubrics.evidence import LEAST, similarity
from pipelines.rubrics.weights import IMPORTANCE
from pipelines.structured import ask_json
from schemas.records import Criterion, Pair, Prompt, Reject, Response

Item = TypeVar("Item")

STAGE = "rubrics"
TEMPLATES = Path(__file__).parent / "templates"
MAX_TEXT = 400
"""Longest criterion, in characters."""
MAX_EVIDENCE = 400
"""Longest quoted span."""

# A criterion is for responses not seen yet: one that speaks of those shown says nothing of others.
_SHOWN = re.compile(
    r"\b[Rr]esponse [AB]\b|\b(?i:better|worse|best|worst|preferred|chosen|rejected|ranked) response\b"
)


@dataclass(frozen=True)
class Draft:
    """A criterion as drafted, with the pairs it was drawn from.

    `covers` names what it speaks for when criteria are selected: its pairs, or other units.
    """

    criterion: Criterion
    prompt_id: str | None
    pairs: frozenset[str] = frozenset()
    covers: frozenset[str] = frozenset()


class Drawn(NamedTuple):
    """What a method drew, and what it could not use."""

    drafts: list[Draft]
    rejects: list[Reject]


@dataclass(frozen=True)
class Comparison:
    """Responses to one prompt, best first, and the pairs that say so."""

    prompt: Prompt
    responses: tuple[Response, ...]
    pairs: tuple[Pair, ...]

    @property
    def unit(self) -> str:
        """What a reject of it is about."""
        return self.pairs[0].id if len(self.pairs) == 1 else self.prompt.id


@dataclass(frozen=True)
class Writer:
    """The engine that writes, how it is asked, and how many criteria a reply may hold."""

    engine: Engine
    sampling: Sampling
    samples: int
    limit: int
    advance: Advance = silent

    async def ask(
        self, template: str, values: Mapping[str, str], schema: Mapping[str, Any], sample: int = 0
    ) -> Any:
        """A reply that fits the schema, decoded. Raises BadReply."""
        messages = load(TEMPLATES, template).fill(values)
        return json.loads(
            await ask_json(self.engine, messages, json.dumps(schema), self.sampling, sample)
        )


async def sampled(
    items: Iterable[Item], writer: Writer, draw: Callable[[Item, int, Writer], Awaitable[Drawn]]
) -> Drawn:
    """What each of the writer's samples draws from every item, in the items' order."""

    async def one(work: tuple[Item, int]) -> Drawn:
        drawn = await draw(*work, writer)
        writer.advance(1, 0)
        return drawn

    every = [(item, sample) for item in items for sample in range(writer.samples)]
    whole = Drawn([], [])
    for part in await bounded(one, every, writer.engine.concurrency):
        whole.drafts.extend(part.drafts)
        whole.rejects.extend(part.rejects)
    return whole


def reject(unit: str, code: str, detail: str) -> Reject:
    """A row that stopped here."""
    return Reject(unit=unit, stage=STAGE, code=code, detail=detail[:500])


def asked(prompt: Prompt) -> str:
    """A prompt as one text."""
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    return "\n\n".join(f"{message.role}:\n{message.content}" for message in prompt.messages)


def criterion(
    unit: str,
    text: str,
    kind: str,
    importance: str | None = None,
    evidence: str | None = None,
    sources: Sequence[str] = (),
) -> Criterion | Reject:
    """A drafted item as a criterion, or why it is none.

    Codes: `empty_criterion`; `names_a_response` (it is about the responses shown, not about any);
    `evidence_not_found` (its quoted span is in none of the sources).
    """
    plain = " ".join(text.split())
    if not any(character.isalnum() for character in plain):
        return reject(unit, "empty_criterion", f"a criterion without words: {plain!r}")
    if named := _SHOWN.search(plain):
        return reject(unit, "names_a_response", f"{named[0]!r} in: {plain}")
    if evidence is not None:
        best = max((similarity(evidence, source) for source in sources), default=0.0)
        if not best > LEAST:
            said = f"{best:.0f}% of {evidence[:150]!r} is in the texts shown; criterion: {plain}"
            return reject(unit, "evidence_not_found", said)
    return Criterion.model_validate(
        {
            "kind": "pitfall" if importance == "pitfall" else kind,
            "text": plain,
            "weight": 1.0 if importance is None else IMPORTANCE[importance],
            "category": importance,
            "evidence": evidence,
        }
    )


# --- replies' forms, within the subset of pipelines/structured.py -----------------------------------


def text_form(most: int) -> dict[str, Any]:
    """A text of bounded length: a bound lets a constrained writer come to an end."""
    return {"type": "string", "maxLength": most}


def choice_form(*choices: str) -> dict[str, Any]:
    """One of some words."""
    return {"type": "string", "enum": list(choices)}


def list_form(items: Mapping[str, Any], most: int) -> dict[str, Any]:
    """A list of bounded length."""
    return {"type": "array", "items": dict(items), "maxItems": most}
