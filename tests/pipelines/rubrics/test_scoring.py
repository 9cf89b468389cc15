from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.rubrics.scoring import ScoringConfig, consistent, mean_score, pair_votes, score
from schemas.errors import SchemaError
from schemas.records import Criterion, Pair, Rubric, Vote
from schemas.table import validate
from tests.pipelines.rows import criterion_vote

RESPONSES = pa.table({"id": ["r1", "r2", "r3"], "prompt_id": ["p", "p", "q"]})


def c(text: str, weight: float = 1.0, kind: str = "principle", parent: str | None = None):
    return Criterion(kind=kind, text=text, weight=weight, parent=parent)


def said(response: str, criterion: Criterion, value: float | None, judge: str = "j") -> Vote:
    return criterion_vote(response, criterion.id, value, judge)


def scored(criteria, votes, scoring="share", gate=0.0, **rubric):
    made = Rubric(criteria=tuple(x.id for x in criteria), method="m", scoring=scoring, **rubric)
    table = score(
        Criterion.to_table(criteria),
        Rubric.to_table([made]),
        Vote.to_table(votes),
        RESPONSES,
        ScoringConfig(gate=gate),
    )
    return {(r["response_id"], r["judge"]): r for r in table.to_pylist()}


def test_share_counts_pitfalls_as_one_less_the_verdict() -> None:
    a, b, bad = c("a", 1.0), c("b", 0.5), c("bad", 0.5, "pitfall")
    rows = scored([a, b, bad], [said("r1", a, 1.0), said("r1", b, 0.5), said("r1", bad, 1.0)])
    assert rows["r1", "j"]["score"] == pytest.approx((1.0 + 0.25 + 0.0) / 2.0)
    assert rows["r1", "j"]["judged_share"] == 1.0
    minus = c("minus", -0.5)
    rows = scored([a, minus], [said("r1", a, 1.0), said("r1", minus, 0.0)])
    assert rows["r1", "j"]["score"] == 1.0


def test_missing_verdicts_are_missing_not_zero() -> None:
    a, b = c("a", 3.0), c("b", 1.0)
    rows = scored([a, b], [said("r1", a, None), said("r1", b, 1.0), said("r2", a, None)])
    assert (rows["r1", "j"]["score"], rows["r1", "j"]["judged_share"]) == (1.0, 0.25)
    assert (rows["r2", "j"]["score"], rows["r2", "j"]["judged_share"]) == (None, 0.0)
    assert ("r3", "j") not in rows


def test_a_broken_hard_rule_gates_and_a_missing_one_does_not() -> None:
    rule, a = c("rule", 1.0, "hard_rule"), c("a", 1.0)
    votes = [
        *(said("r1", rule, 0.0), said("r1", a, 1.0)),
        *(said("r2", rule, None), said("r2", a, 1.0)),
        *(said("r3", rule, 0.5), said("r3", a, 1.0)),
    ]
    rows = scored([rule, a], votes)
    assert (rows["r1", "j"]["score"], rows["r1", "j"]["gated"]) == (0.0, True)
    assert (rows["r2", "j"]["score"], rows["r2", "j"]["gated"]) == (1.0, False)
    assert rows["r3", "j"]["gated"] is True, "half kept is not kept"
    assert scored([rule, a], votes, gate=0.5)["r1", "j"]["score"] == 0.25
    assert scored([rule, a], votes, gate=1.0)["r1", "j"]["score"] == 0.5


def test_a_gated_response_that_nothing_else_is_known_of_scores_nothing_and_a_null_stays_null() -> (
    None
):
    rule = c("rule", 0.0, "hard_rule")
    row = scored([rule], [said("r1", rule, 0.0)])["r1", "j"]
    assert (row["score"], row["gated"]) == (None, True), "a rule of no weight judges nothing"


def test_points_are_divided_by_positive_points_and_not_clipped() -> None:
    good, more, bad = c("good", 5.0), c("more", 5.0), c("bad", -8.0)
    votes = [said("r1", good, 1.0), said("r1", more, 0.0), said("r1", bad, 1.0)]
    row = scored([good, more, bad], votes, "points")["r1", "j"]
    assert row["score"] == pytest.approx((5 - 8) / 10)
    assert row["judged_share"] == 1.0


