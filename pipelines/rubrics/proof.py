"""What is left of the rubrics once they were tested: kept, flipped or retired, each with its reason.

- A rubric for any prompt is as good as its criteria: one that `value` keeps stays, one that misleads
  becomes a pitfall (the same words, counted against), any other is taken out.
- A rubric of one prompt that was made from pairs stays if judging those pairs by it gives the known
  preference (OpenRubrics' consistency).
- One that was made from no pair (facts of a reference, the prompt's own requirements), and one that a
  person has approved, stays unless it, or a criterion of it, misleads on the pairs it was tested on.

A rubric without criteria left is retired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.records import Criterion, Rubric, RubricValue


class Proven(NamedTuple):
    """Rubrics as they are used from here on, and their criteria; `renamed`: old id of each criterion."""

    criteria: list[Criterion]
    rubrics: list[Rubric]
    renamed: dict[str, str]


def prove(
    criteria: Sequence[Criterion],
    rubrics: Sequence[Rubric],
    values: Sequence[RubricValue],
    consistent: Mapping[str, bool],
) -> Proven:
    """Apply the values (of one judge) and the consistency of rubrics with their own pairs.

    `consistent`: by rubric id, of those with pairs of their own. A rubric that changes is a new
    version: `replaces` names the old one.
    """
    known = {c.id: c for c in criteria}
    said = {(v.rubric_id, v.criterion_id): v for v in values}
    made: dict[str, Criterion] = {}
    renamed: dict[str, str] = {}
    proven = []
    for rubric in rubrics:
        kept = []
        for old in rubric.criteria:
            found = _judged(known[old], rubric, said.get((rubric.id, old)))
            if found is not None:
                kept.append(found.id)
                made[found.id] = found
                renamed[found.id] = old
        whole = said.get((rubric.id, None))
        out = not kept
        if rubric.prompt_id is not None and rubric.pairs and rubric.status != "approved":
            out = out or not consistent.get(rubric.id, False)
        elif whole is not None:
            out = out or whole.action == "flip"
        if tuple(kept) != rubric.criteria or out:
            rubric = rubric.model_copy(
                update={
                    "criteria": tuple(kept) or rubric.criteria,
                    "status": "retired" if out else rubric.status,
                    "replaces": rubric.id,
                }
            )
            if not kept:
                made |= {c: known[c] for c in rubric.criteria}
        proven.append(rubric)
    return Proven(list(made.values()), proven, renamed)


def reweighted(done: Proven, weights: Mapping[str, float]) -> Proven:
    """The same with other weights, by criterion id; what has none keeps its own."""
    now = {
        c.id: c.model_copy(update={"weight": weights.get(c.id, c.weight)}) for c in done.criteria
    }
    return Proven(
        list({c.id: c for c in now.values()}.values()),
        [
            r.model_copy(update={"criteria": tuple(now[c].id for c in r.criteria)})
            for r in done.rubrics
        ],
        {now[new].id: old for new, old in done.renamed.items()},
    )


def _judged(criterion: Criterion, rubric: Rubric, value: RubricValue | None) -> Criterion | None:
    """A criterion as it goes on; None: it does not."""
    trusted = rubric.prompt_id is not None or rubric.status == "approved"
    if value is None:
        return criterion if trusted else None
    if value.action == "flip":
        other = "principle" if criterion.kind == "pitfall" else "pitfall"
        return criterion.model_copy(update={"kind": other})
    if value.action == "keep" or trusted:
        return criterion
    return None
