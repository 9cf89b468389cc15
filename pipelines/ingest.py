"""Read prompts from JSON lines, Parquet, CSV and data set folders, row by row.

Every row read becomes a `Prompt` or a `Reject`. Duplicates are found over all files by 16-byte
digests of content and of own ids, which take about 170 MB a million rows (both sets together);
nothing else grows with the number of rows.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge
from pydantic import ValidationError

from pipelines import answers, config, constraints, readers
from pipelines.answers import Verifier
from pipelines.instructions import checking
from pipelines.instructions.arguments import BadInstruction
from pipelines.readers import BadRow, File
from schemas.errors import UserError
from schemas.record import digest
from schemas.records import Constraint, Instruction, Message, Prompt, Reject

NAME = "ingest"
VERSION = 3

VERIFIERS: dict[str, Verifier] = {name: name for name in get_args(Verifier)}
HELD_CHARS = 32_000_000
"""Characters of prompts held before they are handed on, even if the batch has room for more rows."""


class Columns(config.Config):
    """Names of the columns (keys of a JSON row) that are read; others are ignored."""

    prompt: str = "prompt"
    """A text (one user message) or a list of messages with role and content."""
    messages: str = "messages"
    """A list of messages, read where there is no prompt."""
    reference: str = "reference"
    """Reference answer."""
    id: str = "id"
    """The row's own id."""
    task: str = "task"
    """Task kind."""
    verifier: str = "verifier"
    """`numeric`, `choice`, `exact`, `set`, `latex` or `code`; for code the reference is unit tests."""
    source: str = "source"
    """Name of the data set."""
    licence: str = "licence"
    """Licence of the row."""
    constraints: str = "constraints"
    """A list of constraints with kind and value."""
    instructions: str = "instruction_id_list"
    """A list of ids of verifiable instructions, as IFEval has them."""
    arguments: str = "kwargs"
    """The instructions' arguments: a list of objects, or its JSON text."""


class Config(config.Config):
    """What is read, and what is assumed where a column is absent or empty."""

    paths: tuple[str, ...]
    """Files, globs, folders saved by `datasets`, or folders of data files with a data set card."""
    format: Literal["auto", "jsonl", "parquet", "csv", "datasets"] = "auto"
    """Format of the files; `auto` goes by the suffix."""
    columns: Columns = Columns()
    """Names of the columns."""
    task: str = "chat"
    """Task kind of rows that state none."""
    verifier: Verifier | None = None
    """Verifier of rows that state none."""
    source: str | None = None
    """Source of rows that state none; none: the file's or folder's name."""
    licence: str | None = None
    """Licence of rows that state none."""
    max_chars: Annotated[int, Ge(1)] = 100_000
    """Rows with more characters in their messages, or in another field, are rejected."""
    limit: Annotated[int, Ge(1)] | None = None
    """Read at most this many rows."""
    split: str | None = None
    """Split to read of a data set folder."""


def inputs_digest(config: Config) -> dict[str, str]:
    """SHA-256 of each input file's content, by file name; folders above it do not matter.

    Raises UserError as `ingest` does for files that are missing, empty or may not be read.
    """
    found = readers.files(config.paths, config.format, config.split)
    return {file.name: readers.sha256(file.path) for file in found}


