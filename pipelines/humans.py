"""Human votes on pairs, from files: as an annotation campaign writes them, or anyone's own table.

A file holds `Vote` rows, or plain columns: `pair_id`, `value` in [-1, 1] (or `preference`: a, b or
tie), and where they are known `annotator`, `seconds`, `purpose` (audit, value, gold) and
`propensity`. Votes on pairs that this run does not have are left alone: one campaign may serve many
runs. Of one annotator's votes on a pair the last row counts.

Annotators' names are kept as hashes: who they are is nobody's business downstream.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq
from annotated_types import Gt, Le, Lt, MinLen

from pipelines import readers
from pipelines.config import Config
from pipelines.readers import BadRow, File
from schemas.errors import UserError
from schemas.record import digest
from schemas.records import HumanLabel, Reject, Vote

NAME = "humans"
VERSION = 1

Purpose = Literal["value", "audit", "gold"]
_PURPOSES = ("value", "audit", "gold")
_COLUMNS = (
    *("pair_id", "unit", "unit_kind", "value", "preference", "annotator", "judge"),
    *("reason", "seconds", "cost", "purpose", "propensity"),
)
_SIDES = {"a": 1.0, "b": -1.0, "tie": 0.0}


class HumansConfig(Config):
    """Where human votes come from, and how far they are trusted."""

    paths: Annotated[tuple[str, ...], MinLen(1)]
    """Parquet, JSON lines or CSV files, or globs, of votes on this run's pairs."""
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
    found = readers.files(config.paths)
    return {file.name: readers.sha256(file.path) for file in found}


def read_votes(
    config: HumansConfig, pairs: Collection[str], without: Collection[str] = ()
) -> tuple[list[Vote], list[HumanLabel], list[Reject]]:
    """Votes on the pairs (ids), what they come to, and rows that could not be read.

    `without`: judges, as votes name them, that are left out.

    Reject codes: `not_json`, `bad_csv` and the others of the readers, `bad_vote` (no pair, or a value
    that is no number in [-1, 1]), `bad_purpose`.
    """
    last: dict[tuple[str, str], _Row] = {}
    rejects: list[Reject] = []
    for unit, row in _rows(config):
        try:
            if isinstance(row, BadRow):
                raise row
            read = _row(row, config)
        except BadRow as bad:
            rejects.append(Reject(unit=unit, stage=NAME, code=bad.code, detail=bad.detail[:500]))
            continue
        if read is not None and read.vote.unit in pairs and read.vote.judge not in without:
            key = (read.vote.unit, read.vote.judge)
            last.pop(key, None)
            last[key] = read
    by_pair: dict[str, list[_Row]] = defaultdict(list)
    for (pair, _), read in last.items():
        by_pair[pair].append(read)
    labels = [
        label for pair in sorted(by_pair) if (label := _label(pair, by_pair[pair], config.error))
    ]
    votes = {r.vote.id: r.vote for _, r in sorted(last.items(), key=lambda item: item[0])}
    return list(votes.values()), labels, rejects


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
    name = str(row.get("annotator") or row.get("judge") or "unknown")
    value = _value(row)
    return _Row(
        Vote(
            unit=pair,
            unit_kind="pair",
            judge=name if name.startswith("human-") else pseudonym(name),
            judge_kind="human",
            value=value,
            reason=str(row.get("reason") or ("" if value is not None else "cannot_judge")),
            seconds=_number(row.get("seconds")),
            cost=_number(row.get("cost")),
        ),
        purpose,
        _number(row.get("propensity")) or config.propensity,
    )


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
