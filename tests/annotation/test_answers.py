from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.answers import LONGEST_REASON, Answer, Problem
from annotation.configs import KINDS, PairItem, QuestionConfig, RubricItem, SpansItem, StepsItem
from schemas.records import Criterion

PAIR = KINDS["pairwise"].data(PairItem("Q", "text of a", "text of b"), "ab")
STEPS = KINDS["steps"].data(StepsItem("Q", ("one", "two", "three")))
SPANS = KINDS["spans"].data(SpansItem("Q", "It was \U0001f600 1789, they say."))
RUBRIC = KINDS["rubric"].data(
    RubricItem("", (Criterion(kind="principle", text="x"), Criterion(kind="pitfall", text="y")))
)


def chosen(name: str, value: str, to: str = "prompt") -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": to, "type": "choices", "value": {"choices": [value]}}  # fmt: skip


def written(name: str, text: str, to: str = "prompt") -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": to, "type": "textarea", "value": {"text": [text]}}  # fmt: skip


def marked(start: Any, end: Any, text: str | None, label: str, key: str = "r1") -> dict[str, Any]:
    value = {"start": start, "end": end, "text": text, "labels": [label]}
    return {"id": key, "from_name": "errors", "to_name": "response", "type": "labels", "value": value}  # fmt: skip


def starred(name: str, stars: Any, to: str) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": to, "type": "rating", "value": {"rating": stars}}  # fmt: skip


@pytest.mark.parametrize(
    "said, value, reason",
    [
        ("-3", 1.0, ""),
        ("-1", 1 / 3, ""),
        ("2", -2 / 3, ""),
        ("tie", 0.0, "tie"),
        ("both_bad", 0.0, "both_bad"),
        ("cannot_judge", None, "cannot_judge"),
    ],
)
def test_the_scale_and_the_order_that_was_shown(
    said: str, value: float | None, reason: str
) -> None:
    read = KINDS["pairwise"].read
    assert read([chosen("preference", said)], PAIR) == [
        Answer("pair", "pair", value, reason=reason)
    ]
    turned = read([chosen("preference", said)], PAIR, "ba")
    assert turned == [Answer("pair", "pair", -value if value else value, reason=reason)]


def test_ratings_follow_their_response_and_words_stand_behind_codes() -> None:
    result = [
        written("justification", " no\0use "),
        chosen("first_helpfulness", "4", "first"),
        chosen("preference", "both_bad"),
        chosen("second_verbosity", "0", "second"),
    ]
    assert KINDS["pairwise"].read(result, PAIR, "ba") == [
        Answer("pair", "pair", 0.0, reason="both_bad: no\ufffduse"),
        Answer("a", "criterion", 0.0, criterion="verbosity"),
        Answer("b", "criterion", 1.0, criterion="helpfulness"),
    ]


def test_what_the_plan_requires_is_required() -> None:
    options = QuestionConfig(ratings="required", justification="required")
    read = KINDS["pairwise"].read
    only = [chosen("preference", "1")]
    assert read(only, PAIR, "ab", options) == Problem("missing", "no answer to justification")
    both = [*only, written("justification", "why")]
    assert read(both, PAIR, "ab", options) == Problem("missing", "no answer to first_helpfulness")


@pytest.mark.parametrize(
    "result, code",
    [
        ([], "missing"),
        (None, "not_a_result"),
        (["x"], "not_a_result"),
        ([chosen("preference", "4")], "unknown_choice"),
        ([chosen("preference", "-2"), chosen("preference", "2")], "twice"),
        ([chosen("preference", "1", "first")], "wrong_target"),
        ([chosen("price", "1")], "unknown_control"),
        ([{**chosen("preference", "1"), "from_name": ["preference"]}], "unknown_control"),
        ([{**chosen("preference", "1"), "type": "rating"}], "wrong_type"),
        ([{**chosen("preference", "1"), "value": {"choices": ["1", "2"]}}], "unknown_choice"),
        ([{**chosen("preference", "1"), "value": {"choices": [{}]}}], "unknown_choice"),
        ([chosen("preference", "1"), chosen("first_helpfulness", "5", "first")], "unknown_choice"),
        (
            [chosen("preference", "1"), {**written("justification", ""), "value": {"text": [1]}}],
            "wrong_type",
        ),
    ],
)
def test_what_the_server_took_and_should_not_have(result: Any, code: str) -> None:
    found = KINDS["pairwise"].read(result, PAIR)
    assert isinstance(found, Problem)
    assert found.code == code


def test_steps() -> None:
    verdicts = ["right", "wrong", "unsure"]
    result = [chosen(f"verdict_{i}", v, f"step_{i}") for i, v in enumerate(verdicts)]
    read = KINDS["steps"].read([written("note", "2 + 2 is 4"), *result], STEPS)
    assert read == [
        Answer("step", "step", 1.0, index=0),
        Answer("step", "step", 0.0, index=1, reason="2 + 2 is 4"),
        Answer("step", "step", None, index=2, reason="cannot_judge"),
    ]
    assert isinstance(read, list) and [a.step for a in read] == [0, 1, 2]
    assert KINDS["steps"].read(result[:2], STEPS) == Problem("missing", "no answer to verdict_2")
    more = KINDS["steps"].read([*result, chosen("verdict_3", "right", "step_3")], STEPS)
    assert isinstance(more, Problem) and more.code == "unknown_control"


