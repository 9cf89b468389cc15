"""Hostile text made safe to look at: escaped, with nothing in it that a reader cannot see.

Bidirectional overrides, zero-width, control and other invisible characters are shown as boxes with
their code points, so that a row cannot look like what it is not; long texts are cut.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator

from markupsafe import Markup, escape

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
_BLANK_LETTERS = frozenset(
    "\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u034f\u180b\u180c\u180d\u180f"
)
_MARKS = 4
"""Combining marks shown on one letter; no script needs more, a flood of them hides other lines."""
_RUN = 6
"""Hidden characters in a row that are named one by one."""


def _hidden(char: str) -> bool:
    if "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":
        return True
    return char in _BLANK_LETTERS or unicodedata.category(char) in _HIDDEN_CATEGORIES


def _kind(char: str) -> str:
    if char in "\t\n" or " " <= char <= "~":
        return "plain"
    if _hidden(char):
        return "hidden"
    return "mark" if unicodedata.category(char) in ("Mn", "Me") else "plain"


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """(is a box, words): what can be shown as it is, and names of what cannot."""
    for chunk in re.findall(r"[\t\n -~]+|[^\t\n -~]+", text):
        if chunk[0] in "\t\n" or " " <= chunk[0] <= "~":
            yield False, chunk
            continue
        for kind, group in itertools.groupby(chunk, _kind):
            run = "".join(group)
            if kind == "hidden":
                same = [(char, len(list(g))) for char, g in itertools.groupby(run)]
                for char, times in same[:_RUN]:
                    yield True, f"U+{ord(char):04X}" + (f"×{times}" if times > 1 else "")
                if len(same) > _RUN:
                    more = sum(times for _, times in same[_RUN:])
                    yield True, f"+{more:,} hidden characters"
            elif kind == "mark" and len(run) > _MARKS:
                yield False, run[:_MARKS]
                yield True, f"+{len(run) - _MARKS:,} marks"
            else:
                yield False, run


def _cut(text: str, most: int) -> tuple[str, str]:
    return (text, "") if len(text) <= most else (text[:most], f"… +{len(text) - most:,} characters")


def plain(text: str, most: int = 60) -> str:
    """One line of text for where no markup can stand (a chart's label); escape it there."""
    head, rest = _cut(text, most)
    shown = "".join(f"[{words}]" if box else words for box, words in _pieces(head))
    return " ".join(shown.split()) + rest


def inline(text: str, most: int = 300) -> Markup:
    """Text for a sentence or a cell."""
    head, rest = _cut(text, most)
    body = Markup("").join(
        Markup('<b class="cp">{}</b>').format(words) if box else escape(words)
        for box, words in _pieces(head)
    )
    if not head.isascii():
        body = Markup("<bdi>{}</bdi>").format(body)
    return body + Markup('<i class="more">{}</i>').format(rest) if rest else body


def block(text: str, shown: int = 700, folded: int = 6000, lines: int = 18) -> Markup:
    """Text of any length with its line breaks: a head, the rest in a fold, a note of what is cut."""
    if not text:
        return Markup('<p class="quiet">(empty)</p>')
    head = "\n".join(text[:shown].split("\n", lines)[:lines])
    if len(text) - len(head) < 80 and text.count("\n") < lines:
        head = text
    rest = text[len(head) :]
    body = Markup('<div class="text">{}</div>').format(inline(head, len(head)))
    if not rest:
        return body
    gone = len(rest) - folded
    note = f"{gone:,} more characters are not shown here; the store has them." if gone > 0 else ""
    return body + Markup(
        "<details><summary>{:,} more characters</summary>"
        '<div class="text">{}</div><p class="quiet">{}</p></details>'
    ).format(len(rest), inline(rest[:folded].removeprefix("\n"), folded), note)


def finalize(value: object) -> object:
    """What Jinja calls on every expression: a text that nobody marked as markup is made visible."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return inline(value)
    return value
