"""A rubric as a TOML file that a person can read, edit, approve, version and give back."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import unicodedata
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from pipelines.config import Config
from pipelines.durable import explained, write_durably
from pipelines.readers import matching
from schemas.errors import PlanError, UserError
from schemas.records import Criterion, Rubric

_HEAD = """\
# A rubric. Edit it and give it back: what you change becomes a new version that names this one.
#
# id         This version. Leave it as it is; drop the line in a rubric that is new.
# name       Your name for it.
# prompt_id  The prompt it is for; without the line: for any prompt.
# method     How it was made; `person` where you wrote it.
# scoring    share (weighted share), points (weights are points, which may be negative) or tree.
# status     draft, approved or retired. To approve it, write: status = "approved"
# replaces   The version that this one was edited from.
# pairs      Pairs it was made from.
"""
_CRITERIA = """\
# Criteria, in order.
#
# kind       hard_rule (gates), principle, nugget (a fact to be there) or pitfall (counts against).
# text       The requirement, as a statement that is true or false of a response.
# weight     Its weight, or its points.
# id         What `parent` of others names it by.
# parent     In a tree, the id of the criterion above it.
# category   Group it belongs to.
# verifier   The code check of a hard rule that code can check.
# evidence   What it was drawn from.
"""


class CriterionTable(Config):
    """A `[[criteria]]` table of a rubric's file."""

    kind: Literal["hard_rule", "principle", "nugget", "pitfall"] = "principle"
    """As Criterion.kind."""
    text: str
    """As Criterion.text."""
    weight: float = 1.0
    """As Criterion.weight."""
    id: str | None = None
    """What `parent` of others names it by."""
    parent: str | None = None
    """The id of the criterion above it, in this file."""
    category: str | None = None
    """As Criterion.category."""
    verifier: str | None = None
    """As Criterion.verifier."""
    evidence: str | None = None
    """As Criterion.evidence."""


class RubricTable(Config):
    """A rubric's file."""

    id: str | None = None
    """The version that was written; none: it is new."""
    name: str | None = None
    """As Rubric.name."""
    prompt_id: str | None = None
    """As Rubric.prompt_id."""
    method: str = "person"
    """As Rubric.method."""
    scoring: Literal["share", "points", "tree"] = "share"
    """As Rubric.scoring."""
    status: Literal["draft", "approved", "retired"] = "draft"
    """As Rubric.status."""
    replaces: str | None = None
    """As Rubric.replaces."""
    pairs: tuple[str, ...] = ()
    """As Rubric.pairs."""
    criteria: tuple[CriterionTable, ...]
    """Its criteria."""


# --- writing ----------------------------------------------------------------------------------------


def write_rubric(path: Path, rubric: Rubric, criteria: Sequence[Criterion]) -> None:
    """Write a rubric and its criteria as TOML, whole or not at all; equal rows give equal bytes.

    `criteria`: the rubric's, in any order, and others. Raises ValueError where one is missing, stands
    twice or has a parent outside the rubric; StoreError where the file cannot be written; PlanError
    where a text holds half a surrogate pair, which no file can hold.
    """
    known = {row.id: row for row in criteria}
    if not rubric.criteria or len(set(rubric.criteria)) < len(rubric.criteria):
        raise ValueError(f"rubric {rubric.id}: no criterion, or one twice")
    if missing := [id for id in rubric.criteria if id not in known]:
        raise ValueError(f"rubric {rubric.id}: criterion {missing[0]} is not given")
    own = [known[id] for id in rubric.criteria]
    if strange := [row.id for row in own if row.parent not in (None, *rubric.criteria)]:
        raise ValueError(f"criterion {strange[0]}: its parent is not in the rubric")
    table = rubric.model_dump(mode="json", exclude={"criteria"})
    text = _HEAD + "\n" + _lines({"id": rubric.id, **table}, RubricTable) + "\n" + _CRITERIA
    for row in own:
        item = {"id": row.id, **row.model_dump(mode="json")}
        text += "\n[[criteria]]\n" + _lines(item, CriterionTable)
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise PlanError(
            f"{path}: a text holds half a surrogate pair, which no file can hold; mend it first"
        ) from None
    with explained(path):
        write_durably(path, content)


def _lines(row: dict[str, Any], table: type[Config]) -> str:
    """Keys in the table's order; what is not set is left out."""
    keys = [key for key in table.model_fields if row.get(key) not in (None, [])]
    return "".join(f"{key} = {_value(row[key])}\n" for key in keys)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return "[\n" + "".join(f"    {_string(item)},\n" for item in value) + "]"
    return repr(float(value))


def _string(text: str) -> str:
    """A TOML string; lines stay lines. What a person cannot see or an editor may change is escaped."""
    if "\n" not in text:
        return f'"{_escaped(text)}"'
    lines = [
        re.sub(r" $", r"\\u0020", _escaped(line))  # editors cut the ends of lines
        for line in text.split("\n")
    ]
    return '"""\n' + "\n".join(lines) + '"""'


_SHORT = {"\\": "\\\\", '"': '\\"', "\t": "\\t", "\r": "\\r"}
_UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Co", "Cn"}


