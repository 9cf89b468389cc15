"""Where sentences end in what a model writes, and what must not be cut: formulas and code.

Rules, not a model: they are the same in every process and need nothing to be loaded. Where a full
stop could be either, they rather join two sentences than cut one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

Gap = tuple[int, int]
"""From the end of one piece to the beginning of the next: what separates them lies between."""

_OPENING = re.compile(
    r"""
    ^[ \t]*+(?P<fence>`{3,}|~{3,})
    | (?P<whole>`[^`\n]++` | (?<![\\$])\$(?![\s$]) (?:\\.|[^$\\\n])*+ (?<!\s)\$(?!\d))
    | (?P<display>\$\$|(?<!\\)\\[\[(])
    | (?P<environment>\\begin\{)
    """,
    re.MULTILINE | re.VERBOSE,
)
_CLOSING = {"$$": "$$", r"\[": r"\]", r"\(": r"\)"}
_ENVIRONMENT = re.compile(r"\\(begin|end)\{[^{}\n]{0,40}\}?")


class Protected:
    """Stretches of a text that are not to be cut.

    Code between fences (to the end where a fence is not closed) or backticks, formulas `$...$` (in
    one line; sums of money are none), `$$...$$`, `\\[...\\]`, `\\(...\\)`, `\\begin{}...\\end{}`.
    """

    def __init__(self, text: str) -> None:
        self._spans = list(_protected(text))
        self._starts = [start for start, _ in self._spans]

    def __contains__(self, at: int) -> bool:
        """Whether a cut at this offset would be inside one."""
        before = bisect_left(self._starts, at) - 1
        return before >= 0 and at < self._spans[before][1]


def _protected(text: str) -> Iterator[tuple[int, int]]:
    """In order and apart; every stretch of the text is looked at a bounded number of times."""
    environments: dict[int, int] | None = None
    missing: set[str] = set()
    at = 0
    while (found := _OPENING.search(text, at)) is not None:
        start, at = found.start(), found.end()
        if found["fence"]:
            start = found.start("fence")
            closing = re.compile(rf"^[ \t]*+{found['fence']}", re.MULTILINE).search(text, at)
            at = closing.end() if closing else len(text)
        elif found["display"]:
            mark = _CLOSING[found["display"]]
            end = -1 if mark in missing else text.find(mark, at)
            if end < 0:
                missing.add(mark)
                continue
            at = end + 2
        elif found["environment"]:
            if environments is None:
                environments = _environments(text)
            if start not in environments:
                continue
            at = environments[start]
        yield start, at


def _environments(text: str) -> dict[int, int]:
    """Where each LaTeX environment that is closed begins, and where it ends."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for mark in _ENVIRONMENT.finditer(text):
        if mark[1] == "begin":
            opened.append(mark.start())
        elif opened:
            ends[opened.pop()] = mark.end()
    return ends


_END = re.compile(
    r"""
    (?<![.!?…]) (?P<stop>[.!?…]++) (?:["'”’»)\]}*_`$]|\\[\])])*+ (?P<gap>\s++)
    | (?P<wide>[。！？]++["'”’»)\]」』）]*+) \s*+
    | (?<![^\S\n])[^\S\n]*+ \n\s*+
    """,
    re.VERBOSE,
)
_ENUMERATOR = re.compile(
    r"[\s#>*_(\[•–-]*(?:(?:step|case|part|question|problem|example|item)\s+)?"
    r"(?:\d{1,3}|[a-z]|[ivx]{1,5})",
    re.IGNORECASE,
)
"""A sentence that is nothing but this has not begun yet: `1. Foo`, `**2.** Foo`, `Step 3. Foo`."""
_WORD = re.compile(r"[\w.]*$")
_NEXT = re.compile(r"[\"'“‘(\[*_]*(\w[\w']*|\S)")
_INITIALS = re.compile(r"[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]")
_BEFORE_NAME = re.compile(
    "mr|mrs|ms|dr|prof|rev|gen|capt|sgt|lt|col|hon|mt|vs|e\\.g|eg|i\\.e|ie|cf|viz|approx|resp", re.I
)
"""Abbreviations that no sentence ends with."""
_BEFORE_NUMBER = re.compile(
    "nos?|figs?|eqs?|sec|ch|vol|pp?|ex|ref|art|ca|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec",
    re.I,
)
"""... where a number or a bracket follows."""
_ANYWHERE = re.compile("etc|al|jr|sr|st|ave|inc|ltd|co|corp|dept|ph\\.d", re.I)
"""... unless a word follows that begins sentences; so with initials, for a point may be called B."""
_OPENER = re.compile(
    "a|after|all|also|an|and|as|assume|at|because|but|by|consider|each|every|finally|find|first|for"
    "|from|given|hence|here|how|however|if|in|it|its|last|let|likewise|next|note|now|on|once|one|or"
    "|otherwise|second|similarly|since|so|some|suppose|that|the|their|then|there|therefore|these"
    "|they|third|this|those|thus|to|we|what|when|where|which|while|who|why|you|he|she|his|her|our"
    "|my|i",
    re.IGNORECASE,
)
_NEAR = 40
"""Characters around a full stop that are looked at."""


def sentence_gaps(text: str) -> Iterator[Gap]:
    """Gaps between the sentences of a text.

    A sentence ends with `.`, `!`, `?` or `…`, closing quotes and brackets included, before white
    space; with a full-width mark; or at a line break, since models do not wrap their lines. It does
    not end before a small letter, after an abbreviation, an initial or an enumerator, in a number,
    in a formula or in code.
    """
    protected = Protected(text)
    start = 0
    for end in _END.finditer(text):
        stop = end.end("wide") if end["wide"] else end.start("gap") if end["gap"] else end.start()
        if stop in protected or (end["gap"] and not _ends(text, start, end)):
            continue
        yield stop, end.end()
        start = end.end()


def _ends(text: str, start: int, end: re.Match[str]) -> bool:
    """Whether the sentence that began at `start` ends with this mark."""
    at, after = end.start("stop"), end.end()
    own = text[start:at] if at - start <= _NEAR else ""
    if end["stop"] == "." and _ENUMERATOR.fullmatch(own):
        return False
    if "\n" in end["gap"] or after == len(text):
        return True
    following = _NEXT.match(text, after, after + _NEAR)
    first = following[1] if following else ""
    if first[:1].islower():
        return False
    if end["stop"] != ".":
        return True
    word = _WORD.search(text[max(start, at - _NEAR) : at])
    before = word[0] if word else ""
    if _BEFORE_NAME.fullmatch(before):
        return False
    if _BEFORE_NUMBER.fullmatch(before):
        return not (first[:1].isdigit() or first in ("$", "\\", "#") or text[after] == "(")
    if _ANYWHERE.fullmatch(before) or _INITIALS.fullmatch(before):
        return _OPENER.fullmatch(first) is not None
    return True
