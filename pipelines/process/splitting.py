"""Split a response into steps so that every prefix can be continued character for character."""

from __future__ import annotations

import itertools
import re
from typing import Literal

from schemas.records import Response, Trajectory

Splitter = Literal["lines", "paragraphs"]

_SEPARATORS: dict[str, re.Pattern[str]] = {
    "lines": re.compile(r"\n+"),
    "paragraphs": re.compile(r"\n\s*\n"),
}


def split(response: Response, splitter: Splitter) -> Trajectory | None:
    """Steps of a response, or None if it holds nothing but white space.

    A step's text is stripped of nothing inside it; a separator belongs to the step before it, so
    that `text[:ends[t]]` ends just where the policy would begin step t + 1.
    """
    steps, starts, ends = _cut(response.text, splitter)
    if not steps:
        return None
    return Trajectory(
        prompt_id=response.prompt_id,
        response_id=response.id,
        steps=tuple(steps),
        starts=tuple(starts),
        ends=tuple(ends),
    )


def completions(text: str, splitter: Splitter) -> tuple[str, ...]:
    """A text cut at its steps' ends: joined, the pieces are the text exactly; none of blank text."""
    cuts = (0, *_cut(text, splitter)[2])
    return tuple(text[a:b] for a, b in itertools.pairwise(cuts))


def _cut(text: str, splitter: Splitter) -> tuple[list[str], list[int], list[int]]:
    """Steps, where each starts, and where it ends with its separator."""
    steps: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    start = 0
    for match in [*_SEPARATORS[splitter].finditer(text), None]:
        stop = match.start() if match else len(text)
        end = match.end() if match else len(text)
        if text[start:stop].strip():
            steps.append(text[start:stop])
            starts.append(start)
            ends.append(end)
            start = end
        # A blank stretch joins the next step, so that joined steps are the text.
    if ends:
        ends[-1] = len(text)
    return steps, starts, ends
