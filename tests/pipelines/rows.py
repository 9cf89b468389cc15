"""Short ways to make records for tests."""

from __future__ import annotations

from typing import Any

from schemas.records import Message, Pair, Prompt, Response, StepLabels, Vote


def prompt(text: str = "q") -> Prompt:
    """A prompt with a numeric reference."""
    messages = (Message(role="user", content=text),)
    return Prompt(messages=messages, reference="6", verifier="numeric", source="s")


def response(prompt_id: str, index: int, text: str, **change: Any) -> Response:
    """A response of ten tokens."""
    row = {
        "prompt_id": prompt_id,
        "engine": "e",
        "model": "m",
        "sample_index": index,
        "text": text,
        "prompt_tokens": 1,
        "completion_tokens": 10,
        "finish_reason": "stop",
    }
    return Response(**(row | change))


def verdict(response_id: str, value: float | None, judge: str = "verifier") -> Vote:
    """The verifier's vote on a response."""
    return Vote(
        unit=response_id,
        unit_kind="response",
        judge=judge,
        judge_kind="code",
        value=value,
        reason="unparsed" if value is None else "equal",
    )


def vote(pair: Pair, judge: str, value: float | None, order: Any = None) -> Vote:
    """A judge's vote on a pair."""
    return Vote(
        unit=pair.id, unit_kind="pair", judge=judge, judge_kind="code", value=value, order=order
    )


def criterion_vote(unit: str, criterion: str, value: float | None, judge: str = "j") -> Vote:
    """A judge's vote on a response by one criterion."""
    return Vote(
        unit=unit,
        unit_kind="criterion",
        judge=judge,
        judge_kind="rubric",
        value=value,
        criterion=criterion,
    )


def step_labels(response: Response, *values: float | None, grown: str | None = None) -> StepLabels:
    """Labels of a response with these step values; `grown`: of this path to the same prompt."""
    nothing = (0,) * len(values)
    unknown = (None,) * len(values)
    return StepLabels(
        prompt_id=response.prompt_id,
        response_id=response.id if grown is None else None,
        trajectory_id="t" if grown is None else grown,
        method="m",
        steps=tuple(f"s{i}" for i in range(len(values))),
        n=nothing,
        successes=nothing,
        truncated=nothing,
        unparsed=nothing,
        value=values,
        low=values,
        high=values,
        sound=unknown,
        error=unknown,
        advantage=unknown,
        judge_label=unknown,
        judge_probability=unknown,
        label=unknown,
        source=("none",) * len(values),
        first_error=None,
        no_error=None,
        resolved=True,
        stopped="complete",
        asked=(),
        tokens=nothing,
        final_right=None,
    )