def test_points_of_either_sign_are_scaled_from_those_judged() -> None:
    good, more, bad, worse = c("good", 6.0), c("more", 4.0), c("bad", -2.0), c("worse", -2.0)
    votes = [said("r1", good, 1.0), said("r1", bad, 1.0)]
    row = scored([good, more, bad, worse], votes, "points")["r1", "j"]
    assert row["score"] == pytest.approx(1.0 - 4.0 / 10.0)
    assert row["judged_share"] == pytest.approx(8 / 14)
    assert scored([good, bad], [said("r1", bad, 1.0)], "points")["r1", "j"]["score"] is None


def test_points_clip_only_the_mean() -> None:
    good, bad = c("good", 1.0), c("bad", -3.0)
    votes = [
        *(said("r1", good, 1.0), said("r1", bad, 1.0)),
        *(said("r2", good, 1.0), said("r2", bad, 0.0)),
    ]
    made = Rubric(criteria=(good.id, bad.id), method="m", scoring="points")
    table = score(
        Criterion.to_table([good, bad]),
        Rubric.to_table([made]),
        Vote.to_table(votes),
        RESPONSES,
        ScoringConfig(),
    )
    assert table["score"].to_pylist() == [-2.0, 1.0]
    assert mean_score(table) == 0.0
    assert mean_score(table.slice(1)) == 1.0
    assert mean_score(table.slice(2)) is None


def test_a_tree_is_the_weighted_mean_of_children_with_binary_leaves() -> None:
    left, right = c("left", 1.0), c("right", 3.0)
    l1, l2 = c("l1", 1.0, parent=left.id), c("l2", 1.0, parent=left.id)
    r1, r2 = c("r1", 2.0, parent=right.id), c("r2", 1.0, parent=right.id)
    tree = [left, right, l1, l2, r1, r2]
    votes = [
        *(said("r1", l1, 0.9), said("r1", l2, 0.5), said("r1", r1, 0.0), said("r1", r2, 1.0)),
        *(said("r2", l1, 1.0), said("r2", left, 0.0)),
    ]
    rows = scored(tree, votes, "tree")
    assert rows["r1", "j"]["score"] == pytest.approx((1 * 0.5 + 3 * (1 / 3)) / 4)
    assert rows["r1", "j"]["judged_share"] == pytest.approx(1.0)
    # What is known of r2 is one leaf; the verdict on an inner node is not looked at.
    assert rows["r2", "j"]["score"] == 1.0
    assert rows["r2", "j"]["judged_share"] == pytest.approx(1 / 8)


def test_parents_in_a_circle_are_refused() -> None:
    table = Criterion.to_table([c("a", parent="two"), c("b", parent="one")])
    table = table.set_column(0, table.schema.field("id"), pa.array(["one", "two"]))
    made = Rubric(criteria=("one", "two"), method="m", scoring="tree")
    votes = [criterion_vote("r1", "one", 1.0)]
    with pytest.raises(SchemaError, match="circle"):
        score(table, Rubric.to_table([made]), Vote.to_table(votes), RESPONSES, ScoringConfig())


def test_a_rubric_of_a_prompt_scores_that_prompts_responses_and_judges_apart() -> None:
    a = c("a")
    votes = [said("r1", a, 1.0), said("r3", a, 1.0), said("r1", a, 0.0, "k")]
    rows = scored([a], votes, prompt_id="p")
    assert {key: row["score"] for key, row in rows.items()} == {("r1", "j"): 1.0, ("r1", "k"): 0.0}


