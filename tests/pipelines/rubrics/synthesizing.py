"""Rows and engines to make rubrics of, for tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from pipelines.engines.base import Request
from pipelines.rubrics.config import RubricsConfig
from pipelines.rubrics.synthesis import Made, synthesize
from schemas.records import Criterion, Message, Pair, Prompt, Reject, Response, Rubric
from schemas.table import validate
from tests.pipelines.rows import response
from tests.pipelines.told import ToldEngine, reply

Replies = Callable[[str], Any]
"""What the engine says to a request's text: a JSON-able reply, raw text, or an error."""


def prompt(text: str, reference: str | None = None) -> Prompt:
    return Prompt(
        messages=(Message(role="user", content=text),), reference=reference, source="test"
    )


class Rows:
    """Prompts with a better and a worse response each."""

    def __init__(self, count: int, hostile: str = "") -> None:
        self.prompts = [prompt(f"Write {i} words on the sea.", f"Salt {i}.") for i in range(count)]
        self.responses: list[Response] = []
        self.pairs: list[Pair] = []
        for index, row in enumerate(self.prompts):
            good = response(row.id, 0, f"The sea number {index} is calm.{hostile}")
            bad = response(row.id, 1, f"I dunno {index}.")
            self.responses += [good, bad]
            flipped = index % 2 == 1
            a, b = (bad, good) if flipped else (good, bad)
            self.pairs.append(
                Pair(
                    prompt_id=row.id,
                    response_a=a.id,
                    response_b=b.id,
                    label="b" if flipped else "a",
                )
            )

    def all(self) -> tuple[list[Prompt], list[Response], list[Pair]]:
        return self.prompts, self.responses, self.pairs


def engine(replies: Replies) -> ToldEngine:
    def told(request: Request) -> Any:
        answer = replies(request.messages[-1].content)
        if isinstance(answer, BaseException):
            return answer
        return reply(answer if isinstance(answer, str) else json.dumps(answer))

    return ToldEngine(told)


def make(rows: Rows, replies: Replies | ToldEngine, seed: int = 0, **settings: Any) -> Made:
    embed = settings.pop("embed", None)
    feedback = settings.pop("feedback", None)
    config = RubricsConfig(**({"engine": "writer", "held_out": 0.0} | settings))
    told = replies if isinstance(replies, ToldEngine) else engine(replies)
    work = synthesize(*rows.all(), config, {"writer": told}, seed, embed=embed, feedback=feedback)
    made = asyncio.run(work)
    for record, table in (
        (Criterion, made.criteria),
        (Rubric, made.rubrics),
        (Reject, made.rejects),
    ):
        validate(record, record.to_table(table))
    known = {row.id for row in made.criteria}
    assert known == {id for rubric in made.rubrics for id in rubric.criteria}
    return made


def item(text: str, evidence: str, kind: str = "principle", importance: str = "important") -> Any:
    return {"evidence": evidence, "text": text, "kind": kind, "importance": importance}


def contrast(*items: Any) -> Any:
    return {"requirements": ["words"], "differences": ["calm"], "criteria": list(items)}


def codes(made: Made) -> list[str]:
    return sorted(reject.code for reject in made.rejects)
