"""A reward model behind an HTTP server, with the shapes of vLLM's /classify, /pooling and /score.

What each trouble becomes is as with the `openai` engine: 408, 409, 429, 5xx and a broken connection
are asked again with exponential backoff, full jitter and Retry-After; then a server that cannot be
reached or is busy is EngineDown, anything else the text's own. 401, 403, 404 and redirects are
EngineErrors at once.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import aiohttp
from annotated_types import Ge, Gt
from pydantic import ConfigDict, field_validator

from pipelines.config import Config
from pipelines.engines.fleet import Failure
from pipelines.engines.openai_dialect import Dialect, parse
from pipelines.engines.openai_probe import broken
from pipelines.pool import bounded
from schemas.errors import BadReply, EngineDown, EngineError
from schemas.records import Message

BACKOFF_FIRST_S = 0.5
BACKOFF_LAST_S = 16.0
"""The wait before the n-th retry is uniform in [0, min(first * 2^(n-1), last)] seconds, and at least
what the server asks for."""

Text = tuple[tuple[Message, ...], str]
"""A prompt's messages and an answer."""
Score = float | BadReply


class RewardServerConfig(Config):
    """A reward model behind vLLM's HTTP server, or one that speaks like it."""

    # A URL with a password in it must not be repeated by the error that refuses it.
    model_config = ConfigDict(hide_input_in_errors=True)

    kind: Literal["reward_server"] = "reward_server"
    """Judge kind."""
    base_url: str
    """Where the server is, such as `http://127.0.0.1:8000`; vLLM has these endpoints beside `/v1`."""
    model: str
    """The model's name at the server."""
    endpoint: Literal["classify", "pooling", "score"] = "classify"
    """`classify`, `pooling`: the conversation is sent and the server applies its chat template.
    `score`: prompt and answer are sent as query and document, for cross-encoders."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; none: no key is sent."""
    concurrency: Annotated[int, Ge(1)] = 32
    """Requests under way at once."""
    timeout_s: Annotated[float, Gt(0)] = 120.0
    """Seconds for one attempt."""
    retries: Annotated[int, Ge(0)] = 6
    """How many times a request is asked again after a failure that may pass."""

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fine = False
        if not fine or parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("base_url is http(s)://HOST[:PORT][/PATH] without user or query")
        return url.rstrip("/")


class Client:
    """Asks one server. Raises EngineError where the key cannot be had."""

    def __init__(self, config: RewardServerConfig) -> None:
        self.config = config
        key = ""
        if config.api_key_env is not None:
            key = os.environ.get(config.api_key_env, "").strip()
            if not key or not (key.isascii() and key.isprintable()):
                raise EngineError(f"api_key_env: {config.api_key_env} is not set, or no key")
        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.dialect = Dialect(config.model, secret=key)  # how errors are read, nothing else

    async def scores(self, texts: Sequence[Text], finished: Callable[[int], Any]) -> list[Score]:
        """The score of every text."""
        config = self.config
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=config.concurrency, keepalive_timeout=3.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self.headers,
            timeout=aiohttp.ClientTimeout(total=config.timeout_s, sock_connect=10.0),
        ) as session:

            async def score(text: Text) -> Score:
                try:
                    found: Score = await self._ask(session, self._body(*text))
                except BadReply as error:
                    found = error
                finished(1)
                return found

            return await bounded(score, texts, config.concurrency)

    def _body(self, messages: tuple[Message, ...], answer: str) -> bytes:
        # Without an activation a classifier's output is the reward itself, not its sigmoid.
        body: dict[str, Any] = {"model": self.config.model, "use_activation": False}
        if self.config.endpoint == "score":
            body["queries"] = "\n\n".join(message.content for message in messages)
            body["documents"] = answer
        else:
            chat = [{"role": m.role, "content": m.content} for m in messages]
            body["messages"] = [*chat, {"role": "assistant", "content": answer}]
            if self.config.endpoint == "pooling":
                body["task"] = "classify"
        return json.dumps(body).encode()

    async def _ask(self, session: aiohttp.ClientSession, body: bytes) -> float:
        most = BACKOFF_FIRST_S
        for left in range(self.config.retries, -1, -1):
            try:
                return await self._attempt(session, body)
            except Failure as failure:
                if not left:
                    if failure.busy or failure.unsent:
                        raise EngineDown(f"{self.config.base_url}: {failure.reason}") from failure
                    raise BadReply(failure.code, failure.reason) from failure
                await asyncio.sleep(max(random.uniform(0.0, most), failure.wait))
                most = min(2 * most, BACKOFF_LAST_S)
        raise AssertionError("unreachable")

    async def _attempt(self, session: aiohttp.ClientSession, body: bytes) -> float:
        url = f"{self.config.base_url}/{self.config.endpoint}"
        try:
            async with session.post(url, data=body, allow_redirects=False) as response:
                raw = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise broken(error, self.config.timeout_s) from error
        if response.status == 404:
            raise EngineError(f"{url}: HTTP 404: check base_url (without /v1), model and endpoint")
        if not 200 <= response.status < 300:
            raise self.dialect.refusal(url, response.status, response.headers, raw)
        return self._score(parse(raw))

    def _score(self, reply: dict[str, Any]) -> float:
        """The one number of a reply. Raises BadReply, EngineError where a model has more outputs."""
        if (named := reply.get("model")) not in (None, self.config.model):
            raise BadReply("wrong_model", f"the reply is of {self.dialect.clean(str(named))}")
        data = reply.get("data")
        row = data[0] if isinstance(data, list) and len(data) == 1 else None
        if not isinstance(row, dict):
            raise BadReply("bad_shape", "the reply's `data` is not one object")
        value = row.get(
            {"classify": "probs", "pooling": "data", "score": "score"}[self.config.endpoint]
        )
        if isinstance(value, list):
            if len(value) > 1:
                raise EngineError(
                    f"{self.config.model} has {len(value)} outputs; a reward model has one"
                )
            value = value[0] if value else None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise BadReply("bad_shape", "the reply holds no score")
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise BadReply("not_finite", "the server gives a number beyond all floats")
        return found