def test_an_unknown_criterion_a_second_verdict_and_a_verdict_above_one_are_refused() -> None:
    a = c("a")
    made = Rubric.to_table([Rubric(criteria=("gone",), method="m")])
    none = Vote.to_table([])
    with pytest.raises(SchemaError, match="criterion gone is not there"):
        score(Criterion.to_table([a]), made, none, RESPONSES, ScoringConfig())
    with pytest.raises(SchemaError, match="two verdicts on response r1"):
        scored([a], [said("r1", a, 1.0), said("r1", a, 0.0)])
    with pytest.raises(SchemaError, match="outside"):
        scored([a], [said("r1", a, 1.5)])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0.1, 10),
            st.booleans(),
            st.one_of(st.none(), st.floats(0, 1)),
        ),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_a_share_is_what_its_formula_says_whatever_the_order(rows, random) -> None:
    criteria = [c(f"c{i}", w, "pitfall" if p else "nugget") for i, (w, p, _) in enumerate(rows)]
    votes = [said("r1", x, v) for x, (_, _, v) in zip(criteria, rows, strict=True)]
    row = scored(criteria, votes)["r1", "j"]
    known = [(w, 1 - v if p else v) for w, p, v in rows if v is not None]
    weight = sum(w for w, _ in known)
    assert row["judged_share"] == pytest.approx(weight / sum(w for w, _, _ in rows))
    if known:
        assert row["score"] == pytest.approx(sum(w * v for w, v in known) / weight)
        assert 0.0 <= row["score"] <= 1.0 + 1e-12
    else:
        assert row["score"] is None
    shuffled = list(votes)
    random.shuffle(shuffled)
    assert scored(criteria, shuffled)["r1", "j"] == row


def test_pair_votes_are_differences_and_none_where_one_side_is_not_scored() -> None:
    a, bad = c("a", 1.0), c("bad", -4.0)
    made = Rubric(criteria=(a.id, bad.id), method="m", scoring="points")
    votes = [
        *(said("r1", a, 1.0), said("r1", bad, 0.0)),
        *(said("r2", a, 0.0), said("r2", bad, 1.0)),
    ]
    table = score(
        Criterion.to_table([a, bad]),
        Rubric.to_table([made]),
        Vote.to_table(votes),
        RESPONSES,
        ScoringConfig(),
    )
    pairs = Pair.to_table(
        [
            Pair(prompt_id="p", response_a="r2", response_b="r1"),
            Pair(prompt_id="p", response_a="r1", response_b="r3"),
        ]
    )
    found = pair_votes(pairs, table, "rubric")
    validate(Vote, found)
    rows = found.to_pylist()
    assert [row["unit"] for row in rows] == pairs["id"].to_pylist()
    assert [row["value"] for row in rows] == [-1.0, None], "-5 is clipped"
    assert [row["reason"] for row in rows] == ["a: -4.0; b: 1.0", "not_judged"]
    assert {(row["judge"], row["judge_kind"], row["unit_kind"]) for row in rows} == {
        ("rubric", "rubric", "pair")
    }


def test_consistency_keeps_a_rubric_that_gives_the_preferences_it_was_made_from() -> None:
    a = c("a")
    pairs = [
        Pair(prompt_id="p", response_a="r1", response_b="r2", label="a"),
        Pair(prompt_id="p", response_a="r2", response_b="r1", label="a"),
        Pair(prompt_id="q", response_a="r3", response_b="r2", label="a"),
    ]
    cases = {
        "right": (pairs[0].id,),
        "wrong": (pairs[1].id,),
        "half": (pairs[0].id, pairs[1].id),
        "tie": (pairs[2].id,),
        "none": (),
    }
    rubrics = {
        name: Rubric(criteria=(a.id,), method=name, pairs=own) for name, own in cases.items()
    }
    made = Rubric.to_table(rubrics.values())
    votes = [said("r1", a, 1.0), said("r2", a, 0.0), said("r3", a, 0.0)]
    table = score(Criterion.to_table([a]), made, Vote.to_table(votes), RESPONSES, ScoringConfig())
    found = {r["rubric_id"]: r for r in consistent(made, table, Pair.to_table(pairs)).to_pylist()}
    told = {
        name: (found[rubric.id]["kept"], found[rubric.id]["reason"], found[rubric.id]["right"])
        for name, rubric in rubrics.items()
    }
    assert told == {
        "right": (True, "consistent", 1.0),
        "wrong": (False, "inconsistent", 0.0),
        "half": (True, "consistent", 0.5),
        "tie": (False, "inconsistent", 0.0),
        "none": (False, "not_judged", None),
    }
