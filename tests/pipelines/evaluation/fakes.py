"""Models that score by rule, and rows for them."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pipelines.training import scoring
from schemas.records import Message, Prompt, Response
from tests.pipelines.rows import response


class Reward:
    """Scores an answer by the number in it; `long` cannot be scored."""

    def __init__(self, rule: Callable[[str], float] = float) -> None:
        self.rule = rule

    def score(self, items: Sequence) -> np.ndarray:
        return np.asarray([self.rule(text) for _, text in items], np.float64)

    def refusals(self, items: Sequence) -> list[str | None]:
        return ["too_long" if "long" in text else None for _, text in items]


class Steps:
    """Scores a step by the number in it; a step `long` cannot be scored."""

    def score(self, items: Sequence) -> list[list[float]]:
        return [[float(step) for step in steps] for _, steps in items]

    def refusals(self, items: Sequence) -> list[str | None]:
        return ["too_long" if "long" in "".join(steps) else None for _, steps in items]


def use(patch: pytest.MonkeyPatch, reward: Reward | None = None, steps: Steps | None = None):
    patch.setattr(scoring.RewardModel, "load", lambda folder: reward)
    patch.setattr(scoring.StepModel, "load", lambda folder: steps)


def ask(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def sampled(
    name: str, texts: Sequence[str], truth: Sequence[bool | None], logprob: float | None = None
) -> tuple[Prompt, list[tuple[Response, bool | None]]]:
    prompt = Prompt(messages=ask(name), source="test")
    rows = []
    for i, (text, right) in enumerate(zip(texts, truth, strict=True)):
        own = None if logprob is None else logprob * i
        rows.append((response(prompt.id, i, text, completion_tokens=1, logprob=own), right))
    return prompt, rows
