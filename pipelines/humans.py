"""Human votes on pairs and on steps, from files: as a campaign writes them, or anyone's own table.

A file holds `Vote` rows, or plain columns: `pair_id`, `value` in [-1, 1] (or `preference`: a, b or
tie), and where they are known `annotator`, `order` (ab or ba: which response was shown first),
`seconds`, `purpose` (audit, value, gold) and `propensity`; of a vote on a step `unit` (the
trajectory), `unit_kind` (step), `step` and `value` in [0, 1]. Votes on what this run does not have are
left alone: one campaign may serve many runs. Of one annotator's votes on a pair or a step the last row
counts.

Annotators' names are kept as hashes: who they are is nobody's business downstream.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import pyarrow.parquet as pq
from annotated_types import Gt, Le, Lt, MinLen

from pipelines import readers
from pipelines.config import Config
from pipelines.readers import BadRow, File
from schemas.errors import UserError
from schemas.record import digest
from schemas.records import HumanLabel, Reject, Vote

NAME = "humans"
VERSION = 2
STEPS = "people_on_steps"
"""The stage of votes on steps."""

Made = TypeVar("Made")
Purpose = Literal["value", "audit", "gold"]
_PURPOSES = ("value", "audit", "gold")
_COLUMNS = (
    *("pair_id", "unit", "unit_kind", "value", "preference", "annotator", "judge"),
    *("criterion", "step", "order", "reason", "seconds", "cost", "purpose", "propensity"),
)
_SIDES = {"a": 1.0, "b": -1.0, "tie": 0.0}
_ORDERS = ("ab", "ba")
_CODES = ("cannot_judge", "skipped")
"""Reasons that are no words of a person."""


class HumansConfig(Config):
    """Where human votes come from, and how far they are trusted."""

    paths: Annotated[tuple[str, ...], MinLen(1)]
    """Parquet, JSON lines or CSV files, or globs, of votes on this run's pairs and steps."""
    error: Annotated[float, Gt(0), Lt(0.5)] = 0.05
    """How often one annotator is wrong, where nothing better is known of them."""
    purpose: Purpose = "value"
    """Why rows were asked that do not say it. Only pairs drawn at random (`audit`) count as a sample
    for an error bound."""
    propensity: Annotated[float, Gt(0), Le(1)] = 1.0
    """Probability with which such rows were chosen."""


@dataclass(frozen=True)
class _Row:
    vote: Vote
    purpose: Purpose
    propensity: float


def inputs_digest(config: HumansConfig) -> dict[str, str]:
    """SHA-256 of each file, by name. Raises UserError for files that cannot be used."""
    return files_digest(config.paths)


