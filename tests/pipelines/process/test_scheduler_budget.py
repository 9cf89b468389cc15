"""Budgets of the one queue, and that nothing depends on what comes first in time."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.process.search import (
    Ask,
    BudgetSpent,
    Finding,
    Query,
    Question,
    Search,
)
from schemas.errors import BadReply
from schemas.record import digest
from schemas.records import Reject
from tests.pipelines.process.told_work import (
    Engine,
    Key,
    at,
    draws,
    question,
    run,
    said,
    stopped,
    told,
)

# --- budgets -------------------------------------------------------------------------------------


def hungry() -> Search:
    """A method that wants more until it is stopped."""
    for n in itertools.count(4, 4):
        try:
            yield draws(n)
        except BudgetSpent:
            return said(f"budget at {n}")
    raise AssertionError


def test_a_budget_is_shared_evenly_and_spent_to_its_end() -> None:
    work = [(question(str(i)), hungry()) for i in range(5)]
    found = run(Engine(), 3, work, budget=1000)
    assert [q.book.spent for q, _ in work] == [200] * 5
    assert [stopped(f) for f in found] == ["budget at 24"] * 5


def test_what_one_question_leaves_is_given_to_those_that_need_more() -> None:
    work = [(question("a"), told(draws(2)))] + [(question(str(i)), hungry()) for i in range(4)]
    found = run(Engine(), 3, work, budget=1000)
    # 200 each; of the 180 left 45 each, which the last rollout of 10 goes over.
    assert [q.book.spent for q, _ in work] == [20, 250, 250, 250, 250]
    assert stopped(found[0]) == "complete"


def test_a_questions_own_budget_ends_it_with_and_without_one_for_all() -> None:
    for budget in (None, 1000):
        work = [(question("a"), told(draws(3), draws(5))), (question("b"), hungry())]
        found = run(Engine(), 3, work, budget=budget, question_budget=60)
        assert [q.book.spent for q, _ in work] == [50, 60]
        assert [stopped(f) for f in found] == ["complete", "budget at 8"]


@pytest.mark.parametrize("budget", [0, 2, -5])
def test_a_budget_too_small_for_all_ends_every_question_cleanly(budget: int) -> None:
    work = [(question(str(i)), told(draws(1))) for i in range(3)]
    found = run(Engine(), 3, work, budget=budget)
    assert [stopped(f) for f in found] == ["budget after 0"] * 3
    assert [q.book.spent for q, _ in work] == [0] * 3


def test_a_method_that_asks_on_after_its_budget_is_refused() -> None:
    def deaf() -> Search:
        while True:
            with contextlib.suppress(BudgetSpent):
                yield draws(100)

    with pytest.raises(RuntimeError, match="asked for more after its budget"):
        run(Engine(), 2, [(question("q"), deaf())], budget=50)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 600),
    st.lists(st.integers(0, 30), min_size=1, max_size=8),
    st.integers(1, 30),
    st.none() | st.integers(1, 200),
)
def test_no_question_is_over_its_share_by_more_than_its_last_slice(
    places: int, budget: int, wants: list[int], most: int, own: int | None
) -> None:
    """Rollouts of at most the responses' mean length: over by less than one of them."""
    if budget < len(wants):
        return
    engine = Engine(tokens=lambda key: 1 + int(digest(*key), 16) % most)
    work = [
        (question(str(i), mean=most), told(*(draws(n) for n in range(3, want + 1, 3))))
        for i, want in enumerate(wants)
    ]
    found = run(engine, places, work, budget=budget, question_budget=own)
    spent = [q.book.spent for q, _ in work]
    assert sum(spent) < budget + most * len(work)
    if own is not None:
        assert max(spent) < own + most
    for finding, (asked, _), want in zip(found, work, wants, strict=True):
        if stopped(finding) == "complete":
            assert len(asked.book.draws.get((False, ""), ())) == want - want % 3
        elif own is None:
            # What is left does not give each of the unfinished another token.
            unfinished = sum(stopped(f) != "complete" for f in found)
            assert budget - sum(spent) < unfinished
    assert sum(tokens for _, tokens in engine.advanced) == sum(spent)


# --- the same whatever comes first ---------------------------------------------------------------


def adaptive(asked: Question, depth: int) -> Search:
    """What it asks next depends on what came back."""
    book, text = asked.book, ""
    asks: list[tuple[str, list[str]]] = []
    for level in range(depth):
        ask = Ask(at(text), 2 + level)
        try:
            yield [ask, Ask(at(text + "x\n"), 1), Query("t", (("of", text),), "{}")]
        except BudgetSpent:
            return said(f"budget {asks} {book.spent}")
        try:
            drawn = book.drawn(ask.prefix)
        except BadReply as error:
            return Finding((), rejects=(Reject(unit="u", stage="s", code=error.code, detail=""),))
        asks.append((text, [d.outcome for d in drawn]))
        text += "ab"[drawn[-1].outcome == "right"] + "\n"
    return said(f"complete {asks}")


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(0, 10**6),
    st.none() | st.integers(8, 900),
    st.none() | st.integers(1, 200),
)
def test_findings_and_books_do_not_depend_on_what_comes_first(
    places: int, seed: int, budget: int | None, own: int | None
) -> None:
    def once(turns: Callable[[Key], int], places: int) -> Any:
        engine = Engine(tokens=lambda key: 1 + int(digest(*key), 16) % 20, turns=turns)
        engine.fails = {
            (name, text, index): BadReply(f"code {name} {text!r} {index}", "")
            for name in ("2", "5")
            for text in ("a\n", "b\n", "x\n")
            for index in (1, 2)
        }
        asked = [question(str(i)) for i in range(8)]
        work = [(q, adaptive(q, 4)) for q in asked]
        found = run(engine, places, work, budget=budget, question_budget=own)
        return found, [
            (
                list(q.book.draws.items()),
                q.book.positions,
                q.book.verdicts,
                {key: str(error) for key, error in q.book.failed.items()},
                q.book.spent,
            )
            for q in asked
        ]

    rng = random.Random(seed)
    assert once(lambda key: rng.randint(0, 6), places) == once(lambda key: 0, 64)
