"""Ways to ask a fake server through the `openai` engine."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from pipelines.engines.base import Identity, Reply, Request, Sampling
from pipelines.engines.openai import OpenAIConfig, OpenAIEngine
from schemas.records import Message
from tests.pipelines.engines.fake_server import (
    FakeServer,
)

KEY = "sk-very-secret-1234567890"
ASK = Request((Message(role="user", content="2+2?"),), Sampling(max_tokens=16))


def config(*servers: FakeServer, **settings: Any) -> OpenAIConfig:
    urls = tuple(server.url for server in servers)
    return OpenAIConfig(kind="openai", base_urls=urls, **settings)


def ask(
    *servers: FakeServer, requests: tuple[Request, ...] = (ASK,), **settings: Any
) -> list[Reply | BaseException]:
    """Probe, then ask all requests at once."""

    async def run() -> list[Reply | BaseException]:
        engine = OpenAIEngine(config(*servers, **settings))
        await engine.probe()
        async with engine:
            asked = (engine.complete(request) for request in requests)
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(run())


def one(*servers: FakeServer, request: Request = ASK, **settings: Any) -> Reply:
    (answer,) = ask(*servers, requests=(request,), **settings)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def samples(count: int) -> tuple[Request, ...]:
    return tuple(Request(ASK.messages, ASK.sampling, sample=i) for i in range(count))


def identity_of(*servers: FakeServer, **settings: Any) -> Identity:
    return asyncio.run(OpenAIEngine(config(*servers, **settings)).probe())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
