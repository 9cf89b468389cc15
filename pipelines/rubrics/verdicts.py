"""Whether responses meet criteria: a judge's verdicts, and code's on criteria that code can check.

A verdict is about the criterion's words alone: 1 they are true of the response, 0 they are not, 1/2
partly. That a pitfall counts against a response is for scoring to say.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipelines.config import Advance, Config, silent
from pipelines.engines.base import Engine
from pipelines.judge.cases import MAX_REASON
from pipelines.pool import bounded
from pipelines.prompting import Template, load, numbered
from pipelines.sampling import SamplingConfig
from pipelines.structured import ask_json, object_form
from schemas.errors import BadReply
from schemas.records import Criterion, Prompt, Reject, Response, Vote

NAME = "verdicts"
VERSION = 1

VALUES = {"yes": 1.0, "partly": 0.5, "no": 0.0, "cannot_tell": None}
MAX_JUSTIFICATION = 500
"""Longest justification, in characters; a bound lets a constrained judge come to an end."""

Item = tuple[Prompt, Response, Sequence[Criterion]]
Verify = Callable[[str, Prompt, str], bool | None]
"""(a criterion's verifier, the prompt, the response's text) -> kept, broken, or None: code cannot say.

Raises ValueError where the verifier is none."""


class VerdictsConfig(Config):
    """How a judge is asked."""

    ask: Literal["words", "logits"] = "words"
    """`words`: verdicts with justifications, many criteria a request. `logits`: the probability of
    yes against no, one request a criterion, for engines that give log-probabilities."""
    batch: Annotated[int, Field(ge=1, le=100)] = 10
    """Criteria a request; under `words`."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.0, max_tokens=4096)
    """How the replies' tokens are drawn; under `words`."""


@dataclass
class _Work:
    """A response and its criteria, each once."""

    prompt: Prompt
    response: Response
    criteria: dict[str, Criterion] = field(default_factory=dict)


_Verdict = tuple[float | None, str]
_Request = tuple[_Work, tuple[str, ...]]
_Outcome = tuple[dict[str, _Verdict], list[Reject]]


async def verdicts(
    name: str,
    config: VerdictsConfig,
    items: Sequence[Item],
    engine: Engine,
    verify: Verify,
    seed: int,
    advance: Advance = silent,
) -> tuple[list[Vote], list[Reject]]:
    """One vote of judge `name` for every response and criterion, in the order they first appear.

    A criterion with a verifier is checked by code and never shown to the judge. Votes without a
    value say why in their reason: `cannot_tell: ...` in the judge's words, `not_checkable` where
    code cannot say, `bad_verifier`, or the code of a request that got no usable answer. The last
    two leave a Reject, too, one a vote. `advance` counts votes.
    """
    works: dict[str, _Work] = {}
    for prompt, response, criteria in items:
        work = works.setdefault(response.id, _Work(prompt, response))
        for criterion in criteria:
            work.criteria.setdefault(criterion.id, criterion)

    async def answered(request: _Request) -> _Outcome:
        work, ids = request
        criteria = [work.criteria[criterion] for criterion in ids]
        outcome: _Outcome
        if criteria[0].verifier is not None:
            outcome = _checked(work, criteria[0], verify)
        else:
            try:
                asked = _logits if config.ask == "logits" else _words
                found = await asked(work, criteria, config, engine, seed)
                outcome = (dict(zip(ids, found, strict=True)), [])
            except BadReply as error:
                outcome = _failed(work, ids, error.code, error.detail)
        advance(len(ids), 0)
        return outcome

    size = config.batch if config.ask == "words" else 1
    requests = [request for work in works.values() for request in _requests(work, size)]
    outcomes = await bounded(answered, requests, engine.concurrency)
    found: dict[tuple[str, str], _Verdict] = {}
    rejects: list[Reject] = []
    for (work, _), (own, refused) in zip(requests, outcomes, strict=True):
        found |= {(work.response.id, criterion): verdict for criterion, verdict in own.items()}
        rejects += refused
    votes = [
        _vote(name, work.response.id, criterion, found[work.response.id, criterion])
        for work in works.values()
        for criterion in work.criteria
    ]
    return votes, rejects


