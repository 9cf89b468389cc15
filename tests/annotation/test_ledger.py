from __future__ import annotations

from pathlib import Path

import pytest

from annotation.client import Counts
from annotation.ledger import Kept, Ledger, Row
from schemas.errors import UserError


def row(name: str, **changes: object) -> Row:
    given = {
        "external": name, "unit": f"u-{name}", "parts": "[]", "shown": "ab", "digest": "d",
        "bytes": 10, "purpose": "value", "propensity": 1.0, "overlap": 1,
    }  # fmt: skip
    return Row(**{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_an_audit_stays_one_and_the_larger_overlap_holds(ledger: Ledger) -> None:
    ledger.add([row("x", overlap=3)])
    ledger.add([row("x", purpose="audit", propensity=0.1)])
    ledger.add([row("x", propensity=0.9)])
    found = ledger.item("x")
    assert found is not None
    assert (found.purpose, found.propensity, found.overlap) == ("audit", 0.1, 3)


def test_what_is_missing(ledger: Ledger) -> None:
    ledger.add([row("x"), row("y"), row("z")])
    ledger.arrived([(1, "x", "d"), (2, "y", "d")])
    assert ledger.missing(["x", "y", "z"], False) == {"z"}
    ledger.arrived([(1, "x", "d")], sweep=1)
    ledger.forget_unseen(1)
    assert ledger.missing(["x", "y", "z"], False) == {"z"}
    assert ledger.missing(["x", "y", "z"], True) == {"y", "z"}


def test_a_batch_on_its_way_is_remembered_over_a_crash(ledger: Ledger, tmp_path: Path) -> None:
    ledger.add([row("x"), row("y")])
    ledger.send([row("x"), row("y", digest="new")], 12.5)
    ledger.close()
    again = Ledger(tmp_path / "ledger.sqlite")
    assert again.sending() == {"x": 12.5, "y": 12.5}
    again.arrived([(1, "x", "d")])
    assert again.sending() == {"y": 12.5}
    again.unsend()
    assert again.sending() == {} and again.missing(["x", "y"], False) == {"y"}
    found = again.item("y")
    assert found is not None and found.digest == "new"


def test_a_task_id_that_the_server_gives_twice(ledger: Ledger) -> None:
    ledger.add([row("x"), row("y")])
    ledger.arrived([(7, "x", "d")])
    ledger.archive(7)
    ledger.overlaps(7, 4)
    ledger.arrived([(7, "y", "e")])
    assert ledger.tally()["gone"] == 1
    assert ledger.other_overlaps(1) == [] and ledger.missing(["y"], False) == set()
    ledger.arrived([(8, "y", "e")])
    assert ledger.doubles() == [8]


def test_another_project_begins_anew(ledger: Ledger) -> None:
    ledger.belong_to("1 then")
    ledger.add([row("x")])
    ledger.arrived([(1, "x", "d")])
    with ledger.transaction():
        ledger.answered(1, [Kept(5, "human-x", "t", False, 1.0, "answer", "[]", "[]")])
    ledger.put("cursor", "t")
    ledger.belong_to("1 then")
    assert ledger.known() == Counts(1, 1, 0) and ledger.get("cursor") == "t"
    ledger.belong_to("1 now")
    assert ledger.known() == Counts(0, 0, 0) and ledger.get("cursor") is None
    assert ledger.missing(["x"], False) == {"x"}


def test_answers_of_a_task_are_replaced(ledger: Ledger) -> None:
    ledger.add([row("x")])
    ledger.arrived([(1, "x", "d")])
    kept = [
        Kept(5, "human-x", "t1", False, 1.0, "answer", "[]", "[]"),
        Kept(6, "human-x", "t2", True, 1.0, "skip", "", "[]"),
        Kept(7, "human-x", "t3", False, 1.0, "twice", "why", "[]"),
        Kept(8, "human-x", "t4", False, 1.0, "answer", "[1]", "[]"),
    ]
    with ledger.transaction():
        ledger.answered(1, kept)
    assert [r[6] for r in ledger.annotations()] == [8, 5, 6, 7]
    assert ledger.known() == Counts(1, 3, 1)
    with ledger.transaction():
        ledger.answered(1, kept[:1])
    assert ledger.known() == Counts(1, 1, 0) and ledger.people() == {"human-x": 1}


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    place = tmp_path / "ledger.sqlite"
    place.write_text("no database, " * 100)
    with pytest.raises(UserError, match=r"ledger\.sqlite: cannot be used"):
        Ledger(place)
