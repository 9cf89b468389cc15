"""Principles drawn from feedback in words, each with a yes or no and a cited span.

RLBFF (Wang et al. 2025): a principle counts where its span is in the feedback and where another
annotator of the same response has a like principle (cosine above .8) with the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.pool import bounded
from pipelines.rubrics.drafting import (
    MAX_EVIDENCE,
    MAX_TEXT,
    Draft,
    Drawn,
    Writer,
    asked,
    choice_form,
    criterion,
    list_form,
    reject,
    text_form,
)
from pipelines.rubrics.merging import Embed, alike
from pipelines.structured import object_form
from schemas.errors import BadReply
from schemas.records import Criterion, Prompt, Reject, Response

LIKE = 0.8
"""Cosine from which another annotator's principle is a like one."""


@dataclass(frozen=True)
class Subject:
    """A response that somebody wrote feedback on, one text an annotator."""

    prompt: Prompt
    response: Response
    pairs: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass
class _Read:
    """The principles of one text: criterion and answer."""

    points: list[tuple[Criterion, str]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


async def draw(subjects: Sequence[Subject], writer: Writer, embed: Embed | None) -> Drawn:
    """Principles of every response's feedback; an unusable reply is a Reject of the response.

    A single annotator's principles are taken as they are. Where there are more, one that no other
    has is left out (`one_annotator`), and so is one that others answer otherwise
    (`annotators_disagree`).
    """

    async def one(item: tuple[Subject, int, int]) -> _Read:
        read = await _read(*item, writer)
        writer.advance(1, 0)
        return read

    items = [
        (subject, index, sample)
        for subject in subjects
        for index in range(len(subject.texts))
        for sample in range(writer.samples)
    ]
    reads = iter(await bounded(one, items, writer.engine.concurrency))
    drawn = Drawn([], [])
    for subject in subjects:
        points: list[tuple[int, Criterion, str]] = []
        for index in range(len(subject.texts)):
            for _ in range(writer.samples):
                read = next(reads)
                points += [(index, made, met) for made, met in read.points]
                drawn.rejects.extend(read.rejects)
        if len(subject.texts) > 1:
            points = _shared(subject, points, drawn.rejects, embed)
        pairs, covers = frozenset(subject.pairs), frozenset([subject.response.id])
        drawn.drafts.extend(Draft(made, subject.prompt.id, pairs, covers) for _, made, _ in points)
    return drawn


async def _read(subject: Subject, index: int, sample: int, writer: Writer) -> _Read:
    text, unit = subject.texts[index], subject.response.id
    point = object_form(
        evidence=text_form(MAX_EVIDENCE), text=text_form(MAX_TEXT), met=choice_form("yes", "no")
    )
    form = object_form(principles=list_form(point, writer.limit))
    values = {
        "prompt": asked(subject.prompt),
        "response": subject.response.text,
        "feedback": text,
    }
    try:
        reply = await writer.ask("feedback", values, form, sample)
    except BadReply as error:
        said = f"text {index}, sample {sample}: {error.detail}"
        return _Read(rejects=[reject(unit, error.code, said)])
    read = _Read()
    for item in reply["principles"]:
        made = criterion(unit, item["text"], "principle", evidence=item["evidence"], sources=[text])
        if isinstance(made, Criterion):
            read.points.append((made, item["met"]))
        else:
            read.rejects.append(made)
    return read


def _shared(
    subject: Subject,
    points: Sequence[tuple[int, Criterion, str]],
    rejects: list[Reject],
    embed: Embed | None,
) -> list[tuple[int, Criterion, str]]:
    """The points that another annotator makes too."""
    kept = []
    near = alike([made for _, made, _ in points], LIKE, embed)
    for place, (index, made, met) in enumerate(points):
        others = {points[other][2] for other in near[place] if points[other][0] != index}
        if others == {met}:
            kept.append((index, made, met))
        else:
            code = "annotators_disagree" if others else "one_annotator"
            said = f"text {index} says {met}: {made.text}"
            rejects.append(reject(subject.response.id, code, said))
    return kept
