import json
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from annotation.configs import (
    KINDS,
    LONGEST,
    STEPS,
    Item,
    PairItem,
    QuestionConfig,
    RubricItem,
    SpansItem,
    StepsItem,
    conversation,
    shown,
)
from schemas.records import Criterion, Message

SAFE = {
    *("View", "Style", "Header", "Text", "Choices", "Choice", "TextArea", "Labels", "Label"),
    *("Rating", "Repeater"),
}
ITEMS: dict[str, Item] = {
    "pairwise": PairItem("p", "a", "b"),
    "steps": StepsItem("p", ("one", "two")),
    "spans": SpansItem("p", "r"),
    "rubric": RubricItem("", (Criterion(kind="principle", text="c"),)),
}
EVERY = [
    QuestionConfig(),
    QuestionConfig(ratings="none", justification="none"),
    QuestionConfig(ratings="required", justification="required", error_types=("É – 1/2",)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", EVERY)
def test_a_config_has_safe_tags_alone_and_shows_what_the_data_has(
    kind: str, options: QuestionConfig
) -> None:
    root = ET.fromstring(KINDS[kind].config(options))
    assert {element.tag for element in root.iter()} <= SAFE
    data = KINDS[kind].data(ITEMS[kind], "ab")
    for element in root.iter("Text"):
        assert element.get("valueType") == "text"  # an address in it is not fetched
        name = element.get("value", "")
        assert name.startswith("$")
        assert name[1:].split("[")[0] in data
    names = [element.get("name") for element in root.iter() if element.get("name")]
    assert len(set(names)) == len(names)
    for element in root.iter():
        if to := element.get("toName"):
            assert to in names
    keys = [element.get("hotkey") for element in root.iter() if element.get("hotkey")]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_is_the_same_each_time(kind: str) -> None:
    assert KINDS[kind].config(QuestionConfig()) == KINDS[kind].config(QuestionConfig())


def test_the_main_answer_is_required_and_has_keys() -> None:
    root = ET.fromstring(KINDS["pairwise"].config(QuestionConfig()))
    main = next(e for e in root.iter("Choices") if e.get("name") == "preference")
    assert main.get("required") == "true"
    assert [c.get("hotkey") for c in main] == list("123456789")
    assert [c.get("alias") for c in main] == [
        *("-3", "-2", "-1", "tie", "1", "2", "3"),
        *("both_bad", "cannot_judge"),
    ]


def test_the_order_is_in_no_trace_of_the_data() -> None:
    item = PairItem("p", "left", "right")
    ab, ba = KINDS["pairwise"].data(item, "ab"), KINDS["pairwise"].data(item, "ba")
    assert ab == {"prompt": "p", "first": "left", "second": "right"}
    assert ba == {"prompt": "p", "first": "right", "second": "left"}


def test_data_holds_text_alone() -> None:
    rubric = KINDS["rubric"].data(ITEMS["rubric"])
    assert rubric == {"prompt": "Any prompt", "criteria": [{"text": "c"}]}
    assert KINDS["steps"].data(ITEMS["steps"])["steps"] == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_of_another_kind_is_refused(kind: str) -> None:
    other = ITEMS["steps" if kind != "steps" else "spans"]
    with pytest.raises(ValueError, match=kind):
        KINDS[kind].data(other, "ab")


def test_too_many_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="a task shows 1 to 400"):
        KINDS["steps"].data(StepsItem("p", ("x",) * (STEPS + 1)))
    with pytest.raises(ValueError, match="0 parts"):
        KINDS["steps"].data(StepsItem("p", ()))


@given(st.text(st.characters(exclude_categories=())))
def test_every_text_can_be_stored_and_lines_are_kept(text: str) -> None:
    made = shown(text)
    json.dumps(made, ensure_ascii=False).encode("utf-8")
    assert "\0" not in made and "\r" not in made
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert made.count("\n") == len(lines) - 1


def test_a_long_text_is_cut_with_a_note() -> None:
    made = shown("x" * (LONGEST + 5))
    assert made == "x" * LONGEST + "\n[5 more characters are not shown]"


@pytest.mark.parametrize("name", ["", " x", "a<b", 'a"b', "$a", "a\nb", "x" * 61])
def test_names_of_errors_are_plain(name: str) -> None:
    with pytest.raises(ValidationError, match="1 to 60 characters"):
        QuestionConfig(error_types=(name,))


def test_a_conversation_says_who_speaks() -> None:
    one = Message(role="user", content="Hi")
    assert conversation([one]) == "Hi"
    two = Message(role="assistant", content="Yes?")
    assert conversation([one, two]) == "[user]\nHi\n\n[assistant]\nYes?"
