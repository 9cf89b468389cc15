"""What the report says of rubrics: every criterion, what it was worth on held-out pairs, its fate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipelines.store import Published
from schemas.records import Criterion, Rubric, RubricValue

SHOWN = 200
"""Criteria shown at most, over all rubrics."""

Fate = Literal["keep", "flip", "retire", "draft"]
_RANK: Mapping[Fate, int] = {"keep": 0, "flip": 1, "draft": 2, "retire": 3}


@dataclass(frozen=True)
class CriterionShown:
    """A criterion as it was drafted, with its value and what became of it.

    `fate` is what was done; that may be milder than `value.action`, where a person has approved the
    rubric or where it is about one prompt alone. `draft`: nothing was tested.
    """

    criterion: Criterion
    fate: Fate
    value: RubricValue | None = None
    weight: float | None = None
    """Its weight from then on, where that changed."""


@dataclass(frozen=True)
class RubricShown:
    """A rubric with its criteria: kept ones first, then flipped, then retired."""

    rubric: Rubric
    criteria: tuple[CriterionShown, ...]
    value: RubricValue | None = None
    retired: bool = False


@dataclass(frozen=True)
class RubricsShown:
    """The rubrics to be shown, and counts of all of them."""

    rubrics: tuple[RubricShown, ...]
    made: int
    retired: int
    criteria: int
    """Places of criteria in all rubrics: a criterion of two rubrics counts twice."""
    judge: str
    """Whose verdicts proved them; empty: nothing was proven."""
    tested: Mapping[str, int]
    """Criteria by what came of their tests, such as `keep: helps`."""

    @property
    def more(self) -> int:
        """Criteria that are not shown."""
        return self.criteria - sum(len(r.criteria) for r in self.rubrics)


def rubrics(made: Mapping[str, Published]) -> RubricsShown | None:
    """The run's rubrics; None: it made none."""
    if "rubrics" not in made:
        return None
    drafts = list(Rubric.from_table(made["rubrics"].table("rubrics")))
    known = {c.id: c for c in Criterion.from_table(made["rubrics"].table("criteria"))}
    said: dict[tuple[str, str | None], RubricValue] = {}
    after: dict[str, Rubric] = {}
    now: dict[str, Criterion] = {}
    old_id: dict[str, str] = {}
    if "rubric_value" in made:
        proof = made["rubric_value"]
        for value in RubricValue.from_table(proof.table("values")):
            said.setdefault((value.rubric_id, value.criterion_id), value)
        for rubric in Rubric.from_table(proof.table("rubrics")):
            after[rubric.replaces or rubric.id] = after[rubric.id] = rubric
        now = {c.id: c for c in Criterion.from_table(proof.table("criteria"))}
        old_id = dict(proof.manifest.facts.get("renamed", {}))
    shown = [_rubric(rubric, known, said, after.get(rubric.id), now, old_id) for rubric in drafts]
    # Those for any prompt first, and of each kind the one that says most.
    shown.sort(
        key=lambda r: (
            r.retired,
            r.rubric.prompt_id is not None,
            -(r.value.value or 0.0) if r.value else 0.0,
            r.rubric.id,
        )
    )
    results = Counter(
        f"{v.action}: {v.reason}" for (_, criterion), v in said.items() if criterion is not None
    )
    return RubricsShown(
        rubrics=_first(shown, SHOWN),
        made=len(drafts),
        retired=sum(r.retired for r in shown),
        criteria=sum(len(r.criteria) for r in shown),
        judge=next((v.judge for v in said.values()), ""),
        tested=dict(results.most_common()),
    )


def _rubric(
    rubric: Rubric,
    known: Mapping[str, Criterion],
    said: Mapping[tuple[str, str | None], RubricValue],
    after: Rubric | None,
    now: Mapping[str, Criterion],
    old_id: Mapping[str, str],
) -> RubricShown:
    retired = after is not None and after.status == "retired"
    alive = (
        {} if after is None or retired else {old_id.get(c, c): now.get(c) for c in after.criteria}
    )
    criteria = []
    for number in rubric.criteria:
        criterion = known[number]
        new = alive.get(number)
        fate: Fate = "draft" if after is None else "retire"
        if number in alive:
            fate = "flip" if new is not None and new.kind != criterion.kind else "keep"
        weight = new.weight if new is not None and new.weight != criterion.weight else None
        criteria.append(CriterionShown(criterion, fate, said.get((rubric.id, number)), weight))
    criteria.sort(key=_order)
    return RubricShown(rubric, tuple(criteria), said.get((rubric.id, None)), retired)


def _order(shown: CriterionShown) -> tuple[int, float, str]:
    value = shown.value.value if shown.value is not None else None
    return _RANK[shown.fate], -(value or 0.0), shown.criterion.id


def _first(shown: list[RubricShown], most: int) -> tuple[RubricShown, ...]:
    """The first rubrics with as many criteria; one that is too long for the rest is cut."""
    found = []
    for rubric in shown:
        if most <= 0:
            break
        found.append(
            RubricShown(rubric.rubric, rubric.criteria[:most], rubric.value, rubric.retired)
        )
        most -= len(rubric.criteria)
    return tuple(found)
