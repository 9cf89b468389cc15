from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from pipelines.engines import fleet
from pipelines.engines.base import Identity, Reply
from pipelines.engines.openai import OpenAIConfig, OpenAIEngine
from schemas.errors import BadReply, EngineDown, EngineError
from tests.pipelines.engines.asking import (
    ASK,
    ask,
    config,
    free_port,
    one,
    samples,
)
from tests.pipelines.engines.fake_server import (
    FakeServer,
    slow,
    status,
)

pytestmark = pytest.mark.usefixtures("short_waits")


def remembered(engine_config: OpenAIConfig) -> OpenAIEngine:
    extra = {"structured": "json_schema", "logprobs": False, "root": "/models/m"}
    return OpenAIEngine(engine_config, Identity("openai", "m", "", "", "chat", extra))


def test_a_dead_server_is_named_in_time() -> None:
    async def run() -> None:
        url = f"http://127.0.0.1:{free_port()}/v1"
        engine = remembered(OpenAIConfig(kind="openai", base_urls=(url,), give_up_s=0.5))
        async with engine:
            start = time.monotonic()
            answers = await asyncio.gather(
                *(engine.complete(r) for r in samples(100)), return_exceptions=True
            )
            assert 0.5 <= time.monotonic() - start < 3
            line = (
                f"{url}: connection refused; start the server or mend base_urls; "
                "answered requests are kept"
            )
            assert {str(a) for a in answers} == {line}
            assert {type(a) for a in answers} == {EngineDown}

    asyncio.run(run())


def test_a_server_that_hangs_is_named() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(100)
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/v1"

        async def run() -> None:
            settings = OpenAIConfig(
                kind="openai", base_urls=(url,), timeout_s=0.2, give_up_s=0.3, concurrency=8
            )
            async with remembered(settings) as engine:
                answers = await asyncio.gather(
                    *(engine.complete(r) for r in samples(8)), return_exceptions=True
                )
                assert {str(a) for a in answers} == {
                    f"{url}: no reply in 0.2 s; start the server or mend base_urls; "
                    "answered requests are kept"
                }

        asyncio.run(run())


def test_a_server_killed_and_restarted_is_used_again(server: FakeServer) -> None:
    server.always = slow(0.01)

    async def run() -> list[Reply]:
        engine = OpenAIEngine(config(server, concurrency=8, give_up_s=20))
        await engine.probe()
        async with engine:
            asked = asyncio.gather(*(engine.complete(r) for r in samples(300)))
            await asyncio.sleep(0.15)
            await asyncio.to_thread(server.kill)
            before = len(server.bodies)
            assert 8 <= before < 300
            await asyncio.sleep(0.4)
            assert len(server.bodies) == before
            await asyncio.to_thread(server.start)
            return await asked

    assert [r.text for r in asyncio.run(run())] == ["fine"] * 300


def test_a_row_alone_outlives_a_restart_without_retries_left_for_it(server: FakeServer) -> None:
    """Waiting for a dead server uses up no retries: one is enough, however long it takes."""

    async def run() -> Reply:
        engine = OpenAIEngine(config(server, retries=1, give_up_s=20))
        await engine.probe()
        await asyncio.to_thread(server.kill)
        async with engine:
            asked = asyncio.create_task(engine.complete(ASK))
            await asyncio.sleep(0.6)
            assert not asked.done()
            await asyncio.to_thread(server.start)
            return await asked

    assert asyncio.run(run()).text == "fine"


def test_a_server_that_comes_back_with_another_model_is_not_used(server: FakeServer) -> None:
    async def run() -> None:
        engine = OpenAIEngine(config(server, give_up_s=0.6))
        await engine.probe()
        await asyncio.to_thread(server.kill)
        async with engine:
            asked = asyncio.create_task(engine.complete(ASK))
            server.models = [{"id": "m", "root": "/models/other"}]
            await asyncio.sleep(0.1)
            await asyncio.to_thread(server.start)
            with pytest.raises(EngineError, match="now serves /models/other as m; start the"):
                await asked

    asyncio.run(run())
    assert server.bodies == []


def test_the_others_carry_on_when_one_of_a_fleet_dies(server: FakeServer) -> None:
    async def run() -> list[Reply]:
        with FakeServer(always=slow(0.01)) as dying:
            engine = OpenAIEngine(config(server, dying, concurrency=8, give_up_s=0.2))
            await engine.probe()
            async with engine:
                asked = asyncio.gather(*(engine.complete(r) for r in samples(300)))
                await asyncio.sleep(0.1)
                await asyncio.to_thread(dying.kill)
                return await asked

    server.always = slow(0.01)
    assert [r.text for r in asyncio.run(run())] == ["fine"] * 300


def test_an_open_server_is_skipped_until_its_probe_is_content() -> None:
    with (
        FakeServer(always=status(502, "no backend"), models_status=200) as sick,
        FakeServer() as well,
    ):

        async def run() -> None:
            engine = OpenAIEngine(config(sick, well, concurrency=1, retries=8))
            await engine.probe()
            sick.models_status = 502
            async with engine:
                for request in samples(40):
                    assert (await engine.complete(request)).text == "fine"
                assert len(sick.bodies) == fleet.OPEN_AFTER
                assert len(well.bodies) == 40
                sick.models_status, sick.always = 200, None
                await asyncio.sleep(0.4)
                for request in samples(10):
                    await engine.complete(request)
                assert len(sick.bodies) == fleet.OPEN_AFTER + 5

        asyncio.run(run())


def test_a_row_that_breaks_a_healthy_server_is_rejected_alone() -> None:
    """Its failures open the circuit; the probe closes it again, so the row alone is to blame."""
    with FakeServer(always=status(500, "boom")) as server:
        with pytest.raises(BadReply, match=r"server_error: HTTP 500: boom \(8 times\)"):
            one(server, retries=7, give_up_s=5)
        assert server.probes >= 3
        assert len(server.bodies) == 8


def test_a_fleet_is_balanced_by_load() -> None:
    with FakeServer(always=slow(0.02)) as fast, FakeServer(always=slow(0.08)) as slack:
        ask(fast, slack, requests=samples(100), concurrency=8)
        assert len(fast.bodies) + len(slack.bodies) == 100
        # By the requests under way: four each, so four times as many for the four times as fast.
        assert 60 <= len(fast.bodies) <= 90
        assert fast.peak <= 6
        assert slack.peak <= 6


def test_equal_servers_get_equal_shares() -> None:
    with FakeServer() as a, FakeServer() as b, FakeServer() as c:
        ask(a, b, c, requests=samples(60), concurrency=1)
        assert [len(s.bodies) for s in (a, b, c)] == [20, 20, 20]


def test_concurrency_is_never_exceeded() -> None:
    with FakeServer([status(500)] * 5, always=slow(0.01)) as server:
        answers = ask(server, requests=samples(60), concurrency=7)
        assert {getattr(a, "text", a) for a in answers} == {"fine"}
        assert server.peak == 7


def test_nothing_is_left_running(server: FakeServer) -> None:
    """A closed engine leaves no probe behind, a dead server's neither."""

    async def run() -> None:
        engine = OpenAIEngine(config(server, give_up_s=0.1))
        await engine.probe()
        await asyncio.to_thread(server.kill)
        async with engine:
            with pytest.raises(EngineError, match="connection refused"):
                await engine.complete(ASK)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(RuntimeError, match="outside"):
            await engine.complete(ASK)

    asyncio.run(run())
    assert threading.active_count() < 50
