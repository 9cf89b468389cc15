"""Human votes from files: which count, what they come to, and what is said of a bad row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.humans import (
    HumansConfig,
    agreed,
    inputs_digest,
    pseudonym,
    read_known,
    read_remarks,
    read_step_votes,
    read_votes,
)
from pipelines.process.people import verdicts
from schemas.errors import UserError
from schemas.records import Vote


def write(folder: Path, *rows: dict[str, Any], name: str = "votes.jsonl") -> HumansConfig:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return HumansConfig(paths=(str(folder / name),))


def test_of_an_annotators_votes_on_a_pair_the_last_counts(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        {"pair_id": "p", "value": 1, "annotator": "ann", "seconds": 3.5},
        {"pair_id": "p", "preference": "b", "annotator": "bo", "purpose": "audit"},
        {"pair_id": "p", "preference": "b", "annotator": "ann"},
        {"pair_id": "elsewhere", "value": 1, "annotator": "ann"},
        {"pair_id": "q", "value": None, "annotator": "ann", "reason": "both are gibberish"},
    )
    votes, labels, rejects = read_votes(config, {"p", "q"})
    assert rejects == []
    assert {(v.unit, v.judge, v.value) for v in votes} == {
        ("p", pseudonym("ann"), -1.0),
        ("p", pseudonym("bo"), -1.0),
        ("q", pseudonym("ann"), None),
    }
    assert {v.judge_kind for v in votes} == {"human"}
    assert not any("ann" in v.judge for v in votes)
    (label,) = labels
    assert (label.pair_id, label.value, label.people, label.purpose) == ("p", -1.0, 2, "audit")
    assert label.error == pytest.approx(0.05**2 / (0.05**2 + 0.95**2))
    assert next(v.reason for v in votes if v.unit == "q") == "both are gibberish"


def test_votes_of_a_parquet_file_are_taken_as_they_are(tmp_path: Path) -> None:
    given = Vote(
        unit="p", unit_kind="pair", judge="human-1", judge_kind="human", value=0.5, seconds=9.0
    )
    other = given.model_copy(update={"unit": "r", "unit_kind": "response"})
    pq.write_table(Vote.to_table([given, other]), tmp_path / "votes.parquet")
    config = HumansConfig(paths=(str(tmp_path / "votes.parquet"),), purpose="audit")
    votes, labels, rejects = read_votes(config, {"p", "r"})
    assert (votes, rejects) == ([given], [])
    assert [(x.pair_id, x.value, x.purpose) for x in labels] == [("p", 0.5, "audit")]


def test_the_order_of_showing_is_kept(tmp_path: Path) -> None:
    rows = [{"pair_id": f"p{i}", "value": 1, "annotator": "ann"} for i in range(3)]
    rows[0]["order"], rows[1]["order"], rows[2]["order"] = "ab", "ba", ""
    votes, _, rejects = read_votes(write(tmp_path, *rows), {"p0", "p1", "p2"})
    assert {v.unit: v.order for v in votes} == {"p0": "ab", "p1": "ba", "p2": None}
    assert rejects == []


def test_known_answers_are_read_as_votes_are(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        {"pair_id": "p", "preference": "b", "purpose": "audit", "propensity": 0.2},
        {"pair_id": "q", "preference": "tie"},
        {"pair_id": "q", "value": 1.0},
        {"pair_id": "r", "value": None},
        {"pair_id": "elsewhere", "value": 1.0},
        {"pair_id": "p", "preference": "c"},
    )
    labels, (reject,) = read_known(config.paths, {"p", "q", "r"})
    assert [(x.pair_id, x.value, x.error, x.purpose, x.propensity) for x in labels] == [
        ("p", -1.0, 0.0, "gold", 1.0),
        ("q", 1.0, 0.0, "gold", 1.0),
    ]
    assert (reject.unit, reject.code) == ("votes.jsonl:6", "bad_vote")


def test_a_known_pair_is_asked_to_measure_people(tmp_path: Path) -> None:
    rows = [{"pair_id": p, "value": 1, "annotator": "ann"} for p in "pqr"]
    rows[1]["purpose"] = "audit"
    _, labels, _ = read_votes(write(tmp_path, *rows), set("pqr"), known={"p", "q"})
    assert {x.pair_id: x.purpose for x in labels} == {"p": "gold", "q": "audit", "r": "value"}


def test_a_campaign_that_nobody_has_answered_is_no_mistake(tmp_path: Path) -> None:
    pq.write_table(Vote.arrow_schema().empty_table(), tmp_path / "votes.parquet")
    config = HumansConfig(paths=(str(tmp_path / "votes.parquet"),))
    assert read_votes(config, {"p"}) == ([], [], [])


@pytest.mark.parametrize(
    ("row", "code", "says"),
    [
        ({"value": 1}, "bad_vote", "no pair_id"),
        ({"pair_id": "p", "value": 2}, "bad_vote", "value 2 is no number in [-1, 1]"),
        ({"pair_id": "p", "value": "yes"}, "bad_vote", 'value "yes" is no number in [-1, 1]'),
        ({"pair_id": "p", "value": float("nan")}, "bad_vote", "value NaN is no number"),
        ({"pair_id": "p", "preference": "A"}, "bad_vote", "preference 'A' is none of a, b, tie"),
        ({"pair_id": "p", "value": 1, "order": "ba "}, "bad_vote", 'order "ba " is none of ab, ba'),
        ({"pair_id": "p", "value": 1, "purpose": "fun"}, "bad_purpose", "'fun' is none of"),
    ],
)
def test_a_bad_row_is_a_reject_and_the_others_count(
    tmp_path: Path, row: dict[str, Any], code: str, says: str
) -> None:
    config = write(tmp_path, row, {"pair_id": "q", "value": 0, "annotator": "x"})
    votes, labels, (reject,) = read_votes(config, {"p", "q"})
    assert (reject.unit, reject.stage, reject.code) == ("votes.jsonl:1", "humans", code)
    assert says in reject.detail
    assert [v.unit for v in votes] == ["q"]
    # Somebody who calls it a tie leaves it as open as it was.
    assert [(x.value, x.error) for x in labels] == [(0.0, 0.5)]


def test_a_table_without_pairs_is_the_users_slip(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("pair,value\np,1\n")
    config = HumansConfig(paths=(str(tmp_path / "v.csv"),))
    with pytest.raises(UserError, match="no column 'pair_id', the nearest is 'pair'"):
        read_votes(config, {"p"})
    with pytest.raises(UserError, match="gone"):
        inputs_digest(HumansConfig(paths=(str(tmp_path / "gone.csv"),)))


def test_the_order_of_the_files_rows_changes_nothing_but_who_is_last(tmp_path: Path) -> None:
    rows = [{"pair_id": f"p{i}", "value": (-1) ** i, "annotator": f"a{i % 3}"} for i in range(9)]
    ids = {str(row["pair_id"]) for row in rows}
    first = read_votes(write(tmp_path, *rows), ids)
    assert read_votes(write(tmp_path, *rows[::-1]), ids) == first
    assert [label.pair_id for label in first[1]] == sorted(ids)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=9), st.floats(0.01, 0.49))
def test_more_agreement_is_less_error(values: list[float], error: float) -> None:
    found = agreed(values, error)
    assert 0 <= found <= 0.5
    assert agreed([-v for v in values], error) == found
    side = 1.0 if sum(values) >= 0 else -1.0
    assert agreed([*values, side], error) <= found


@pytest.mark.parametrize(("values", "expected"), [([], 0.5), ([1.0], 0.1), ([1.0, -1.0], 0.5)])
def test_the_error_of_one_voter_is_theirs(values: list[float], expected: float) -> None:
    assert agreed(values, 0.1) == pytest.approx(expected)


def on_steps(folder: Path, *rows: dict[str, Any], **more: Any) -> Any:
    return read_step_votes(write(folder, *rows), {"t": 3}, **more)


def step(number: Any, value: Any, annotator: str = "ann", **more: Any) -> dict[str, Any]:
    return {"unit": "t", "unit_kind": "step", "step": number, "value": value} | {
        "annotator": annotator, **more
    }  # fmt: skip


def test_a_persons_last_verdict_on_a_step_counts(tmp_path: Path) -> None:
    votes, rejects = on_steps(tmp_path, step(0, 1), step(1, 0), step(0, 0), step(0, 1, "bob"))
    assert rejects == []
    ann, bob = pseudonym("ann"), pseudonym("bob")
    assert {(v.step, v.judge): v.value for v in votes} == {
        (0, ann): 0.0, (0, bob): 1.0, (1, ann): 0.0
    }  # fmt: skip
    assert verdicts(votes)["t"][1] == [False]
    assert sorted(verdicts(votes)["t"][0]) == [False, True]


def test_rows_on_other_things_are_left_alone(tmp_path: Path) -> None:
    other = [step(0, 1) | {"unit": "elsewhere"}, step(0, 1) | {"unit_kind": "pair"}]
    assert on_steps(tmp_path, *other) == ([], [])


@pytest.mark.parametrize(
    ("number", "value", "detail"),
    [
        (3, 1, "step 3 of 3"),
        (-1, 1, "step -1 of 3"),
        ("one", 1, 'step "one" of 3'),
        (1.5, 1, "step 1.5 of 3"),
        (True, 1, "step true of 3"),
        (0, 2, "value 2 is no number in [0, 1]"),
        (0, "right", 'value "right" is no number in [0, 1]'),
    ],
)
def test_what_is_no_vote_is_rejected(tmp_path: Path, number: Any, value: Any, detail: str) -> None:
    votes, (reject,) = on_steps(tmp_path, step(number, value))
    assert votes == []
    assert (reject.code, reject.detail) == ("bad_vote", detail)
    assert reject.unit.endswith(":1")


def test_who_could_not_tell_gave_no_verdict(tmp_path: Path) -> None:
    votes, _ = on_steps(tmp_path, step(0, None, reason="cannot_judge"), step(1, 0.5))
    assert len(votes) == 2 and verdicts(votes) == {}


def test_an_annotator_can_be_left_out(tmp_path: Path) -> None:
    votes, _ = on_steps(tmp_path, step(0, 1), step(0, 0, "bob"), without=[pseudonym("bob")])
    assert [v.value for v in votes] == [1.0]


def test_step_votes_of_a_csv_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("unit,unit_kind,step,value\nt,step,1,1.0\nt,step,2,\n", "utf-8")
    config = HumansConfig(paths=(str(tmp_path / "v.csv"),))
    votes, rejects = read_step_votes(config, {"t": 3})
    assert [(v.step, v.value, v.reason) for v in votes] == [(1, 1.0, ""), (2, None, "cannot_judge")]
    assert rejects == []


def test_remarks_are_one_text_an_annotator(tmp_path: Path) -> None:
    def remark(annotator: str, reason: str, unit: str = "r", **more: Any) -> dict[str, Any]:
        kind = "criterion" if "criterion" in more else "response"
        return {"unit": unit, "unit_kind": kind, "annotator": annotator, "reason": reason, **more}

    config = write(
        tmp_path,
        remark("bo", "", value=0.0),
        remark("bo", "it is 1889", criterion="Incorrect fact"),
        remark("bo", "said before", criterion="Irrelevant or repeated"),
        remark("ann", "Too long."),
        remark("eve", "Left out."),
        remark("ann", "cannot_judge", unit="s"),
        remark("ann", "Elsewhere.", unit="t"),
        {"pair_id": "r", "value": 1, "annotator": "ann", "reason": "of a pair"},
    )
    found = read_remarks(config, {"r", "s"}, [pseudonym("eve")])
    bo = "Incorrect fact: it is 1889\nIrrelevant or repeated: said before"
    by_name = sorted([(pseudonym("ann"), "Too long."), (pseudonym("bo"), bo)])
    assert found == {"r": [text for _, text in by_name]}
