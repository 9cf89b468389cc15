"""Rules drawn from explanations of preferences, for any prompt.

AutoRule (Wang & Xiong 2025): a model explains why a response is preferred, rules are extracted from
the explanation, and the rules of many pairs are merged. Merged by code here, not by a model: the
reply that would hold all rules at once is the one whose loss would lose them all.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.rubrics.drafting import (
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
from pipelines.structured import object_form
from schemas.errors import BadReply
from schemas.record import digest
from schemas.records import Criterion

_MAX_EXPLANATION = 2000


def drawn_by_hash(comparisons: Sequence[Comparison], most: int, seed: int) -> list[Comparison]:
    """Up to `most` of the comparisons, chosen and ordered by a hash of the seed and the pair."""
    return sorted(comparisons, key=lambda c: digest("extraction", seed, c.unit))[:most]


async def draw(comparisons: Sequence[Comparison], writer: Writer) -> Drawn:
    """Rules of every pair; an unusable reply loses that pair's rules alone, and is a Reject."""
    return await sampled(comparisons, writer, _explain)


async def _explain(comparison: Comparison, sample: int, writer: Writer) -> Drawn:
    better, worse = (response.text for response in comparison.responses)
    values = {"prompt": asked(comparison.prompt), "better": better, "worse": worse}
    told = object_form(explanation=text_form(_MAX_EXPLANATION))
    rule = object_form(text=text_form(MAX_TEXT), kind=choice_form("hard_rule", "principle"))
    try:
        explained = await writer.ask("explanation", values, told, sample)
        values = {"explanation": explained["explanation"]}
        form = object_form(rules=list_form(rule, writer.limit))
        reply = await writer.ask("rules", values, form, sample)
    except BadReply as error:
        return Drawn([], [reject(comparison.unit, error.code, f"sample {sample}: {error.detail}")])
    pairs = frozenset(pair.id for pair in comparison.pairs)
    drawn = Drawn([], [])
    for item in reply["rules"]:
        made = criterion(comparison.unit, item["text"], item["kind"])
        if isinstance(made, Criterion):
            drawn.drafts.append(Draft(made, None, pairs, pairs))
        else:
            drawn.rejects.append(made)
    return drawn
