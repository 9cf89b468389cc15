"""Is a quoted span in a text? Exactly, or nearly: models quote with small slips."""

from __future__ import annotations

import unicodedata

LEAST = 60.0
"""Least similarity, in percent, of a span that counts as found (RLBFF, Wang et al. 2025)."""

_QUOTES = " \t\n\"'`“”‘’«»…."


def found(span: str, text: str) -> bool:
    """Whether a span is in a text, by `similarity`. A span without a letter or digit is in none."""
    return similarity(span, text) > LEAST


def similarity(span: str, text: str) -> float:
    """100 (1 - d/m): d edits turn a span of m characters into the nearest piece of the text.

    Case, runs of white space, compatibility forms and quotation marks around the span do not count.
    Time grows with the text's length, and not with the span's up to some thousand characters:
    Sellers' approximate matching (1980) by the bit vectors of Myers (1999), in Hyyro's form (2003).
    """
    pattern, text = _plain(span).strip(_QUOTES), _plain(text)
    if not any(character.isalnum() for character in pattern):
        return 0.0
    if pattern in text:
        return 100.0
    return 100.0 * (1 - _least_edits(pattern, text) / len(pattern))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _least_edits(pattern: str, text: str) -> int:
    """Least Levenshtein distance between the pattern and any piece of the text, the empty one too.

    A column of the distance matrix is held as the differences between its rows, +1 and -1, in the
    bits of two integers.
    """
    size = len(pattern)
    everywhere, last = (1 << size) - 1, 1 << (size - 1)
    places: dict[str, int] = {}
    for row, character in enumerate(pattern):
        places[character] = places.get(character, 0) | 1 << row
    up, down, distance, least = everywhere, 0, size, size
    for character in text:
        match = places.get(character, 0)
        diagonal = (((match & up) + up) ^ up) | match | down
        right = down | (everywhere & ~(diagonal | up))
        left = up & diagonal
        if right & last:
            distance += 1
        elif left & last:
            distance -= 1
            least = min(least, distance)
        # The first row is 0 everywhere: a match may start at any character of the text.
        right <<= 1
        up = ((left << 1) | ~(diagonal | right)) & everywhere
        down = right & diagonal & everywhere
    return least
