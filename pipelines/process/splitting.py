"""Split a response into steps so that every prefix can be continued exactly.

| Splitter     | A step is                                                                       |
| ------------ | ------------------------------------------------------------------------------- |
| `lines`      | a line that is not blank                                                        |
| `paragraphs` | what stands between blank lines                                                 |
| `sentences`  | a sentence or a line, formulas and code kept whole (see `sentences`)            |
| `markers`    | from a line such as `Step 2:`, `## Step 2`, `**Step 2**`, to the next one; where |
|              | there is no such line, from `2.`, `2)`, `(2)` to the next. What stands before   |
|              | the first is a step of its own, since it may hold the first error; without any  |
|              | marker the text is one step                                                     |
| `tokens`     | 64 tokens of the policy; 64 words where its tokenizer is not known               |
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from pipelines.engines.base import Tokens
from pipelines.process.sentences import Gap, Protected, sentence_gaps
from schemas.record import digest
from schemas.records import Response, Trajectory

Splitter = Literal["lines", "paragraphs", "sentences", "markers", "tokens"]

SPAN = 64
"""Tokens, or words, of a step of the splitter `tokens`."""

_SEPARATORS: dict[str, re.Pattern[str]] = {
    "lines": re.compile(r"\n+"),
    "paragraphs": re.compile(r"\n\s*\n"),
}
_STEP = re.compile(
    r"^[ \t]*+(?:[#>•*+-]++[ \t]*+)?[*_]{0,3}step[ \t]++\d{1,3}[*_]{0,3}[ \t\r]*+(?:[:.)–—-]|$)",
    re.MULTILINE | re.IGNORECASE,
)
_NUMBER = re.compile(
    r"^ {0,3}(?:[#>]++[ \t]++)?[*_]{0,3}(?:\(\d{1,3}\)|\d{1,3}[.)])[*_]{0,3}(?=\s|$)", re.MULTILINE
)
_WORD = re.compile(r"\S++\s*+")
_SEEN = re.compile(r"\S")


def prefix_id(prompt_id: str, text: str) -> str:
    """Id of a prefix of an answer to a prompt, by which its rollouts are found."""
    return digest("prefix", prompt_id, text)


def split(
    response: Response, splitter: Splitter, tokens: Tokens | None = None
) -> Trajectory | None:
    """Steps of a response, or None if it holds nothing but white space.

    A step's text is stripped of nothing inside it; a separator belongs to the step before it, so
    that `text[:ends[t]]` ends just where the policy would begin step t + 1.

    `tokens` (the engine's, of this response's text): every prefix then ends where a token does, at
    the last such place from the last character of step t to the first of step t + 1. So a space
    that the tokenizer joins to the word after it is left to step t + 1. A token that holds letters
    of both steps stays whole and belongs to step t; a step that ends inside such a token is one
    with step t. Texts and starts of steps are those of the text, whatever its tokens.
    """
    text = response.text
    spans = _spans(text, splitter, tokens)
    if not spans:
        return None
    token_ends: list[int] = []
    if tokens is not None:
        spans, token_ends = _at_tokens(spans, tokens, len(text))
    kept = ["", *(text[: span.end] for span in spans)]
    return Trajectory(
        prompt_id=response.prompt_id,
        response_id=response.id,
        steps=tuple(text[span.start : span.stop] for span in spans),
        starts=tuple(span.start for span in spans),
        ends=tuple(span.end for span in spans),
        text=None,
        token_ends=tuple(token_ends),
        prefixes=tuple(prefix_id(response.prompt_id, prefix) for prefix in kept),
    )


def completions(text: str, splitter: Splitter) -> tuple[str, ...]:
    """A text cut at its steps' ends: joined, the pieces are the text exactly; none of blank text."""
    cuts = (0, *(span.end for span in _spans(text, splitter)))
    return tuple(text[a:b] for a, b in itertools.pairwise(cuts))


class _Span(NamedTuple):
    """A step: text[start:stop]; its separator reaches to `end`."""

    start: int
    stop: int
    end: int


def _spans(text: str, splitter: Splitter, tokens: Tokens | None = None) -> list[_Span]:
    spans: list[_Span] = []
    start = 0
    seen = _SEEN.search(text)
    for stop, end in [*_gaps(text, splitter, tokens), (len(text), len(text))]:
        # A blank stretch joins the next step, so that joined steps are the text.
        if seen is not None and seen.start() < stop:
            spans.append(_Span(start, stop, end))
            start = end
            seen = _SEEN.search(text, start)
    if spans:
        spans[-1] = spans[-1]._replace(end=len(text))
    return spans


def _gaps(text: str, splitter: Splitter, tokens: Tokens | None) -> Iterable[Gap]:
    """Where pieces end and the next ones begin."""
    if splitter == "sentences":
        return sentence_gaps(text)
    if splitter == "markers":
        return _marker_gaps(text)
    if splitter == "tokens":
        return _word_gaps(text) if tokens is None else _token_gaps(tokens)
    return (found.span() for found in _SEPARATORS[splitter].finditer(text))


def _marker_gaps(text: str) -> Iterator[Gap]:
    protected = Protected(text)
    for marker in (_STEP, _NUMBER):
        starts = [m.start() for m in marker.finditer(text) if m.start() not in protected]
        if starts:
            break
    for start in starts:
        stop = start
        while stop and text[stop - 1].isspace():
            stop -= 1
        yield stop, start


def _word_gaps(text: str) -> Iterator[Gap]:
    for word in itertools.islice(_WORD.finditer(text), SPAN - 1, None, SPAN):
        stop = word.start() + len(word[0].rstrip())
        yield stop, word.end()


def _token_gaps(tokens: Tokens) -> Iterator[Gap]:
    after = 0
    for end, count in zip(*_boundaries(tokens), strict=True):
        if count - after >= SPAN:
            after = count
            yield end, end


def _boundaries(tokens: Tokens) -> tuple[list[int], list[int]]:
    """Where the text may be cut between tokens: offsets in characters, and in tokens."""
    offsets: list[int] = []
    counts: list[int] = []
    for count, end in enumerate(tokens.ends, 1):
        # Tokens of one character, all but the last, spell nothing yet.
        if end > (offsets[-1] if offsets else 0):
            offsets.append(end)
            counts.append(count)
    return offsets, counts


def _at_tokens(spans: list[_Span], tokens: Tokens, length: int) -> tuple[list[_Span], list[int]]:
    """Spans that end at token boundaries, and those ends in tokens."""
    offsets, counts = _boundaries(tokens)
    if not offsets or offsets[-1] != length or len(tokens.ids) != len(tokens.ends):
        raise ValueError("these are not the tokens of this response")
    moved: list[_Span] = []
    token_ends: list[int] = []
    for span in spans:
        at = bisect_right(offsets, span.end) - 1
        if at < 0 or offsets[at] < span.stop:
            at += 1
        if moved and span.stop <= moved[-1].end:
            span = span._replace(start=moved.pop().start)
            token_ends.pop()
        moved.append(span._replace(end=offsets[at]))
        token_ends.append(counts[at])
    # Whatever tokens follow the last boundary spell nothing; the whole has all of them.
    token_ends[-1] = len(tokens.ids)
    return moved, token_ends