def templates_digest(config: VerdictsConfig) -> str:
    """Digest of the template that the config asks with: part of a run's identity."""
    return _template("verdict" if config.ask == "logits" else "verdicts").digest


def _requests(work: _Work, size: int) -> list[_Request]:
    """Criteria that code checks one by one, the others in batches."""
    code = [(work, (key,)) for key, c in work.criteria.items() if c.verifier is not None]
    asked = [key for key, c in work.criteria.items() if c.verifier is None]
    return [*code, *((work, tuple(asked[i : i + size])) for i in range(0, len(asked), size))]


def _checked(work: _Work, criterion: Criterion, verify: Verify) -> _Outcome:
    assert criterion.verifier is not None
    try:
        kept = verify(criterion.verifier, work.prompt, work.response.text)
    except ValueError as error:
        return _failed(work, (criterion.id,), "bad_verifier", str(error))
    if kept is None:
        return {criterion.id: (None, "not_checkable")}, []
    return {criterion.id: (float(kept), "code: kept" if kept else "code: broken")}, []


def _failed(work: _Work, ids: Sequence[str], code: str, detail: str) -> _Outcome:
    rejects = [
        Reject(
            unit=work.response.id,
            stage=NAME,
            code=code,
            detail=f"criterion {criterion}: {detail}"[:500],
        )
        for criterion in ids
    ]
    return {criterion: (None, code) for criterion in ids}, rejects


async def _words(
    work: _Work, criteria: Sequence[Criterion], config: VerdictsConfig, engine: Engine, seed: int
) -> list[_Verdict]:
    values = _values(work) | {"criteria": numbered("criterion", [_said(c) for c in criteria])}
    messages = _template("verdicts").fill(values)
    schema = json.dumps(_schema(len(criteria)))
    text = await ask_json(engine, messages, schema, config.sampling.with_seed(seed))
    reply: dict[str, dict[str, str]] = json.loads(text)
    verdicts: list[_Verdict] = []
    for number in range(1, len(criteria) + 1):
        own = reply[f"criterion_{number}"]
        value, why = VALUES[own["verdict"]], own["justification"][:MAX_REASON]
        verdicts.append((value, why if value is not None else f"cannot_tell: {why}"))
    return verdicts


async def _logits(
    work: _Work, criteria: Sequence[Criterion], config: VerdictsConfig, engine: Engine, seed: int
) -> list[_Verdict]:
    """sigmoid(log p(yes) - log p(no)) (RLBFF's reward, as a probability)."""
    from pipelines.judge.logits import yes_no

    (criterion,) = criteria
    messages = _template("verdict").fill(_values(work) | {"criterion": _said(criterion)})
    odds = await yes_no(engine, messages, seed=seed)
    return [((1.0 + math.tanh(odds / 2.0)) / 2.0, f"log-odds of yes {odds:.3f}")]


def _template(name: str) -> Template:
    return load(Path(__file__).parent / "templates", name)


def _values(work: _Work) -> dict[str, str]:
    messages = work.prompt.messages
    asked = [f"{message.role}:\n{message.content}" for message in messages]
    return {
        "conversation": messages[0].content if len(messages) == 1 else "\n\n".join(asked),
        "response": work.response.text,
    }


def _said(criterion: Criterion) -> str:
    return f"A fault: {criterion.text}" if criterion.kind == "pitfall" else criterion.text


def _schema(criteria: int) -> dict[str, Any]:
    """The reply's form: one key a criterion, so that none can be left out or judged twice."""
    verdict = {
        "justification": {"type": "string", "maxLength": MAX_JUSTIFICATION},
        "verdict": {"type": "string", "enum": list(VALUES)},
    }
    return object_form(**{f"criterion_{i}": object_form(**verdict) for i in range(1, criteria + 1)})


def _vote(judge: str, response: str, criterion: str, verdict: _Verdict) -> Vote:
    value, reason = verdict
    return Vote(
        unit=response,
        unit_kind="criterion",
        judge=judge,
        judge_kind="rubric",
        value=value,
        criterion=criterion,
        reason=reason,
    )
