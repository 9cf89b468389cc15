"""What is left of rubrics after their test."""

from __future__ import annotations

from typing import Any, Literal

from pipelines.rubrics.proof import prove, reweighted
from schemas.records import Criterion, Rubric, RubricValue


def criterion(text: str, **more: Any) -> Criterion:
    return Criterion(kind=more.pop("kind", "principle"), text=text, **more)


def valued(
    rubric: Rubric, of: Criterion | None, action: Literal["keep", "retire", "flip"], reason: str
) -> RubricValue:
    return RubricValue(
        rubric_id=rubric.id,
        criterion_id=of.id if of else None,
        judge="j",
        pairs=40,
        prompts=20,
        separates=0.5,
        agreement=0.5,
        value=0.0,
        low=-0.1,
        high=0.1,
        action=action,
        reason=reason,
    )


GOOD, BAD, IDLE = criterion("is right"), criterion("is long"), criterion("is polite")


def test_a_general_rubric_keeps_what_helps_and_turns_what_misleads() -> None:
    rubric = Rubric(criteria=(GOOD.id, BAD.id, IDLE.id), method="mined")
    values = [
        valued(rubric, None, "keep", "helps"),
        valued(rubric, GOOD, "keep", "helps"),
        valued(rubric, BAD, "flip", "misleads"),
        valued(rubric, IDLE, "retire", "never_separates"),
    ]
    done = prove([GOOD, BAD, IDLE], [rubric], values, {})
    flipped = BAD.model_copy(update={"kind": "pitfall"})
    (found,) = done.rubrics
    assert found.criteria == (GOOD.id, flipped.id)
    assert (found.replaces, found.status) == (rubric.id, "draft")
    assert done.criteria == [GOOD, flipped]
    # Verdicts were given under the old ids.
    assert done.renamed == {GOOD.id: GOOD.id, flipped.id: BAD.id}


def test_what_nothing_is_known_of_is_not_kept_for_all_prompts() -> None:
    rubric = Rubric(criteria=(GOOD.id, IDLE.id), method="extraction")
    done = prove([GOOD, IDLE], [rubric], [valued(rubric, IDLE, "retire", "too_few_pairs")], {})
    assert [(r.status, r.criteria) for r in done.rubrics] == [("retired", rubric.criteria)]
    assert {c.id for c in done.criteria} == {GOOD.id, IDLE.id}


def test_a_prompts_rubric_stays_where_its_own_pairs_agree_with_it() -> None:
    made = [
        Rubric(prompt_id=p, criteria=(GOOD.id,), method="contrastive", pairs=("x",)) for p in "ab"
    ]
    done = prove([GOOD], made, [], {made[0].id: True, made[1].id: False})
    assert [r.status for r in done.rubrics] == ["draft", "retired"]
    assert done.rubrics[0] == made[0]
    assert done.rubrics[1].replaces == made[1].id
    # Never judged on its own pairs: not shown to help.
    assert [r.status for r in prove([GOOD], made[:1], [], {}).rubrics] == ["retired"]


def test_a_rubric_of_no_pair_stays_until_it_misleads() -> None:
    rubric = Rubric(prompt_id="p", criteria=(GOOD.id, BAD.id), method="nuggets")
    assert prove([GOOD, BAD], [rubric], [], {}).rubrics == [rubric]
    few = [valued(rubric, c, "retire", "too_few_pairs") for c in (None, GOOD, BAD)]
    assert prove([GOOD, BAD], [rubric], few, {}).rubrics == [rubric]
    (turned,) = prove([GOOD, BAD], [rubric], [valued(rubric, BAD, "flip", "misleads")], {}).rubrics
    assert turned.criteria == (GOOD.id, BAD.model_copy(update={"kind": "pitfall"}).id)
    (out,) = prove([GOOD, BAD], [rubric], [valued(rubric, None, "flip", "misleads")], {}).rubrics
    assert out.status == "retired"


def test_what_a_person_approved_stays_until_it_misleads() -> None:
    rubric = Rubric(criteria=(GOOD.id, BAD.id), method="person", status="approved")
    few = [valued(rubric, c, "retire", "too_few_pairs") for c in (None, GOOD, BAD)]
    assert prove([GOOD, BAD], [rubric], few, {}).rubrics == [rubric]
    (turned,) = prove([GOOD, BAD], [rubric], [valued(rubric, BAD, "flip", "misleads")], {}).rubrics
    assert turned.criteria == (GOOD.id, BAD.model_copy(update={"kind": "pitfall"}).id)
    assert (turned.status, turned.replaces) == ("approved", rubric.id)


def test_other_weights_are_other_criteria_with_the_same_verdicts() -> None:
    rubric = Rubric(prompt_id="p", criteria=(GOOD.id, BAD.id), method="nuggets")
    done = reweighted(prove([GOOD, BAD], [rubric], [], {}), {GOOD.id: 0.25})
    light = GOOD.model_copy(update={"weight": 0.25})
    assert done.criteria == [light, BAD]
    assert done.rubrics[0].criteria == (light.id, BAD.id)
    assert done.renamed == {light.id: GOOD.id, BAD.id: BAD.id}
