"""Every reply is durable before it is used, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.base import (
    Identity,
    Reply,
    Request,
    Sampling,
    Tokens,
    request_key,
    request_seed,
)
from pipelines.journal import Journal, Journaled
from pipelines.pool import bounded
from schemas.errors import BadReply, EngineDown, EngineError
from schemas.records import Message
from tests.pipelines.told import Answer, Told, ToldEngine, reply

REQUEST = Request((Message(role="user", content="x"),), Sampling())


def request(sample: int = 0, text: str = "x") -> Request:
    return Request((Message(role="user", content=text),), Sampling(), sample)


def echo(asked: Request) -> Reply:
    return Reply(f"{asked.messages[-1].content}{asked.sample}", "stop", 1, 2, -0.25)


def journaled(path: Path, told: Told = echo, model: str = "told") -> tuple[Journaled, ToldEngine]:
    engine = ToldEngine(told, model=model)
    return Journaled(engine, Journal(path / "journal.sqlite")), engine


def ask(engine: Journaled, *requests: Request) -> list[Reply | BaseException]:
    """Ask all at once; exceptions are given as results."""

    async def all_of_them() -> list[Reply | BaseException]:
        async with engine:
            return await asyncio.gather(
                *(engine.complete(r) for r in requests), return_exceptions=True
            )

    return asyncio.run(all_of_them())


# --- never asked twice ---------------------------------------------------------------------------


def test_a_kept_reply_is_not_asked_again_by_this_process_or_another(tmp_path: Path) -> None:
    first, engine = journaled(tmp_path)
    assert ask(first, request(0), request(1)) == [
        Reply("x0", "stop", 1, 2, -0.25),
        Reply("x1", "stop", 1, 2, -0.25),
    ]
    assert ask(first, request(1)) == [Reply("x1", "stop", 1, 2, -0.25)]
    assert (len(engine.asked), first.asked, first.replayed) == (2, 2, 1)
    first.journal.close()
    again, engine = journaled(tmp_path)
    assert ask(again, request(0), request(1)) == [echo(request(0)), echo(request(1))]
    assert (engine.asked, again.asked, again.replayed) == ([], 0, 2)


def test_equal_requests_at_once_are_asked_once(tmp_path: Path) -> None:
    engine, told = journaled(tmp_path, slow_echo)
    assert ask(engine, *[request()] * 20) == [echo(request())] * 20
    assert len(told.asked) == engine.asked == 1
    assert engine.journal.count() == 1


def test_the_tokens_are_the_engines(tmp_path: Path) -> None:
    class Spelling(ToldEngine):
        def tokens(self, text: str) -> Tokens | None:
            return Tokens((7, 8), (1, 2)) if text == "ab" else None

    engine = Journaled(Spelling(echo), Journal(tmp_path / "journal.sqlite"))
    assert (engine.tokens("ab"), engine.tokens("c")) == (Tokens((7, 8), (1, 2)), None)


async def slow_echo(asked: Request) -> Answer:
    await asyncio.sleep(0.01)
    return echo(asked)


def test_engines_do_not_share_replies(tmp_path: Path) -> None:
    one, first = journaled(tmp_path)
    ask(one, request())
    other, second = journaled(tmp_path, lambda r: reply("another"), model="other")
    assert ask(other, request()) == [reply("another")]
    assert (len(first.asked), len(second.asked)) == (1, 1)
    assert one.journal.count() == 2


# --- keys ----------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "messages": (Message(role="user", content="y"),),
    "sampling": Sampling(seed=1),
    "sample": 1,
    "prefix": "p",
    "schema": "{}",
    "prefix_ids": (1,),
    "scored": "x",
}
SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "max_tokens": 5,
    "stop": ("\n",),
    "seed": 5,
}
IDENTITY: dict[str, Any] = {
    "kind": "k",
    "model": "m",
    "revision": "x",
    "template": "y",
    "endpoint": "z",
    "extra": {"a": 1},
}


def test_the_lists_of_changes_are_complete() -> None:
    for kind, changes in ((Request, CHANGES), (Sampling, SAMPLING), (Identity, IDENTITY)):
        assert {field.name for field in dataclasses.fields(kind)} == set(changes)


@pytest.mark.parametrize(
    "other",
    [
        *(dataclasses.replace(REQUEST, **{name: value}) for name, value in CHANGES.items()),
        *(
            dataclasses.replace(REQUEST, sampling=Sampling(**{name: value}))
            for name, value in SAMPLING.items()
        ),
        dataclasses.replace(REQUEST, messages=(Message(role="system", content="x"),)),
        dataclasses.replace(REQUEST, messages=(*REQUEST.messages, *REQUEST.messages)),
        dataclasses.replace(REQUEST, schema=""),
    ],
)
def test_any_change_of_a_request_is_another_request(tmp_path: Path, other: Request) -> None:
    engine, told = journaled(tmp_path)
    ask(engine, REQUEST)
    ask(engine, other)
    assert len(told.asked) == 2 and engine.replayed == 0
    same_key = request_key("e", REQUEST) == request_key("e", other)
    assert same_key == (other.sample != REQUEST.sample)  # samples of one request share its key
    assert request_seed("e", REQUEST) != request_seed("e", other)


@pytest.mark.parametrize("name", list(IDENTITY))
def test_any_change_of_an_engine_is_another_engine(name: str) -> None:
    identity = Identity("told", "told", "r", "t", "e")
    other = dataclasses.replace(identity, **{name: IDENTITY[name]})
    assert identity.digest == Identity("told", "told", "r", "t", "e").digest
    assert request_key(identity.digest, REQUEST) != request_key(other.digest, REQUEST)


def test_text_does_not_leak_from_one_field_into_the_next() -> None:
    one = Request((Message(role="user", content='a","b'),), Sampling())
    other = Request((Message(role="user", content="a"),), Sampling(), prefix="b")
    assert request_key("e", one) != request_key("e", other)
    pieces = Request((), Sampling(stop=("a", "b")))
    whole = Request((), Sampling(stop=("ab",)))
    assert request_key("e", pieces) != request_key("e", whole)


# --- unusable replies ----------------------------------------------------------------------------


def test_an_unusable_reply_is_kept_replayed_and_can_be_forgotten(tmp_path: Path) -> None:
    def told(asked: Request) -> Answer:
        return BadReply("refused", "no") if asked.sample == 0 else echo(asked)

    engine, asked = journaled(tmp_path, told)
    other, _ = journaled(tmp_path, told, model="other")
    ask(other, request(0))
    for _ in range(2):
        bad, good = ask(engine, request(0), request(1))
        assert isinstance(bad, BadReply)
        assert (bad.code, bad.detail, str(bad)) == ("refused", "no", "refused: no")
        assert good == echo(request(1))
    assert len(asked.asked) == 2
    engine.journal.forget_failures(engine.identity.digest)
    assert engine.journal.count() == 2  # the usable one, and the other engine's
    ask(engine, request(0), request(1))
    assert [r.sample for r in asked.asked] == [0, 1, 0]


def test_every_waiter_hears_of_an_unusable_reply(tmp_path: Path) -> None:
    async def refuse(asked: Request) -> Answer:
        await asyncio.sleep(0.01)
        return BadReply("empty_reply", "nothing")

    engine, told = journaled(tmp_path, refuse)
    results = ask(engine, *[request()] * 5)
    assert [str(result) for result in results] == ["empty_reply: nothing"] * 5
    assert len(told.asked) == 1


@pytest.mark.parametrize("error", [EngineError("wrong key"), EngineDown("no server")])
def test_an_engine_failure_reaches_every_waiter_and_is_not_kept(
    tmp_path: Path, error: Exception
) -> None:
    async def fail(asked: Request) -> Answer:
        await asyncio.sleep(0.01)
        return error

    engine, told = journaled(tmp_path, fail)
    assert ask(engine, *[request()] * 5) == [error] * 5
    assert engine.journal.count() == 0
    ask(engine, request())
    assert len(told.asked) == 2


def test_text_that_utf8_cannot_hold_is_replaced_before_it_is_used(tmp_path: Path) -> None:
    def told(asked: Request) -> Answer:
        if asked.sample:
            return BadReply("not_json", "bad \udfff text")
        return Reply("a\ud800b\x00c", "stop", 1, 1)

    for _ in range(2):
        engine, _ = journaled(tmp_path, told)
        good, bad = ask(engine, request(0), request(1))
        assert good == Reply("a?b\x00c", "stop", 1, 1)
        assert isinstance(bad, BadReply) and bad.detail == "bad ? text"
        engine.journal.close()


# --- cancellation --------------------------------------------------------------------------------


def test_replies_that_arrived_before_a_stop_are_kept(tmp_path: Path) -> None:
    """The stop comes while the commit is under way; the asker never sees its reply."""
    engine, told = journaled(tmp_path)

    async def main() -> None:
        async with engine:
            task = asyncio.create_task(engine.complete(request()))
            while not told.asked:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert engine.journal.count() == 1
    again, told = journaled(tmp_path)
    assert ask(again, request()) == [echo(request())]
    assert told.asked == []


def test_a_keyboard_interrupt_keeps_what_arrived(tmp_path: Path) -> None:
    def told(asked: Request) -> Answer:
        return KeyboardInterrupt() if asked.sample == 3 else echo(asked)

    engine, _ = journaled(tmp_path, told)

    async def main() -> None:
        async with engine:
            await asyncio.gather(*(engine.complete(request(i)) for i in range(4)))

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    engine.journal.close()
    assert Journal(tmp_path / "journal.sqlite").count() == 3


def test_a_waiter_outlives_the_stop_of_the_one_who_asked(tmp_path: Path) -> None:
    go = asyncio.Event

    async def main() -> tuple[Any, Any, int]:
        gate = go()

        async def told(asked: Request) -> Answer:
            await gate.wait()
            return echo(asked)

        engine, engine_told = journaled(tmp_path, told)
        async with engine:
            asker = asyncio.create_task(engine.complete(request()))
            await asyncio.sleep(0)
            waiters = [asyncio.create_task(engine.complete(request())) for _ in range(3)]
            await asyncio.sleep(0)
            asker.cancel()
            waiters[2].cancel()
            await asyncio.sleep(0)
            gate.set()
            results = await asyncio.gather(asker, *waiters, return_exceptions=True)
            return results, engine.journal.count(), len(engine_told.asked)

    results, count, asked = asyncio.run(main())
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:3] == [echo(request())] * 2
    assert isinstance(results[3], asyncio.CancelledError)
    assert (count, asked) == (1, 2)


def test_who_asks_while_a_stopped_askers_reply_is_written_does_not_ask_again(
    tmp_path: Path,
) -> None:
    engine, told = journaled(tmp_path)

    async def main() -> Reply:
        async with engine:
            task = asyncio.create_task(engine.complete(request()))
            while not told.asked:
                await asyncio.sleep(0)
            task.cancel()
            return await engine.complete(request())

    assert asyncio.run(main()) == echo(request())
    assert len(told.asked) == 1


def test_the_engine_can_be_opened_again_after_a_stop(tmp_path: Path) -> None:
    never: dict[str, bool] = {"answers": False}

    async def told(asked: Request) -> Answer:
        if not never["answers"]:
            await asyncio.sleep(600)
        return echo(asked)

    engine, engine_told = journaled(tmp_path, told)

    async def main() -> None:
        async with engine:
            await asyncio.wait_for(engine.complete(request()), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    never["answers"] = True
    assert ask(engine, request()) == [echo(request())]
    assert len(engine_told.asked) == 2
    assert engine_told.opened == 0


def test_the_first_failure_of_many_is_raised_and_the_rest_are_kept(tmp_path: Path) -> None:
    async def told(asked: Request) -> Answer:
        await asyncio.sleep(0.001 * asked.sample)
        return EngineDown("gone") if asked.sample == 20 else echo(asked)

    engine, _ = journaled(tmp_path, told)

    async def main() -> None:
        async with engine:
            await bounded(lambda i: engine.complete(request(i)), range(40), 40)

    with pytest.raises(EngineDown, match=r"^gone$"):
        asyncio.run(main())
    again, told_again = journaled(tmp_path)
    ask(again, *(request(i) for i in range(20)))
    assert told_again.asked == []


def test_what_is_asked_costs_and_what_is_replayed_does_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    engine = Journaled(ToldEngine(echo), journal, prices=(1e6, 10e6))
    ask(engine, request(0), request(1), request(1))
    assert engine.spent == 2 * (1 * 1 + 2 * 10)
    ask(engine, request(0))
    assert engine.spent == 42
