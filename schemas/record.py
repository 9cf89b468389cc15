"""What a row is: a frozen pydantic model, an id made from its content, an Arrow schema derived from it."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

RECORD_KEY = b"prefinery.record"
VERSION_KEY = b"prefinery.version"
DOC_KEY = b"doc"

# Building an encoder takes longer than encoding a row.
canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
"""Canonical JSON of a value: keys sorted, no spaces, characters as they are."""


def digest(*parts: Any) -> str:
    """Hash JSON-able parts to 32 hex digits (128 bits of SHA-256 over canonical JSON).

    Dictionary keys are sorted and text is hashed as UTF-8, so equal content gives an equal
    digest in every process and on every machine.
    """
    return digest_text(canonical(parts))


def digest_text(text: str) -> str:
    """Hash a text to 32 hex digits; of canonical JSON, as `digest` does."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Part(BaseModel):
    """A frozen piece of a record (a message, a span); it has no id of its own."""

    # NaN has no JSON and no order: a score of NaN would count as the highest in a sort.
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Record(Part):
    """A row. Subclasses state their fields; everything else follows from them.

    `version` is raised when old files can no longer be read under the new fields.
    `unhashed` names the fields that do not make a row another row (clock times, money).
    """

    version: ClassVar[int] = 1
    unhashed: ClassVar[frozenset[str]] = frozenset()

    @cached_property
    def id(self) -> str:
        """Content id: the same row made twice has the same id."""
        return self.content_id(self.model_dump(mode="json"))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy whose id is made anew: pydantic would carry over the id of the old content."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("id", None)
        return copied

    @classmethod
    def content_id(cls, row: dict[str, Any]) -> str:
        """Id of a row given as JSON-able values.

        Values equal to a field's default are left out, so a field added later, with a default,
        does not change the ids of rows made before.
        """
        defaults = _defaults(cls)
        content = {
            key: value
            for key, value in row.items()
            if key not in cls.unhashed and not (key in defaults and value == defaults[key])
        }
        return digest(cls.__name__, content)

    @classmethod
    def arrow_schema(cls) -> pa.Schema:
        """Arrow schema with `id` first, field docs as field metadata, name and version on top."""
        return _arrow_schema(cls)

    @classmethod
    def to_table(cls, records: Iterable[Self]) -> pa.Table:
        """Rows as an Arrow table, in the order given."""
        rows = []
        for record in records:
            row = record.model_dump(mode="json")
            row_id = record.__dict__.get("id") or cls.content_id(row)
            rows.append({"id": row_id, **row})
        return pa.Table.from_pylist(rows, schema=cls.arrow_schema())

    @classmethod
    def from_table(cls, table: pa.Table) -> Iterator[Self]:
        """Records of a table; the stored id is trusted (it was checked when it was published)."""
        for batch in table.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                row_id = row.pop("id")
                record = cls.model_validate(row)
                record.__dict__["id"] = row_id
                yield record


@cache
def _defaults(record: type[Record]) -> dict[str, Any]:
    return {
        name: list(info.default) if isinstance(info.default, tuple) else info.default
        for name, info in record.model_fields.items()
        if not info.is_required()
    }


@cache
def _arrow_schema(record: type[Record]) -> pa.Schema:
    fields = [pa.field("id", pa.string(), nullable=False, metadata={DOC_KEY: b"Content id."})]
    fields += _fields(record)
    metadata = {RECORD_KEY: record.__name__.encode(), VERSION_KEY: str(record.version).encode()}
    return pa.schema(fields, metadata=metadata)


def _fields(model: type[BaseModel]) -> list[pa.Field]:
    fields = []
    for name, info in model.model_fields.items():
        kind, nullable = _arrow_type(info.annotation)
        doc = " ".join((info.description or "").split())
        fields.append(pa.field(name, kind, nullable=nullable, metadata={DOC_KEY: doc.encode()}))
    return fields


_SCALARS: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    """Arrow type of a field's annotation, and whether it may be null."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return _arrow_type(inner[0])[0], True
    elif get_origin(annotation) is Annotated:
        return _arrow_type(get_args(annotation)[0])
    elif get_origin(annotation) is Literal:
        return pa.string(), False
    elif get_origin(annotation) is tuple:
        item, _ = get_args(annotation)
        kind, nullable = _arrow_type(item)
        return pa.list_(pa.field("item", kind, nullable=nullable)), False
    elif annotation in _SCALARS:
        return _SCALARS[annotation], False
    elif isinstance(annotation, type) and issubclass(annotation, Part):
        return pa.struct(_fields(annotation)), False
    raise TypeError(f"no Arrow type for {annotation!r}")
