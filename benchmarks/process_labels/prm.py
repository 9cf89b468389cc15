"""Process reward models trained on labels that cost the same: ours against Math-Shepherd's."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipelines.emit.emit import Config as EmitConfig
from pipelines.emit.emit import Tables, emit
from pipelines.process.label import Labelled
from schemas.records import (
    Decision,
    Pair,
    Prompt,
    Response,
    StepLabels,
    StepPair,
    Trajectory,
    Vote,
)


class Labels(NamedTuple):
    prompts: Sequence[Prompt]
    responses: Sequence[Response]
    done: Labelled

    @property
    def tokens(self) -> int:
        return sum(r.completion_tokens for r in self.responses) + sum(
            r.completion_tokens for r in self.done.rollouts
        )


def examples(labels: Labels) -> pa.Table:
    """The labels as the pipeline emits them: `StepExample` rows."""
    done = labels.done
    tables = Tables(
        Prompt.to_table(labels.prompts),
        Response.to_table(labels.responses),
        *(r.arrow_schema().empty_table() for r in (Pair, Vote, Decision)),
        StepLabels.to_table(done.labels),
        Trajectory.to_table(done.trajectories),
        StepPair.to_table(done.pairs),
    )
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        emit(EmitConfig(name="steps", validation=0.0, test=0.0), tables, Path(folder))
        return pq.read_table(Path(folder, "steps", "train.parquet"))
