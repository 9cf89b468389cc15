"""Near-duplicates: found where texts are alike, not where they are not, in any order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.audit.duplicates import _jaccard, _shingles, exact, linked, near

LONG = " ".join(f"word{at}" for at in range(60))


def test_exact_is_the_same_text_white_space_aside() -> None:
    assert exact(["a b", "a  b\n", "A b", "5-3", "5+3"]).tolist() == [0, 0, 1, 2, 3]


def test_one_word_of_sixty_is_near_and_half_of_them_is_not() -> None:
    changed = LONG.replace("word30", "other")
    half = " ".join(LONG.split()[:30] + [f"new{at}" for at in range(30)])
    found = near([LONG, "hello there", changed, half, LONG.upper()])
    assert found[0] == found[2] == found[4]
    assert len({found[0], found[1], found[3]}) == 3


def test_texts_without_words_are_alike_only_when_equal() -> None:
    found = near(["", "?", "!", "?"])
    assert found[1] == found[3] and len(set(found.tolist())) == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(alphabet="abc ", max_size=30), min_size=1, max_size=12))
def test_equal_texts_are_near_and_single_links_are_alike(texts) -> None:
    numbers = near(texts)
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            if one == other:
                assert numbers[i] == numbers[j]
    if len(texts) == 2 and numbers[0] == numbers[1]:
        a, b = map(_shingles, texts)
        assert " ".join(texts[0].split()) == " ".join(texts[1].split()) or _jaccard(a, b) >= 0.8


def test_linked_follows_chains() -> None:
    found = linked(5, np.array([0, 1]), np.array([1, 4]))
    assert found[0] == found[1] == found[4] and len(set(found.tolist())) == 3
