"""Monte Carlo on wrong answers of questions that the policy nearly always solves.

SCAN (Ding et al. 2025, arXiv 2509.16548). The policy's self-confidence SC of a question is the share
of its responses that are right. Below .75 nothing is labelled: there a missed success says little.
Right solutions are taken as right in every step, without rollouts. In wrong ones steps are sampled
from the first on, until no rollout ends right: that is the first error, and what follows it is not
labelled.

The error is often found too late, by a step or two. So `sound` holds the paper's soft target: at
the first error and the 2 steps before it, min(V / SC, 1); in other labelled steps 1.
"""

from __future__ import annotations

from pipelines.process.config import ProcessConfig
from pipelines.process.methods.asking import Log, draw, positions, step_of
from pipelines.process.search import (
    STAGE,
    Book,
    BudgetSpent,
    Finding,
    Found,
    Question,
    Search,
    Solo,
    Solution,
    Step,
    final_step,
    parallel,
)
from schemas.records import Reject

CONFIDENCE = 0.75
"""Least self-confidence of a question."""
TOLERANCE = 2
"""Steps before the first error that may be wrong too."""


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's solutions; those without a checked answer, and all of a question below
    the confidence, are Rejects: `not_selected`.
    """
    responses = question.responses
    confidence = responses.right / responses.counted if responses.counted else 0.0
    chosen: list[Solution] = []
    rejects: list[Reject] = []
    for solution in question.solutions:
        if confidence < CONFIDENCE:
            why = f"{responses.right} of {responses.counted} answers of its question are right"
        elif not solution.ended or solution.final_right is None:
            why = "it was cut off, or its own answer could not be checked"
        else:
            chosen.append(solution)
            continue
        rejects.append(_passed_over(solution, why))
    solos = [label(solution, question.book, config, confidence) for solution in chosen]
    finding = yield from parallel(question, solos)
    return Finding(finding.found, rejects=(*rejects, *finding.rejects))


def label(solution: Solution, book: Book, config: ProcessConfig, confidence: float) -> Solo:
    """Label one solution whose answer was checked.

    Unresolved: `undecided` where no rollout of a step had an answer.
    """
    log, steps, stopped = Log(), [Step()] * solution.steps, "complete"
    if solution.final_right:
        steps = [Step(sound=1.0, label="right", source="inferred")] * solution.steps
        steps[-1] = final_step(True, steps[-1])
        return Found(solution, tuple(steps), stopped)
    try:
        for position in positions(solution):
            prefix = solution.prefix(position)
            yield from draw(book, [prefix], config.k, config.stop_at, log, "next step")
            steps[position - 1] = step_of(book.drawn(prefix, config.k), config.stop_at)
            if steps[position - 1].label == "wrong":
                break
            if steps[position - 1].label is None:
                stopped = "undecided"
                break
        else:
            steps[-1] = final_step(False)
    except BudgetSpent:
        left = step_of(book.drawn(prefix, config.k), config.stop_at)
        if left.label == "wrong":
            left = left._replace(label=None, source="none")  # further draws might have been right
        steps[position - 1], stopped = left, "budget"
    return Found(
        solution,
        _softened(steps, confidence),
        stopped,
        resolved=stopped == "complete",
        asked=tuple(log.asked),
    )


def _softened(steps: list[Step], confidence: float) -> tuple[Step, ...]:
    """The steps with their soft targets, where a first error was found."""
    error = next((t for t, step in enumerate(steps) if step.label == "wrong"), None)
    if error is None:
        return tuple(steps)
    return tuple(
        step._replace(sound=_target(step, error - index <= TOLERANCE, confidence))
        if index <= error
        else step
        for index, step in enumerate(steps)
    )


def _target(step: Step, near: bool, confidence: float) -> float:
    assert step.value is not None
    return min(step.value / confidence, 1.0) if near else 1.0


def _passed_over(solution: Solution, why: str) -> Reject:
    unit = solution.trajectory.response_id or solution.trajectory.id
    return Reject(unit=unit, stage=STAGE, code="not_selected", detail=why)
