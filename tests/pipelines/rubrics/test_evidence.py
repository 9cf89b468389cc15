"""Evidence: a span that is in the text, exactly or with slips, and one that is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.rubrics.evidence import _least_edits, found, similarity

TEXT = (
    "Please write a short poem about the sea.\nIt must have exactly four lines, and it should not "
    "rhyme. Naïve readers “like” the ﬁrst line best: 答案是四行。"
)


@pytest.mark.parametrize(
    "span",
    [
        "exactly four lines",
        "EXACTLY  four\nlines",
        '"exactly four lines..."',
        "about the sea. It must have",
        "the first line",  # the text has a ligature
        "答案是四行",
    ],
)
def test_a_quoted_span_is_found_whole(span: str) -> None:
    assert similarity(span, TEXT) == 100


def test_a_slip_is_found_and_says_how_great_it_is() -> None:
    assert similarity("exactly fore lines", TEXT) == pytest.approx(100 * (1 - 2 / 18))
    assert found("it must have four lines, and should not rhyme", TEXT)


@pytest.mark.parametrize(
    "span",
    ["", " ", "...", '"', "—", "the answer is polite", "each claim cites its source", "写一首诗"],
)
def test_what_is_not_there_is_not_found(span: str) -> None:
    assert not found(span, TEXT)


def test_exactly_the_least_similarity_is_too_little() -> None:
    assert similarity("abcde", "abcxx") == 60.0 and not found("abcde", "abcxx")


def plain_least_edits(pattern: str, text: str) -> int:
    """Sellers' matrix, row by row."""
    column = list(range(len(pattern) + 1))
    least = column[-1]
    for character in text:
        following = [0]
        for row, own in enumerate(pattern):
            replaced = column[row] + (own != character)
            following.append(min(replaced, column[row + 1] + 1, following[row] + 1))
        column = following
        least = min(least, column[-1])
    return least


@given(st.text("abc", min_size=1, max_size=70), st.text("abcd", max_size=40))
def test_the_bit_vectors_are_the_matrix(pattern: str, text: str) -> None:
    assert _least_edits(pattern, text) == plain_least_edits(pattern, text)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_texts_have_a_similarity(span: str, text: str) -> None:
    assert 0 <= similarity(span, text) <= 100


def test_a_long_text_is_read_to_its_end() -> None:
    text = "lorem ipsum dolor sit amet " * 4000 + "the rule is stated here, at the very end"
    assert len(text) > 100_000
    assert similarity("the rule is stted here", text) == pytest.approx(100 * (1 - 1 / 22))
    assert not found("a span of which nothing stands anywhere in it", text)
