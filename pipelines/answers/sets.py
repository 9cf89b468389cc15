r"""Read a text as a collection: a set without order, or an ordered tuple or interval.

What is a set: `{1, 2}`, `\{1,2\}`, a list without brackets (`1, 2 and 3`, `1 or 2`), square brackets
around three items or more (a list as programs print it), `\pm 2`, a union. Repeats count once.
What is a tuple, whose order and brackets count: everything in round brackets, `(1, 2)`, and two
items in square or mixed brackets, `[0, 5)`. So an interval never equals the set of its ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipelines.answers.numbers import parse_number
from pipelines.answers.text import MARKS, clean, first_sentence, normal, unwrap

MAX_DEPTH = 8
"""Deeper nested brackets are not read."""


@dataclass(frozen=True, slots=True)
class Tuple:
    """Items in order, with the brackets around them."""

    brackets: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """An item that says what it is the value of: `x = 1` beside `y = 2`."""

    name: str
    item: Item


Item = Fraction | str | Named | Tuple | frozenset["Item"]


class _Unreadable(Exception):
    pass


_BRACES = (
    (re.compile(r"\\(?:big|Big|bigg|Bigg|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\[{]|\\lbrace(?![A-Za-z])"), "{"),
    (re.compile(r"\\[}]|\\rbrace(?![A-Za-z])"), "}"),
    (re.compile(r"\\(?:emptyset|varnothing)(?![A-Za-z])|∅"), "{}"),
    (re.compile(r"\\pm(?![A-Za-z])"), "±"),
    (re.compile(r"\\cup(?![A-Za-z])"), "∪"),
    (re.compile(r"\\[dt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\q?quad(?![A-Za-z])|\\\\"), " "),
)
_MARKS = tuple(pair for pair in MARKS if pair not in (("__", "__"), ("_", "_")))
_MEMBER = re.compile(r"(?:[A-Za-z]|[A-Za-z]\s*\([a-z]\))\s*(?:=|:|\\in(?![A-Za-z])|∈)\s*(?=[{(\[])")
_NAMED = re.compile(r"([A-Za-z](?:_?\{?\w\}?)?)\s*=\s*([^=]+)")
_TOKEN = re.compile(r"[\[({\])}]|[,;]\s*(?:and|or)\b|[,;∪]|\b(?:and|or)\b", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<![\d,.])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_FORMULA = re.compile(r"[\\^_√π∞=<>≤≥+*/|{}]|\d")


def read_sets(text: str) -> tuple[Item, ...]:
    """The readings of a text as a collection; none if it cannot be read.

    There are two where a comma without a space may stand for thousands: `1,234, 5` and `{1,234}`.
    The first reading takes it so, the second takes every comma to part items.
    """
    bare = clean(text)
    for pattern, new in _BRACES:
        bare = pattern.sub(new, bare)
    joined = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), bare)
    readings = []
    for written in dict.fromkeys((joined, bare)):
        try:
            readings.append(_collection(written))
        except _Unreadable:
            continue
    return tuple(readings)


def same_sets(answer: str, reference: str) -> bool | None:
    """Whether two texts are the same collection; None if one of them cannot be read.

    They are the same if any of their readings are. Items are compared as numbers where both are
    numbers, else as text; texts that may be formulas and differ are not known to differ, and words
    beside nothing but numbers are no collection: both are None.
    """
    theirs = read_sets(reference)
    tried = [read_sets(some) for some in dict.fromkeys((answer, first_sentence(answer)))]
    if any(ours in theirs for readings in tried for ours in readings):
        return True
    verdicts = [_differ(ours, theirs) for ours in tried]
    return False if any(verdicts) else None


def _differ(ours: Sequence[Item], theirs: Sequence[Item]) -> bool:
    """Whether it is certain that two texts with these readings are not the same."""
    if not ours or not theirs:
        return False
    here = [leaf for item in ours for leaf in _leaves(item)]
    there = [leaf for item in theirs for leaf in _leaves(item)]
    if any(_named(item) for item in ours) != any(_named(item) for item in theirs):
        return False
    texts, right = ([x for x in leaves if isinstance(x, str)] for leaves in (here, there))
    if any(_FORMULA.search(text) for text in (*texts, *right)):
        return False
    return bool(right) or not texts


def _leaves(item: Item) -> list[Fraction | str]:
    if isinstance(item, Named):
        return _leaves(item.item)
    if isinstance(item, Tuple | frozenset):
        inner = item.items if isinstance(item, Tuple) else tuple(item)
        return [leaf for part in inner for leaf in _leaves(part)]
    return [item]


def _named(item: Item) -> bool:
    return isinstance(item, frozenset) and any(isinstance(part, Named) for part in item)


def _collection(text: str) -> Item:
    """The whole text: a set, or one tuple."""
    text = _strip(text)
    parts = _split(text)
    if len(parts) == 1:
        item = _item(parts[0], 0)
        if isinstance(item, Tuple):
            return item
        if isinstance(item, frozenset):
            return _nameless(item)
    return _set(parts, 0, union="∪" in text)


def _set(parts: Sequence[str], depth: int, union: bool = False) -> frozenset[Item]:
    """The set of these items."""
    items: list[Item] = []
    for part in parts:
        item = _item(part, depth)
        # `{1} ∪ {2}` and `x = ±2` hold the members, other sets are members themselves.
        flat = isinstance(item, frozenset) and (union or "±" in part)
        items.extend(item if isinstance(item, frozenset) and flat else (item,))
    return _nameless(items)


def _nameless(items: Iterable[Item]) -> frozenset[Item]:
    """The set of the items; a name that all share says nothing."""
    held = [*items]
    if len({item.name for item in held if isinstance(item, Named)}) == 1:
        held = [item.item if isinstance(item, Named) else item for item in held]
    return frozenset(held)


def _item(text: str, depth: int) -> Item:
    text = _strip(text)
    if not text or depth > MAX_DEPTH:
        raise _Unreadable
    if text[0] in "([{" and text[-1] in ")]}" and _closes(text) == len(text) - 1:
        return _bracketed(text, depth)
    named = _NAMED.fullmatch(text)
    if named and not any(c in text for c in "<>≤≥"):
        value = _item(named[2], depth + 1)
        if isinstance(value, frozenset):  # x = ±2
            return frozenset(Named(named[1], item) for item in value)
        return Named(named[1], value)
    if "±" in text:
        signs = (text.replace("±", "+").lstrip("+ "), text.replace("±", "-"))
        return frozenset(_item(some, depth + 1) for some in signs)
    number = parse_number(text)
    if number is not None:
        return number
    words = normal(text)
    if not words:
        raise _Unreadable
    return words.replace(" ", "") if _FORMULA.search(words) else words


def _bracketed(text: str, depth: int) -> Item:
    left, right, inside = text[0], text[-1], text[1:-1].strip()
    if left + right == "{}":
        parts = _split(inside) if inside else []
        return _set(parts, depth + 1) if parts else frozenset()
    parts = _split(inside) if inside else []
    if len(parts) == 1 and left + right in ("()", "[]"):
        return _item(parts[0], depth + 1)
    if left + right == "[]" and len(parts) != 2:
        return _set(parts, depth + 1)
    if "{" in (left, *right) or "}" in (left, right) or len(parts) < 2:
        raise _Unreadable
    return Tuple(left + right, tuple(_item(part, depth + 1) for part in parts))


def _strip(text: str) -> str:
    text = unwrap(text.strip(), _MARKS)
    return text[match.end() :] if (match := _MEMBER.match(text)) else text


def _closes(text: str) -> int:
    """Place of the bracket that closes the first one; half-open intervals mix their kinds."""
    depth = 0
    for match in re.finditer(r"[\[({\])}]", text):
        depth += 1 if match[0] in "([{" else -1
        if depth == 0:
            return match.start()
    return -1


def _split(text: str) -> list[str]:
    """Cut at the separators outside of brackets."""
    parts, start, depth = [], 0, 0
    for match in _TOKEN.finditer(text):
        if match[0] in "([{":
            depth += 1
        elif match[0] in ")]}":
            depth -= 1
            if depth < 0:
                raise _Unreadable
        elif depth == 0:
            parts.append(text[start : match.start()])
            start = match.end()
    if depth:
        raise _Unreadable
    return [*parts, text[start:]]
