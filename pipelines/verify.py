"""Check responses with code: the final answer against the reference, and each constraint.

What could not be checked is None with its reason, never 0. Whether a response must be right and
keep all constraints is for later stages to say.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines import answers, config, constraints
from schemas.records import Constraint, Prompt, Reject, Response, Vote

NAME = "verify"
VERSION = 1

_SHOWN = 40


class Config(config.Config):
    """Settings of the checks."""

    last_number: bool = False
    """Take the last number of a response that marks no final answer."""


def verify(
    prompts: Sequence[Prompt], responses: Sequence[Response], config: Config
) -> tuple[list[Vote], list[Reject]]:
    """One vote of judge `verifier` a response, and one of `constraint:<kind>` a constraint.

    Values are 1.0 (right, kept), 0.0 (wrong, broken) or None, whose reason is `no_reference`,
    `no_verifier`, `bad_reference` (the reference cannot be read), `truncated` (stopped by the token
    limit before a final answer was complete) or `unparsed` (no final answer that can be read). A
    prompt's second constraint of one kind votes as `constraint:<kind>#2`, so that a judge has one
    vote a response. Rejects: `missing_prompt` (the response's prompt is not among `prompts`) and
    `bad_constraint`; their unit is the response's id.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    votes: list[Vote] = []
    rejects: list[Reject] = []
    for response in responses:
        prompt = by_id.get(response.prompt_id)
        if prompt is None:
            rejects.append(_reject(response, "missing_prompt", f"no prompt {response.prompt_id}"))
            continue
        value, reason = judge_answer(prompt, response, config)
        votes.append(_vote(response, "verifier", value, reason))
        for judge, constraint in _named(prompt.constraints):
            try:
                kept, reason = constraints.check(constraint, response.text)
            except constraints.BadConstraint as error:
                rejects.append(_reject(response, "bad_constraint", f"{judge}: {error}"))
            else:
                votes.append(_vote(response, judge, float(kept), reason))
    return votes, rejects


def judge_answer(prompt: Prompt, response: Response, config: Config) -> tuple[float | None, str]:
    """Value and reason of the verifier's vote on one response."""
    if prompt.reference is None:
        return None, "no_reference"
    if prompt.verifier is None:
        return None, "no_verifier"
    if not answers.readable(prompt.reference, prompt.verifier):
        return None, "bad_reference"
    cut = response.finish_reason == "length"
    answer = answers.final_answer(response.text, last_number=config.last_number, cut=cut)
    if answer is None:
        return None, "truncated" if cut else "unparsed"
    right = answers.equal(answer, prompt.reference, prompt.verifier)
    if right is None:
        return None, "unparsed"
    if right:
        return 1.0, "right"
    reference = answers.final_answer(prompt.reference) or prompt.reference
    return 0.0, f"wrong: {_cut(answer)} is not {_cut(reference)}"


def _named(wanted: Sequence[Constraint]) -> list[tuple[str, Constraint]]:
    """Distinct constraints with their judges' names."""
    seen: dict[str, int] = {}
    named = []
    for constraint in dict.fromkeys(wanted):
        count = seen[constraint.kind] = seen.get(constraint.kind, 0) + 1
        name = f"constraint:{constraint.kind}"
        named.append((name if count == 1 else f"{name}#{count}", constraint))
    return named


def _vote(response: Response, judge: str, value: float | None, reason: str) -> Vote:
    return Vote(
        unit=response.id,
        unit_kind="response",
        judge=judge,
        judge_kind="code",
        value=value,
        reason=reason,
    )


def _reject(response: Response, code: str, detail: str) -> Reject:
    return Reject(unit=response.id, stage=NAME, code=code, detail=detail[:500])


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
