"""Collect what the pages of step labels show from a run's published outputs.

Tables are read by filter for the questions that are shown; of the rollouts of a prefix only the
first few are read with their text, the rest are counted in the columns.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import polars as pl
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipelines.store import Published
from schemas.errors import UserError
from schemas.record import Record, digest
from schemas.records import Prompt, Reject, Response, Rollout, StepLabels, StepPair, Trajectory
from schemas.table import adapt

R = TypeVar("R", bound=Record)
Made = Mapping[str, Published]

SHOWN_ROLLOUTS = 32
"""Rollouts of a prefix shown with their text."""

OUTCOMES = ("right", "wrong", "truncated", "unparsed")


class Outcomes(NamedTuple):
    """Rollouts of one prefix, counted."""

    right: int = 0
    wrong: int = 0
    truncated: int = 0
    unparsed: int = 0
    tokens: int = 0

    @property
    def n(self) -> int:
        """All of them."""
        return self.right + self.wrong + self.truncated + self.unparsed


@dataclass(frozen=True)
class Drawn:
    """Rollouts of one prefix by one engine: all counted, the first draws to read."""

    outcomes: Outcomes
    shown: tuple[Rollout, ...]


@dataclass(frozen=True)
class Solved:
    """A labelled solution; `response` is None for a path that a search grew."""

    trajectory: Trajectory
    labels: StepLabels
    response: Response | None

    @property
    def text(self) -> str:
        """The whole solution."""
        return self.response.text if self.response else self.trajectory.text or ""


@dataclass(frozen=True)
class QuestionSteps:
    """A prompt and all that was found about the steps of its solutions."""

    prompt: Prompt
    solutions: tuple[Solved, ...]
    """Given ones first, by sample; then grown ones, in the table's order."""
    rollouts: Mapping[tuple[str, bool], Drawn] = field(default_factory=dict)
    """By (prefix id, drawn from the prover)."""
    pairs: tuple[StepPair, ...] = ()
    rejects: tuple[Reject, ...] = ()
    """Responses and grown paths of this prompt that got no labels, and why."""
    responses: int = 0
    """All responses of the prompt."""


@dataclass(frozen=True)
class Listed:
    """A question in numbers. `why`: what it was chosen for; empty for a total over questions."""

    prompt_id: str
    solutions: int
    grown: int
    resolved: int
    errors: int
    """Solutions with a step labelled wrong."""
    steps: int
    labelled: int
    """Steps with a hard label."""
    rollouts: int
    tokens: int
    """Tokens of those rollouts, each counted once."""
    widest: float | None
    """Width of the widest 90% interval."""
    why: str = ""


def labelled(made: Made) -> bool:
    """Whether there is any solution with step labels."""
    return "process" in made and made["process"].manifest.rows("step_labels") > 0


def overview(made: Made) -> list[Listed]:
    """Every question that has step labels, in numbers, by prompt id."""
    labels = _scan(made["process"], "step_labels", StepLabels)
    rollouts = _scan(made["process"], "rollouts", Rollout)
    if labels is None:
        return []
    found = labels.group_by("prompt_id").agg(
        solutions=pl.len(),
        grown=pl.col("response_id").is_null().sum(),
        resolved=pl.col("resolved").sum(),
        errors=pl.col("first_error").is_not_null().sum(),
        steps=pl.col("label").list.len().sum(),
        labelled=pl.col("label").list.drop_nulls().list.len().sum(),
        widest=(pl.col("high").explode() - pl.col("low").explode()).max(),
    )
    rows = found.sort("prompt_id").collect().to_dicts()
    cost: dict[str, dict[str, Any]] = {}
    if rollouts is not None:
        spent = rollouts.group_by("prompt_id").agg(
            rollouts=pl.len(), tokens=pl.col("completion_tokens").sum()
        )
        cost = {row.pop("prompt_id"): row for row in spent.collect().to_dicts()}
    return [Listed(**row, **cost.get(row["prompt_id"], _FREE)) for row in rows]


_FREE: dict[str, Any] = {"rollouts": 0, "tokens": 0}


