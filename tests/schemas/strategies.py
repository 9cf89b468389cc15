"""Hypothesis strategies for records, derived from their fields."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from hypothesis import strategies as st
from pydantic import BaseModel

from schemas.record import Part, Record

# Any text that UTF-8 can hold: no lone surrogates.
texts = st.text(st.characters(codec="utf-8"), max_size=20)


def record_rows(record: type[Record]) -> st.SearchStrategy[Any]:
    """Valid records of a type."""
    return _model(record)


def _model(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    fields = {
        name: _values(info.annotation, info.metadata) for name, info in model.model_fields.items()
    }
    return st.builds(model, **fields)


def _values(annotation: Any, metadata: Any = ()) -> st.SearchStrategy[Any]:
    origin, inside = get_origin(annotation), get_args(annotation)
    low = next((item.ge for item in metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in metadata if isinstance(item, Le)), None)
    if origin is Annotated:
        return _values(inside[0], inside[1:])
    if origin in (Union, types.UnionType):
        return st.one_of(*(_values(kind, metadata) for kind in inside))
    if origin is Literal:
        return st.sampled_from(inside)
    if origin is tuple:
        return st.lists(_values(inside[0]), max_size=3).map(tuple)
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(-(2**63) if low is None else low, 2**63 - 1)
    if annotation is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if annotation is str:
        return texts
    assert issubclass(annotation, Part), annotation
    return _model(annotation)
