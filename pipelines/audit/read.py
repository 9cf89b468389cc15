"""Preference data as people have it: pairs, conversations, or rated responses, in any split.

Every row becomes one pair or several, or a `Reject` with its reason. Texts are stored once.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipelines import readers
from pipelines.audit.config import AuditConfig
from pipelines.audit.texts import is_messages, prompt_of, sides_of, text_of
from pipelines.readers import BadRow, File
from schemas.errors import UserError
from schemas.records import Reject

STAGE = "audit"
PROMPT = ("prompt", "instruction", "question", "query")
CHOSEN = ("chosen", "chosen_response", "response_chosen")
REJECTED = ("rejected", "rejected_response", "response_rejected")
RESPONSES = ("responses", "completions")
RATINGS = ("ratings", "scores", "rewards")
RESPONSE = ("response", "completion", "output")
RATING = ("rating", "score", "reward", "overall_score")
PAIRS_A_PROMPT = 6
"""Most pairs that are made of the rated responses to one prompt: those with the widest gaps."""
_SHARD = re.compile(r"-\d{4,}-of-\d{4,}$")
_SIDES = {"chosen": 1.0, "a": 1.0, "rejected": -1.0, "b": -1.0, "tie": 0.0}


class Answer(NamedTuple):
    """A rated response: its row and place there, its text, and its prompt's texts by number."""

    row: int
    place: int
    text: str
    prompt: int
    ask: int
    rating: float


@dataclass
class Pairs:
    """What was read: n pairs of texts by number, shape [n] each where nothing else is said."""

    files: list[File] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    """Split of each file."""
    rows: list[int] = field(default_factory=list)
    """Rows of each file, the rejected ones counted."""
    texts: list[str] = field(default_factory=list)
    """Distinct texts: prompts and responses."""
    prompt: list[int] = field(default_factory=list)
    """The whole prompt's text; every pair has one, be it empty."""
    ask: list[int] = field(default_factory=list)
    """What the user said last."""
    chosen: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    file: list[int] = field(default_factory=list)
    at: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Row and place of the chosen response, row and place of the rejected one: rows from 1, places
    in the row's list of responses; 0 in rows of one pair."""
    judges: dict[str, list[float]] = field(default_factory=dict)
    """Scores that the file brings: above 0 sides with chosen; NaN: none."""
    human: list[float] = field(default_factory=list)
    """1: people prefer chosen, -1: rejected, 0: a tie, NaN: not known."""
    rejects: list[Reject] = field(default_factory=list)
    rated: bool = False
    """Whether pairs were made of ratings."""
    _codes: dict[str, int] = field(default_factory=dict)

    def code(self, text: str) -> int:
        """A text's number."""
        found = self._codes.setdefault(text, len(self.texts))
        if found == len(self.texts):
            self.texts.append(text)
        return found


