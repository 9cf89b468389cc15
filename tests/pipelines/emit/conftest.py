"""A small run: ten prompts, two responses and a pair each, every action, hostile text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipelines.emit.ledger import Tables
from schemas.records import (
    Decision,
    Message,
    Pair,
    Prompt,
    Reject,
    Response,
    StepLabels,
    StepPair,
    Trajectory,
    Vote,
)
from tests.pipelines.rows import response

HOSTILE = '|<script>alert("x")</script>|\n# [a](http://b)'
ACTIONS = ("keep", "keep", "keep", "keep", "keep", "flip", "soften", "drop", "route", None)


@dataclass
class Run:
    prompts: list[Prompt]
    responses: list[Response]
    pairs: list[Pair]
    votes: list[Vote]
    decisions: list[Decision]
    step_labels: list[StepLabels]
    trajectories: list[Trajectory]
    rejects: list[Reject]
    step_pairs: list[StepPair] = field(default_factory=list)

    def tables(self) -> Tables:
        return Tables(
            Prompt.to_table(self.prompts),
            Response.to_table(self.responses),
            Pair.to_table(self.pairs),
            Vote.to_table(self.votes),
            Decision.to_table(self.decisions),
            StepLabels.to_table(self.step_labels),
            Trajectory.to_table(self.trajectories),
            StepPair.to_table(self.step_pairs),
            (Reject.to_table(self.rejects),),
        )


def make_prompt(number: int) -> Prompt:
    messages = [Message(role="user", content=f"What is {number}? é𝒳")]
    if number % 3 == 0:
        messages.insert(0, Message(role="system", content="Be brief."))
    return Prompt(
        messages=tuple(messages),
        source=HOSTILE if number % 2 else "/home/someone/secret/words.jsonl",
        licence="mit" if number % 2 else None,
    )


def make_response(prompt: Prompt, sample: int, text: str, model: str = "tiny") -> Response:
    paid = {"prompt_tokens": 3, "completion_tokens": 4}
    return response(prompt.id, sample, text, engine="e" * 32, model=model, **paid)


def make_vote(pair: Pair, judge: str, order: str, value: float | None) -> Vote:
    kind = "llm" if judge.startswith("llm") else "human"
    return Vote(
        unit=pair.id, unit_kind="pair", judge=judge, judge_kind=kind, order=order, value=value
    )


def make_decision(pair: Pair, action: str, target: float) -> Decision:
    return Decision(
        pair_id=pair.id,
        action=action,
        probability=max(target, 1 - target),
        target=target,
        margin=0.5,
        reason="judges_disagree" if action in ("drop", "route") else "agreed",
        rule="agreement_v1",
    )


def make_steps(
    response: Response, labels: tuple[str | None, ...], grown: str | None = None, **change: Any
) -> tuple[Trajectory, StepLabels]:
    """Steps are the lines of the response; blank lines between them belong to the one before.

    `grown`: of this text, which a search grew for the same prompt.
    """
    steps, starts, ends, at = [], [], [], 0
    for line in (response.text if grown is None else grown).splitlines(keepends=True):
        if line.strip():
            steps.append(line.strip())
            starts.append(at)
            ends.append(at + len(line))
        else:
            ends[-1] = at + len(line)
        at += len(line)
    trajectory = Trajectory(
        prompt_id=response.prompt_id,
        response_id=response.id if grown is None else None,
        text=grown,
        steps=tuple(steps),
        starts=tuple(starts),
        ends=tuple(ends),
        token_ends=(),
        prefixes=(),
    )
    none = (None,) * len(steps)
    count = (0,) * len(steps)
    value = tuple(None if label is None else 0.25 for label in labels)
    row = {
        "prompt_id": response.prompt_id,
        "response_id": trajectory.response_id,
        "trajectory_id": trajectory.id,
        "method": "monte_carlo(k=8)",
        "steps": tuple(steps),
        "n": tuple(8 if label else 0 for label in labels),
        "successes": count,
        "truncated": count,
        "unparsed": count,
        "value": value,
        "low": none,
        "high": none,
        "sound": none,
        "error": none,
        "advantage": none,
        "judge_label": none,
        "judge_probability": none,
        "label": labels,
        "source": tuple("rollouts" if label else "none" for label in labels),
        "first_error": labels.index("wrong") if "wrong" in labels else None,
        "no_error": None,
        "resolved": True,
        "stopped": "complete",
        "asked": (),
        "tokens": count,
        "final_right": None,
    }
    return trajectory, StepLabels(**(row | change))


def make_run() -> Run:
    run = Run([], [], [], [], [], [], [], [])
    for number, action in enumerate(ACTIONS):
        prompt = make_prompt(number)
        a = make_response(prompt, 0, f"a says {number}\n\né𝒳 then\nend", HOSTILE)
        b = make_response(prompt, 1, f"b says {number}", HOSTILE if number < 5 else "other")
        pair = Pair(
            prompt_id=prompt.id, response_a=a.id, response_b=b.id, label="a", label_source="given"
        )
        run.prompts.append(prompt)
        run.responses.extend((a, b))
        run.pairs.append(pair)
        run.votes += [
            make_vote(pair, "llm-2", "ab", None),
            make_vote(pair, "llm-1", "ab", 1.0),
            make_vote(pair, "llm-1", "ba", 0.5),
            make_vote(pair, "ann@example.org", "ab", -0.25),
        ]
        if action is not None:
            target = {"flip": 0.1, "soften": 0.6}.get(action, 0.9)
            run.decisions.append(make_decision(pair, action, target))
        trajectory, labels = make_steps(a, ("right", None, "wrong"))
        run.trajectories.append(trajectory)
        run.step_labels.append(labels)
    run.rejects.append(Reject(unit="/srv/in.jsonl:7", stage="ingest", code="not_json", detail="|"))
    return run


@pytest.fixture
def run() -> Run:
    return make_run()


@pytest.fixture
def make() -> dict[str, Callable]:
    """The builders, since test folders are no packages."""
    return {
        "prompt": make_prompt,
        "response": make_response,
        "vote": make_vote,
        "decision": make_decision,
        "steps": make_steps,
        "run": make_run,
    }
