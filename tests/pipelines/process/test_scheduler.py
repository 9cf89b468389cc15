"""The one queue: order, fairness, failures."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Generator, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.process.scheduler import Line, Scheduler
from pipelines.process.search import (
    Ask,
    Drawn,
    Finding,
    Found,
    Prefix,
    Query,
    Question,
    Search,
    Wave,
)
from schemas.errors import BadReply, EngineDown
from tests.pipelines.process.told_work import (
    Engine,
    Key,
    at,
    draws,
    name_of,
    question,
    run,
    said,
    stopped,
    told,
)

# --- order ---------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 10**6))
def test_never_more_than_the_places_are_under_way(places: int, count: int, seed: int) -> None:
    rng = random.Random(seed)
    engine = Engine(turns=lambda key: rng.randint(0, 4))
    work = [
        (question(str(i)), told(*(draws(rng.randint(1, 12), str(w)) for w in range(3))))
        for i in range(count)
    ]
    run(engine, places, work)
    assert engine.most <= places
    asked = sum(len(d) for q, _ in work for d in q.book.draws.values())
    assert len(engine.started) == asked == len(set(engine.started))


def test_all_places_are_used_as_long_as_there_is_work() -> None:
    """64 questions of waves of 4 and 16 places: seen at every turn of the loop."""
    engine = Engine(turns=lambda key: 40)
    levels: list[int] = []

    async def watch() -> None:
        while len(engine.started) < 64 * 8:
            levels.append(engine.under_way)
            await asyncio.sleep(0)

    async def main() -> None:
        work = [(question(str(i)), told(draws(4), draws(8))) for i in range(64)]
        await asyncio.gather(engine.scheduler(16).run(work), watch())

    asyncio.run(main())
    assert sum(levels) / len(levels) > 0.95 * 16


def test_a_waves_requests_stand_together_in_its_order() -> None:
    engine = Engine()
    wave = [Ask(at("a\n"), 2), Ask(at("b\n"), 3), Ask(at("a\n"), 3), Ask(at(""), 1)]
    run(engine, 1, [(question("q"), told(wave))])
    assert engine.started == [
        *(("q", "a\n", i) for i in range(3)),
        *(("q", "b\n", i) for i in range(3)),
        ("q", "", 0),
    ]


def test_the_question_that_has_had_least_is_served_first() -> None:
    engine = Engine(tokens=lambda key: 100 if key[0] == "a" else 1, turns=lambda key: 9)
    work = [(question(name), told(draws(3), draws(6))) for name in "ab"]
    run(engine, 2, work)
    # a's second wave is in line before b's; the last of it is overtaken once b's is there.
    assert "".join(name for name, _, _ in engine.started) == "aaabbbaabbba"


def test_what_the_book_holds_is_not_asked_again() -> None:
    engine = Engine()
    known = question("q")
    known.book.draws[(False, "a\n")] = [Drawn("right", None, "", 5)] * 3
    [finding] = run(engine, 4, [(known, told(draws(2, "a\n"), draws(5, "a\n")))])
    assert stopped(finding) == "complete"
    assert engine.started == [("q", "a\n", 3), ("q", "a\n", 4)]
    assert known.book.positions == {"a\n": 1}
    assert known.book.spent == 20


def test_findings_are_in_the_order_of_the_work_whichever_ends_first() -> None:
    engine = Engine(turns=lambda key: 20 - int(key[0]))
    work = [(question(str(i)), told(*[draws(1)] * (i % 3))) for i in range(20)]
    found = [Finding((Found(q.solutions[0], (), str(i)),)) for i, (q, _) in enumerate(work)]

    def then(search: Search, finding: Finding) -> Search:
        yield from search
        return finding

    given_work = [(q, then(s, f)) for (q, s), f in zip(work, found, strict=True)]
    assert run(engine, 3, given_work) == found


def test_questions_are_let_in_as_they_can_be_served() -> None:
    """Of a million questions only those whose turn has come are made."""
    made = 0
    most_waiting = 0
    engine = Engine()

    def work() -> Iterator[tuple[Question, Search]]:
        nonlocal made, most_waiting
        for index in itertools.count():
            made += 1
            most_waiting = max(most_waiting, made - len({key[0] for key in engine.started}))
            assert made < 500, "the generator is run through"
            yield question(str(index)), told(draws(4))

    def tokens(key: Key) -> int:
        if len(engine.started) >= 200:
            raise KeyboardInterrupt  # a million would take long
        return 1

    engine.tokens = tokens
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(engine.scheduler(8).run(work()))
    assert made <= 200 / 4 + 8
    assert most_waiting <= 2 * 8 / 4 + 1


def test_a_question_that_waits_for_a_slow_rollout_holds_up_no_other() -> None:
    """One rollout of the first question comes last of all; the places stay in use meanwhile."""
    released = asyncio.Event()
    engine = Engine()
    others = [question(str(i)) for i in range(30)]

    async def draw(asked: Question, prefix: Prefix, index: int, prover: bool) -> Drawn:
        if name_of(asked) == "slow" and index == 0:
            await asyncio.wait_for(released.wait(), 30)
        found = await engine.draw(asked, prefix, index, prover)
        if sum(key[0] != "slow" for key in engine.started) == 30 * 4:
            released.set()
        return found

    work = [(question("slow"), told(draws(4))), *((q, told(draws(4))) for q in others)]
    found = asyncio.run(Scheduler(draw, None, 4).run(work))
    assert [stopped(f) for f in found] == ["complete"] * 31
    assert engine.started[-1] == ("slow", "", 0)


def test_nothing_gives_nothing() -> None:
    assert run(Engine(), 4, []) == []
    assert run(Engine(), 4, [], budget=100) == []
    asked = question("q")
    assert run(Engine(), 4, [(asked, told())]) == [said("complete")]
    assert asked.book.draws == {}


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [0, 2])
def test_of_several_bad_replies_the_first_draws_is_what_the_prefix_came_to(slow: int) -> None:
    engine = Engine(turns=lambda key: 9 if key[2] == slow else 1)
    engine.fails = {("q", "", 0): BadReply("first", "a"), ("q", "", 2): BadReply("second", "b")}
    asked = question("q")
    [finding] = run(engine, 4, [(asked, told(draws(4), draws(8)))])
    assert stopped(finding) == "complete"  # it is for the method to look
    assert {key: error.code for key, error in asked.book.failed.items()} == {(False, ""): "first"}
    with pytest.raises(BadReply, match="first"):
        asked.book.drawn(at(""))
    assert len(engine.started) == 4  # of a prefix that failed no more is asked
    assert asked.book.spent == 20


def test_draws_keep_their_index_where_one_before_them_failed() -> None:
    engine = Engine(fails={("q", "", 1): BadReply("refused", "")})
    asked = question("q")
    run(engine, 4, [(asked, told(draws(4)))])
    kept = asked.book.draws[(False, "")]
    assert [d.text for d in kept] == [str(("q", "", i)) for i in range(len(kept))]


@pytest.mark.parametrize("places", [1, 4, 64])
def test_an_engine_that_is_down_ends_all_and_is_raised_as_it_is(places: int) -> None:
    engine = Engine(turns=lambda key: int(key[0]))
    gone = EngineDown("gone")
    engine.fails = {("3", "", 2): gone}
    work = [(question(str(i)), told(draws(4), draws(8))) for i in range(8)]
    with pytest.raises(EngineDown) as raised:
        run(engine, places, work)
    assert raised.value is gone


def test_an_engine_that_is_down_for_all_at_once_is_told_once() -> None:
    engine = Engine()
    work = [(question(str(i)), told(draws(1))) for i in range(8)]
    engine.fails = {(str(i), "", 0): EngineDown("gone") for i in range(8)}
    with pytest.raises(EngineDown, match=r"^gone$"):
        run(engine, 64, work)


def test_a_method_that_breaks_is_raised_as_it_is() -> None:
    def broken() -> Search:
        yield draws(1)
        raise ZeroDivisionError("broken")

    with pytest.raises(ZeroDivisionError, match="broken"):
        run(Engine(), 2, [(question("a"), told(draws(50))), (question("b"), broken())])


def test_work_that_cannot_be_made_is_raised_as_it_is() -> None:
    def work() -> Iterator[tuple[Question, Search]]:
        yield question("a"), told(draws(50))
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        run(Engine(turns=lambda key: 50), 100, work())


@pytest.mark.parametrize("turns", [0, 1, 5, 17])
@pytest.mark.parametrize("budget", [None, 10_000])
def test_a_run_that_is_stopped_leaves_nothing_behind(turns: int, budget: int | None) -> None:
    engine = Engine(turns=lambda key: 3)

    async def main() -> None:
        work = [(question(str(i)), told(draws(4), draws(8))) for i in range(30)]
        task = asyncio.create_task(engine.scheduler(3).run(work, budget=budget))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert engine.under_way == 0

    asyncio.run(main())


# --- the line ------------------------------------------------------------------------------------


def test_the_line_serves_the_least_served_and_of_equals_the_first() -> None:
    async def main() -> list[str]:
        line, order = Line(1), []

        async def one(name: str, served: int) -> None:
            await line.turn(served)
            order.append(name)
            await asyncio.sleep(0)
            line.leave()

        names = (("a", 9), ("b", 5), ("c", 0), ("d", 5), ("e", 0))
        await asyncio.gather(*(one(*item) for item in names))
        return order

    assert asyncio.run(main()) == ["a", "c", "e", "b", "d"]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10**6))
def test_no_place_is_lost_or_made_by_those_who_give_up(places: int, seed: int) -> None:
    """Some are stopped at a random moment: while they wait, as they are called, under way."""
    rng = random.Random(seed)

    async def main() -> None:
        line = Line(places)
        under_way = 0

        async def one(turns: int) -> None:
            nonlocal under_way
            await line.turn(rng.randint(0, 3))
            under_way += 1
            assert under_way <= places
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                under_way -= 1
                line.leave()

        tasks = [asyncio.create_task(one(rng.randint(0, 3))) for _ in range(12)]
        for _ in range(12):
            await asyncio.sleep(0)
            if rng.random() < 0.7:
                rng.choice(tasks).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # All places are there again, and not one more.
        for _ in range(places):
            await asyncio.wait_for(line.turn(0), 5)
        late = asyncio.create_task(line.turn(0))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not late.done()
        line.leave()
        await asyncio.wait_for(late, 5)

    asyncio.run(main())


# --- judges, provers, progress -------------------------------------------------------------------


def test_verdicts_are_asked_once_each_and_put_in_the_book() -> None:
    engine = Engine()
    engine.fails = {("q", "bad", 0): BadReply("not_json", "no")}
    one, two, bad = (Query(t, (("a", "b"),), "{}", s) for t, s in (("t", 0), ("t", 1), ("bad", 0)))
    asked = question("q")
    [finding] = run(engine, 2, [(asked, told([one, two, bad, one], [one, bad], draws(1)))])
    assert stopped(finding) == "complete"
    assert engine.queries == [("q", one), ("q", two), ("q", bad)]
    assert asked.book.verdicts == {one: '"t 0"', two: '"t 1"'}
    assert {key: error.code for key, error in asked.book.failed.items()} == {bad: "not_json"}
    assert asked.book.spent == 10  # a verdict costs the policy nothing


def test_a_prover_has_rollouts_of_its_own_and_they_count_for_the_budget() -> None:
    engine = Engine()
    asked = question("q")
    both = [Ask(at("a\n"), 2), Ask(at("a\n"), 3, prover=True)]
    run(engine, 2, [(asked, told(both))])
    assert {key: len(d) for key, d in asked.book.draws.items()} == {
        (False, "a\n"): 2,
        (True, "a\n"): 3,
    }
    assert asked.book.spent == 50
    assert [key for key in engine.started if key[1].startswith("prover")] == [
        ("q", "prover a\n", i) for i in range(3)
    ]


def test_progress_is_told_by_solution_and_token() -> None:
    engine = Engine(tokens=lambda key: 7)
    run(engine, 2, [(question(str(i)), told(draws(2))) for i in range(3)])
    assert sum(rows for rows, _ in engine.advanced) == 3
    assert sum(tokens for _, tokens in engine.advanced) == 3 * 2 * 7


def test_a_question_that_is_done_is_told_at_once() -> None:
    engine = Engine()
    run(engine, 1, [(question(str(i)), told(draws(2))) for i in range(10)])
    rows = [index for index, (done, _) in enumerate(engine.advanced) if done]
    assert rows[0] < len(engine.advanced) / 2


def test_a_text_that_two_solutions_cut_differently_is_drawn_once() -> None:
    """Equal texts are one prefix, whatever their tokens: which are sent follows from the wave."""
    sent: list[tuple[int, ...]] = []
    engine = Engine()

    async def draw(asked: Question, prefix: Prefix, index: int, prover: bool) -> Drawn:
        sent.append(prefix.ids)
        return await engine.draw(asked, prefix, index, prover)

    def method() -> Generator[Wave, None, Finding]:
        yield [Ask(Prefix("a\n", 1, (1, 2)), 2), Ask(Prefix("a\n", 1, (3,)), 2)]
        return said("complete")

    asked = question("q")
    asyncio.run(Scheduler(draw, None, 4).run([(asked, method())]))
    assert len(asked.book.draws[(False, "a\n")]) == 2
    assert len(set(sent)) == 1