def total(rows: Sequence[Listed]) -> Listed:
    """The sums over questions."""
    names = ("solutions", "grown", "resolved", "errors", "steps", "labelled", "rollouts", "tokens")
    sums: dict[str, Any] = {name: sum(getattr(row, name) for row in rows) for name in names}
    widths = [row.widest for row in rows if row.widest is not None]
    return Listed(prompt_id="", widest=max(widths, default=None), **sums)


def stopped(made: Made) -> dict[str, int]:
    """Solutions by why their labelling stopped, the most frequent first."""
    labels = _scan(made["process"], "step_labels", StepLabels)
    if labels is None:
        return {}
    rows = labels.group_by("stopped").len().sort(-pl.col("len").cast(pl.Int64), "stopped").collect()
    return dict(rows.iter_rows())


def choose(rows: Sequence[Listed], most: int, seed: int) -> list[Listed]:
    """The questions to write, at most `most`, each with what it was chosen for.

    In turn: the one with most solutions unresolved, the one with the widest interval, the one with
    most first errors, and one at random. Ties and the random ones follow from the seed.
    """
    shuffled = sorted(rows, key=lambda row: digest("steps page", seed, row.prompt_id))
    queues = {
        "unresolved": [r for r in shuffled if r.resolved < r.solutions],
        "widest interval": [r for r in shuffled if r.widest],
        "first errors": [r for r in shuffled if r.errors],
        "random sample": list(shuffled),
    }
    queues["unresolved"].sort(key=lambda r: r.resolved - r.solutions)
    queues["widest interval"].sort(key=lambda r: -(r.widest or 0.0))
    queues["first errors"].sort(key=lambda r: -r.errors)
    chosen: dict[str, Listed] = {}
    turns = {why: iter(queue) for why, queue in queues.items()}
    while turns and len(chosen) < most:
        for why, turn in list(turns.items()):
            row = next((r for r in turn if r.prompt_id not in chosen), None)
            if row is None:
                del turns[why]
            elif len(chosen) < most:
                chosen[row.prompt_id] = Listed(**{**row.__dict__, "why": why})
    return list(chosen.values())


def questions(made: Made, prompt_ids: Sequence[str]) -> list[QuestionSteps]:
    """The questions with these prompt ids, in this order."""
    process = made["process"]
    of_these = pc.field("prompt_id").isin(list(prompt_ids))
    prompts = _rows(made["ingest"], "prompts", Prompt, pc.field("id").isin(list(prompt_ids)))
    responses = _rows(made["generate"], "responses", Response, of_these)
    trajectories = _rows(process, "trajectories", Trajectory, of_these)
    labels = _rows(process, "step_labels", StepLabels, of_these)
    pairs = _rows(process, "step_pairs", StepPair, of_these)
    by_id = {prompt.id: prompt for prompt in prompts}
    answered = {response.id: response for response in responses}
    split = {trajectory.id: trajectory for trajectory in trajectories}
    owner = {row.id: row.prompt_id for row in responses}
    owner |= {row.id: row.prompt_id for row in trajectories}
    rejects = _rows(process, "rejects", Reject, pc.field("unit").isin(list(owner)))
    drawn = _drawn(process, prompt_ids)
    solved: dict[str, list[Solved]] = defaultdict(list)
    for row in labels:
        response = answered[row.response_id] if row.response_id is not None else None
        solved[row.prompt_id].append(Solved(split[row.trajectory_id], row, response))
    return [
        QuestionSteps(
            prompt=by_id[prompt_id],
            solutions=tuple(sorted(solved[prompt_id], key=_given_first)),
            rollouts=drawn[prompt_id],
            pairs=tuple(pair for pair in pairs if pair.prompt_id == prompt_id),
            rejects=tuple(reject for reject in rejects if owner[reject.unit] == prompt_id),
            responses=sum(response.prompt_id == prompt_id for response in responses),
        )
        for prompt_id in prompt_ids
    ]


def _given_first(solved: Solved) -> tuple[bool, int]:
    return (solved.response is None, solved.response.sample_index if solved.response else 0)