def test_spans_are_characters_of_what_was_shown() -> None:
    note = {**written("note", "it was 1889", "response"), "id": "r1"}
    note["value"] = {**note["value"], "start": 9, "end": 13}
    result = [
        marked(9, 13, "1789", "Incorrect fact"),
        note,
        chosen("verdict", "errors", "response"),
    ]
    assert KINDS["spans"].read(result, SPANS) == [
        Answer("response", "response", 0.0),
        Answer(
            "response",
            "criterion",
            0.0,
            criterion="Incorrect fact",
            reason="it was 1889",
            span=(9, 13),
        ),
    ]
    none = KINDS["spans"].read([chosen("verdict", "no_errors", "response")], SPANS)
    assert none == [Answer("response", "response", 1.0)]


@pytest.mark.parametrize(
    "span, code",
    [
        (marked(9, 13, "1788", "Incorrect fact"), "bad_span"),
        (marked(9, 999, None, "Incorrect fact"), "bad_span"),
        (marked(-1, 3, None, "Incorrect fact"), "bad_span"),
        (marked(3, 3, None, "Incorrect fact"), "bad_span"),
        (marked("9", "13", "1789", "Incorrect fact"), "bad_span"),
        (marked(True, 13, None, "Incorrect fact"), "bad_span"),
        (marked(9, 13, "1789", "Treason"), "unknown_choice"),
        ({**written("note", "x", "response"), "id": "r9"}, "bad_span"),
    ],
)
def test_spans_that_are_none(span: dict[str, Any], code: str) -> None:
    found = KINDS["spans"].read([span, chosen("verdict", "errors", "response")], SPANS)
    assert isinstance(found, Problem) and found.code == code


def test_a_verdict_that_contradicts_the_marks() -> None:
    read = KINDS["spans"].read
    mark = marked(9, 13, "1789", "Incorrect fact")
    for result in (
        [chosen("verdict", "errors", "response")],
        [mark, chosen("verdict", "no_errors", "response")],
        [mark, chosen("verdict", "cannot_judge", "response")],
    ):
        found = read(result, SPANS)
        assert isinstance(found, Problem) and found.code == "contradiction"


def test_the_plans_own_error_types() -> None:
    options = QuestionConfig(error_types=("Bad unit",))
    result = [marked(9, 13, "1789", "Bad unit"), chosen("verdict", "errors", "response")]
    found = KINDS["spans"].read(result, SPANS, "ab", options)
    assert isinstance(found, list) and found[1].criterion == "Bad unit"
    assert isinstance(KINDS["spans"].read(result, SPANS), Problem)


def test_a_rubric() -> None:
    result = [
        chosen("verdict_0", "edit", "criterion_0"),
        written("edit_0", "Names the capital.", "criterion_0"),
        starred("weight_0", 4, "criterion_0"),
        chosen("verdict_1", "reject", "criterion_1"),
    ]
    assert KINDS["rubric"].read(result, RUBRIC) == [
        Answer("criterion", "criterion", 0.5, index=0, reason="Names the capital."),
        Answer("criterion", "criterion", 0.8, "weight", 0),
        Answer("criterion", "criterion", 0.0, index=1),
    ]
    no_words = [result[0], result[3]]
    found = KINDS["rubric"].read(no_words, RUBRIC)
    assert isinstance(found, Problem) and found.code == "missing"
    for stars in (0, 6, 2.5, True, "4", float("nan")):
        found = KINDS["rubric"].read(
            [*result[:2], starred("weight_0", stars, "criterion_0")], RUBRIC
        )
        assert isinstance(found, Problem)


def test_long_words_are_cut() -> None:
    result = [chosen("preference", "1"), written("justification", "x" * 10**6)]
    found = KINDS["pairwise"].read(result, PAIR)
    assert isinstance(found, list) and len(found[0].reason) == LONGEST_REASON


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "text", "labels", "rating", "start", "end"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
items = st.fixed_dictionaries(
    {
        "id": json,
        "from_name": st.sampled_from(["preference", "verdict", "errors", "note", "verdict_0"])
        | json,
        "to_name": st.sampled_from(["prompt", "response", "step_0"]) | json,
        "type": st.sampled_from(["choices", "labels", "textarea", "rating"]) | json,
        "value": json,
    }
)


@given(st.lists(items, max_size=4) | json)
def test_nothing_that_a_server_holds_raises(result: Any) -> None:
    for kind, data in (("pairwise", PAIR), ("steps", STEPS), ("spans", SPANS), ("rubric", RUBRIC)):
        found = KINDS[kind].read(result, data)
        assert isinstance(found, Problem) or all(isinstance(a, Answer) for a in found)
