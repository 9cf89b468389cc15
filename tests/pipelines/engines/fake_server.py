"""An OpenAI-compatible server with scripted faults, in a thread of its own with its own loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

from aiohttp import web

Act = Callable[["FakeServer", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
"""How one request is treated."""


def status(code: int, text: str = "", **headers: str) -> Act:
    """An error status; header names are written with underscores."""

    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response({"error": {"message": text}}, status=code, headers=named)

    return act


def raw(text: str, content_type: str = "application/json", code: int = 200) -> Act:
    """A body as given."""

    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> web.Response:
        return web.Response(text=text, content_type=content_type, status=code)

    return act


def reply(**changes: Any) -> Act:
    """A good reply with some things of it changed: `choice` keys, or `top` level ones."""

    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> web.Response:
        return web.json_response(server.good_reply(request, body, **changes))

    return act


def cut() -> Act:
    """Half a body, then the connection is gone."""

    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> web.Response:
        text = json.dumps(server.good_reply(request, body)).encode()
        response = web.StreamResponse(headers={"Content-Length": str(len(text))})
        await response.prepare(request)
        await response.write(text[: len(text) // 2])
        assert request.transport is not None
        request.transport.abort()
        return response  # type: ignore[return-value]

    return act


def hang_up() -> Act:
    """The connection is closed instead of a reply."""

    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return act


def slow(seconds: float) -> Act:
    """A good reply, late."""

    async def act(server: FakeServer, request: web.Request, body: dict[str, Any]) -> web.Response:
        await asyncio.sleep(seconds)
        return web.json_response(server.good_reply(request, body))

    return act


class FakeServer:
    """Used as `with FakeServer() as server:`; `kill` and `start` again keep the port.

    `script`: how the next requests are treated, one each; after it (and `always`, if given, for
    ever) replies are good. `bodies` holds what was asked, `headers` with what, `peak` the most
    requests that were under way at once.
    """

    def __init__(
        self,
        script: Iterable[Act] = (),
        *,
        always: Act | None = None,
        models: Any = None,
        models_status: int = 200,
    ) -> None:
        self.script = list(script)
        self.always = always
        self.models = [{"id": "m", "root": "/models/m"}] if models is None else models
        self.models_status = models_status
        self.port = 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.probes = 0
        self.active = 0
        self.peak = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def start(self) -> None:
        """Listen, on the port of last time if there was one."""
        self._loop = asyncio.new_event_loop()
        up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(up,), daemon=True)
        self._thread.start()
        assert up.wait(10), "the fake server did not start"

    def kill(self) -> None:
        """Break every connection and refuse new ones."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self, up: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._loop.call_soon(up.set)
        self._loop.run_forever()
        self._loop.close()

    async def _listen(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._on_models)
        app.router.add_post("/v1/{endpoint:.*}", self._on_request)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        assert self._runner.server is not None
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()

    async def _on_models(self, request: web.Request) -> web.Response:
        self.probes += 1
        if self.models_status != 200:
            return web.json_response({}, status=self.models_status)
        if isinstance(self.models, str):
            return web.Response(text=self.models, content_type="text/html")
        return web.json_response({"object": "list", "data": self.models})

    async def _on_request(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            act = self.script.pop(0) if self.script else self.always or reply()
            return await act(self, request, body)
        finally:
            self.active -= 1

    def good_reply(
        self,
        request: web.Request,
        body: dict[str, Any],
        *,
        top: dict[str, Any] | None = None,
        choice: dict[str, Any] | None = None,
        text: Any = "fine",
    ) -> dict[str, Any]:
        if "chat" in request.path:
            content: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
            logprobs: Any = {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}
        else:
            content = {"text": text}
            logprobs = {"token_logprobs": [-0.5, -0.25]}
        if body.get("logprobs"):
            content["logprobs"] = logprobs
        return {
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", **content, **(choice or {})}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2},
            **(top or {}),
        }
