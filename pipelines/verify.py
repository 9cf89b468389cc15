"""Check responses with code: the final answer against the reference, and each constraint.

What could not be checked is None with its reason, never 0. Whether a response must be right and
keep all constraints is for later stages to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines import answers, config, constraints, grading
from schemas.records import Constraint, Prompt, Reject, Response, Vote

NAME = "verify"
VERSION = 2


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
    limit before a final answer was complete) or `unparsed` (no final answer that can be read). Code
    that fails its tests or is over its limits is wrong, with what happened as its reason. A
    prompt's second constraint of one kind votes as `constraint:<kind>#2`, so that a judge has one
    vote a response. Rejects: `missing_prompt` (the response's prompt is not among `prompts`) and
    `bad_constraint`; their unit is the response's id. Raises UserError where a prompt's verifier is
    `code` and the system cannot isolate it.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    votes: list[Vote] = []
    rejects: list[Reject] = []
    verdicts = judge_answers(by_id, responses, config)
    for response in responses:
        prompt = by_id.get(response.prompt_id)
        if prompt is None:
            rejects.append(_reject(response, "missing_prompt", f"no prompt {response.prompt_id}"))
            continue
        value, reason = verdicts[response.id]
        votes.append(_vote(response, "verifier", value, reason))
        for judge, constraint in _named(prompt.constraints):
            try:
                kept, reason = constraints.check(constraint, response.text)
            except constraints.BadConstraint as error:
                rejects.append(_reject(response, "bad_constraint", f"{judge}: {error}"))
            else:
                votes.append(_vote(response, judge, float(kept), reason))
    return votes, rejects


def judge_answers(
    prompts: Mapping[str, Prompt], responses: Sequence[Response], config: Config
) -> dict[str, tuple[float | None, str]]:
    """Value and reason of the verifier's vote, by response id."""
    verdicts: dict[str, tuple[float | None, str]] = {}
    asked: dict[str, grading.Solution] = {}
    unchecked = {prompt_id: _uncheckable(prompt) for prompt_id, prompt in prompts.items()}
    for response in responses:
        if response.prompt_id not in prompts:
            continue
        reason = unchecked[response.prompt_id]
        if reason:
            verdicts[response.id] = None, reason
        else:
            cut = response.finish_reason == "length"
            prompt = prompts[response.prompt_id]
            asked[response.id] = grading.Solution(prompt, response.text, cut)
    grades = grading.grade_all([*asked.values()], last_number=config.last_number)
    for response_id, grade in zip(asked, grades, strict=True):
        if grade.outcome == "wrong":
            verdicts[response_id] = 0.0, f"wrong: {grade.why}"
        else:
            verdicts[response_id] = 1.0 if grade.outcome == "right" else None, grade.outcome
    return verdicts


def _uncheckable(prompt: Prompt) -> str | None:
    if prompt.reference is None:
        return "no_reference"
    if prompt.verifier is None:
        return "no_verifier"
    return None if answers.readable(prompt.reference, prompt.verifier) else "bad_reference"


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
