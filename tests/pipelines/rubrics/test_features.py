"""What is measured of a response, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.rubrics.features import FEATURES, Reading, measure


@pytest.mark.parametrize(
    ("name", "asked", "text", "value"),
    [
        ("characters", "q", "ab c", 4.0),
        ("words", "q", "a b\nc", 3.0),
        ("lines", "q", "a\n\nb\n", 2.0),
        ("sentences", "q", "It is so. Is it? Yes", 3.0),
        ("bullets", "q", "- a\n1. b\n* c\n• d\n-e\n**f**", 4.0),
        ("headings", "q", "# A\n## B\n#c", 2.0),
        ("fences", "q", "```\na\n```", 2.0),
        ("json", "q", '{"a": 1}', 1.0),
        ("json", "q", "a", 0.0),
        ("capitals", "q", "ABc1d", 0.5),
        ("capitals", "q", "12", None),
        ("same_language", "What does the cat want to eat today?", "Die Katze möchte heute nichts fressen.", 0.0),
        ("same_language", "What does the cat want to eat today?", "The cat wants to eat some fish today.", 1.0),
        ("same_language", "1 + 1?", "The cat wants to eat some fish today.", None),
        ("prompt_words", "Count those apples", "apples count", 2 / 3),
        ("prompt_words", "q", "apples", None),
        ("repeated_lines", "q", "a\nb\na\na", 0.5),
        ("repeated_lines", "q", "", None),
        ("numbers", "q", "1 2, 3", 3.0),
        ("given_used", "3 cats and 5 dogs", "3 + 1 = 4", 0.5),
        ("given_used", "cats", "3", None),
        ("equations", "q", "1+1=2\n2+2=5", 2.0),
        ("equations_hold", "q", "1+1=2\n2+2=5", 0.5),
        ("equations_hold", "q", "two", None),
        ("operands_known", "3 cats and 5 dogs", "3+5=8\n8*2=16", 3 / 4),
        ("operands_known", "3 cats", "three", None),
        ("results_used", "q", "1+1=2\n3+3=6\n6+1=7", 0.5),
        ("results_used", "q", "1+1=2", None),
        ("results_repeated", "q", "1+1=2\n4-2=2", 0.5),
        ("final_answer", "q", "so\n#### 7", 1.0),
        ("final_answer", "q", "so", 0.0),
        ("answer_is_number", "q", "#### seven", 0.0),
        ("answer_is_number", "q", "7", 1.0),
        ("answer_is_whole", "q", "#### 7.5", 0.0),
        ("answer_is_whole", "q", "none", None),
        ("answer_is_positive", "q", "#### -7", 0.0),
        ("answer_is_given", "7 cats", "#### 7", 1.0),
        ("answer_is_last_result", "q", "3+4=7\n#### 7", 1.0),
        ("answer_is_last_result", "q", "3+4=7\n1+1=2\n#### 7", 0.0),
        ("answer_is_last_result", "q", "#### 7", None),
    ],
)  # fmt: skip
def test_features(name: str, asked: str, text: str, value: float | None) -> None:
    assert measure(name, Reading(asked, text)) == value


@settings(max_examples=40)
@given(st.text(max_size=100), st.text(max_size=200))
def test_every_feature_measures_any_text(asked: str, text: str) -> None:
    for name in FEATURES:
        value = measure(name, Reading(asked, text))
        assert value is None or 0 <= value < 1000
        assert value == measure(name, Reading(asked, text))
