"""Old files stay readable: records change only as schemas/published.json allows."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from schemas.record import Record
from schemas.records import Count, Pair
from tests.schemas.regenerate import problems, read, snapshot


def test_old_files_can_be_read() -> None:
    assert problems(read(), snapshot()) == []


def test_the_snapshot_is_of_today() -> None:
    assert read() == snapshot(), (
        "the records changed in a way that old files can be read under: take it into the snapshot "
        "with `python -m tests.schemas.regenerate`"
    )


PAIR = snapshot((Pair,))


def changed(field: str, **change: Any) -> dict[str, Any]:
    new = copy.deepcopy(PAIR)
    new["Pair"]["fields"].setdefault(field, {}).update(change)
    return new


LIMITS: dict[str, Any] = {"allowed": [], "bounds": []}


@pytest.mark.parametrize(
    ("field", "change", "line"),
    [
        ("label", {"type": "int64"}, "label was string and is int64"),
        ("label", {"nullable": False}, "label may no longer be none"),
        ("label", {"allowed": ["a", "b"]}, "label no longer allows tie"),
        ("label", {"default": "'a'"}, "label had the default None and has 'a'"),
        ("prompt_id", {"allowed": ["p"]}, "prompt_id allows only some values now"),
        ("prompt_id", {"bounds": ["Ge(ge=1)"]}, "prompt_id has the new bound Ge(ge=1)"),
        (
            "more",
            {"type": "string", "nullable": False, "required": True, "default": None, **LIMITS},
            "more was added without a default",
        ),
    ],
)
def test_a_change_that_old_files_cannot_be_read_under_is_named(
    field: str, change: dict[str, Any], line: str
) -> None:
    new = changed(field, **change)
    expected = f"Pair.{line}: raise Pair.version, or old files are misread"
    assert problems(PAIR, new) == [expected]
    new["Pair"]["version"] = 2
    assert problems(PAIR, new) == []


def test_a_removed_field_and_a_removed_record_are_named() -> None:
    new = copy.deepcopy(PAIR)
    del new["Pair"]["fields"]["label"]
    assert problems(PAIR, new) == [
        "Pair.label was removed: raise Pair.version, or old files are misread"
    ]
    assert problems(PAIR, {}) == ["Pair is gone: old files of it cannot be read"]
    lower = copy.deepcopy(PAIR)
    lower["Pair"]["version"] = 0
    assert problems(PAIR, lower) == ["Pair.version went down from 1 to 0"]


def test_what_old_files_can_be_read_under_is_allowed() -> None:
    added = {"type": "string", "nullable": True, "required": False, "default": "None", **LIMITS}
    assert problems(PAIR, changed("more", **added)) == []
    wider = changed("label", allowed=["a", "b", "neither", "tie"])
    assert problems(PAIR, wider) == []
    assert problems(PAIR, changed("prompt_id", nullable=True)) == []
    assert problems({}, PAIR) == []


def test_the_snapshot_sees_limits_at_any_depth() -> None:
    class Deep(Record):
        counts: tuple[Count | None, ...] = ()

    fields = snapshot((Deep,))["Deep"]["fields"]
    assert fields["counts"] == {
        "type": "list<item: int64>",
        "nullable": False,
        "required": False,
        "default": "()",
        "allowed": [],
        "bounds": ["Ge(ge=0)"],
    }
    everything = snapshot()
    assert "role=system" in everything["Prompt"]["fields"]["messages"]["allowed"]
