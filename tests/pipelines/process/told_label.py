"""Short ways to run the stage of step labels, and what must hold whatever it did."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.engines.base import Engine
from pipelines.process.config import ProcessConfig
from pipelines.process.label import Engines, Labelled, label_steps
from schemas.errors import BadReply
from schemas.records import (
    Message,
    Prompt,
    Reject,
    Response,
    Rollout,
    StepLabels,
    StepPair,
    Trajectory,
)
from schemas.table import validate
from tests.pipelines import rows
from tests.pipelines.told import Answer, ToldEngine, reply

TEXT = "3+4=7\n7-2=5\n5+1=6\n#6"
PREFIXES = ("3+4=7\n", "3+4=7\n7-2=5\n", "3+4=7\n7-2=5\n5+1=6\n")
SEED = 5

# r right, w wrong, t cut off, u without a readable answer, b bad reply
ANSWERS: dict[str, Answer] = {
    "r": reply("#6", 3),
    "w": reply("#7", 3),
    "t": reply("and then", 8, "length"),
    "u": reply("no idea", 2),
    "b": BadReply("refused", "no " * 300),
}


def prompt(**change: Any) -> Prompt:
    row: dict[str, Any] = {
        "messages": (Message(role="user", content="How many?"),),
        "reference": "6",
        "verifier": "numeric",
        "source": "s",
    }
    return Prompt(**(row | change))


def response(text: str = TEXT, index: int = 0, **change: Any) -> Response:
    return rows.response(**({"prompt_id": prompt().id, "index": index, "text": text} | change))


def engine(outcomes: dict[str, str], concurrency: int = 4) -> ToldEngine:
    """Draw i after a prefix comes to the i-th letter of its outcomes."""
    return ToldEngine(lambda r: ANSWERS[outcomes[r.prefix][r.sample]], concurrency)


def label(
    asked: Engine | Engines,
    responses: Sequence[Response],
    prompts: Sequence[Prompt] | None = None,
    share: float = 1.0,
    advance: Callable[[int, int], None] = lambda rows, tokens: None,
    **config: Any,
) -> Labelled:
    settings = ProcessConfig.model_validate({"engine": "policy", **config})
    engines = asked if isinstance(asked, Engines) else Engines(asked)

    async def main() -> Labelled:
        async with engines.policy:
            return await label_steps(
                prompts or [prompt()], responses, engines, settings, SEED, advance, share=share
            )

    return asyncio.run(main())


TABLES: tuple[tuple[Any, Callable[[Labelled], Sequence[Any]]], ...] = (
    (Trajectory, lambda done: done.trajectories),
    (Rollout, lambda done: done.rollouts),
    (StepLabels, lambda done: done.labels),
    (StepPair, lambda done: done.pairs),
    (Reject, lambda done: done.rejects),
)


def checked(done: Labelled, responses: Sequence[Response], at_prefix: bool = True) -> Labelled:
    """What must hold whatever the method; `at_prefix`: labels rest on rollouts of the own prefix."""
    for record, kept in TABLES:
        validate(record, record.to_table(kept(done)))
    labelled = [row.response_id for row in done.labels if row.response_id is not None]
    units = Counter([*labelled, *(r.unit for r in done.rejects)])
    assert units == Counter(r.id for r in responses)
    assert [t.id for t in done.trajectories] == [row.trajectory_id for row in done.labels]
    drawn: dict[tuple[str, bool], list[Rollout]] = defaultdict(list)
    for rollout in done.rollouts:
        drawn[rollout.prefix_id, rollout.prover].append(rollout)
    for own in drawn.values():
        assert [r.draw for r in own] == list(range(len(own)))
        assert len({(r.position, r.prompt_id) for r in own}) == 1
    for trajectory, row in zip(done.trajectories, done.labels, strict=True):
        assert row.steps == trajectory.steps
        if not at_prefix:
            continue
        for t, prefix in enumerate(trajectory.prefixes[1:]):
            behind = [
                r for prover in (False, True) for r in drawn[prefix, prover] if r.position == t + 1
            ]
            # Drawn for another's needs, a prefix may hold more than a label rests on.
            assert row.n[t] <= len(behind)
            if row.n[t] == len(behind):
                outcomes = Counter(r.outcome for r in behind)
                assert row.successes[t] == outcomes["right"]
                assert (row.truncated[t], row.unparsed[t]) == (
                    outcomes["truncated"],
                    outcomes["unparsed"],
                )
                assert row.tokens[t] == sum(r.completion_tokens for r in behind)
    return done
