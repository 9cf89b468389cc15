"""The tournament: who meets whom, what ranks come of it, and what is said where a match is not won."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engines.base import Request
from pipelines.judge.cases import CLASH, Case, Opinions
from pipelines.judge.llm import ListwiseConfig, judge
from schemas.errors import BadReply
from schemas.records import Pair
from tests.pipelines.judge.made import blocks, prompt, response
from tests.pipelines.told import Answer, ToldEngine, reply

CONFIG = ListwiseConfig(engine="judge")


def all_pairs(texts: list[str], asked_text: str = "q") -> list[Case]:
    asked = prompt(asked_text)
    made = [response(asked, text, index) for index, text in enumerate(texts)]
    return [
        Case(asked, Pair(prompt_id=asked.id, response_a=a.id, response_b=b.id), a, b)
        for a, b in itertools.combinations(made, 2)
    ]


def verdict(winner: str, strength: int = 2) -> Answer:
    return reply(json.dumps({"winner": winner, "strength": strength}))


def by_number(request: Request) -> Answer:
    """The greater number is better, by how much greater it is."""
    shown = blocks(request)
    gap = int(shown["response_a"]) - int(shown["response_b"])
    return verdict("A" if gap > 0 else "B", min(3, abs(gap)))


def run(
    cases: list[Case], told: Callable[[Request], Answer], seed: int = 0
) -> tuple[Opinions, ToldEngine]:
    engine = ToldEngine(told)
    return asyncio.run(judge("j", CONFIG, cases, {"judge": engine}, seed)), engine


def of(opinions: Opinions, cases: list[Case]) -> dict[tuple[str, str], float | None]:
    assert [vote.unit for vote in opinions.votes] == [case.pair.id for case in cases]
    return {
        (case.a.text, case.b.text): vote.value
        for case, vote in zip(cases, opinions.votes, strict=True)
    }


@given(n=st.integers(2, 17), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_best_wins_within_twice_the_matches(n: int, seed: int) -> None:
    cases = all_pairs([str(number) for number in range(n)])
    opinions, engine = run(cases, by_number, seed)
    found = of(opinions, cases)
    best = str(n - 1)
    for number in range(n - 1):
        value = found[str(number), best]
        assert value is not None and -1 <= value < 0
    # Each match twice, once an order; 2 (n - 1) matches at most.
    asked = [(s["response_a"], s["response_b"]) for s in map(blocks, engine.asked)]
    assert len(set(asked)) == len(asked) <= 4 * (n - 1)
    assert {(b, a) for a, b in asked} == set(asked)
    assert min(v for v in found.values() if v is not None) == -1.0
    assert not opinions.rejects


def test_three_are_ranked_in_full() -> None:
    cases = all_pairs(["1", "2", "3"])
    for seed in range(6):
        assert of(run(cases, by_number, seed)[0], cases) == {
            ("1", "2"): -0.5,
            ("1", "3"): -1.0,
            ("2", "3"): -0.5,
        }


def test_the_seed_alone_decides_who_meets_whom() -> None:
    cases = all_pairs([str(number) for number in range(9)])
    asked = []
    for seed in (0, 0, 1):
        _, engine = run(cases, by_number, seed)
        asked.append({tuple(blocks(r).items()) for r in engine.asked})
    assert asked[0] == asked[1] != asked[2]
    again = run(cases, by_number, 3)[0]
    assert run(list(reversed(cases)), by_number, 3)[0].votes == again.votes[::-1]


def test_a_clash_takes_no_side_of_its_own_pair() -> None:
    cases = all_pairs(["1", "2"])
    opinions, engine = run(cases, lambda request: verdict("A"))
    assert [(vote.value, vote.reason, vote.order) for vote in opinions.votes] == [
        (0.0, CLASH, None)
    ]
    assert len(engine.asked) == 2


def test_a_clash_between_others_is_noted() -> None:
    def told(request: Request) -> Answer:
        shown = blocks(request)
        if {shown["response_a"], shown["response_b"]} == {"1", "2"}:
            return verdict("A")
        return by_number(request)

    cases = all_pairs(["1", "2", "9"])
    for seed in range(6):
        between, first, second = run(cases, told, seed)[0].votes
        assert (between.value, between.reason) == (0.0, CLASH)
        for vote in (first, second):
            assert vote.value in (-0.5, -1.0)
            assert re.search("; 1 of [23] matches went by seed$", vote.reason)


def test_a_match_without_a_usable_reply_is_no_vote_on_its_pair() -> None:
    cases = all_pairs(["1", "2"])
    opinions, _ = run(cases, lambda request: BadReply("refused", "no"))
    assert [(vote.value, vote.reason) for vote in opinions.votes] == [(None, "refused")]
    assert [(r.unit, r.code) for r in opinions.rejects] == [(cases[0].prompt.id, "refused")] * 2
    assert len({r.id for r in opinions.rejects}) == 2


def test_one_usable_order_decides_a_match() -> None:
    def told(request: Request) -> Answer:
        first = blocks(request)["response_a"] == "1"
        return verdict("B") if first else BadReply("refused", "no")

    opinions, _ = run(all_pairs(["1", "2"]), told)
    assert [vote.value for vote in opinions.votes] == [-1.0]
    assert [reject.code for reject in opinions.rejects] == ["refused"]


def test_equal_texts_are_one_and_equal_prompts_are_judged_once() -> None:
    cases = all_pairs(["1", "1", "2"])
    opinions, engine = run([*cases, *cases], by_number)
    assert [vote.value for vote in opinions.votes] == [0.0, -1.0, -1.0] * 2
    assert opinions.votes[0].reason == "same_text"
    assert len(engine.asked) == 2


def test_prompts_do_not_meet() -> None:
    cases = [*all_pairs(["1", "2"], "p"), *all_pairs(["1", "2"], "q")]
    opinions, engine = run(cases, by_number)
    assert [vote.value for vote in opinions.votes] == [-1.0, -1.0]
    assert sorted(blocks(r)["prompt"] for r in engine.asked) == ["p", "p", "q", "q"]


def test_progress_counts_every_case_once() -> None:
    told: list[tuple[int, int]] = []
    cases = [*all_pairs(["1", "2", "3"], "p"), *all_pairs(["1", "2"], "q")]
    engine = ToldEngine(by_number)
    asyncio.run(judge("j", CONFIG, cases, {"judge": engine}, 0, lambda *row: told.append(row)))
    assert [sum(column) for column in zip(*told, strict=True)] == [4, len(engine.asked)]


def test_as_many_rounds_as_a_knockout_has() -> None:
    """2 n - 2 matches of distinct pairs at most: far fewer than all pairs."""
    cases = all_pairs([str(number) for number in range(32)])
    _, engine = run(cases, by_number)
    assert len(engine.asked) / 2 <= 62 < math.comb(32, 2)
    assert len(engine.asked) == pytest.approx(4 * 31, abs=20)
