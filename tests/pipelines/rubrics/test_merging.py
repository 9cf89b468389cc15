"""Merging: like criteria become one, unlike ones never do, and what is kept speaks for most."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.rubrics.drafting import Draft
from pipelines.rubrics.merging import alike, combine, cover, merge, select
from schemas.records import Criterion, Rubric


def row(text: str, **fields: Any) -> Criterion:
    return Criterion(**({"kind": "principle", "text": text} | fields))


def draft(text: str, *pairs: str, **fields: Any) -> Draft:
    return Draft(row(text, **fields), None, frozenset(pairs), frozenset(pairs))


def texts(drafts: list[Draft]) -> list[str]:
    return [d.criterion.text for d in drafts]


def told(**vectors: list[float]) -> Any:
    """An embedder that knows some words."""

    def embed(given: Any) -> np.ndarray:
        found = np.array([vectors[text.split()[0]] for text in given], np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return embed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Names its sources.", "names its SOURCES"),
        ("Sources are named in it", "In it, sources are named."),
        ("Does not use jargon", "Does not, use jargon"),
        ("Doesn't use jargon", "Doesn't use  jargon"),
    ],
)
def test_without_an_embedder_equal_words_are_one(one: str, other: str) -> None:
    assert alike([row(one), row(other)], 0.9, None) == [{1: 1.0}, {0: 1.0}]


def test_words_in_common_are_weighed_by_their_count() -> None:
    near = alike([row("a b c d"), row("a b c e"), row("x y")], 0.75, None)
    assert near == [{1: 0.75}, {0: 0.75}, {}]
    assert alike([row("a b c d"), row("a b c e")], 0.76, None) == [{}, {}]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (row("Has at least 100 words"), row("Has at least 300 words")),
        (row("Has at least 100 words"), row("Has at most 100 words")),
        (row("Uses jargon"), row("Does not use jargon")),
        (row("Uses jargon"), row("Doesn't use jargon")),
        (row('Has the word "cat" in it'), row('Has the word "dog" in it')),
        (row("Is rude", kind="pitfall"), row("Is rude")),
        (row("Sources", kind="nugget"), row("Sources", kind="principle")),
        (row("Is short", verifier="short {}"), row("Is short", verifier="brief {}")),
        (row("Is short", weight=-1.0), row("Is short", weight=1.0)),
    ],
)
def test_what_means_something_else_is_never_one(one: Criterion, other: Criterion) -> None:
    same = np.ones((2, 1), np.float32)
    assert alike([one, other], 0.9, lambda texts: same) == [{}, {}]


def test_a_draft_joins_the_nearest_and_leaves_its_reason() -> None:
    embed = told(left=[1, 0], right=[0, 1], mostly=[1, 1.5])
    drafts = [draft("left", "1", "2"), draft("right", "2", "3"), draft("mostly right", "4")]
    kept, rejects = merge(drafts, 0.5, embed)
    assert {d.criterion.text: sorted(d.covers) for d in kept} == {
        "left": ["1", "2"],
        "right": ["2", "3", "4"],
    }
    (reject,) = rejects
    assert (reject.unit, reject.code, reject.stage) == (
        drafts[2].criterion.id,
        "duplicate_criterion",
        "rubrics",
    )
    assert reject.detail == f"like {drafts[1].criterion.id} (0.83): mostly right"


def test_kept_is_what_more_pairs_speak_for_then_hard_rules_then_heavy_then_short_ones() -> None:
    def first(*drafts: Draft) -> str:
        kept, _ = merge(drafts, 0.9, lambda texts: np.ones((len(texts), 1), np.float32))
        return kept[0].criterion.evidence or ""

    long, short = draft("a word", "1", evidence="long"), draft("word", "1", evidence="short")
    heavy = draft("a word", "1", weight=2.0, evidence="heavy")
    hard = draft("a long word", "1", kind="hard_rule", evidence="hard")
    many = draft("a word", "1", "2", weight=0.1, evidence="many")
    assert first(long, short) == "short"
    assert first(short, heavy) == "heavy"
    assert first(heavy, hard) == "hard"
    assert first(hard, many) == "many"


def test_one_criterion_drawn_twice_is_no_duplicate() -> None:
    kept, rejects = merge([draft("a", "1"), draft("a", "2")], 0.9, None)
    assert [sorted(d.pairs) for d in kept] == [["1", "2"]] and rejects == []


def test_cover_takes_what_adds_most_and_starts_anew_when_all_is_covered() -> None:
    covers = {"most": "12345", "rest": "67", "half": "1234", "one": "7", "none": ""}
    assert cover(["none", "one", "half", "rest", "most"], covers, 10) == [
        *("most", "rest"),  # all is covered
        *("half", "one"),
        "none",
    ]
    assert cover(["none", "one", "half", "rest", "most"], covers, 2) == ["most", "rest"]
    assert cover(["b", "a"], {"a": "1", "b": "1"}, 1) == ["b"]
    assert cover([], {}, 3) == []


@given(
    st.dictionaries(st.sampled_from("abcdefg"), st.frozensets(st.integers(0, 9)), min_size=1),
    st.integers(1, 7),
)
def test_cover_is_within_the_bound_of_greedy_cover(covers: Any, limit: int) -> None:
    """Greedy covers at least 1 - 1/e of what any choice of as many could (Nemhauser 1978)."""
    chosen = cover(sorted(covers), covers, limit)
    assert len(chosen) == len(set(chosen)) == min(limit, len(covers))
    reached = len(frozenset().union(*(covers[id] for id in chosen)))
    best = max(
        len(frozenset().union(*(covers[id] for id in some)))
        for some in combinations(covers, min(limit, len(covers)))
    )
    assert reached >= (1 - 1 / 2.718281828) * best - 1e-9


def test_what_does_not_fit_in_the_rubric_says_so() -> None:
    drafts = [draft("a", "1"), draft("b", "2", "3"), draft("c", "1", "2"), draft("d", "1")]
    kept, rejects = select(drafts, 2, 0.9, None)
    assert texts(kept) == ["b", "c"]
    assert sorted((r.code, r.detail) for r in rejects) == [
        ("not_selected", "the rubric has its 2 criteria; left out: a"),
        ("not_selected", "the rubric has its 2 criteria; left out: d"),
    ]


WORDS = st.lists(
    st.sampled_from(["sources", "steps", "not", "10", "short"]), min_size=1, max_size=3
)


@given(
    st.lists(st.tuples(WORDS, st.frozensets(st.sampled_from("pqr"))), max_size=8),
    st.randoms(use_true_random=False),
    st.integers(1, 4),
)
def test_the_order_of_the_drafts_is_of_no_account_and_nothing_vanishes(
    drawn: Any, random: Any, limit: int
) -> None:
    drafts = [draft(" ".join(words), *pairs) for words, pairs in drawn]
    kept, rejects = select(drafts, limit, 0.8, None)
    mixed = list(drafts)
    random.shuffle(mixed)
    again, rejected = select(mixed, limit, 0.8, None)
    assert kept == again
    assert {r.id for r in rejects} == {r.id for r in rejected}
    ids = {d.criterion.id for d in drafts}
    assert {d.criterion.id for d in kept} | {r.unit for r in rejects} == ids
    assert len(kept) + len(rejects) == len(ids)


def test_rubrics_of_a_prompt_are_combined() -> None:
    rows = [row("names sources"), row("Names sources!"), row("Is 3 lines", kind="hard_rule")]
    known = {r.id: r for r in rows}
    one = Rubric(prompt_id="p", criteria=(rows[0].id,), method="nuggets", pairs=("2",))
    two = Rubric(
        prompt_id="p", criteria=(rows[1].id, rows[2].id), method="contrastive", pairs=("1",)
    )
    made, rejects = combine([one, two], known, 10, 0.9)
    assert made == Rubric(
        prompt_id="p",
        criteria=(rows[2].id, rows[0].id),
        method="contrastive+nuggets",
        pairs=("1", "2"),
    )
    assert [r.unit for r in rejects] == [rows[1].id]
    # By the pairs that verdicts separate, the other of the two is kept.
    covers = {rows[0].id: ["1"], rows[1].id: ["1", "2", "3"]}
    made, _ = combine([one, two], known, 1, 0.9, covers=covers)
    assert made.criteria == (rows[1].id,)


def test_what_cannot_be_pooled_is_refused() -> None:
    top = row("top")
    leaf = row("leaf", parent=top.id)
    known = {r.id: r for r in (top, leaf)}
    one = Rubric(prompt_id="p", criteria=(top.id,), method="m")
    with pytest.raises(ValueError, match="different prompts"):
        combine([one, one.model_copy(update={"prompt_id": "q"})], known, 3, 0.9)
    with pytest.raises(ValueError, match="of a tree"):
        combine([one, one.model_copy(update={"criteria": (leaf.id,)})], known, 3, 0.9)
