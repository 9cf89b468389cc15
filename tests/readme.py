"""The README's table of plan keys, made from the plan's own fields: python -m tests.readme"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.plan import Plan

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- plan keys -->\n", "<!-- end of plan keys -->\n"


def table() -> str:
    """Every key: its name, what it takes, its default, what it means."""
    rows = ["| key | takes | default | meaning |", "| --- | --- | --- | --- |"]
    rows += _rows(Plan, "", {})
    return "\n".join(rows) + "\n"


def _rows(model: type[BaseModel], prefix: str, seen: dict[Any, str]) -> list[str]:
    rows = []
    for name, info in model.model_fields.items():
        key = f"{prefix}{name}"
        options = [o for o in _options(info.annotation) if o is not type(None)]
        inner = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        tagged = _tables(options[0])
        doc = " ".join((info.description or "").split())
        if tagged is not None:
            rows.append(f"| **`[{key}.NAME]`** | | | {doc} |")
            for option in tagged:
                if option in seen:
                    continue
                seen[option] = key
                kind = get_args(option.model_fields["kind"].annotation)[0]
                rows.append(f'| `{key}.NAME.kind` | `"{kind}"` | | {_first(option)} |')
                rows += _rows(option, f"{key}.NAME({kind}).", seen)
        elif inner:
            rows.append(f"| **`[{key}]`** | | | {doc} |")
            if inner[0] in seen:
                rows[-1] = rows[-1].removesuffix(" |") + f" Keys as in `[{seen[inner[0]]}]`. |"
            else:
                seen[inner[0]] = key
                rows += _rows(inner[0], f"{key}.", seen)
        elif name != "kind":
            rows.append(f"| `{key}` | {_takes(options)} | {_default(info)} | {doc} |")
    return [row.replace("\n", " ") for row in rows]


def _tables(option: Any) -> list[Any] | None:
    """The tables that a table of named ones may hold; none: it is no such table."""
    if get_origin(option) is not dict:
        return None
    found = _options(get_args(option)[1])
    return [o for o in found if isinstance(o, type) and issubclass(o, BaseModel)] or None


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(f"`{name}`" for name in model.model_fields)


def _first(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split("\n\n")[0].split())


def _options(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(o for inner in get_args(kind) for o in _options(inner))
    return (kind,)


def _takes(options: list[Any]) -> str:
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    shown = []
    for option in options:
        if get_origin(option) is Literal:
            shown += [f"`{value}`" for value in get_args(option)]
        elif get_origin(option) is tuple:
            inner = get_args(option)[0]
            table = isinstance(inner, type) and issubclass(inner, BaseModel)
            what = f"tables of {_keys(inner)}" if table else _takes(list(_options(inner)))
            shown.append(f"list of {what}")
        elif get_origin(option) is dict:
            names_, values = (_takes(list(_options(kind))) for kind in get_args(option))
            shown.append(f"table of {values} by {names_}")
        else:
            shown.append(names.get(option, getattr(option, "__name__", "")))
    return ", ".join(shown)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f"`{v}`" for v in value) or "empty"
    return (
        f"`{value}`".lower()
        if isinstance(value, bool)
        else f"`{value}`"
        if value != ""
        else "empty"
    )


def refreshed(text: str) -> str:
    """The README with its table made anew."""
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[:start] + "\n" + table() + "\n" + text[end:]


if __name__ == "__main__":
    README.write_text(refreshed(README.read_text("utf-8")), "utf-8")
