"""Strict and loose, what cannot be checked, and IFEval's own prompts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.instructions import KINDS, BadInstruction, check, follows, language, of_row
from schemas.records import Instruction

DATA = Path(__file__).parents[4] / "shared" / "data" / "ifeval_prompts.parquet"
LINE = st.text("abc", min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("id", "arguments", "text", "strict", "found"),
    [
        ("startend:quotation", {}, 'Sure!\n"a"', False, "in quotation marks (without the first line)"),
        ("startend:quotation", {}, '"a"\nBye', False, "in quotation marks (without the last line)"),
        ("startend:quotation", {}, 'Sure!\n"a"\nBye', False, "in quotation marks (without the first and last line)"),
        ("startend:quotation", {}, '**"a"**', False, "in quotation marks (as it is, without asterisks)"),
        ("startend:quotation", {}, 'Sure!\n*"a"*', False, "in quotation marks (without the first line, without asterisks)"),
        ("startend:quotation", {}, '"a"', True, "in quotation marks"),
        ("punctuation:no_comma", {}, "Well, here:\na", False, "0 commas (without the first line)"),
    ],
)  # fmt: skip
def test_loose(id: str, arguments: dict[str, Any], text: str, strict: bool, found: str) -> None:
    assert check(id, arguments, text)[0] is strict
    assert check(id, arguments, text, loose=True) == (True, found)


@given(st.lists(LINE, min_size=3, max_size=6), st.booleans(), st.booleans(), st.booleans())
def test_a_loose_verdict_is_that_of_any_variant(
    lines: list[str], first: bool, last: bool, stars: bool
) -> None:
    # A JSON array between what a chat model likes to add.
    wanted = json.dumps(lines)
    text = "\n".join([*["Sure,"] * first, *["*" * stars + wanted + "*" * stars], *["Bye,"] * last])
    assert check("detectable_format:json_format", {}, text, loose=True)[0]
    assert check("detectable_format:json_format", {}, text)[0] is not (first or last or stars)
    twice = f"Well,\n{text}\nWell," if first or last else f"Well,\nWell,\n{text}"
    assert not check("detectable_format:json_format", {}, twice, loose=True)[0]


def test_loose_keeps_the_strict_finding_where_no_variant_passes() -> None:
    found = check("punctuation:no_comma", {}, "a, b\nc, d", loose=True)
    assert found == (False, "2 commas")


@pytest.mark.parametrize("text", ["", " \n"])
@pytest.mark.parametrize("loose", [False, True])
def test_a_blank_text_follows_nothing(text: str, loose: bool) -> None:
    assert check("punctuation:no_comma", {}, text, loose=loose) == (False, "empty")


def test_removing_a_text_s_only_line_leaves_nothing_that_could_pass() -> None:
    assert check("punctuation:no_comma", {}, "a, b", loose=True) == (False, "1 commas")


@pytest.mark.parametrize(
    ("id", "arguments", "why"),
    [
        ("keywords:all", {}, "'keywords:all' is no kind of instruction"),
        ("punctuation:no_comma", {"n": 1}, "punctuation:no_comma: unknown argument 'n'"),
        ("keywords:existence", {}, "keywords:existence: keywords is missing"),
        ("keywords:existence", {"keywords": "ab"}, "keywords:existence: keywords must be a list of 1 to 100 texts"),
        ("keywords:existence", {"keywords": [" "]}, "keywords:existence: keywords must be text, not ' '"),
        ("keywords:existence", {"keywords": ["a" * 201]}, "keywords:existence: keywords: 201 characters are more than 200"),
        ("length_constraints:number_words", {"relation": "at most", "num_words": 3}, "length_constraints:number_words: relation must be one of at least, less than, not 'at most'"),
        ("length_constraints:number_words", {"relation": "at least", "num_words": 2.5}, "length_constraints:number_words: num_words must be a whole number of at least 0, not 2.5"),
        ("length_constraints:number_words", {"relation": "at least", "num_words": True}, "length_constraints:number_words: num_words must be a whole number of at least 0, not True"),
        ("detectable_format:number_bullet_lists", {"num_bullets": -1}, "detectable_format:number_bullet_lists: num_bullets must be a whole number of at least 0, not -1"),
        ("keywords:letter_frequency", {"letter": "ab", "let_relation": "at least", "let_frequency": 1}, "keywords:letter_frequency: letter must be one character, not 'ab'"),
        ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"}, "length_constraints:nth_paragraph_first_word: nth_paragraph 2 is more than num_paragraphs 1"),
        ("combination:repeat_prompt", {}, "combination:repeat_prompt: prompt_to_repeat is missing"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["", "a"])
def test_what_cannot_be_checked(id: str, arguments: dict[str, Any], why: str, text: str) -> None:
    with pytest.raises(BadInstruction) as caught:
        check(id, arguments, text)
    assert str(caught.value) == why


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(BadInstruction, match="language 'xx' is none of af, ar, "):
        check("language:response_language", {"language": "xx"}, "a")


def test_the_prompt_is_what_is_repeated_where_no_argument_says_so() -> None:
    asked = "Say hello."
    assert check("combination:repeat_prompt", {}, "say hello. Hello", asked)[0]
    assert not check("combination:repeat_prompt", {"prompt_to_repeat": "x"}, asked, asked)[0]


def test_empty_arguments_and_floats_of_tables_are_read() -> None:
    given = {"relation": "at least", "num_words": 2.0, "letter": None}
    assert check("length_constraints:number_words", given, "a b") == (True, "2 words")


@pytest.mark.parametrize("arguments", ["[]", "{", "1", "[" * 10**5])
def test_arguments_that_are_no_object(arguments: str) -> None:
    with pytest.raises(BadInstruction, match=r"^arguments are "):
        follows(Instruction(id="punctuation:no_comma", arguments=arguments), "a")


def test_rows_of_the_two_forms_give_the_same() -> None:
    ids = ["punctuation:no_comma", "keywords:letter_frequency"]
    kwargs = [
        None,
        {"let_relation": "at least", "letter": "#", "let_frequency": 4, "keyword": None},
    ]
    made = of_row(ids, kwargs)
    assert made == of_row(ids, json.dumps(kwargs))
    assert [i.arguments for i in made] == [
        "{}",
        '{"let_frequency":4,"let_relation":"at least","letter":"#"}',
    ]
    assert follows(made[1], "####") == (True, "4 times")


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ("[", "kwargs are not JSON: Expecting value: line 1 column 2 (char 1)"),
        ("3", "kwargs are no list"),
        ("[]", "1 instructions, 0 kwargs"),
        ([3], "punctuation:no_comma: arguments are no object"),
        ([{"a": 1}], "punctuation:no_comma: unknown argument 'a'"),
    ],
)
def test_rows_that_cannot_be_read(kwargs: Any, why: str) -> None:
    with pytest.raises(BadInstruction) as caught:
        of_row(["punctuation:no_comma"], kwargs)
    assert str(caught.value) == why


def test_language_of_nothing() -> None:
    assert [language(text) for text in ("", "12 + 3", "\ud800")] == [None, None, None]


def test_all_of_ifeval_is_known_and_can_be_checked() -> None:
    if not DATA.exists():
        pytest.skip("the shared test data is not here")
    rows = pq.read_table(DATA).to_pylist()
    seen: Counter[str] = Counter()
    for row in rows:
        for instruction in of_row(row["instruction_id_list"], row["kwargs"]):
            seen[instruction.id] += 1
            for loose in (False, True):
                # The prompt itself is a text like any other; its verdict must be one.
                followed, found = follows(instruction, row["prompt"], loose=loose)
                assert isinstance(followed, bool)
                assert found
    assert len(rows) == 541
    assert seen.keys() == KINDS.keys()
    assert seen.total() == 834
