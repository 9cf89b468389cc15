"""What people's verdicts on criteria make of a rubric."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.rubrics.approval import Approval, approve, gather
from schemas.records import Criterion, Rubric, Vote

A = Criterion(kind="principle", text="Is right.", weight=2.0)
B = Criterion(kind="pitfall", text="Rambles.", weight=-1.0)


def said(of: Criterion, value: float | None, reason: str = "", **more: Any) -> Vote:
    return Vote(
        unit=of.id, unit_kind="criterion", judge="human-1", judge_kind="human", value=value,
        reason=reason, **more,
    )  # fmt: skip


def outcome(*votes: Vote, criteria: tuple[Criterion, ...] = (A, B)) -> Approval:
    rubric = Rubric(criteria=tuple(c.id for c in criteria), method="contrastive")
    return approve(rubric, {c.id: c for c in criteria}, gather(votes))


def rubric_of(*criteria: Criterion) -> Rubric:
    return Rubric(criteria=tuple(c.id for c in criteria), method="contrastive")


def test_what_all_accept_is_approved_and_names_the_version_before() -> None:
    found = outcome(said(A, 1.0), said(B, 1.0))
    assert found.criteria == [A, B] and found.undecided == 0
    assert found.rubric.status == "approved" and found.rubric.replaces == rubric_of(A, B).id


def test_what_more_reject_than_accept_goes() -> None:
    found = outcome(said(A, 1.0), said(B, 0.0), said(B, 0.0), said(B, 1.0))
    assert found.criteria == [A] and found.rubric.status == "approved"


def test_the_wording_that_most_want_is_taken() -> None:
    found = outcome(
        said(A, 0.5, "Is correct."), said(A, 0.5, "Is correct."), said(A, 1.0), said(B, 1.0)
    )  # fmt: skip
    assert [c.text for c in found.criteria] == ["Is correct.", "Rambles."]
    assert found.rubric.criteria == tuple(c.id for c in found.criteria)


@pytest.mark.parametrize(
    "votes",
    [
        [],  # nobody was asked
        [said(B, 1.0), said(B, 0.0)],  # as many for as against
        [said(B, 0.5, "Is long."), said(B, 0.5, "Is short.")],  # two wordings
        [said(B, 0.5, "Is long."), said(B, 1.0)],  # one wording, and as it is
    ],
)
def test_what_is_undecided_stays_and_keeps_the_rubric_a_draft(votes: list[Vote]) -> None:
    found = outcome(said(A, 1.0), *votes)
    assert found.criteria == [A, B] and found.undecided == 1
    assert found.rubric.status == "draft" and found.rubric.replaces is None


def test_weights_are_medians_on_the_rubrics_scale_and_keep_their_sign() -> None:
    stars = [said(B, n / 5, criterion="weight") for n in (2, 5, 3)]
    found = outcome(said(A, 1.0), said(A, 1.0, criterion="weight"), said(B, 1.0), *stars)
    assert [c.weight for c in found.criteria] == [2.0, pytest.approx(-0.6 * 2.0)]


def test_a_rubric_of_which_nothing_is_left_is_retired() -> None:
    found = outcome(said(A, 0.0), said(B, 0.0))
    assert found.criteria == [] and found.rubric.status == "retired"


def test_children_of_what_was_rejected_move_up_and_follow_an_edit() -> None:
    top = Criterion(kind="principle", text="Top.")
    middle = Criterion(kind="principle", text="Middle.", parent=top.id)
    leaf = Criterion(kind="principle", text="Leaf.", parent=middle.id)
    tree = (leaf, middle, top)
    found = outcome(
        said(leaf, 1.0), said(middle, 0.0), said(top, 0.5, "The top."), criteria=tree
    )  # fmt: skip
    kept = {c.text: c for c in found.criteria}
    assert set(kept) == {"Leaf.", "The top."}
    assert kept["Leaf."].parent == kept["The top."].id
    assert found.rubric.status == "approved"


def test_two_criteria_that_become_one_stand_once() -> None:
    same = Criterion(kind="principle", text="Is right!", weight=2.0)
    found = outcome(said(A, 1.0), said(same, 0.5, "Is right."), criteria=(A, same))
    assert found.criteria == [A] and found.rubric.criteria == (A.id,)


def test_votes_on_other_things_and_of_nobody_sure_count_for_nothing() -> None:
    pair = Vote(unit=A.id, unit_kind="pair", judge="human-1", judge_kind="human", value=1.0)
    assert gather([pair, said(A, None, "skipped")]) == {}
