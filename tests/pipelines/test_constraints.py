import time

import pytest

from pipelines.constraints import BadConstraint, check, validate
from schemas.records import Constraint

CASES = [
    ("max_words", "3", "one two three", True, "3 words, at most 3"),
    ("max_words", "2", "one two\nthree", False, "3 words, at most 2"),
    ("min_words", "3", "one  two three", True, "3 words, at least 3"),
    ("min_words", "1", "", False, "0 words, at least 1"),
    ("includes", "cat", "A Cat!", True, "holds 'cat'"),
    ("includes", "cat", "category", False, "lacks 'cat'"),
    ("includes", "cat", "category cat", True, "holds 'cat'"),
    ("includes", "New York", "new\n york", True, "holds 'New York'"),
    ("includes", "c++", "C++17", True, "holds 'c++'"),
    ("includes", "c", "c++", True, "holds 'c'"),
    ("includes", "straße", "STRASSE", True, "holds 'straße'"),
    ("excludes", "cat", "category", True, "lacks 'cat'"),
    ("excludes", "cat", "the cat", False, "holds 'cat'"),
    ("excludes", ",", "one, two", False, "holds ','"),
    ("json", None, '{"a": [1, 2]}', True, "JSON"),
    ("json", None, '```json\n{"a": 1}\n```', True, "JSON"),
    ("json", None, 'Here: {"a": 1}', False, "not JSON: Expecting value: line 1 column 1 (char 0)"),
    ("json", None, "[NaN]", False, "not JSON: NaN is not JSON"),
    ("json", None, "[" * 10**5, False, "nested too deeply"),
    ("json", None, "9" * 10**5, True, "JSON"),
    ("lowercase", None, "all small, 1", True, "lowercase"),
    ("lowercase", None, "not All", False, "holds 'A'"),
    ("matches", r"^\d+$", "123", True, "matches '^\\\\d+$'"),
    ("matches", r"^\d+$", "123a", False, "does not match '^\\\\d+$'"),
    ("matches", r"(?m)^b$", "a\nb", True, "matches '(?m)^b$'"),
    ("matches", r"é.$", "caf\u00e9\u4e2d", True, "matches 'é.$'"),
    ("matches", r"a", "\ud800a", True, "matches 'a'"),
]


@pytest.mark.parametrize(("kind", "value", "text", "kept", "reason"), CASES)
def test_check(kind, value, text, kept, reason):
    assert check(Constraint(kind=kind, value=value), text) == (kept, reason)


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("max_words", None, "max_words needs a value"),
        ("min_words", "ten", "min_words needs a whole number, not 'ten'"),
        ("max_words", "-1", "max_words needs a whole number, not '-1'"),
        ("includes", " ", "includes needs a value"),
        ("excludes", "x" * 1001, "excludes: a value of 1001 characters is too long"),
        ("matches", "(", "matches: Invalid regular expression: missing ): ("),
        ("matches", r"(a)\1", r"matches: Invalid regular expression: invalid escape sequence: \1"),
        ("matches", "(?=a)", "matches: Invalid regular expression: invalid perl operator: (?="),
        (
            "matches",
            "(a{1000}){1000}",
            "matches: Invalid regular expression: invalid repetition size: {1000}",
        ),
    ],
)
def test_a_constraint_that_cannot_be_checked(kind, value, why):
    with pytest.raises(BadConstraint) as caught:
        validate(Constraint(kind=kind, value=value))
    assert str(caught.value) == why


@pytest.mark.parametrize(
    "pattern", [r"^(a+)+$", r"(a|aa)+$", r"^(a|a?)+$", r"(.*a){20}b", r"(x+x+)+y"]
)
def test_no_pattern_hangs(pattern):
    started = time.perf_counter()
    assert check(Constraint(kind="matches", value=pattern), "a" * 50_000 + "!")[0] is False
    assert time.perf_counter() - started < 5


def test_a_long_text_of_near_misses_is_quick():
    started = time.perf_counter()
    assert check(Constraint(kind="includes", value="a" * 1000), "a" * 10**5)[0] is False
    assert time.perf_counter() - started < 5