def splits(given: str) -> list[str | None]:
    """Splits of a data set folder; [None] for whatever has none or one. UserError if damaged."""
    path = Path(given)
    if not path.is_dir() or (path / "state.json").is_file():
        return [None]
    index = path / "dataset_dict.json"
    if index.is_file():
        try:
            return [str(name) for name in json.loads(index.read_bytes())["splits"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{index} is damaged; save the data set again") from error
    from datasets.data_files import EmptyDatasetError, get_data_patterns

    try:
        found = [str(name) for name in get_data_patterns(str(path.resolve()))]
    except (EmptyDatasetError, FileNotFoundError):
        return [None]
    return [*found] if len(found) > 1 else [None]


def find(datasets: Sequence[str]) -> tuple[list[File], list[str]]:
    """Files of all data sets, each once, and their splits (a file's own name where it has none)."""
    found: dict[Path, tuple[File, str]] = {}
    for given in datasets:
        for split in splits(given):
            for file in readers.files([given], split=split):
                name = split or _SHARD.sub("", file.path.stem)
                found.setdefault(file.path.resolve(), (file, name))
    return [file for file, _ in found.values()], [split for _, split in found.values()]


def read(config: AuditConfig, advance: Callable[[int], None] | None = None) -> Pairs:
    """All pairs of the data sets.

    Reject codes: those of the readers (`not_json`, `invalid_utf8`, ...), `missing_sides`, `bad_type`,
    `empty_side`, `same_sides`, `too_long`, `bad_rating`, `no_contrast` (ratings that do not differ),
    `bad_judge`. Raises UserError where files cannot be used or nothing in them is a preference.
    """
    pairs = Pairs()
    pairs.files, pairs.splits = find(config.datasets)
    pairs.judges = {name: [] for name in config.judges}
    wanted = _wanted(config)
    single: dict[tuple[int, str], list[Answer]] = defaultdict(list)
    for number, file in enumerate(pairs.files):
        count = 0
        for line, row in readers.rows(file, wanted, lambda names: _check(config, file, names)):  # noqa: B023
            count += 1
            before = len(pairs.prompt)
            try:
                if isinstance(row, BadRow):
                    raise row
                _row(pairs, single, config, number, count, row)
            except BadRow as bad:
                _shorten(pairs, before)
                unit = f"{file.name}:{line}"
                pairs.rejects.append(
                    Reject(unit=unit, stage=STAGE, code=bad.code, detail=bad.detail[:500])
                )
            if advance is not None:
                advance(1)
        pairs.rows.append(count)
    for (number, _), answers in single.items():
        if not _rated(pairs, config, number, answers):
            for answer in answers:
                unit = f"{pairs.files[number].name}:{answer.row}"
                detail = "no other response to its prompt has another rating"
                pairs.rejects.append(
                    Reject(unit=unit, stage=STAGE, code="no_contrast", detail=detail)
                )
    if not pairs.prompt:
        why = f"; the first row: {pairs.rejects[0].detail}" if pairs.rejects else ""
        raise UserError(
            f"{', '.join(config.datasets)[:200]} holds no preference: name the columns with --chosen "
            f"and --rejected, or --responses and --ratings{why}"[:600]
        )
    return pairs


def _wanted(config: AuditConfig) -> list[str]:
    named = (config.prompt, config.chosen, config.rejected, config.responses, config.ratings)
    judged = [part for name in config.judges for part in name.split(":")]
    known = [*PROMPT, *CHOSEN, *REJECTED, *RESPONSES, *RATINGS, *RESPONSE, *RATING]
    return [*(n for n in named if n), *judged, *([config.human] if config.human else []), *known]


def _check(config: AuditConfig, file: File, names: list[str]) -> None:
    """A column that the user named is to be there."""
    for name in _wanted(config)[: -sum(map(len, _KNOWN))]:
        if name not in names:
            near = readers.nearest(name, names)
            raise UserError(f"{file.path} has no column {name[:80]!r}; {near}")


_KNOWN = (PROMPT, CHOSEN, REJECTED, RESPONSES, RATINGS, RESPONSE, RATING)


def column(named: str | None, usual: Sequence[str], row: Any) -> str | None:
    """The column of a row that is meant: the one named, or the first usual one that is there."""
    for name in (named,) if named else usual:
        if name in row:
            return name
    return None


def _row(
    pairs: Pairs,
    single: dict[tuple[int, str], list[Answer]],
    config: AuditConfig,
    number: int,
    count: int,
    row: dict[str, Any],
) -> None:
    """Add a row's pairs; raise BadRow where it is none."""
    prompt = row.get(column(config.prompt, PROMPT, row) or "")
    chosen, rejected = (
        column(config.chosen, CHOSEN, row),
        column(config.rejected, REJECTED, row),
    )
    if chosen is not None and rejected is not None and not (config.responses or config.ratings):
        asked, last, good, bad = sides_of(prompt, row[chosen], row[rejected])
        codes = [pairs.code(text) for text in (asked, last, good, bad)]
        scores = {name: _judged(row, name) for name in config.judges}
        _add(pairs, number, codes, (count, 0, count, 0), scores, _human(row, config.human))
        return
    several = column(config.responses, (*RESPONSES, *RESPONSE), row)
    if several is None:
        raise BadRow("missing_sides", f"no chosen and rejected, no responses; has {list(row)[:12]}")
    asked, last = prompt_of(prompt)
    ask, whole = pairs.code(last), pairs.code(asked)
    if isinstance(row[several], list) and not is_messages(row[several]):
        texts, values = _several(row, row[several], config)
        answers = [
            Answer(count, i, text, whole, ask, value)
            for i, (text, value) in enumerate(zip(texts, values, strict=True))
        ]
        if not _rated(pairs, config, number, answers):
            raise BadRow("no_contrast", "its ratings do not differ")
        return
    rating = column(config.ratings, (*RATING, *RATINGS), row)
    if rating is None:
        raise BadRow("missing_sides", f"a response without a rating; has {list(row)[:12]}")
    text = text_of(row[several])
    single[(number, asked)].append(Answer(count, 0, text, whole, ask, _rating(row[rating])))


def _rated(pairs: Pairs, config: AuditConfig, number: int, answers: list[Answer]) -> int:
    """Pairs of rated responses to one prompt, the widest gaps first; how many were made."""
    ways = [
        (x.rating - y.rating, i, j)
        for i, x in enumerate(answers)
        for j, y in enumerate(answers)
        if x.rating > y.rating and x.text != y.text
    ]
    ways.sort(key=lambda way: (-way[0], way[1], way[2]))
    pairs.rated = True
    nothing = dict.fromkeys(config.judges, math.nan)
    for _, i, j in ways[:PAIRS_A_PROMPT]:
        x, y = answers[i], answers[j]
        codes = [x.prompt, x.ask, pairs.code(x.text), pairs.code(y.text)]
        _add(pairs, number, codes, (x.row, x.place, y.row, y.place), nothing, math.nan)
    return len(ways)


def _add(
    pairs: Pairs,
    number: int,
    codes: list[int],
    where: tuple[int, int, int, int],
    scores: dict[str, float],
    human: float,
) -> None:
    pairs.prompt.append(codes[0])
    pairs.ask.append(codes[1])
    pairs.chosen.append(codes[2])
    pairs.rejected.append(codes[3])
    pairs.file.append(number)
    pairs.at.append(where)
    for name, value in scores.items():
        pairs.judges[name].append(value)
    pairs.human.append(human)


def _shorten(pairs: Pairs, length: int) -> None:
    """Take back what a row added before it turned out to be bad."""
    for part in (pairs.prompt, pairs.ask, pairs.chosen, pairs.rejected, pairs.file, pairs.human):
        del part[length:]
    del pairs.at[length:]
    for values in pairs.judges.values():
        del values[length:]


def _several(
    row: dict[str, Any], given: list[Any], config: AuditConfig
) -> tuple[list[str], list[float]]:
    """Texts and ratings of a row that holds several responses."""
    if given and all(isinstance(one, dict) for one in given):
        texts = [
            text_of(one.get(column(None, (*RESPONSE, "text", "content"), one) or ""))
            for one in given
        ]
        rated = [one.get(column(config.ratings, RATING, one) or "") for one in given]
        if all(value is not None for value in rated):
            return texts, [_rating(value) for value in rated]
    else:
        texts = [text_of(one) for one in given]
    values = row.get(column(config.ratings, RATINGS, row) or "")
    if not isinstance(values, list) or len(values) != len(texts):
        raise BadRow("bad_rating", f"{len(texts)} responses need as many ratings")
    return texts, [_rating(value) for value in values]


def _rating(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise BadRow("bad_rating", f"{str(value)[:80]!r} is no number")
    return found


def _judged(row: dict[str, Any], name: str) -> float:
    """A judge's score for chosen: of one column, or of the difference of two (`CHOSEN:REJECTED`)."""
    values = []
    for part in name.split(":"):
        value = row.get(part)
        if value is None:
            return math.nan
        try:
            values.append(float(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise BadRow("bad_judge", f"{part}: {str(value)[:80]!r} is no number") from error
    if not all(map(math.isfinite, values)):
        return math.nan
    return values[0] if len(values) == 1 else values[0] - values[1]


def _human(row: dict[str, Any], name: str | None) -> float:
    value = row.get(name) if name else None
    if value is None:
        return math.nan
    if isinstance(value, str):
        side = _SIDES.get(value.strip().lower())
        if side is None:
            raise BadRow("bad_judge", f"{name}: {value[:80]!r}; use chosen, rejected or tie")
        return side
    try:
        return float(np.sign(float(value)))
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRow("bad_judge", f"{name}: {str(value)[:80]!r} is no number") from error
