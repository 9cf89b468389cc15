"""An answer's text without what only dresses it: Markdown, LaTeX spacing, quotes, brackets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MAX_CHARS = 1000
"""Longer texts are not read as a number, choice, set or formula: no honest final answer is that long."""

_ANNOTATION = re.compile(r"<<[^<>\n]*>>")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s?\{([^{}]*)\}")
_GROUP_COMMA = re.compile(r"(?<=\d)(?:\{,\}|,\\!)(?=\d{3}(?!\d))")
_GROUP_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_LATEX = (
    ("{,}", ","),
    ("\\%", "%"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", "°"),
    ("^\\circ", "°"),
    ("\\times", "*"),
    ("\\cdot", "*"),
    ("×", "*"),
    *((f"\\{space}", "\u2009") for space in ",!;: "),
)
_CHARS = {
    **{ord(c): "-" for c in "−‐‑–﹣－"},
    **{0xFF10 + digit: str(digit) for digit in range(10)},
    # A vulgar fraction is set apart, or the compatibility form of 1½ would read 11/2.
    **{
        code: " " + unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/")
        for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))
    },
    0x2044: "/",
}
MARKS = (
    ("**", "**"),
    ("__", "__"),
    ("$$", "$$"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("“", "”"),
    ("‘", "’"),
    *((c, c) for c in "*_`$\"'"),
)
"""What dresses an answer and never means anything."""
WRAPPERS = (*MARKS, ("(", ")"), ("[", "]"), ("{", "}"))


def clean(text: str) -> str:
    """The text in one line with one way to write signs, digits and spaces; empty if it is too long."""
    if len(text) > MAX_CHARS:
        return ""
    text = _GROUP_COMMA.sub("\u2009", _ANNOTATION.sub("", text))
    for old, new in _LATEX:
        text = text.replace(old, new)
    text = _GROUP_SPACE.sub("", text.translate(_CHARS))
    return " ".join(_TEXT_COMMAND.sub(r" \1 ", text).split())


def plain(text: str) -> str:
    """The answer cleaned, without wrappers (Markdown, LaTeX, quotes, brackets) and final dots."""
    return unwrap(clean(text), WRAPPERS)


def unwrap(text: str, wrappers: Sequence[tuple[str, str]]) -> str:
    """Take off final dots and what wraps the whole text."""
    before = None
    while text != before:
        before = text
        text = text.rstrip(" .,;:!").lstrip()
        for left, right in wrappers:
            if (
                len(text) > len(left + right)
                and text.startswith(left)
                and text.endswith(right)
                and _is_one_piece(text[len(left) : -len(right)], left, right)
            ):
                text = text[len(left) : -len(right)].strip()
    return text


def normal(text: str) -> str:
    """Text as `exact` compares it: NFC, case folded, white space collapsed, wrappers and final dot off."""
    bare = plain(text) or " ".join(text.split())
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", bare).casefold())


_SENTENCE_END = re.compile(
    r"(?<=\S)[.!?;]\s|\n|,? (?:because|since)\b|, (?:so|which|as|where)\b", re.IGNORECASE
)


def first_sentence(text: str) -> str:
    """Where an answer goes on ("72. I hope this helps"), its first sentence may be the answer."""
    return _SENTENCE_END.split(text.strip()[: MAX_CHARS * 10], maxsplit=1)[0]


def _is_one_piece(inside: str, left: str, right: str) -> bool:
    """Whether the marks around it belong together: not so in `(5) + (6)` and `$5$ or $6$`."""
    if left == right:
        return left not in inside
    depth = 0
    for char in re.findall(f"{re.escape(left)}|{re.escape(right)}", inside):
        depth += 1 if char == left else -1
        if depth < 0:
            return False
    return depth == 0
