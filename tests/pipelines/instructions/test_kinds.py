"""Each kind: a text is built that follows it, and one that does not."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.instructions import KINDS, check
from pipelines.instructions.kinds import CHOICES

WORD = st.text("bdfghjkmnpruvwz", min_size=3, max_size=8)
"""Words without the letters that the tests count."""
WORDS = st.lists(WORD, min_size=1, max_size=12)
FEW = st.integers(1, 6)
RELATIONS = st.sampled_from(["at least", "less than"])


def verdict(id: str, arguments: dict[str, Any], text: str) -> bool:
    return check(id, arguments, text)[0]


def counted(id: str, arguments: dict[str, Any], names: tuple[str, str], text: str, n: int) -> None:
    """A text of n of something keeps `at least n` and `less than n + 1`, and no neighbour."""
    relation, count = names
    for sign, limit, right in (
        ("at least", n, True),
        ("at least", n + 1, False),
        ("less than", n + 1, True),
        ("less than", n, False),
    ):
        assert verdict(id, {**arguments, relation: sign, count: limit}, text) is right


@given(WORDS, st.data())
def test_keywords(words: list[str], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(words), min_size=1, max_size=3))
    text = " ".join(words).upper()
    assert verdict("keywords:existence", {"keywords": wanted}, text)
    assert not verdict("keywords:existence", {"keywords": [*wanted, "cello"]}, text)
    # A part of a word counts, as in the paper's program.
    assert verdict("keywords:existence", {"keywords": [words[0][1:]]}, text)


@given(WORDS, st.integers(0, 5))
def test_keyword_frequency(words: list[str], n: int) -> None:
    text = " ".join([*words, *["Cello"] * n])
    names = ("relation", "frequency")
    counted("keywords:frequency", {"keyword": "cello"}, names, text, n)


@given(WORDS)
def test_forbidden_words(words: list[str]) -> None:
    text = ", ".join(words)
    id = "keywords:forbidden_words"
    assert verdict(id, {"forbidden_words": ["cello"]}, text + " cellos")
    assert not verdict(id, {"forbidden_words": ["x", words[-1].upper()]}, text)
    assert check(id, {"forbidden_words": ["cello"]}, "A Cello.") == (False, "holds 'cello'")


@given(WORDS, st.integers(0, 5), st.sampled_from("aA#!"))
def test_letter_frequency(words: list[str], n: int, letter: str) -> None:
    text = " ".join(words) + letter.swapcase() * n
    names = ("let_relation", "let_frequency")
    counted("keywords:letter_frequency", {"letter": letter}, names, text, n)


LANGUAGES = {
    "en": "The children walked to the river because the weather was very good this morning.",
    "de": "Die Kinder gingen zum Fluss, weil das Wetter heute Morgen sehr schön war.",
    "fr": "Les enfants sont allés à la rivière parce que le temps était très beau ce matin.",
    "ru": "Дети пошли к реке, потому что сегодня утром была очень хорошая погода.",
    "hi": "बच्चे नदी की ओर गए क्योंकि आज सुबह मौसम बहुत अच्छा था।",
    "mr": "आज सकाळी हवामान खूप चांगले होते म्हणून मुले नदीकडे गेली आहेत.",
    "ne": "आज बिहान मौसम धेरै राम्रो भएकाले बालबालिकाहरू नदीतिर गएका थिए।",
    "sw": "Watoto walikwenda mtoni kwa sababu hali ya hewa ilikuwa nzuri sana asubuhi ya leo.",
    "ko": "오늘 아침 날씨가 매우 좋아서 아이들이 강으로 걸어갔습니다.",
    "fa": "بچه‌ها به سمت رودخانه رفتند چون هوا امروز صبح بسیار خوب بود.",
}


@pytest.mark.parametrize("code", LANGUAGES)
def test_response_language(code: str) -> None:
    id = "language:response_language"
    for other, text in LANGUAGES.items():
        assert check(id, {"language": code}, text) == (code == other, f"language {other}")
    assert check(id, {"language": code}, "3 + 4 = 7") == (True, "language cannot be told")


@given(st.integers(1, 8), WORD)
def test_sentences(n: int, word: str) -> None:
    text = " ".join(f"The {word} of Dr. Who cost 3.50 today{'.!?'[i % 3]}" for i in range(n))
    names = ("relation", "num_sentences")
    counted("length_constraints:number_sentences", {}, names, text, n)


@given(WORDS)
def test_words(words: list[str]) -> None:
    names = ("relation", "num_words")
    counted("length_constraints:number_words", {}, names, " - ".join(words), len(words))


@given(FEW, FEW, WORD, st.booleans())
def test_paragraphs(n: int, other: int, word: str, ends: bool) -> None:
    text = "\n***\n".join([word] * n) + ("\n***" if ends else "")
    id = "length_constraints:number_paragraphs"
    assert verdict(id, {"num_paragraphs": other}, text) == (n == other)
    assert check(id, {"num_paragraphs": n}, f"{word}\n***\n***\n{text}")[1] == "an empty paragraph"


@given(FEW, WORD, WORD, st.data())
def test_first_word_of_a_paragraph(n: int, first: str, rest: str, data: st.DataObject) -> None:
    nth = data.draw(st.integers(1, n))
    parts = ["cello"] * n
    parts[nth - 1] = f'"{first.title()}, {rest}'
    wanted = {"num_paragraphs": n, "nth_paragraph": nth, "first_word": first}
    id = "length_constraints:nth_paragraph_first_word"
    assert verdict(id, wanted, "\n\n".join(parts))
    assert not verdict(id, wanted, "\n\n".join([*parts, "more"]))
    assert not verdict(id, {**wanted, "first_word": "cello"}, "\n\n".join(parts))


@given(st.integers(0, 6), st.integers(0, 6), WORD)
def test_placeholders(n: int, wanted: int, word: str) -> None:
    text = "a [b c]" * n + f" {word} [\n"
    id = "detectable_content:number_placeholders"
    assert verdict(id, {"num_placeholders": wanted}, text) == (n >= wanted)


@pytest.mark.parametrize(
    ("marker", "text", "there"),
    [
        ("P.S.", "Bye\nP.S. more", True),
        ("P.S.", "Bye\np. s. more", True),
        ("P.S.", "Bye PS more", False),
        ("P.P.S", "Bye\nP.P.S more", True),
        ("P.P.S", "Bye\nP. P. S. more", True),
        ("P.P.S", "Bye\nP.S. more", False),
        ("Note:", "Bye\nNOTE: more", True),
        ("Note:", "Bye", False),
    ],
)
def test_postscript(marker: str, text: str, there: bool) -> None:
    found = f"{'holds' if there else 'lacks'} {marker!r}"
    assert check("detectable_content:postscript", {"postscript_marker": marker}, text) == (
        there,
        found,
    )


@given(st.lists(st.sampled_from(["* a", "- a", "  * a", "**a**", "a * b", "1. a"]), max_size=9))
def test_bullets(lines: list[str]) -> None:
    n = sum(line.lstrip()[:2] in ("* ", "- ") for line in lines)
    id = "detectable_format:number_bullet_lists"
    text = "\n".join(["Here:", *lines])
    assert verdict(id, {"num_bullets": n}, text)
    assert not verdict(id, {"num_bullets": n + 1}, text)


@given(WORDS, st.sampled_from(CHOICES))
def test_constrained_response(words: list[str], choice: str) -> None:
    id = "detectable_format:constrained_response"
    text = " ".join(words)
    assert verdict(id, {}, f"{text}\n{choice}")
    assert not verdict(id, {}, f"{text}\n{choice[:-1]}")


@given(st.integers(0, 4), st.integers(0, 6), WORD)
def test_highlights(n: int, wanted: int, word: str) -> None:
    text = f"*{word} two* and\n" * n + "* *\n*open"
    id = "detectable_format:number_highlighted_sections"
    assert verdict(id, {"num_highlights": wanted}, text) == (n >= wanted)
    assert check(id, {"num_highlights": 1}, f"**{word}**") == (True, "1 highlights")


@given(st.integers(0, 5), st.integers(0, 6), WORD)
def test_sections(n: int, wanted: int, word: str) -> None:
    text = "\n".join(f"SECTION {i}\n{word}" for i in range(1, n + 1)) + "\nSECTION x, section 9"
    given = {"section_spliter": "SECTION", "num_sections": wanted}
    assert verdict("detectable_format:multiple_sections", given, text) == (n >= wanted)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(JSON, st.sampled_from(["", "```", "```json\n", "```JSON\n"]))
def test_json(value: Any, fence: str) -> None:
    text = fence + json.dumps(value) + ("\n```" if fence else "")
    assert verdict("detectable_format:json_format", {}, text)
    assert not verdict("detectable_format:json_format", {}, f"Here you are: {text}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[NaN]", "not JSON: NaN is not JSON"),
        ("[" * 10**5, "nested too deeply"),
        ("9" * 10**5, "JSON"),
    ],
)
def test_hostile_json(text: str, found: str) -> None:
    assert check("detectable_format:json_format", {}, text) == (found == "JSON", found)


@given(WORDS)
def test_title(words: list[str]) -> None:
    text = " ".join(words)
    assert verdict("detectable_format:title", {}, f"Now:\n<<{text}>> and more")
    for bad in (text, f"<<{text}", "<< >>", f"<<\n{text}>>", f"<{text}>", "<<>>"):
        assert not verdict("detectable_format:title", {}, f"{bad} ")


@given(WORD, WORD)
def test_two_responses(one: str, other: str) -> None:
    id = "combination:two_responses"
    assert verdict(id, {}, f"{one}\n******\n{other}") == (one != other)
    assert check(id, {}, f"{one} ****** {one}") == (False, "the same response twice")
    assert check(id, {}, one) == (False, "1 responses")
    assert check(id, {}, f"{one}******{other}******1") == (False, "3 responses")
    assert check(id, {}, f"{one}************{other}") == (False, "an empty response")


@given(WORDS, WORDS)
def test_repeat_prompt(asked: list[str], answer: list[str]) -> None:
    prompt, text = " ".join(asked), " ".join(answer)
    id = "combination:repeat_prompt"
    assert verdict(id, {"prompt_to_repeat": f" {prompt}\n"}, f"\n{prompt.upper()} {text}")
    assert not verdict(id, {"prompt_to_repeat": prompt}, f"Sure! {prompt} {text}")


@given(WORDS, WORDS)
def test_end(words: list[str], end: list[str]) -> None:
    text, phrase = " ".join(words), " ".join(end)
    assert verdict("startend:end_checker", {"end_phrase": phrase}, f'"{text} {phrase.upper()}"\n')
    assert not verdict("startend:end_checker", {"end_phrase": phrase}, f"{text} {phrase} more")


@given(WORDS)
def test_quotation(words: list[str]) -> None:
    text = " ".join(words)
    assert verdict("startend:quotation", {}, f' "{text}"\n')
    for bad in (text, f'"{text}', f'{text}"', f"'{text}'", '"'):
        assert not verdict("startend:quotation", {}, bad)


@given(WORDS, st.integers(0, 4))
def test_capital_words(words: list[str], n: int) -> None:
    text = " ".join([*(w.title() for w in words), *["WELL-KNOWN"] * n])
    names = ("capital_relation", "capital_frequency")
    counted("change_case:capital_word_frequency", {}, names, text, n)


@pytest.mark.parametrize("code", LANGUAGES)
def test_case(code: str) -> None:
    upper, lower = "change_case:english_capital", "change_case:english_lowercase"
    text, english = LANGUAGES[code], code == "en"
    if text.upper() == text:
        # A script without case is in neither.
        assert check(upper, {}, text) == (False, "not all capital")
        assert check(lower, {}, text) == (False, "not all lowercase")
        return
    assert check(upper, {}, text.upper()) == (english, f"language {code}")
    assert check(lower, {}, text.lower()) == (english, f"language {code}")
    assert check(upper, {}, text) == (False, "not all capital")
    assert check(lower, {}, text) == (False, "not all lowercase")


@given(WORDS, st.integers(0, 3))
def test_no_comma(words: list[str], n: int) -> None:
    text = " ".join(words) + "," * n
    assert check("punctuation:no_comma", {}, text) == (n == 0, f"{n} commas")


HOSTILE = ["*", "[(", "<", "\n*", "\n", "a ", '"', ". ", "$x ", '{"a":', "p. ", "ß", "a.a'", "`"]
EXAMPLES: dict[str, Any] = {
    "keywords": ["cello", "a" * 200],
    "keyword": "ab" * 100,
    "forbidden_words": ["a a " * 49 + "b"],
    "letter": "x",
    "language": "sw",
    "first_word": "x",
    "nth_paragraph": 2,
    "postscript_marker": "P.P.S",
    "section_spliter": "a",
    "prompt_to_repeat": "a" * 1000,
    "end_phrase": "a" * 1000,
}


def example(id: str) -> dict[str, Any]:
    """Some arguments of a kind."""
    return {
        key: "at least" if key.endswith("relation") else EXAMPLES.get(key, 3)
        for key in KINDS[id].keys
    }


@pytest.mark.timeout(60)
@pytest.mark.parametrize("id", KINDS)
def test_hostile_texts_end(id: str) -> None:
    # With work that grows by the square of the length this would take hours.
    for unit in HOSTILE:
        text = unit * (200_000 // len(unit)) + "z"
        assert check(id, example(id), text)[1] != ""


@settings(max_examples=30)
@given(st.text(max_size=200))
def test_any_text_has_a_verdict_and_it_is_the_same_again(text: str) -> None:
    for id in KINDS:
        followed, found = check(id, example(id), text)
        assert check(id, example(id), text) == (followed, found)
        loose = check(id, example(id), text, loose=True)[0]
        assert loose or not followed
        assert re.fullmatch(r".+", found, re.DOTALL)
