"""A scripted judge that errs with known rates, a step at a time."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from benchmarks.process_labels.driving import World
from pipelines.process.methods.judging import query
from pipelines.process.search import Query, Question, Solution

EXPLANATION = "the step was compared with the lines before it and with what the question asks for"


@dataclass
class NoisyJudge:
    """Answers the judge methods' queries.

    `validity` judges a step on its own, `reference` whether what it states is true, `reverse`
    names the first step that it holds for untrue. A bad step is seen with chance `sensitivity`, a
    good one passes with chance `specificity`, independently and the same whoever asks.
    """

    world: World
    sensitivity: float = 0.8
    specificity: float = 0.95
    tokens: int = 0
    """Words written so far."""

    def __call__(self, question: Question, wanted: Query) -> str:
        """A reply that follows the query's schema."""
        solution = _judged(question, wanted)
        good = self._good(question, solution, wanted.template)
        key = f"{solution.trajectory.id} {wanted.template} {wanted.sample} {self.world.seed}"
        rng = random.Random(key)
        passed = [
            rng.random() < (self.specificity if step else 1 - self.sensitivity) for step in good
        ]
        reply: dict[str, Any]
        if wanted.template == "reverse":
            first = next((t + 1 for t, own in enumerate(passed) if not own), None)
            reply = {"explanation": EXPLANATION, "step": first}
        else:
            aligned = {"reference": None} if wanted.template == "reference" else {}
            reply = {
                "steps": [
                    {
                        "step": t + 1,
                        **aligned,
                        "explanation": EXPLANATION,
                        "verdict": "right" if own else "calculation",
                    }
                    for t, own in enumerate(passed)
                ]
            }
        text = json.dumps(reply)
        self.tokens += len(text.split())
        return text

    def _good(self, question: Question, solution: Solution, template: str) -> list[bool]:
        policy = self.world.of(question)
        states = [policy.state(solution.prefix(t).text) for t in range(solution.steps + 1)]
        true = [policy.is_right(state) for state in states]
        if template != "validity":
            return true[1:]
        return [
            true[t + 1] or states[t + 1].value == operation.of(states[t].value)
            for t, operation in enumerate(policy.chain.operations)
        ]


def _judged(question: Question, wanted: Query) -> Solution:
    for solution in question.solutions:
        if query(wanted.template, question, solution, wanted.sample) == wanted:  # type: ignore[arg-type]
            return solution
    raise ValueError(f"no solution of the question is what {wanted.template} asks about")
