"""Is a server up, and what does it serve? Also a broken connection's trouble, in words."""

from __future__ import annotations

import os
from typing import NamedTuple

import aiohttp

from pipelines.engines.fleet import Failure, Server
from pipelines.engines.openai_dialect import Dialect, parse
from schemas.errors import EngineError


class Served(NamedTuple):
    """The model to ask a server for, and what else the server states of it."""

    model: str
    root: str | None = None
    """What was loaded (vLLM)."""
    is_vllm: bool = False
    """Whether the server says that it is vLLM."""


async def served(
    session: aiohttp.ClientSession, dialect: Dialect, server: Server, seconds: float
) -> Served:
    """What `server` serves.

    One GET of `/models`, answered within `seconds`. A dialect without a model takes the only one
    served; a server without `/models` (404) is taken at its word if the dialect names one. Raises
    Failure when the server is down, EngineError when it is up but of no use.
    """
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        async with session.get(server.models, timeout=timeout, allow_redirects=False) as response:
            raw = await response.read()
    except (aiohttp.ClientError, OSError) as error:
        raise Failure(f"{server.url}: {broken(error, seconds).reason}") from error
    wanted = dialect.model
    if response.status == 404 and wanted:
        return Served(wanted)
    if not 200 <= response.status < 300:
        trouble = dialect.refusal(server.url, response.status, response.headers, raw)
        if isinstance(trouble, EngineError):
            raise trouble
        raise Failure(f"{server.url}: {trouble}")
    try:
        listed = parse(raw).get("data")
    except Failure as failure:
        raise Failure(f"{server.url}: {failure.reason}") from failure
    models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
    stated = {m["id"]: m for m in models if isinstance(m.get("id"), str)}
    names = dialect.clean(", ".join(stated)) or "no model"
    if not wanted and len(stated) != 1:
        raise EngineError(f"{server.url}: serves {names}; name one of them as the model")
    if wanted and wanted not in stated:
        raise EngineError(f"{server.url}: does not serve {wanted}; it serves {names}")
    model = wanted or next(iter(stated))
    root = stated[model].get("root")
    is_vllm = stated[model].get("owned_by") == "vllm"
    return Served(model, root if isinstance(root, str) else None, is_vllm)


def broken(error: Exception, seconds: float) -> Failure:
    """What broke a connection; `seconds` is the time that the attempt had."""
    unsent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    if isinstance(error, TimeoutError):
        what = "no connection in time" if unsent else f"no reply in {seconds:g} s"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        what = "the host's name is not known"
    elif isinstance(error, aiohttp.ClientSSLError):
        what = "no TLS connection (is its certificate valid?)"
    elif isinstance(error, aiohttp.ClientPayloadError):
        what = "the reply was cut off"
    elif isinstance(error, OSError) and error.errno and error.errno > 0:
        what = os.strerror(error.errno).lower()
    elif isinstance(error, aiohttp.ClientConnectionError):
        what = "the connection was closed before a reply"
    else:
        what = f"connection trouble ({type(error).__name__})"
    return Failure(what, unsent=unsent)
