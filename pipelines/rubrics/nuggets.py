"""Facts that a right answer holds, drawn from the reference answer (Search-Gen-V, Ma et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence

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
    sampled,
    text_form,
)
from pipelines.structured import object_form
from schemas.errors import BadReply
from schemas.records import Criterion, Prompt


async def draw(prompts: Sequence[Prompt], writer: Writer) -> Drawn:
    """Nuggets of every prompt that has a reference; an unusable reply is a Reject of the prompt."""
    known = [prompt for prompt in prompts if (prompt.reference or "").strip()]
    return await sampled(known, writer, _split)


async def _split(prompt: Prompt, sample: int, writer: Writer) -> Drawn:
    reference = prompt.reference or ""
    nugget = object_form(
        evidence=text_form(MAX_EVIDENCE),
        text=text_form(MAX_TEXT),
        importance=choice_form("essential", "important", "optional"),
    )
    form = object_form(nuggets=list_form(nugget, writer.limit))
    values = {"prompt": asked(prompt), "reference": reference}
    try:
        reply = await writer.ask("nuggets", values, form, sample)
    except BadReply as error:
        return Drawn([], [reject(prompt.id, error.code, f"sample {sample}: {error.detail}")])
    drawn = Drawn([], [])
    for item in reply["nuggets"]:
        made = criterion(
            prompt.id, item["text"], "nugget", item["importance"], item["evidence"], [reference]
        )
        if isinstance(made, Criterion):
            drawn.drafts.append(Draft(made, prompt.id))
        else:
            drawn.rejects.append(made)
    return drawn
