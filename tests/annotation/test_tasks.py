from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.answers import RATINGS
from annotation.client import ServerTask
from annotation.configs import KINDS, PairItem, QuestionConfig, RubricItem, StepsItem
from annotation.tasks import Question, Reader, data_digest, external_id, order_of, prepare, votes
from pipelines.humans import pseudonym
from schemas.records import Criterion

PAIR = KINDS["pairwise"]


def choice(control: str, to: str, value: str) -> dict[str, Any]:
    return {"from_name": control, "to_name": to, "type": "choices", "value": {"choices": [value]}}


def annotation(result: object, **more: Any) -> dict[str, Any]:
    given = {
        "id": 9, "completed_by": 2, "updated_by": 2, "was_cancelled": False, "lead_time": 3.5,
        "updated_at": "2026-01-02T03:04:05.000006Z", "result": result,
    }  # fmt: skip
    return {**given, **more}


READER = Reader(PAIR, QuestionConfig(), {2: "ann@example.org", 3: "bob@example.org"})


def test_an_id_is_of_kind_unit_and_campaign() -> None:
    ids = {external_id(k, u, c) for k in ("pairwise", "steps") for u in "xy" for c in ("m", "n")}
    assert len(ids) == 8
    assert external_id("pairwise", "x", "m") == external_id("pairwise", "x", "m")


def test_orders_are_a_fair_coin_of_the_seed() -> None:
    first = [order_of(external_id("pairwise", str(i), "m"), 1) for i in range(2000)]
    other = [order_of(external_id("pairwise", str(i), "m"), 2) for i in range(2000)]
    assert 900 < first.count("ab") < 1100
    assert 900 < sum(x == y for x, y in zip(first, other, strict=True)) < 1100


@given(st.text(), st.text(), st.text(), st.integers(0, 5))
def test_a_vote_is_undone_of_its_order_and_the_task_tells_nothing(
    prompt: str, a: str, b: str, seed: int
) -> None:
    made = prepare(Question("u", PairItem(prompt, a, b), ("ra", "rb")), PAIR, "m", seed)
    data = json.loads(made.text)["data"]
    assert set(data) == {"prompt", "first", "second", "external_id"}
    assert made.row.digest == data_digest(data)
    result = [
        choice("preference", "prompt", "-3"),
        choice("first_verbosity", "first", "4"),
        choice("second_verbosity", "second", "1"),
    ]
    task = ServerTask(1, json.loads(made.text)["data"], "t", [])
    kept = READER.kept(task, made.row, annotation(result))
    assert kept.state == "answer"
    found = votes(
        "pairwise", "u", made.row.parts, made.row.shown, kept.annotator or "", kept.seconds,
        kept.state, kept.detail,
    )  # fmt: skip
    first_is_a = made.row.shown == "ab"
    values = {(v.unit, v.unit_kind, v.criterion): v.value for v in found}
    assert values == {
        ("u", "pair", None): 1.0 if first_is_a else -1.0,
        ("ra", "criterion", RATINGS[4]): 1.0 if first_is_a else 0.25,
        ("rb", "criterion", RATINGS[4]): 0.25 if first_is_a else 1.0,
    }
    assert [v.seconds for v in found] == [3.5, None, None]
    assert {v.judge for v in found} == {pseudonym("ann@example.org")}
    assert [v.order for v in found] == [made.row.shown, None, None]


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({}, "answer"),
        ({"was_cancelled": True, "result": []}, "skip"),
        ({"result": []}, "missing"),
        ({"result": None}, "not_a_result"),
        ({"completed_by": 3}, "other_hand"),
        ({"updated_by": 3}, "other_hand"),
        ({"completed_by": 3, "was_cancelled": True}, "other_hand"),
        ({"updated_by": None}, "answer"),
        ({"completed_by": 4, "updated_by": 4}, "unknown_annotator"),
        ({"completed_by": None}, "unknown_annotator"),
    ],
)
def test_states(more: dict[str, Any], state: str) -> None:
    made = prepare(Question("u", PairItem("p", "x", "y")), PAIR, "m", 0)
    given = annotation(**{"result": [choice("preference", "prompt", "1")], **more})
    assert (
        READER.kept(ServerTask(1, json.loads(made.text)["data"], "t", []), made.row, given).state
        == state
    )
    assert (
        READER.kept(ServerTask(1, json.loads(made.text)["data"], "t", []), None, given).state
        == "foreign"
    )
    edited = ServerTask(1, {**json.loads(made.text)["data"], "first": "z"}, "t", [])
    assert READER.kept(edited, made.row, given).state == "task_edited"


def test_a_lead_time_that_is_no_time() -> None:
    made = prepare(Question("u", PairItem("p", "x", "y")), PAIR, "m", 0)
    for seconds in (None, "5", -1.0):
        given = annotation([choice("preference", "prompt", "1")], lead_time=seconds)
        kept = READER.kept(ServerTask(1, json.loads(made.text)["data"], "t", []), made.row, given)
        assert (kept.state, kept.seconds) == ("answer", None)


def test_a_skip_is_a_vote_without_a_value() -> None:
    (found,) = votes("pairwise", "u", "[]", "ba", "human-x", 2.0, "skip", "")
    assert (found.unit_kind, found.value, found.reason, found.order) == (
        "pair", None, "skipped", "ba"
    )  # fmt: skip


def test_steps_and_rubrics_name_their_parts() -> None:
    made = prepare(Question("t", StepsItem("p", ("one", "two"))), KINDS["steps"], "m", 0)
    reader = Reader(KINDS["steps"], QuestionConfig(), {2: "ann@example.org"})
    said = [choice("verdict_0", "step_0", "right"), choice("verdict_1", "step_1", "wrong")]
    kept = reader.kept(
        ServerTask(1, json.loads(made.text)["data"], "t", []), made.row, annotation(said)
    )
    found = votes("steps", "t", made.row.parts, "ab", "human-x", None, kept.state, kept.detail)
    assert [(v.unit, v.step, v.value, v.order) for v in found] == [
        ("t", 0, 1.0, None), ("t", 1, 0.0, None)
    ]  # fmt: skip

    item = RubricItem("", (Criterion(kind="principle", text="Is short"),))
    made = prepare(Question("r", item, ("c1",)), KINDS["rubric"], "m", 0)
    reader = Reader(KINDS["rubric"], QuestionConfig(), {2: "ann@example.org"})
    said = [choice("verdict_0", "criterion_0", "accept")]
    kept = reader.kept(
        ServerTask(1, json.loads(made.text)["data"], "t", []), made.row, annotation(said)
    )
    (vote,) = votes("rubric", "r", made.row.parts, "ab", "human-x", None, kept.state, kept.detail)
    assert (vote.unit, vote.unit_kind, vote.value) == ("c1", "criterion", 1.0)


def test_a_question_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="is no pair"):
        prepare(Question("u", StepsItem("p", ("s",))), PAIR, "m", 0)
