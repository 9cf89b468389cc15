"""Process reward models trained on labels that cost the same: ours against Math-Shepherd's."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from benchmarks.process_labels.word_world import POLICY, SAMPLING, fresh_prompts, policy, respond, text
from pipelines.emit.emit import Config as EmitConfig, Tables, emit
from pipelines.engines.base import Engine, Identity, Reply, Request, Tokens, request_key
from pipelines.evaluation import metrics
from pipelines.evaluation.evaluate import GoldSteps
from pipelines.process.config import ProcessConfig
from pipelines.process.label import Engines, Labelled, label_steps
from pipelines.process.splitting import completions
from schemas.record import digest
from schemas.records import Decision, Pair, Prompt, Response, StepExample, StepLabels, StepPair, Trajectory, Vote


class Remembered:
    """An engine that writes no answer twice."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.replies: dict[tuple[bytes, int], Reply] = {}

    @property
    def identity(self) -> Identity:
        return self.engine.identity

    @property
    def concurrency(self) -> int:
        return self.engine.concurrency

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.engine.__aexit__(*exc)

    async def complete(self, request: Request) -> Reply:
        key = request_key("", request), request.sample
        if key not in self.replies:
            self.replies[key] = await self.engine.complete(request)
        return self.replies[key]

    def tokens(self, text: str) -> Tokens | None:
        return self.engine.tokens(text)


class Labels(NamedTuple):
    prompts: Sequence[Prompt]
    responses: Sequence[Response]
    done: Labelled

    @property
    def tokens(self) -> int:
        return sum(r.completion_tokens for r in self.responses) + sum(r.completion_tokens for r in self.done.rollouts)


def examples(labels: Labels) -> pa.Table:
    """The labels as the pipeline emits them: `StepExample` rows."""
    done = labels.done
    tables = Tables(
        Prompt.to_table(labels.prompts), Response.to_table(labels.responses),
        *(r.arrow_schema().empty_table() for r in (Pair, Vote, Decision)),
        StepLabels.to_table(done.labels), Trajectory.to_table(done.trajectories), StepPair.to_table(done.pairs),
    )
    import pyarrow.parquet as pq
    with tempfile.TemporaryDirectory() as folder:
        emit(EmitConfig(name="steps", validation=0.0, test=0.0), tables, Path(folder))
        return pq.read_table(Path(folder, "steps", "train.parquet"))