def _escaped(line: str) -> str:
    return "".join(_SHORT.get(character) or _shown(character) for character in line)


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN:
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


# --- reading ----------------------------------------------------------------------------------------


def rubric_paths(given: Sequence[str]) -> list[Path]:
    """The rubric files that paths, globs and folders stand for, each once, in order.

    Raises UserError where one stands for nothing.
    """
    found: dict[Path, None] = {}
    for place in (match for name in given for match in matching(name)):
        inside = sorted(place.glob("*.toml")) if place.is_dir() else [place]
        if not inside:
            raise UserError(f"{place}: holds no rubric (*.toml); check the path")
        found |= dict.fromkeys(inside)
    return list(found)


def read_rubric(path: Path) -> tuple[Rubric, list[Criterion]]:
    """A rubric and its criteria, in the file's order.

    A file that was written and not changed gives the rows that were written. Changed in any way, it
    gives a rubric that replaces the version it was written from. Raises PlanError: one line with the
    file, the key and what to do.
    """
    table = _table(path)
    criteria = _criteria(path, table.criteria)
    rubric = Rubric(
        prompt_id=table.prompt_id,
        criteria=tuple(row.id for row in criteria),
        method=table.method,
        pairs=table.pairs,
        scoring=table.scoring,
        name=table.name,
        status=table.status,
        replaces=table.replaces,
    )
    if table.id is not None and table.id != rubric.id:
        rubric = rubric.model_copy(update={"replaces": table.id})
    return rubric, criteria


def _criteria(path: Path, tables: Sequence[CriterionTable]) -> list[Criterion]:
    """Records of the tables. An edit gives a criterion another id, so parents are made first."""
    if not tables:
        raise PlanError(f"{path}: criteria: there is none; add a table [[criteria]] with a text")
    place: dict[str, int] = {}
    for index, item in enumerate(tables):
        if item.id is not None and place.setdefault(item.id, index) != index:
            raise PlanError(
                f"{path}: criteria[{index}].id: {_quoted(item.id)} is criteria[{place[item.id]}]'s "
                "too; give each its own, or drop the line"
            )
    above: dict[int, set[int]] = {}
    for index, item in enumerate(tables):
        if item.parent is not None and item.parent not in place:
            raise PlanError(
                f"{path}: criteria[{index}].parent: no criterion has the id {_quoted(item.parent)}; "
                "name the id of one in this file"
            )
        above[index] = set() if item.parent is None else {place[item.parent]}
    try:
        order = list(TopologicalSorter(above).static_order())
    except CycleError as error:
        raise PlanError(
            f"{path}: criteria[{error.args[1][0]}].parent: goes round in a circle; "
            "drop the parent of the topmost criterion"
        ) from None
    made: dict[int, Criterion] = {}
    for index in order:
        item = tables[index]
        parent = None if item.parent is None else made[place[item.parent]].id
        fields = item.model_dump(exclude={"id", "parent"})
        made[index] = Criterion.model_validate({**fields, "parent": parent})
    rows = [made[index] for index in range(len(tables))]
    first: dict[str, int] = {}
    for index, row in enumerate(rows):
        if not row.text.strip():
            raise PlanError(
                f"{path}: criteria[{index}].text: is empty; write it, or drop the table"
            )
        if first.setdefault(row.id, index) != index:
            raise PlanError(
                f"{path}: criteria[{index}]: says the same as criteria[{first[row.id]}]; drop one"
            )
    return rows


def _table(path: Path) -> RubricTable:
    try:
        raw = tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise PlanError(f"{path}: no such rubric file; check the path") from None
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}; name a TOML file") from None
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        line = str(error).splitlines()[0][:200]
        raise PlanError(f"{path}: not TOML: {line}; put texts in quotes, one key a line") from None
    try:
        # As JSON, so that types are strict but TOML's arrays are taken for tuples.
        return RubricTable.model_validate_json(json.dumps(raw, default=lambda d: {"date": str(d)}))
    except ValidationError as error:
        # A misspelt key comes first: it is why the key that is meant is missing.
        problems = sorted(
            error.errors(include_url=False), key=lambda p: p["type"] != "extra_forbidden"
        )
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise PlanError(f"{path}: {_words(problems[0])}{more}") from None


def _words(problem: Any) -> str:
    """One problem of pydantic's, in a rubric writer's words."""
    loc = problem["loc"]
    model: type[Config] = CriterionTable if len(loc) > 2 else RubricTable
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc[:-1])
    last = loc[-1]
    shown = last if re.fullmatch(r"[A-Za-z0-9_-]+", str(last)) else _quoted(str(last))
    where = (where + (f"[{last}]" if isinstance(last, int) else f".{shown}")).lstrip(".")
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(last).lower(), model.model_fields, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(model.model_fields)}"
        return f"{where}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{where}: missing; add it"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{where}: {message}, not {_quoted(problem['input'])}"


def _quoted(value: Any) -> str:
    """What the file says, in one line of ASCII."""
    text = json.dumps(value, default=str)
    return text if len(text) < 80 else text[:77] + "..."
