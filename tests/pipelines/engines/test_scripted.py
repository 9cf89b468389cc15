import asyncio
import time
from collections import Counter

import pytest
from pydantic import ValidationError

from pipelines.engines.base import Request, Sampling, request_key
from pipelines.engines.scripted import ScriptedConfig, ScriptedEngine
from schemas.errors import BadReply, EngineError
from schemas.records import Message


def ask(text, sample=0, **fields):
    return Request((Message(role="user", content=text),), Sampling(), sample, **fields)


def answer(config, requests):
    async def main():
        async with ScriptedEngine(config) as engine:
            return await asyncio.gather(*map(engine.complete, requests), return_exceptions=True)

    return asyncio.run(main())


def test_the_answer_depends_on_the_request_alone():
    config = ScriptedConfig(replies=("one", "two words", "three"))
    requests = [ask(f"q{i}", sample=s) for i in range(50) for s in range(4)]
    first = answer(config, requests)
    assert answer(config, requests[::-1]) == first[::-1]
    counts = Counter(r.text for r in first)
    assert set(counts) == set(config.replies)
    assert min(counts.values()) > 40
    two = next(r for r in first if r.text == "two words")
    assert (two.finish_reason, two.prompt_tokens, two.completion_tokens) == ("stop", 1, 2)


def test_a_prefix_counts_as_prompt_and_the_reply_is_the_chosen_text():
    [reply] = answer(ScriptedConfig(replies=("only",)), [ask("a b", prefix="c d e")])
    assert (reply.text, reply.prompt_tokens) == ("only", 5)


def test_a_share_fails_by_request():
    config = ScriptedConfig(replies=("x",), fail_share=0.3)
    requests = [ask(str(i)) for i in range(400)]
    replies = answer(config, requests)
    failed = [isinstance(r, BadReply) for r in replies]
    assert 90 < sum(failed) < 150
    assert {r.code for r in replies if isinstance(r, BadReply)} == {"refused"}
    assert [isinstance(r, BadReply) for r in answer(config, requests)] == failed
    assert not any(
        isinstance(r, BadReply) for r in answer(ScriptedConfig(replies=("x",)), requests)
    )


def test_every_request_is_logged_once_before_it_is_answered(tmp_path):
    log = tmp_path / "asked.log"
    config = ScriptedConfig(replies=("x",), delay_ms=50, ask_log=str(log))
    requests = [ask(f"q{i}", sample=i) for i in range(20)]

    async def cut_short():
        async with ScriptedEngine(config) as engine:
            tasks = [asyncio.create_task(engine.complete(r)) for r in requests]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(r, asyncio.CancelledError) for r in asyncio.run(cut_short()))
    identity = ScriptedEngine(config).identity.digest
    assert log.read_text().splitlines() == [
        f"{request_key(identity, r).hex()} {r.sample}" for r in requests
    ]


def test_a_log_that_cannot_be_written_is_told(tmp_path):
    config = ScriptedConfig(replies=("x",), ask_log=str(tmp_path / "no" / "folder.log"))
    [error] = answer(config, [ask("q")])
    assert isinstance(error, EngineError)
    assert str(error).endswith("cannot be written: No such file or directory")


def test_the_delay_passes_in_parallel():
    started = time.monotonic()
    answer(ScriptedConfig(replies=("x",), delay_ms=60), [ask(str(i)) for i in range(100)])
    assert 0.06 <= time.monotonic() - started < 3


def test_identity_covers_what_can_change_an_answer():
    def identity(*replies, **settings):
        return ScriptedEngine(ScriptedConfig(replies=replies, **settings)).identity.digest

    base = identity("a", "b")
    assert identity("a", "b", delay_ms=5, ask_log="x", concurrency=2) == base
    assert len({base, identity("b", "a"), identity("a"), identity("a", "b", fail_share=0.1)}) == 4


def test_no_replies_is_an_error():
    with pytest.raises(ValidationError, match="at least 1 item"):
        ScriptedConfig(replies=())


def test_there_is_no_tokenizer():
    assert ScriptedEngine(ScriptedConfig(replies=("one",))).tokens("one two") is None