def find(made: Made, unit_id: str) -> tuple[str, str | None]:
    """(prompt id, trajectory id) of what an id names; the trajectory is None for a prompt's id.

    The id, or any unambiguous beginning of it, of a prompt, a response, a trajectory or step
    labels. Raises UserError in one line where nothing, or more than one question, is named.
    """
    if not re.fullmatch(r"[0-9a-f]{4,32}", unit_id):
        raise UserError(f"{unit_id!r}: no id; give at least 4 hex digits of a row's id")
    labels = _scan(made["process"], "step_labels", StepLabels) if "process" in made else None
    if labels is None:
        raise UserError("this run has no step labels; add a process stage to the plan")
    columns = ("prompt_id", "response_id", "trajectory_id", "id")
    named = {column: pl.col(column).str.starts_with(unit_id).fill_null(False) for column in columns}
    found = labels.filter(pl.any_horizontal(*named.values())).select(
        "prompt_id",
        trajectory="trajectory_id",
        whole=named["prompt_id"],
    )
    rows = found.collect().to_dicts()
    prompts = {row["prompt_id"] for row in rows}
    if len(prompts) > 1:
        raise UserError(
            f"{unit_id}: {len(prompts)} questions have ids that begin so; give more of it"
        )
    if not rows:
        starts = pl.col("unit").str.starts_with(unit_id)
        rejects = _scan(made["process"], "rejects", Reject)
        stopped = rejects.filter(starts).head(1).collect().to_dicts() if rejects is not None else []
        why = (
            f"it was left out: {stopped[0]['code']}, {stopped[0]['detail']}"
            if stopped
            else ("no prompt, response, trajectory or step labels of this run begin so")
        )
        raise UserError(f"{unit_id}: {why}")
    single = len(rows) == 1 and not rows[0]["whole"]
    return rows[0]["prompt_id"], rows[0]["trajectory"] if single else None


def _drawn(
    process: Published, prompt_ids: Sequence[str]
) -> dict[str, dict[tuple[str, bool], Drawn]]:
    """Rollouts by prompt, then by (prefix id, prover)."""
    found: dict[str, dict[tuple[str, bool], Drawn]] = {prompt_id: {} for prompt_id in prompt_ids}
    frame = _scan(process, "rollouts", Rollout)
    if frame is None:
        return found
    counted = (
        frame.filter(pl.col("prompt_id").is_in(list(prompt_ids)))
        .group_by("prompt_id", "prefix_id", "prover")
        .agg(
            *((pl.col("outcome") == name).sum().alias(name) for name in OUTCOMES),
            tokens=pl.col("completion_tokens").sum(),
        )
        .collect()
    )
    # Draws of a prefix are numbered from 0, so the first few are found without counting.
    few = (pc.field("prompt_id").isin(list(prompt_ids))) & (pc.field("draw") < SHOWN_ROLLOUTS)
    shown: dict[tuple[str, str, bool], list[Rollout]] = defaultdict(list)
    for rollout in _rows(process, "rollouts", Rollout, few):
        shown[rollout.prompt_id, rollout.prefix_id, rollout.prover].append(rollout)
    for row in counted.to_dicts():
        key = (row.pop("prompt_id"), row.pop("prefix_id"), row.pop("prover"))
        first = sorted(shown[key], key=lambda rollout: rollout.draw)
        found[key[0]][key[1:]] = Drawn(Outcomes(**row), tuple(first))
    return found


def _dataset(output: Published, table: str, record: type[Record]) -> ds.Dataset | None:
    """A table's files, their record checked; None where there are none."""
    if not output.manifest.tables.get(table):
        return None
    data = ds.dataset([str(path) for path in output.paths(table)], format="parquet")
    adapt(record, data.schema.empty_table(), str(output.path))
    return data


def _scan(output: Published, table: str, record: type[Record]) -> pl.LazyFrame | None:
    if _dataset(output, table, record) is None:
        return None
    return pl.scan_parquet(output.paths(table))


def _rows(output: Published, table: str, record: type[R], where: pc.Expression) -> list[R]:
    """The rows of a table that a filter keeps; the others are not read into Python."""
    data = _dataset(output, table, record)
    if data is None:
        return []
    return list(record.from_table(adapt(record, data.to_table(filter=where), str(output.path))))
