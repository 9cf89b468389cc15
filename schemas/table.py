"""Whole-table checks: is this Arrow table or Parquet file what its record says?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Gt, Le, Lt

from schemas.errors import SchemaError
from schemas.record import RECORD_KEY, VERSION_KEY, Record


def with_ids(record: type[Record], table: pa.Table) -> pa.Table:
    """A table of the record's columns without `id`, as a table with it, cast to the record's schema.

    Raises SchemaError when a column is missing, unknown or of a type that cannot be cast.
    """
    schema = record.arrow_schema()
    unknown = sorted(set(table.column_names) - set(schema.names))
    missing = sorted(set(schema.names) - {"id"} - set(table.column_names))
    if unknown or missing:
        raise SchemaError(
            f"{record.__name__}: missing columns {missing}, unknown columns {unknown}"
        )
    bare = table.select(schema.names[1:]).cast(schema.remove(0))
    ids = [record.content_id(row) for batch in bare.to_batches(4096) for row in batch.to_pylist()]
    return pa.table([pa.array(ids, pa.string()), *bare.columns], schema=schema)


def validate(record: type[Record], table: pa.Table) -> None:
    """Check a table against its record without leaving Arrow.

    Names and types, nulls, allowed values, bounds, and that ids are unique. Raises SchemaError
    naming the column and the first offending value.
    """
    schema = record.arrow_schema()
    if not table.schema.equals(schema):
        theirs = {f.name: f.type for f in table.schema}
        ours = {f.name: f.type for f in schema}
        wrong = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
        raise SchemaError(
            f"{record.__name__}: columns differ from the record's: {', '.join(wrong) or 'nullability'}"
        )
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise SchemaError(f"{record.__name__}.{field.name}: holds nulls")
    for name, info in record.model_fields.items():
        column = table[name]
        while pa.types.is_list(column.type):
            column = pc.list_flatten(column)
        allowed, bounds = _limits(info.annotation, info.metadata)
        if allowed:
            _refuse(
                record, name, column, pc.is_in(column, pa.array(sorted(allowed))), "is not allowed"
            )
        for bound, compare in bounds:
            _refuse(record, name, column, compare(column, bound), f"is out of range ({bound})")
    if pc.count_distinct(table["id"]).as_py() != len(table):
        counts = table["id"].value_counts().to_pylist()
        twice = next(c["values"] for c in counts if c["counts"] > 1)
        raise SchemaError(f"{record.__name__}.id: {twice} stands more than once")


def _refuse(record: type[Record], name: str, column: Any, fine: Any, why: str) -> None:
    bad = column.filter(pc.and_(pc.is_valid(column), pc.invert(pc.fill_null(fine, True))))
    if len(bad):
        raise SchemaError(f"{record.__name__}.{name}: {bad[0].as_py()!r} {why}")


_COMPARE = {Ge: pc.greater_equal, Gt: pc.greater, Le: pc.less_equal, Lt: pc.less}


def _limits(annotation: Any, metadata: list[Any]) -> tuple[set[str], list[tuple[float, Any]]]:
    """Allowed values and bounds of a field, looked for inside unions and tuples."""
    allowed: set[str] = set()
    bounds = []
    for kind in _leaves(annotation):
        if get_origin(kind) is Literal:
            allowed |= set(get_args(kind))
    for item in metadata:
        for kind, compare in _COMPARE.items():
            if isinstance(item, kind):
                bounds.append((getattr(item, kind.__name__.lower()), compare))
    return allowed, bounds


def _leaves(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal or not get_args(annotation):
        yield annotation
    else:
        for inner in get_args(annotation):
            if inner is not Ellipsis:
                yield from _leaves(inner)


def adapt(record: type[Record], table: pa.Table, where: str) -> pa.Table:
    """Read a table written by this or an older Prefinery under today's record.

    A field added since, with a default, is filled in. Anything else (another record, another
    version, a field gone, a type changed) raises SchemaError with one line; `where` names the file.
    """
    meta = table.schema.metadata or {}
    name = meta.get(RECORD_KEY, b"").decode()
    version = meta.get(VERSION_KEY, b"").decode()
    if name != record.__name__:
        raise SchemaError(f"{where}: holds {name or 'no Prefinery record'}, not {record.__name__}")
    if version != str(record.version):
        raise SchemaError(
            f"{where}: {name} version {version}, this Prefinery reads version {record.version}; "
            "run the plan again with it, or read the file with the Prefinery that wrote it"
        )
    schema = record.arrow_schema()
    if table.schema.equals(schema):
        return table
    columns = []
    for field in schema:
        if field.name in table.column_names:
            theirs = table.schema.field(field.name)
            if theirs.type != field.type:
                raise SchemaError(
                    f"{where}: {name}.{field.name} is {theirs.type}, this Prefinery reads {field.type}"
                )
            columns.append(table[field.name])
            continue
        info = record.model_fields[field.name]
        if info.is_required():
            raise SchemaError(f"{where}: {name}.{field.name} is missing and has no default")
        default = list(info.default) if isinstance(info.default, tuple) else info.default
        columns.append(pa.array([default] * len(table), field.type))
    gone = sorted(set(table.column_names) - set(schema.names))
    if gone:
        raise SchemaError(
            f"{where}: {name} has fields unknown to this Prefinery: {', '.join(gone)}"
        )
    return pa.table(columns, schema=schema)
