"""Whole-table checks: is this Arrow table or Parquet file what its record says?"""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Gt, Le, Lt

from schemas.errors import SchemaError
from schemas.record import RECORD_KEY, VERSION_KEY, Part, Record


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
    try:
        bare = table.select(schema.names[1:]).cast(schema.remove(0))
    except (pa.ArrowException, ValueError) as error:
        raise SchemaError(f"{record.__name__}: columns cannot be cast: {error}") from error
    ids = [record.content_id(row) for batch in bare.to_batches(4096) for row in batch.to_pylist()]
    return pa.table([pa.array(ids, pa.string()), *bare.columns], schema=schema)


def validate(record: type[Record], table: pa.Table) -> None:
    """Check a table against its record without leaving Arrow.

    Names and types; nulls, allowed values, bounds and finite numbers, also inside lists and
    structs; and that ids are unique. Raises SchemaError naming the column and the first offending
    value.
    """
    schema = record.arrow_schema()
    if not table.schema.equals(schema):
        theirs = {f.name: f.type for f in table.schema}
        ours = {f.name: f.type for f in schema}
        wrong = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
        raise SchemaError(
            f"{record.__name__}: columns differ from the record's: {', '.join(wrong) or 'nullability'}"
        )
    _check(f"{record.__name__}.id", str, [], table["id"])
    for name, info in record.model_fields.items():
        _check(f"{record.__name__}.{name}", info.annotation, info.metadata, table[name])
    if pc.count_distinct(table["id"]).as_py() != len(table):
        counts = table["id"].value_counts().to_pylist()
        twice = next(c["values"] for c in counts if c["counts"] > 1)
        raise SchemaError(f"{record.__name__}.id: {twice} stands more than once")


_COMPARE = {Ge: pc.greater_equal, Gt: pc.greater, Le: pc.less_equal, Lt: pc.less}


def _check(
    where: str, annotation: Any, metadata: Iterable[Any], column: Any, nullable: bool = False
) -> None:
    """Check the values of a column, and those of the lists and structs in it."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _check(where, inside[0], [*metadata, *inside[1:]], column, nullable)
    if origin in (Union, types.UnionType):
        (inner,) = (kind for kind in inside if kind is not type(None))
        return _check(where, inner, metadata, column, nullable=True)
    if column.null_count:
        if not nullable:
            raise SchemaError(f"{where}: holds nulls")
        column = column.drop_null()
    if origin is tuple:
        return _check(where, inside[0], [], pc.list_flatten(column))
    if isinstance(annotation, type) and issubclass(annotation, Part):
        for name, info in annotation.model_fields.items():
            values = pc.struct_field(column, name)
            _check(f"{where}.{name}", info.annotation, info.metadata, values)
        return None
    if origin is Literal:
        _refuse(where, column, pc.is_in(column, pa.array(sorted(inside))), "is not allowed")
    if annotation is float:
        _refuse(where, column, pc.is_finite(column), "is not a finite number")
    for item in metadata:
        for kind, compare in _COMPARE.items():
            if isinstance(item, kind):
                bound = getattr(item, kind.__name__.lower())
                _refuse(where, column, compare(column, bound), f"is out of range ({bound})")
    return None


def _refuse(where: str, column: Any, fine: Any, why: str) -> None:
    bad = column.filter(pc.invert(fine))
    if len(bad):
        raise SchemaError(f"{where}: {bad[0].as_py()!r} {why}")


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
            if not field.nullable and table[field.name].null_count:
                raise SchemaError(f"{where}: {name}.{field.name} holds nulls")
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
