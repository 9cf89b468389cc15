"""What the judge methods share: the queries, how replies are read as votes, and what they come to.

A judge grades a step, or leaves it ungraded; an ungraded step is not labelled, which is not wrong.
A vote is on the step alone, given those before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pipelines.process.methods.asking import Log
from pipelines.process.search import (
    Book,
    Found,
    Label,
    Query,
    Question,
    Solution,
    Step,
    final_step,
)
from pipelines.prompting import numbered
from pipelines.structured import object_form
from schemas.errors import BadReply

Angle = Literal["validity", "reference", "reverse"]
"""A judge prompt: a file of pipelines/process/templates."""

VERDICTS = ("right", "calculation", "reasoning", "misreading", "unsupported", "other")
"""What a step is found to be. One field for verdict and kind of error: it cannot contradict itself."""
MAX_EXPLANATION = 1000
"""Longest explanation, in characters; a bound lets a constrained judge come to an end."""

Votes = dict[int, Label]
"""One reply's verdicts by index of the step, those it graded."""


def query(angle: Angle, question: Question, solution: Solution, sample: int = 0) -> Query:
    """The query that asks for a verdict on a solution from one angle."""
    values = {
        "question": _asked(question),
        "steps": numbered("step", solution.trajectory.steps),
    }
    if angle != "validity":
        values["reference"] = numbered("reference", _reference(question))
    schema = json.dumps(_schema(angle, solution.steps, len(_reference(question))))
    return Query(angle, tuple(sorted(values.items())), schema, sample)


def note(queries: Sequence[Query], solution: Solution, log: Log) -> None:
    """Note what is asked of the judge, one entry a prompt."""
    for angle in dict.fromkeys(query.template for query in queries):
        count = sum(query.template == angle for query in queries)
        log.note(solution.steps, count, angle, "judge")


def read(queries: Sequence[Query], book: Book, solution: Solution) -> tuple[list[Votes], int]:
    """The votes of the usable replies, and how many were unusable.

    Raises the first one's BadReply where none is usable.
    """
    votes: list[Votes] = []
    failures: list[BadReply] = []
    for query in queries:
        try:
            reply = book.verdict(query)
            assert reply is not None, "a wave was not answered"
            votes.append(_votes(query, json.loads(reply), solution.steps))
        except BadReply as error:
            failures.append(error)
    if not votes:
        raise failures[0]
    return votes, len(failures)


def judged(solution: Solution, votes: Sequence[Votes]) -> list[Step]:
    """Every step's share of the votes and what most of them say; a tie says nothing.

    A reply that does not grade a step has no vote on it.
    """
    steps = []
    for index in range(solution.steps):
        own = [vote[index] for vote in votes if index in vote]
        step = Step()
        if own:
            share = own.count("right") / len(own)
            label: Label | None = "right" if share > 0.5 else "wrong" if share < 0.5 else None
            step = Step(judge_label=label, judge_probability=share)
        steps.append(step)
    return steps


def concluded(solution: Solution, steps: Sequence[Step], failures: int, log: Log) -> Found:
    """The judge's labels as the hard ones; the last step's value is known from its answer.

    Unresolved where the first error is not found for want of votes (`undecided`), or where some
    replies were unusable (`refused`).
    """
    labelled = [
        step._replace(label=step.judge_label, source="judge") if step.judge_label else step
        for step in steps
    ]
    if solution.ended:
        ended = final_step(solution.final_right)
        labelled[-1] = labelled[-1]._replace(value=ended.value, low=ended.low, high=ended.high)
    found, _ = first_error([step.judge_label for step in steps])
    stopped = "refused" if failures else "complete" if found else "undecided"
    return Found(
        solution,
        tuple(labelled),
        stopped,
        resolved=stopped == "complete",
        asked=tuple(log.asked),
    )


def out_of_budget(solution: Solution, log: Log) -> Found:
    """What is known where the judge could not be asked: nothing."""
    steps = [Step()] * solution.steps
    if solution.ended:
        ended = final_step(solution.final_right)
        steps[-1] = Step(value=ended.value, low=ended.low, high=ended.high)
    return Found(solution, tuple(steps), "budget", resolved=False, asked=tuple(log.asked))


def first_error(labels: Sequence[Label | None]) -> tuple[bool, int | None]:
    """Whether the labels say where the first error is, and its index; none where there is none."""
    for index, label in enumerate(labels):
        if label != "right":
            return label is not None, index if label else None
    return True, None


def _votes(query: Query, reply: dict[str, Any], steps: int) -> Votes:
    """A reply as votes. Raises BadReply where it grades a step that is not there, or one twice."""
    if query.template == "reverse":
        if reply["step"] is None:
            return dict.fromkeys(range(steps), "right")
        error = _index(reply["step"], steps)
        # What follows the error is not judged by this prompt.
        return {**dict.fromkeys(range(error), "right"), error: "wrong"}
    votes: Votes = {}
    for grade in reply["steps"]:
        index = _index(grade["step"], steps)
        if index in votes:
            raise BadReply("bad_shape", f"step {index + 1} is graded twice")
        votes[index] = "right" if grade["verdict"] == "right" else "wrong"
    return votes


def _index(number: int, steps: int) -> int:
    if not 1 <= number <= steps:
        raise BadReply("bad_shape", f"step {number} is graded, the steps are 1 to {steps}")
    return number - 1


def _asked(question: Question) -> str:
    messages = question.prompt.messages
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"{message.role}:\n{message.content}" for message in messages)


def _reference(question: Question) -> list[str]:
    """The reference's steps: its lines; one where it is just an answer."""
    return [line for line in (question.prompt.reference or "").splitlines() if line.strip()]


def _schema(angle: Angle, steps: int, reference: int) -> dict[str, Any]:
    """The reply's form, within the subset of pipelines/structured.py: reasons before verdicts."""
    numbers = list(range(1, steps + 1))
    explanation = {"type": "string", "maxLength": MAX_EXPLANATION}
    if angle == "reverse":
        step = {"type": ["integer", "null"], "enum": [*numbers, None]}
        return object_form(explanation=explanation, step=step)
    grade: dict[str, Any] = {"step": {"type": "integer", "enum": numbers}}
    if angle == "reference":
        lines = [*range(1, reference + 1), None]
        grade["reference"] = {"type": ["integer", "null"], "enum": lines}
    grade["explanation"] = explanation
    grade["verdict"] = {"type": "string", "enum": list(VERDICTS)}
    return object_form(steps={"type": "array", "items": object_form(**grade), "maxItems": steps})
