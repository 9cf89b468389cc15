"""Step labels by per-step Monte Carlo: complete every prefix k times, see how often it ends right.

Math-Shepherd (Wang et al. 2024, arXiv 2312.08935), with curtailment: sampling after a step stops
at the `stop_at`-th success, since more would not change its hard label. Truncated and unparsable
rollouts are counted as themselves, neither right nor wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from pipelines.answers import equal, final_answer
from pipelines.config import Advance, Config, silent
from pipelines.engines.base import Engine, Request
from pipelines.pool import bounded
from pipelines.process.estimate import interval, value
from pipelines.process.splitting import Splitter, split
from pipelines.sampling import SamplingConfig, opening
from schemas.errors import BadReply
from schemas.records import Prompt, Reject, Response, Rollout, StepLabels, Trajectory

NAME = "process"
VERSION = 1

Source = Literal["rollouts", "answer", "none"]


class ProcessConfig(Config):
    """Settings of step labels."""

    engine: str
    """Name of the engine that continues prefixes: the policy."""
    method: Literal["monte_carlo"] = "monte_carlo"
    """How steps are labelled."""
    k: Annotated[int, Field(ge=1, le=1024)] = 8
    """Most continuations of a prefix."""
    stop_at: Annotated[int, Field(ge=0)] = 2
    """Stop sampling a prefix at this many successes; 0: always draw k. 1 makes values lean high."""
    splitter: Splitter = "lines"
    """What ends a step."""
    per_prompt: Annotated[int, Field(ge=1)] = 8
    """Most responses of a prompt that are labelled, first samples first."""
    sampling: SamplingConfig = SamplingConfig()
    """How continuations are drawn."""


class Labelled(NamedTuple):
    """What labelling gives: the splits, every rollout, the labels, and what was passed over."""

    trajectories: list[Trajectory]
    rollouts: list[Rollout]
    labels: list[StepLabels]
    rejects: list[Reject]


class _Step(NamedTuple):
    """One step's estimate."""

    n: int = 0
    successes: int = 0
    truncated: int = 0
    unparsed: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    label: Literal["right", "wrong"] | None = None
    source: Source = "none"
    tokens: int = 0