def ingest(config: Config, batch_rows: int = 10_000) -> Iterator[tuple[list[Prompt], list[Reject]]]:
    """Prompts and rejects of all files, in batches of at most `batch_rows` rows.

    A reject's unit is `file-name:line` (row number for Parquet and data sets). Codes: `not_json`,
    `not_an_object`, `bad_csv`, `invalid_utf8`, `missing_prompt`, `empty_prompt`, `bad_role`,
    `bad_type`, `bad_verifier`, `bad_reference` (the verifier cannot read it), `bad_constraint`,
    `bad_instruction`, `too_long`, `last_turn` (messages do not end with the user's), `duplicate` (an earlier row asks
    the same: messages, reference, task, verifier, constraints and instructions) and `duplicate_id` (another row
    of the same source has this id). Raises UserError for files that cannot be used.
    """
    prompts: list[Prompt] = []
    rejects: list[Reject] = []
    seen, read, held = _Seen(), 0, 0
    for file in readers.files(config.paths, config.format, config.split):
        for line, row in _rows(file, config.columns):
            unit = f"{file.name}:{line}"
            try:
                if isinstance(row, BadRow):
                    raise row
                prompt = _prompt(row, config, file)
                seen.add(prompt, unit)
            except BadRow as bad:
                rejects.append(
                    Reject(unit=unit, stage=NAME, code=bad.code, detail=bad.detail[:500])
                )
            else:
                prompts.append(prompt)
                held += sum(len(message.content) for message in prompt.messages)
            read += 1
            if len(prompts) + len(rejects) >= batch_rows or held >= HELD_CHARS:
                yield prompts, rejects
                prompts, rejects, held = [], [], 0
            if read == config.limit:
                break
        if read == config.limit:
            break
    if prompts or rejects:
        yield prompts, rejects


class _Seen:
    """What earlier rows asked, and their ids."""

    def __init__(self) -> None:
        self.contents: set[bytes] = set()
        self.ids: set[bytes] = set()

    def add(self, prompt: Prompt, unit: str) -> None:
        """Raise BadRow where an earlier row stands for this one."""
        # Where a row comes from does not make it another question.
        asked = prompt.model_dump(mode="json", exclude={"source", "source_id", "licence"})
        content = bytes.fromhex(digest(asked))
        if content in self.contents:
            raise BadRow("duplicate", "an earlier row has the same content")
        if prompt.source_id is not None:
            own = bytes.fromhex(digest(prompt.source, prompt.source_id))
            if own in self.ids:
                raise BadRow(
                    "duplicate_id",
                    f"id {_show(prompt.source_id)} of source {_show(prompt.source)} was seen before "
                    "with other content",
                )
            self.ids.add(own)
        self.contents.add(content)


def _rows(file: File, columns: Columns) -> Iterator[readers.Row]:
    """Rows of a file; a column that was named and never comes is the user's slip."""
    names = list(columns.model_dump().values())
    named = [
        name
        for key, name in columns.model_dump().items()
        if name != Columns.model_fields[key].default and key not in ("prompt", "messages")
    ]

    def check(there: list[str]) -> None:
        if columns.prompt not in there and columns.messages not in there:
            raise UserError(
                f"{file.path}: no column {columns.prompt!r} or {columns.messages!r} in its header, "
                f"{readers.nearest(columns.prompt, there)}; set `columns.prompt`"
            )
        for name in named:
            if name not in there:
                raise UserError(
                    f"{file.path}: no column {name!r}, {readers.nearest(name, there)}; mend `columns`"
                )

    if file.format != "jsonl":
        yield from readers.rows(file, names, check)
        return
    missing, keys = set(named), dict[str, None]()
    for line, row in readers.rows(file, names, check):
        if missing and not isinstance(row, BadRow):
            missing.difference_update(row)
            keys = keys or dict.fromkeys(row)
        yield line, row
    for name in sorted(missing):
        raise UserError(
            f"{file.path}: no row has {name!r}, {readers.nearest(name, list(keys))}; mend `columns`"
        )


def _prompt(row: dict[str, Any], config: Config, file: File) -> Prompt:
    """The row as a prompt. Raises BadRow."""
    columns = config.columns
    messages = _messages(row, columns, config.max_chars)

    def text(column: str) -> str | None:
        return _text(row.get(column), column, config.max_chars)

    verifier = text(columns.verifier) or config.verifier
    if verifier is not None and verifier not in VERIFIERS:
        raise BadRow("bad_verifier", f"{_show(verifier)} is none of {', '.join(VERIFIERS)}")
    reference = text(columns.reference)
    if reference and verifier:
        why = answers.why_unreadable(reference, VERIFIERS[verifier])
        if why:
            raise BadRow("bad_reference", f"{_show(reference)} {why}")
    return Prompt(
        messages=messages,
        reference=reference,
        task=text(columns.task) or config.task,
        verifier=VERIFIERS[verifier] if verifier else None,
        constraints=_constraints(row.get(columns.constraints), columns.constraints),
        instructions=_instructions(row, columns),
        source=text(columns.source) or config.source or file.origin,
        source_id=text(columns.id),
        licence=text(columns.licence) or config.licence,
    )


