"""Requirements drawn from how better and worse responses to a prompt differ.

OpenRubrics (Liu et al. 2025): the prompt's explicit requirements first, then the responses'
differences, then abstraction. Each item is a hard rule or a principle, and quotes what it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from pipelines.prompting import numbered
from pipelines.rubrics.drafting import (
    MAX_EVIDENCE,
    MAX_TEXT,
    Comparison,
    Draft,
    Drawn,
    Writer,
    asked,
    choice_form,
    criterion,
    list_form,
    reject,
    sampled,
    text_form,
)
from pipelines.rubrics.weights import IMPORTANCE
from pipelines.structured import object_form
from schemas.errors import BadReply
from schemas.records import Criterion, Response

_MAX_NOTES = 10


async def draw(comparisons: Sequence[Comparison], writer: Writer) -> Drawn:
    """Criteria of every comparison; a reply that is unusable is a Reject of its pair or prompt."""
    return await sampled(comparisons, writer, _compare)


async def _compare(comparison: Comparison, sample: int, writer: Writer) -> Drawn:
    texts = [response.text for response in comparison.responses]
    prompt = asked(comparison.prompt)
    if len(texts) == 2:
        template = "contrast"
        values = {"prompt": prompt, "better": texts[0], "worse": texts[1]}
    else:
        template = "ranking"
        values = {"prompt": prompt, "ranked": numbered("ranked", texts)}
    try:
        reply = await writer.ask(template, values, _form(writer.limit), sample)
    except BadReply as error:
        return Drawn([], [reject(comparison.unit, error.code, f"sample {sample}: {error.detail}")])
    pairs = frozenset(pair.id for pair in comparison.pairs)
    drawn = Drawn([], [])
    for item in reply["criteria"]:
        made = criterion(
            comparison.unit,
            item["text"],
            item["kind"],
            item["importance"],
            item["evidence"],
            [prompt, *texts],
        )
        if isinstance(made, Criterion):
            drawn.drafts.append(Draft(made, comparison.prompt.id, pairs, pairs))
        else:
            drawn.rejects.append(made)
    return drawn


def _form(limit: int) -> dict[str, object]:
    """Notes before criteria: the requirements and the differences are thought out first."""
    notes = list_form(text_form(MAX_TEXT), _MAX_NOTES)
    item = object_form(
        evidence=text_form(MAX_EVIDENCE),
        text=text_form(MAX_TEXT),
        kind=choice_form("hard_rule", "principle"),
        importance=choice_form(*IMPORTANCE),
    )
    return object_form(requirements=notes, differences=notes, criteria=list_form(item, limit))


def ranked(
    comparisons: Sequence[Comparison], responses: Mapping[str, Response]
) -> list[Comparison]:
    """A prompt's comparisons as one, best response first, where they rank all its responses.

    They do where each response is compared with the next one and none is better than itself round a
    cycle; otherwise the comparisons are given back as they are.
    """
    below: dict[str, set[str]] = {}
    for comparison in comparisons:
        better, worse = (response.id for response in comparison.responses)
        below.setdefault(better, set()).add(worse)
        below.setdefault(worse, set())
    try:
        order = list(TopologicalSorter(below).static_order())[::-1]
    except CycleError:
        return list(comparisons)
    neighbours = pairwise(order)
    if len(order) < 3 or not all(worse in below[better] for better, worse in neighbours):
        return list(comparisons)
    pairs = tuple(pair for comparison in comparisons for pair in comparison.pairs)
    return [Comparison(comparisons[0].prompt, tuple(responses[r] for r in order), pairs)]
