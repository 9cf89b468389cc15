"""Write schemas/published.json anew: `python -m tests.schemas.regenerate`.

The file holds what every published record looks like. It may be regenerated for what old files can
still be read under (a field added with a default, a value allowed, a bound dropped); anything else
needs a higher `version` of the record, and this command refuses it without.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from schemas.record import Part, Record
from schemas.records import ALL

PATH = Path(__file__).parents[2] / "schemas" / "published.json"
Snapshot = dict[str, Any]


def snapshot(records: tuple[type[Record], ...] = ALL) -> Snapshot:
    """Version and fields of every record, as JSON."""
    return {
        record.__name__: {
            "version": record.version,
            "fields": {
                name: {
                    "type": str(record.arrow_schema().field(name).type),
                    "nullable": record.arrow_schema().field(name).nullable,
                    "required": info.is_required(),
                    "default": None if info.is_required() else repr(info.default),
                    **_limits(info.annotation, info.metadata),
                }
                for name, info in record.model_fields.items()
            },
        }
        for record in records
    }


def _limits(annotation: Any, metadata: Any) -> dict[str, list[str]]:
    """Allowed values and bounds, wherever in the field they stand."""
    allowed: set[str] = set()
    bounds = {repr(item) for item in metadata if isinstance(item, Ge | Gt | Le | Lt)}
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        allowed |= set(inside)
    elif origin is Annotated:
        inner = _limits(inside[0], inside[1:])
        allowed, bounds = allowed | set(inner["allowed"]), bounds | set(inner["bounds"])
    elif origin in (Union, types.UnionType, tuple):
        for kind in inside:
            inner = _limits(kind, ())
            allowed, bounds = allowed | set(inner["allowed"]), bounds | set(inner["bounds"])
    elif isinstance(annotation, type) and issubclass(annotation, Part):
        for name, info in annotation.model_fields.items():
            inner = _limits(info.annotation, info.metadata)
            allowed |= {f"{name}={value}" for value in inner["allowed"]}
            bounds |= {f"{name}:{bound}" for bound in inner["bounds"]}
    return {"allowed": sorted(allowed), "bounds": sorted(bounds)}


def problems(old: Snapshot, new: Snapshot) -> list[str]:
    """Changes by which files of the old records could not be read under the new ones."""
    found = []
    for name, before in old.items():
        now = new.get(name)
        if now is None:
            found.append(f"{name} is gone: old files of it cannot be read")
            continue
        if now["version"] < before["version"]:
            found.append(f"{name}.version went down from {before['version']} to {now['version']}")
        if now["version"] != before["version"]:
            continue
        changes = [f"{field} was removed" for field in before["fields"].keys() - now["fields"]]
        for field, is_now in now["fields"].items():
            was = before["fields"].get(field)
            changes += [f"{field} {change}" for change in _field_problems(was, is_now)]
        found += [
            f"{name}.{change}: raise {name}.version, or old files are misread"
            for change in sorted(changes)
        ]
    return found


def _field_problems(was: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    if was is None:
        return ["was added without a default"] if now["required"] else []
    found = []
    if was["type"] != now["type"]:
        found.append(f"was {was['type']} and is {now['type']}")
    if was["nullable"] and not now["nullable"]:
        found.append("may no longer be none")
    if not was["required"] and was["default"] != now["default"]:
        # Values equal to the default are left out of ids: another default gives other ids.
        found.append(f"had the default {was['default']} and has {now['default']}")
    gone = sorted(set(was["allowed"]) - set(now["allowed"]))
    if gone and now["allowed"]:
        found.append(f"no longer allows {', '.join(gone)}")
    if not was["allowed"] and now["allowed"]:
        found.append("allows only some values now")
    tighter = sorted(set(now["bounds"]) - set(was["bounds"]))
    if tighter:
        found.append(f"has the new bound {', '.join(tighter)}")
    return found


def read() -> Snapshot:
    """What is published."""
    return dict(json.loads(PATH.read_text()))


def main() -> int:
    """Regenerate the file unless that would break old files."""
    new = snapshot()
    found = problems(read(), new) if PATH.exists() else []
    if found:
        print("\n".join(found), file=sys.stderr)
        return 2
    PATH.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
