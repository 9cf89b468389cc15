"""Find the final answer that a response marks as such."""

from __future__ import annotations

import re

_HASH = re.compile(r"^[ \t]*(#{1,6})([ \t]*)([^\s#][^\n]*)", re.MULTILINE)
_PHRASE = re.compile(
    r"\banswer\b(?:[ ](?:to|of|for)\b[^\n.:=]{0,80}?)?[ \t*_`]*(?:is\b|:|=)[ \t*_`:=]*(?:\n\s*)?([^\n]*)",
    re.IGNORECASE,
)
_BRACE = re.compile(r"\\boxed[ \t]*\{|\\[{}]|[{}]")
_LAST_NUMBER = re.compile(
    r"-?\\[dt]?frac\{\d+\}\{\d+\}|(?<![\w.,/])[-+−]?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?"
)


def final_answer(text: str, *, last_number: bool = False, cut: bool = False) -> str | None:
    r"""Find the final answer that a response marks as such; None if it marks none.

    Markers, of which the last one in the text wins: `#### 72` and `#72` at the start of a line
    (a Markdown heading with words in it, such as `## Step 2`, is none), `\boxed{72}` with balanced
    braces, "The answer is 72" and "Answer: 72" (the value may stand on the next line), and `A: 72`
    as the last line. `last_number` falls back on the last number in the text. `cut` says that the
    text was stopped by a token limit: its last line may be unfinished, so only a closed box counts
    there ("#7" may have been on its way to "#72").
    """
    whole = text[: text.rfind("\n") + 1] if cut else text
    found: list[tuple[int, str]] = []
    for pattern, accept in ((_HASH, _is_hash_answer), (_PHRASE, _is_not_empty)):
        last = None
        for match in pattern.finditer(whole):
            if accept(match):
                last = match
        if last:
            found.append((last.start(), _trim(last[last.re.groups])))
    last_line = whole.rstrip().rpartition("\n")[2]
    if not cut and last_line.lstrip().startswith("A:") and last_line.strip() != "A:":
        found.append((len(whole.rstrip()) - len(last_line), _trim(last_line.lstrip()[2:])))
    box = _last_box(text)
    if box:
        start, end = box
        inside = text[text.index("{", start) + 1 : end]
        if any(start < position < end for position, _ in found):
            return final_answer(inside)
        if inside.strip():
            found.append((start, inside.strip()))
    if found:
        return max(found)[1]
    if last_number and not cut:
        token = None
        for match in _LAST_NUMBER.finditer(text):
            token = match[0]
        return token.rstrip(",") if token else None
    return None


def _is_not_empty(match: re.Match[str]) -> bool:
    return bool(_trim(match[1]))


def _is_hash_answer(match: re.Match[str]) -> bool:
    hashes, space, value = len(match[1]), match[2], match[3]
    if hashes == 4 or (hashes == 1 and not space):
        return bool(_trim(value))
    return any(c.isdigit() for c in value) and not any(c.isalpha() for c in value)


def _trim(value: str) -> str:
    return value.strip().rstrip("#").strip(" \t*_`").removesuffix(".").strip(" \t*_`")


def _last_box(text: str) -> tuple[int, int] | None:
    r"""Start of the last `\boxed{` that is closed, and the place of its closing brace."""
    open_braces: list[int | None] = []
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        token = match[0]
        if token == "{":
            open_braces.append(None)
        elif token.startswith("\\boxed"):
            open_braces.append(match.start())
        elif token == "}" and open_braces:
            start = open_braces.pop()
            if start is not None and (last is None or start > last[0]):
                last = (start, match.start())
    return last