async def label_steps(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    engine: Engine,
    config: ProcessConfig,
    seed: int,
    advance: Advance = silent,
    system: str | None = None,
) -> Labelled:
    """Label the steps of responses whose prompt has a reference answer and a verifier.

    `system` is the system message that the responses were written under.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    sampling = config.sampling.with_seed(seed)
    chosen: list[tuple[Prompt, Response, Trajectory]] = []
    rejects: list[Reject] = []
    taken: Counter[str] = Counter()
    texts: set[tuple[str, str]] = set()

    def pass_over(response: Response, code: str, detail: str) -> None:
        rejects.append(Reject(unit=response.id, stage=NAME, code=code, detail=detail))
        advance(1, 0)

    for response in responses:
        prompt = by_id[response.prompt_id]
        trajectory = split(response, config.splitter)
        if prompt.reference is None or prompt.verifier is None:
            pass_over(response, "no_reference", "the prompt has no reference answer or verifier")
        elif trajectory is None:
            pass_over(response, "no_steps", "the response holds no text")
        elif (prompt.id, response.text) in texts:
            pass_over(response, "same_text", "another sample of this prompt says the same")
        elif taken[prompt.id] >= config.per_prompt:
            pass_over(response, "over_limit", f"{config.per_prompt} of its prompt are labelled")
        else:
            texts.add((prompt.id, response.text))
            taken[prompt.id] += 1
            chosen.append((prompt, response, trajectory))

    async def draw(
        prompt: Prompt, trajectory: Trajectory, prefix: str, position: int, index: int
    ) -> Rollout | BadReply:
        request = Request(opening(prompt.messages, system), sampling, index, prefix)
        try:
            reply = await engine.complete(request)
        except BadReply as error:
            return error
        cut = reply.finish_reason == "length"
        answer = final_answer(prefix + reply.text, cut=cut)
        outcome: Literal["right", "wrong", "unparsed", "truncated"]
        if answer is None:
            outcome = "truncated" if cut else "unparsed"
        else:
            assert prompt.reference is not None and prompt.verifier is not None
            right = equal(answer, prompt.reference, prompt.verifier)
            outcome = "unparsed" if right is None else "right" if right else "wrong"
        advance(0, reply.completion_tokens)
        return Rollout(
            trajectory_id=trajectory.id,
            position=position,
            draw=index,
            text=reply.text,
            outcome=outcome,
            answer=answer,
            completion_tokens=reply.completion_tokens,
        )

    async def sample(
        prompt: Prompt, trajectory: Trajectory, prefix: str, position: int
    ) -> list[Rollout] | BadReply:
        """Draw in waves just large enough to reach the stopping rule, so none is drawn in vain.

        The first draw without an answer is what the prefix comes to, whichever came first in time:
        a resumed run gives the same.
        """
        rollouts: list[Rollout] = []
        while len(rollouts) < config.k:
            successes = sum(r.outcome == "right" for r in rollouts)
            wanted = config.k - len(rollouts)
            if config.stop_at:
                if successes >= config.stop_at:
                    break
                wanted = min(wanted, config.stop_at - successes)
            first = len(rollouts)
            wave = await bounded(
                lambda index: draw(prompt, trajectory, prefix, position, index),
                range(first, first + wanted),
                wanted,
            )
            for drawn in wave:
                if isinstance(drawn, BadReply):
                    return drawn
                rollouts.append(drawn)
        return rollouts

    async def label(
        item: tuple[Prompt, Response, Trajectory],
    ) -> tuple[list[Rollout], StepLabels] | Reject:
        prompt, response, trajectory = item
        ended = response.finish_reason == "stop"
        answer = final_answer(response.text, cut=not ended)
        final_right = None
        if answer is not None and prompt.reference is not None and prompt.verifier is not None:
            final_right = equal(answer, prompt.reference, prompt.verifier)
        sampled = len(trajectory.steps) - 1 if ended else len(trajectory.steps)
        done = await bounded(
            lambda t: sample(prompt, trajectory, response.text[: trajectory.ends[t]], t + 1),
            range(sampled),
            max(1, sampled),
        )
        advance(1, 0)
        per_step: list[list[Rollout]] = []
        for drawn in done:
            if isinstance(drawn, BadReply):
                code, detail = drawn.code, drawn.detail[:500]
                return Reject(unit=response.id, stage=NAME, code=code, detail=detail)
            per_step.append(drawn)
        steps = [_estimate(rollouts, config.stop_at) for rollouts in per_step]
        if ended:
            steps.append(_final(final_right))
        first_error = next((t for t, step in enumerate(steps) if step.label == "wrong"), None)
        columns = zip(_Step._fields, zip(*steps, strict=True), strict=True)
        labels = StepLabels(
            prompt_id=prompt.id,
            response_id=response.id,
            trajectory_id=trajectory.id,
            method=f"{config.method}(k={config.k},stop_at={config.stop_at})",
            steps=trajectory.steps,
            first_error=first_error,
            final_right=final_right,
            **dict(columns),
        )
        return [rollout for rollouts in per_step for rollout in rollouts], labels

    done = await bounded(label, chosen, engine.concurrency)
    result = Labelled([], [], [], rejects)
    for (_, _, trajectory), row in zip(chosen, done, strict=True):
        if isinstance(row, Reject):
            rejects.append(row)
            continue
        result.trajectories.append(trajectory)
        result.rollouts.extend(row[0])
        result.labels.append(row[1])
    return result


def _estimate(rollouts: list[Rollout], stop_at: int) -> _Step:
    outcomes = Counter(rollout.outcome for rollout in rollouts)
    right, counted = outcomes["right"], outcomes["right"] + outcomes["wrong"]
    step = _Step(
        n=len(rollouts),
        successes=right,
        truncated=outcomes["truncated"],
        unparsed=outcomes["unparsed"],
        tokens=sum(rollout.completion_tokens for rollout in rollouts),
    )
    if not counted:
        return step
    low, high = interval(right, counted, stop_at)
    return step._replace(
        value=value(right, counted, stop_at),
        low=low,
        high=high,
        label="right" if right else "wrong",
        source="rollouts",
    )


def _final(right: bool | None) -> _Step:
    """The last step of a finished response: its answer was checked, nothing need be sampled."""
    if right is None:
        return _Step()
    known = float(right)
    return _Step(
        value=known,
        low=known,
        high=known,
        label="right" if right else "wrong",
        source="answer",
    )
