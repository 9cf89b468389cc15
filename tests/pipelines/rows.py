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


def step_labels(response: Response, *values: float | None) -> StepLabels:
    """Labels of a response with these step values."""
    nothing = (0,) * len(values)
    return StepLabels(
        prompt_id=response.prompt_id,
        response_id=response.id,
        trajectory_id="t",
        method="m",
        steps=tuple(f"s{i}" for i in range(len(values))),
        n=nothing,
        successes=nothing,
        truncated=nothing,
        unparsed=nothing,
        value=values,
        low=values,
        high=values,
        label=(None,) * len(values),
        source=("none",) * len(values),
        first_error=None,
        tokens=nothing,
        final_right=None,
    )
