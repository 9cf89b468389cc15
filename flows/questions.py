"""What a campaign asks about a run: its review queue, steps, errors in responses, its rubrics.

Only pairs have a queue. Of solutions, half of what is asked is drawn uniformly, by a hash of the id and
the seed (`audit`), and half is what the step labels are least sure of (`value`); responses are all
drawn uniformly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from annotation.configs import PairItem, RubricItem, SpansItem, StepsItem, conversation
from annotation.tasks import Question
from pipelines.routing_select import Floats, uniform
from pipelines.store import Published
from schemas.errors import UserError
from schemas.records import Belief, Criterion, Prompt, ReviewItem, Rubric, StepLabels

KindName = Literal["pairwise", "steps", "spans", "rubric"]
Outputs = Mapping[str, Published]


def questions(kind: KindName, outputs: Outputs, most: int, overlap: int) -> Iterator[Question]:
    """Questions of a kind on a run, in the order in which they are to be answered.

    `most`: how many are asked at most, and `overlap`: how many people answer each; of pairs the queue
    says both. Raises UserError where the run has nothing of the kind.
    """
    name, lacks = _MADE_BY[kind]
    if name not in outputs:
        raise UserError(f"the run has no {lacks} and run it")
    if kind == "pairwise":
        return _pairs(outputs)
    return (replace(q, overlap=overlap) for q in _ASKING[kind](outputs, most))


def seed(kind: KindName, outputs: Outputs) -> int:
    """The seed of the run whose outputs are asked about."""
    return outputs[_MADE_BY[kind][0]].manifest.seed


_MADE_BY: dict[KindName, tuple[str, str]] = {
    "pairwise": ("route", "review queue; add [route] to its plan"),
    "steps": ("process", "step labels; add [process] to its plan"),
    "spans": ("generate", "responses; finish its plan"),
    "rubric": ("rubric_value", "rubrics; add [rubrics] to its plan"),
}


def _pairs(outputs: Outputs) -> Iterator[Question]:
    queue = sorted(ReviewItem.from_table(outputs["route"].table("queue")), key=lambda i: i.rank)
    pairs = _by_id(outputs["pairs"].table("pairs"), {item.pair_id for item in queue})
    texts = _texts(outputs, {p[side] for p in pairs.values() for side in _SIDES})
    prompts = _prompts(outputs, {p["prompt_id"] for p in pairs.values()})
    believed = _believed(outputs, pairs)
    for item in queue:
        pair = pairs[item.pair_id]
        a, b = (pair[side] for side in _SIDES)
        yield Question(
            item.pair_id,
            PairItem(prompts[pair["prompt_id"]], texts[a], texts[b]),
            (a, b),
            item.purpose,
            item.propensity,
            item.overlap,
            believed.get(item.pair_id),
        )


_SIDES = ("response_a", "response_b")


def _believed(outputs: Outputs, pairs: Collection[str]) -> dict[str, float]:
    """Probability that a is better, of the pairs of which something is believed."""
    if "calibrate" not in outputs:
        return {}
    table = outputs["calibrate"].table("beliefs")
    table = table.filter(pc.is_in(table["pair_id"], pa.array(sorted(pairs), pa.string())))
    return {
        b.pair_id: b.probability if b.label == "a" else 1 - b.probability
        for b in Belief.from_table(table)
        if b.label in ("a", "b")
    }


def _steps(outputs: Outputs, most: int) -> Iterator[Question]:
    table = outputs["process"].table("step_labels")
    frame = (
        pl.DataFrame(pl.from_arrow(table))
        .with_row_index("row")
        # A search's own paths are no responses, and one solution may be labelled by several methods.
        .filter(pl.col("response_id").is_not_null() & (pl.col("steps").list.len() > 0))
        .unique("trajectory_id", keep="first", maintain_order=True)
    )
    ids = frame["trajectory_id"].to_list()
    drawn, chance = _drawn(ids, most - most // 2, outputs["process"].manifest.seed)
    doubt = _doubt(frame)
    rest = sorted(set(range(len(ids))) - set(drawn), key=lambda i: (-doubt[i], ids[i]))
    rows = frame["row"].to_list()
    chosen = [(i, True) for i in drawn] + [(i, False) for i in rest[: most // 2]]
    labels = list(StepLabels.from_table(table.take([rows[i] for i, _ in chosen])))
    prompts = _prompts(outputs, {label.prompt_id for label in labels})
    for (_, audit), label in zip(chosen, labels, strict=True):
        yield Question(
            label.trajectory_id,
            StepsItem(prompts[label.prompt_id], label.steps),
            purpose="audit" if audit else "value",
            propensity=chance if audit else 1.0,
        )


def _doubt(frame: pl.DataFrame) -> Floats:
    """Entropy (nats) of where the first error is, of each solution; all of it where nothing is known."""
    found = []
    for error, none, steps in frame.select("error", "no_error", "steps").iter_rows():
        if none is None or None in error:
            found.append(np.log(len(steps) + 1))
        else:
            p = np.asarray([*error, none])
            found.append(float(-(p * np.log(np.maximum(p, 1e-300))).sum()))
    return np.asarray(found)


def _responses(outputs: Outputs, most: int) -> Iterator[Question]:
    made = outputs["generate"]
    table = made.table("responses")
    ids = table["id"].to_pylist()
    drawn, chance = _drawn(ids, most, made.manifest.seed)
    rows = table.take(drawn).to_pylist()
    prompts = _prompts(outputs, {row["prompt_id"] for row in rows})
    for row in rows:
        item = SpansItem(prompts[row["prompt_id"]], row["text"])
        yield Question(row["id"], item, purpose="audit", propensity=chance)


def _drawn(ids: list[str], most: int, seed: int) -> tuple[list[int], float]:
    """Places of at most so many, in the order of their hashes, and the chance of each to be drawn."""
    order = np.argsort(uniform(ids, seed, "campaign"), kind="stable")[:most]
    return [int(i) for i in order], min(1.0, most / max(1, len(ids)))


def _rubrics(outputs: Outputs, most: int) -> Iterator[Question]:
    """Those that nobody has approved or retired yet; those for every prompt come first."""
    made = outputs["rubric_value"]
    criteria = {c.id: c for c in Criterion.from_table(made.table("criteria"))}
    rubrics = [r for r in Rubric.from_table(made.table("rubrics")) if r.status == "draft"]
    rubrics.sort(key=lambda r: (r.prompt_id or "", r.id))
    prompts = _prompts(outputs, {r.prompt_id for r in rubrics[:most] if r.prompt_id is not None})
    for rubric in rubrics[:most]:
        item = RubricItem(
            prompts[rubric.prompt_id] if rubric.prompt_id is not None else "",
            tuple(criteria[id] for id in rubric.criteria),
        )
        yield Question(rubric.id, item, rubric.criteria)


_ASKING: dict[KindName, Callable[[Outputs, int], Iterator[Question]]] = {
    "steps": _steps,
    "spans": _responses,
    "rubric": _rubrics,
}


def _by_id(table: pa.Table, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
    rows = table.filter(pc.is_in(table["id"], pa.array(sorted(wanted), pa.string())))
    return {row["id"]: row for row in rows.to_pylist()}


def _texts(outputs: Outputs, wanted: Collection[str]) -> dict[str, str]:
    rows = _by_id(outputs["generate"].table("responses").select(["id", "text"]), wanted)
    return {id: row["text"] for id, row in rows.items()}


def _prompts(outputs: Outputs, wanted: Collection[str]) -> dict[str, str]:
    table = outputs["ingest"].table("prompts")
    table = table.filter(pc.is_in(table["id"], pa.array(sorted(wanted), pa.string())))
    return {p.id: conversation(p.messages) for p in Prompt.from_table(table)}