def files_digest(paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each of these files, by name. Raises UserError for files that cannot be used."""
    return {file.name: readers.sha256(file.path) for file in readers.files(paths)}


def read_known(
    paths: tuple[str, ...], pairs: Collection[str]
) -> tuple[list[HumanLabel], list[Reject]]:
    """Answers that are known before anyone is asked, of the pairs (ids), and rows that could not be
    read: files and reject codes as of `read_votes`. Where a pair stands there under several names its
    answer is their mean; its error is nought, and its purpose is `gold`."""
    _, labels, rejects = read_votes(HumansConfig(paths=paths), pairs)
    known = {"error": 0.0, "purpose": "gold", "propensity": 1.0}
    return [label.model_copy(update=known) for label in labels], rejects


def read_votes(
    config: HumansConfig,
    pairs: Collection[str],
    without: Collection[str] = (),
    known: Collection[str] = (),
) -> tuple[list[Vote], list[HumanLabel], list[Reject]]:
    """Votes on the pairs (ids), what they come to, and rows that could not be read.

    `without`: judges, as votes name them, that are left out. `known`: pairs whose answer is known.
    They are asked to measure who answers, whatever a file says: never for their value.

    Reject codes: `not_json`, `bad_csv` and the others of the readers, `bad_vote` (no pair, a value
    that is no number in [-1, 1], or an order that is neither ab nor ba), `bad_purpose`.
    """
    last: dict[tuple[str, str], _Row] = {}
    rejects: list[Reject] = []
    for read in _read(config, NAME, rejects, partial(_row, config=config)):
        if read.vote.unit in pairs and read.vote.judge not in without:
            key = (read.vote.unit, read.vote.judge)
            last.pop(key, None)
            last[key] = read
    by_pair: dict[str, list[_Row]] = defaultdict(list)
    for (pair, _), read in last.items():
        by_pair[pair].append(read)
    labels = [
        label.model_copy(update={"purpose": "gold"})
        if label.purpose == "value" and pair in known
        else label
        for pair in sorted(by_pair)
        if (label := _label(pair, by_pair[pair], config.error))
    ]
    votes = {r.vote.id: r.vote for _, r in sorted(last.items(), key=lambda item: item[0])}
    return list(votes.values()), labels, rejects


def read_step_votes(
    config: HumansConfig, trajectories: Mapping[str, int], without: Collection[str] = ()
) -> tuple[list[Vote], list[Reject]]:
    """Votes on steps of these trajectories (id: number of steps), and rows that could not be read.

    Reject codes: those of the readers, and `bad_vote`: no such step, or a value that is no number in
    [0, 1].
    """
    last: dict[tuple[str, int, str], Vote] = {}
    rejects: list[Reject] = []
    for vote in _read(config, STEPS, rejects, partial(_step_vote, trajectories=trajectories)):
        if vote.judge not in without:
            last[vote.unit, vote.step or 0, vote.judge] = vote
    return [last[key] for key in sorted(last)], rejects


def read_remarks(
    config: HumansConfig, responses: Collection[str], without: Collection[str] = ()
) -> dict[str, list[str]]:
    """What people wrote on these responses (ids): one text an annotator, marked errors by their type.

    Rows that no reader could read are those of `read_votes`, and are not told again.
    """
    said: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for _, row in _rows(config):
        if isinstance(row, BadRow) or row.get("unit_kind") not in ("response", "criterion"):
            continue
        unit, reason, judge = row.get("unit"), row.get("reason"), _annotator(row)
        if unit not in responses or not reason or reason in _CODES or judge in without:
            continue
        of = row.get("criterion")
        said[str(unit)][judge].append(f"{of}: {reason}" if of else str(reason))
    return {
        unit: ["\n".join(texts) for _, texts in sorted(by_judge.items())]
        for unit, by_judge in sorted(said.items())
    }


def agreed(values: Collection[float], error: float) -> float:
    """Probability that the side of most voters is the wrong one; 0.5 where they take none.

    Every voter who takes a side is wrong with probability `error`, independently of the others:
    m more on one side than on the other leave odds of (error / (1 - error))^m.
    """
    margin = abs(sum((v > 0) - (v < 0) for v in values))
    odds = (error / (1 - error)) ** margin
    return odds / (1 + odds)


def _label(pair: str, rows: list[_Row], error: float) -> HumanLabel | None:
    values = [r.vote.value for r in rows if r.vote.value is not None]
    if not values:
        return None
    # A pair that was drawn at random stays so, whatever else it was asked for.
    first = min(rows, key=lambda r: ("audit", "value", "gold").index(r.purpose))
    return HumanLabel(
        pair_id=pair,
        value=math.fsum(values) / len(values),
        people=len(values),
        error=agreed(values, error),
        purpose=first.purpose,
        propensity=first.propensity,
    )


def _read(
    config: HumansConfig,
    stage: str,
    rejects: list[Reject],
    make: Callable[[dict[str, Any]], Made | None],
) -> Iterator[Made]:
    """What `make` makes of each row, where it is something; rows that are bad go to `rejects`."""
    for unit, row in _rows(config):
        try:
            if isinstance(row, BadRow):
                raise row
            made = make(row)
        except BadRow as bad:
            rejects.append(Reject(unit=unit, stage=stage, code=bad.code, detail=bad.detail[:500]))
            continue
        if made is not None:
            yield made


def _rows(config: HumansConfig) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    for file in readers.files(config.paths):
        if file.format == "parquet" and not pq.read_metadata(file.path).num_rows:
            continue  # a campaign that nobody has answered yet

        def check(there: list[str], file: File = file) -> None:
            if not {"pair_id", "unit"} & set(there):
                raise UserError(
                    f"{file.path}: no column 'pair_id', {readers.nearest('pair_id', there)}; a file of "
                    "human votes names the pair of each row"
                )

        for line, row in readers.rows(file, _COLUMNS, check):
            yield f"{file.name}:{line}", row


def _row(row: dict[str, Any], config: HumansConfig) -> _Row | None:
    """A row's vote; None: a vote on something else than a pair."""
    if row.get("unit_kind") not in (None, "pair"):
        return None
    pair = row.get("pair_id") or row.get("unit")
    if not isinstance(pair, str) or not pair:
        raise BadRow("bad_vote", "no pair_id")
    purpose: Any = row.get("purpose") or config.purpose
    if purpose not in _PURPOSES:
        raise BadRow("bad_purpose", f"{purpose!r} is none of {', '.join(_PURPOSES)}")
    order: Any = row.get("order") or None
    if order not in (None, *_ORDERS):
        raise BadRow("bad_vote", f"order {json.dumps(order, default=str)} is none of ab, ba")
    value = _value(row)
    return _Row(
        Vote(
            unit=pair,
            unit_kind="pair",
            judge=_annotator(row),
            judge_kind="human",
            order=order,
            value=value,
            reason=str(row.get("reason") or ("" if value is not None else "cannot_judge")),
            seconds=_number(row.get("seconds")),
            cost=_number(row.get("cost")),
        ),
        purpose,
        _number(row.get("propensity")) or config.propensity,
    )


def _step_vote(row: dict[str, Any], trajectories: Mapping[str, int]) -> Vote | None:
    """A row's vote; None: a vote on something else than a step of these."""
    unit: Any = row.get("unit")
    if row.get("unit_kind") != "step" or unit not in trajectories:
        return None
    step, value = _number(row.get("step")), _number(row.get("value"))
    if step is None or step != int(step) or not 0 <= step < trajectories[unit]:
        given = json.dumps(row.get("step"), default=str)
        raise BadRow("bad_vote", f"step {given} of {trajectories[unit]}")
    if (value is None) != (row.get("value") in (None, "")) or not 0 <= (value or 0) <= 1:
        given = json.dumps(row.get("value"), default=str)
        raise BadRow("bad_vote", f"value {given} is no number in [0, 1]")
    return Vote(
        unit=unit,
        unit_kind="step",
        judge=_annotator(row),
        judge_kind="human",
        value=value,
        step=int(step),
        reason=str(row.get("reason") or ("" if value is not None else "cannot_judge")),
        seconds=_number(row.get("seconds")),
        cost=_number(row.get("cost")),
    )


def _annotator(row: dict[str, Any]) -> str:
    name = str(row.get("annotator") or row.get("judge") or "unknown")
    return name if name.startswith("human-") else pseudonym(name)


def pseudonym(name: str) -> str:
    """An annotator as votes name them."""
    return f"human-{digest('annotator', name)[:12]}"


def _value(row: dict[str, Any]) -> float | None:
    given: Any = row.get("value")
    if given is None and (side := row.get("preference")) not in (None, ""):
        if side not in _SIDES:
            raise BadRow("bad_vote", f"preference {side!r} is none of a, b, tie")
        return _SIDES[side]
    if given is None:
        return None
    value = _number(given)
    if value is None or not -1 <= value <= 1:
        raise BadRow("bad_vote", f"value {json.dumps(given, default=str)} is no number in [-1, 1]")
    return value


def _number(given: Any) -> float | None:
    if given is None or given == "" or isinstance(given, bool):
        return None
    try:
        value = float(given)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
