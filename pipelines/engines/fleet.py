"""Several servers of one model: which one is asked next, and which ones are down.

Each server has a circuit. It opens after `OPEN_AFTER` failures in a row, or at once when no
connection can be made: an open server is not asked. While it is open a probe looks at it, at
growing intervals; when the probe is content the circuit is half-open: requests go there again, and
one more failure opens it, one answer closes it. When every circuit has been open for `give_up_s`,
EngineDown names the servers and what each of them last did.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from yarl import URL

from schemas.errors import EngineDown, EngineError

OPEN_AFTER = 5
"""Failures in a row that open a server's circuit."""
PROBE_FIRST_S = 0.5
PROBE_LAST_S = 2.0
"""Seconds from a circuit's opening to the first probe; doubled at each one, up to the last."""

logger = logging.getLogger(__name__)


class Failure(Exception):
    """An attempt that may be made again. `code` is the row's reason code if none succeeds.

    `unsent`: no connection was made. `busy`: the server asks to be left alone. Neither is the
    row's doing. `sick`: it counts against the server's circuit. `wait`: seconds to leave the
    server alone, as it asked (Retry-After).
    """

    def __init__(
        self,
        reason: str,
        code: str = "server_error",
        *,
        unsent: bool = False,
        busy: bool = False,
        sick: bool = True,
        wait: float = 0.0,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.unsent = unsent
        self.busy = busy
        self.sick = sick
        self.wait = wait


class Server:
    """One base URL, its load and its circuit. Times are of the event loop's clock, in seconds."""

    def __init__(self, url: str, path: str) -> None:
        self.url = url
        self.ask = URL(url + path)
        self.models = URL(url + "/models")
        self.in_flight = 0
        self.turn = 0
        self.rest_until = 0.0
        self.failures = 0
        self.opened: float | None = None
        self.pause = PROBE_FIRST_S
        self.reason = ""


class Fleet:
    """Chooses a server for each request; use `close` to stop its probes.

    `look` is the probe: it returns when a server can be asked again and raises Failure, or
    EngineError where the server is up but is not what the run needs, when not.
    """

    def __init__(
        self,
        urls: Iterable[str],
        path: str,
        give_up_s: float,
        look: Callable[[Server], Awaitable[None]],
    ) -> None:
        self.servers = [Server(url, path) for url in urls]
        self._give_up_s = give_up_s
        self._look = look
        self._turns = itertools.count(1)
        self._up = asyncio.Event()
        self._probes: dict[Server, asyncio.Task[None]] = {}

    async def pick(self) -> Server:
        """The least loaded server that is up and not resting; waits until there is one.

        Ties go to the one asked longest ago. Raises EngineDown when all have been down for
        `give_up_s`.
        """
        loop = asyncio.get_running_loop()
        while True:
            up = [server for server in self.servers if server.opened is None]
            now = loop.time()
            ready = [server for server in up if server.rest_until <= now]
            if ready:
                server = min(ready, key=lambda s: (s.in_flight, s.turn))
                server.turn = next(self._turns)
                return server
            if up:
                rest = min(server.rest_until for server in up) - now
                await asyncio.sleep(
                    rest * random.uniform(1.0, 1.25)
                )  # do not all come back at once
            else:
                await self._revival(now)

    async def _revival(self, now: float) -> None:
        """Wait until a server is up again, or raise when the last one fell `give_up_s` ago."""
        deadline = max(s.opened for s in self.servers if s.opened is not None) + self._give_up_s
        if now >= deadline:
            dead = "; ".join(f"{server.url}: {server.reason}" for server in self.servers)
            raise EngineDown(
                f"{dead}; start the server or mend base_urls; answered requests are kept"
            )
        self._up.clear()
        try:
            async with asyncio.timeout(deadline - now):
                await self._up.wait()
        except TimeoutError:
            return  # the caller looks again, finds the deadline passed and raises

    def failed(self, server: Server, failure: Failure) -> None:
        """Note a failed attempt: rest the server as it asked, open its circuit when it is time."""
        now = asyncio.get_running_loop().time()
        if failure.wait:
            server.rest_until = max(server.rest_until, now + failure.wait)
        if not failure.sick:
            return
        server.reason = failure.reason
        server.failures += 1
        if server.opened is None and (failure.unsent or server.failures >= OPEN_AFTER):
            server.opened = now
            logger.warning("%s: %s; not asked until it is back", server.url, failure.reason)
            probe = self._probes.get(server)
            if probe is None or probe.done():
                self._probes[server] = asyncio.create_task(self._watch(server))

    def answered(self, server: Server) -> None:
        """Note an answer: the server's circuit closes."""
        server.failures = 0
        server.pause = PROBE_FIRST_S
        if server.opened is not None:
            server.opened = None
            self._up.set()

    async def _watch(self, server: Server) -> None:
        while True:
            await asyncio.sleep(server.pause)
            server.pause = min(2 * server.pause, PROBE_LAST_S)
            if server.opened is None:
                return  # a request that was under way was answered
            try:
                await self._look(server)
            except (Failure, EngineError) as error:
                server.reason = str(error).removeprefix(f"{server.url}: ")
            else:
                break
        server.opened = None
        server.failures = OPEN_AFTER - 1
        logger.info("%s: back", server.url)
        self._up.set()

    async def close(self) -> None:
        """Stop the probes."""
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
