"""A judge that is code: likeness to the reference answer, or requirements of the prompt kept.

BLEU and chrF are sacrebleu's at sentence level (Papineni et al. 2002; Popović 2015; Post 2018),
BLEU with effective order, since a short answer has no 4-grams. They are no judges of truth: a wrong
answer in the reference's words is likelier to win than a right one in its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, NamedTuple

from pipelines import constraints, instructions
from pipelines.config import Advance, Config, silent
from pipelines.judge.cases import MAX_REASON, STAGE, Case, Engines, Opinions
from schemas.record import digest
from schemas.records import Prompt, Reject, Response, Vote

Measure = Literal["bleu", "chrf", "instructions", "instructions_loose", "constraints"]


class CodeConfig(Config):
    """Settings of a judge that is code."""

    kind: Literal["code"] = "code"
    """Judge kind."""
    measure: Measure
    """`bleu`, `chrf`: likeness to the prompt's reference answer, in [0, 1]. `instructions`,
    `instructions_loose`: share of the prompt's verifiable instructions that are followed, strictly
    or loosely. `constraints`: share of the prompt's constraints that are kept."""


class _Score(NamedTuple):
    value: float | None
    reason: str


def material(config: CodeConfig) -> str | None:
    """Digest of the library whose scores are given; none: the checks are our own."""
    if config.measure not in ("bleu", "chrf"):
        return None
    import sacrebleu

    return digest("sacrebleu", sacrebleu.__version__)


async def judge(
    name: str,
    config: CodeConfig,
    cases: Sequence[Case],
    engines: Engines,
    seed: int,
    advance: Advance = silent,
) -> Opinions:
    """A vote on every response, in [0, 1], and on every pair: a's score less b's, in [-1, 1].

    Votes have no value where there is nothing to go by: the reason is `no_reference`,
    `no_instructions` or `no_constraints`, or begins with `bad_instruction` or `bad_constraint`,
    for which there is a reject a response, too. No engine is asked and nothing is drawn.
    """
    votes: list[Vote] = []
    rejects: list[Reject] = []
    scores: dict[str, _Score] = {}
    for case in cases:
        for response in (case.a, case.b):
            if response.id in scores:
                continue
            # A long text takes a second: what else is awaited goes on.
            score = await asyncio.to_thread(_score, config.measure, case.prompt, response)
            scores[response.id] = score
            votes.append(_vote(name, "response", response.id, score))
            if score.reason.startswith("bad_"):
                code, _, detail = score.reason.partition(": ")
                rejects.append(
                    Reject(unit=response.id, stage=STAGE, code=code, detail=detail[:500])
                )
        votes.append(_vote(name, "pair", case.pair.id, _gap(scores[case.a.id], scores[case.b.id])))
        advance(1, 0)
    return Opinions(votes, rejects)


def _vote(name: str, kind: Literal["response", "pair"], unit: str, score: _Score) -> Vote:
    return Vote(
        unit=unit,
        unit_kind=kind,
        judge=name,
        judge_kind="code",
        value=score.value,
        reason=score.reason[:MAX_REASON],
    )


def _gap(a: _Score, b: _Score) -> _Score:
    if a.value is None or b.value is None:
        return _Score(None, a.reason if a.value is None else b.reason)
    return _Score(a.value - b.value, f"a: {a.value:.3f}; b: {b.value:.3f}")


def _score(measure: Measure, prompt: Prompt, response: Response) -> _Score:
    if measure == "bleu" or measure == "chrf":
        if prompt.reference is None or not prompt.reference.strip():
            return _Score(None, "no_reference")
        # Rounding may lead a hair beyond 1.
        value = min(1.0, _metric(measure)(response.text, prompt.reference) / 100)
        return _Score(value, f"{measure} {value:.3f}")
    try:
        if measure == "constraints":
            wanted = dict.fromkeys(prompt.constraints)
            kept = [constraints.check(c, response.text) for c in wanted]
            names = [str(c.kind) for c in wanted]
        else:
            asked = "\n".join(m.content for m in prompt.messages if m.role == "user")
            loose = measure == "instructions_loose"
            kept = [
                instructions.follows(i, response.text, asked, loose) for i in prompt.instructions
            ]
            names = [i.id for i in prompt.instructions]
    except constraints.BadConstraint as error:
        return _Score(None, f"bad_constraint: {error}")
    except instructions.BadInstruction as error:
        return _Score(None, f"bad_instruction: {error}")
    if not kept:
        return _Score(None, "no_constraints" if measure == "constraints" else "no_instructions")
    share = sum(fine for fine, _ in kept) / len(kept)
    broken = [
        f"{name}: {found}" for name, (fine, found) in zip(names, kept, strict=True) if not fine
    ]
    return _Score(share, "; ".join([f"{len(kept) - len(broken)} of {len(kept)}", *broken]))


@cache
def _metric(measure: Literal["bleu", "chrf"]) -> Callable[[str, str], float]:
    from sacrebleu.metrics import BLEU, CHRF

    metric = BLEU(effective_order=True) if measure == "bleu" else CHRF()

    def score(text: str, reference: str) -> float:
        return float(metric.sentence_score(text, [reference]).score)

    return score