def _messages(row: dict[str, Any], columns: Columns, max_chars: int) -> tuple[Message, ...]:
    name = columns.prompt if row.get(columns.prompt) is not None else columns.messages
    value = row.get(name)
    if value is None:
        keys = [str(key) for key in row]
        raise BadRow(
            "missing_prompt",
            f"no {columns.prompt!r} or {columns.messages!r}; {readers.nearest(columns.prompt, keys)}",
        )
    if isinstance(value, str) and name == columns.prompt:
        value = [{"role": "user", "content": value}]
    turns = _list(value, name, "bad_type")
    if not turns:
        raise BadRow("empty_prompt", f"{name} holds no messages")
    total = 0
    for turn in turns:
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
            raise BadRow("bad_type", f"a message needs role and content, found {_show(turn)}")
        if turn["role"] not in ("system", "user", "assistant"):
            raise BadRow("bad_role", f"{_show(turn['role'])} is none of system, user, assistant")
        if not isinstance(turn["content"], str):
            raise BadRow("bad_type", f"a message's content must be text: {_show(turn['content'])}")
        _check_encodable(turn["content"], name)
        total += len(turn["content"])
    if total > max_chars:
        raise BadRow("too_long", f"{total} characters, at most {max_chars} are taken")
    if turns[-1]["role"] != "user":
        raise BadRow("last_turn", f"the last message is the {turns[-1]['role']}'s, not the user's")
    if not turns[-1]["content"].strip():
        raise BadRow("empty_prompt", "the last message is blank")
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)


def _constraints(value: Any, name: str) -> tuple[Constraint, ...]:
    found = []
    for item in _list(value, name, "bad_constraint") if value is not None else []:
        if not isinstance(item, dict):
            raise BadRow("bad_constraint", f"a constraint needs kind and value: {_show(item)}")
        argument = item.get("value")
        if isinstance(argument, int) and not isinstance(argument, bool):
            item = {**item, "value": str(argument)}
        try:
            constraint = Constraint.model_validate(item)
            constraints.validate(constraint)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise BadRow("bad_constraint", f"{where}: {first['msg']}, in {_show(item)}") from error
        except constraints.BadConstraint as error:
            raise BadRow("bad_constraint", str(error)) from error
        found.append(constraint)
    return tuple(found)


def _instructions(row: dict[str, Any], columns: Columns) -> tuple[Instruction, ...]:
    if row.get(columns.instructions) is None:
        return ()
    ids = _list(row[columns.instructions], columns.instructions, "bad_instruction")
    given = row.get(columns.arguments)
    try:
        return checking.of_row(ids, [None] * len(ids) if given is None else given)
    except BadInstruction as error:
        raise BadRow("bad_instruction", str(error)) from error


def _list(value: Any, name: str, code: str) -> list[Any]:
    """A list, also from its JSON text, which is how a CSV cell holds one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRow(code, f"{name} is neither a list nor JSON: {_show(value)}") from error
    if not isinstance(value, list):
        raise BadRow(code, f"{name} must be a list, found {_show(value)}")
    return value


def _text(value: Any, name: str, max_chars: int) -> str | None:
    """A field as text, None if it is empty; whole numbers and decimals are taken as written."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if number and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str):
        raise BadRow("bad_type", f"{name} must be text, found {_show(value)}")
    if len(value) > max_chars:
        raise BadRow("too_long", f"{name}: {len(value)} characters, at most {max_chars} are taken")
    _check_encodable(value, name)
    return value


def _check_encodable(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow("invalid_utf8", f"{name} holds half of a surrogate pair") from error


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100


def _show(value: Any) -> str:
    """A value in short, whatever its size and depth."""
    return _REPR.repr(value)
