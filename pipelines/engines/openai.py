"""The `openai` engine: any OpenAI-compatible server, or a fleet of servers of one model.

What each trouble becomes:

| The server                                          | Outcome                                     |
| --------------------------------------------------- | ------------------------------------------- |
| 408, 409, 429, 5xx, broken or timed-out connection  | asked again: `retries` times, with          |
|                                                     | exponential backoff, full jitter and        |
|                                                     | Retry-After (at most 60 s)                  |
| a cut body, HTML, no JSON, no choices, `abort`      | asked again                                 |
| ... still so after the last retry                   | BadReply `server_error`, `not_json` or      |
|                                                     | `empty_reply`: the row may be at fault      |
| 429 or 503 after the last retry                     | EngineDown: no row is to blame. A refusal   |
|                                                     | does not count while others are answered    |
| no connection to be made, after the last retry      | EngineDown                                  |
| every server down for `give_up_s`                   | EngineDown naming them (see `fleet`)        |
| 401, 403, 404, a redirect, any other 4xx            | EngineError at once                         |
| 413; 400 or 422 that speaks of the context's length | BadReply `too_long`                         |
| 400, 422 otherwise                                  | BadReply `bad_request`                      |
| another model's name on the reply                   | BadReply `wrong_model`; a dated snapshot of |
|                                                     | the name asked for is that model            |
| null content, empty text                            | BadReply `empty_reply`, not asked again:    |
|                                                     | the seed is the same. After a prefix that   |
|                                                     | is already whole an empty text is a reply   |
| finish_reason other than `stop` and `length`        | BadReply `refused`; none: `cut_off`         |
| half a surrogate pair in the text                   | BadReply `not_json`: it cannot be stored    |
| no `usage`                                          | token counts of 0, which mean `not stated`  |
| no log-probabilities although asked for             | EngineError                                 |
| a chat template that changes a prefix (vLLM)        | EngineError                                 |

So no request is sent more than `retries` + 1 times without an answer to some request in between.
A server that says that it is vLLM is told of every sampling setting that it is off: what is not said
it takes from the model's generation_config.json.
How a text is scored is in `openai_scoring`. Redirects are not followed, cookies are not kept, and the key is in no message, log or identity.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
from annotated_types import Ge, Gt, MinLen
from pydantic import ConfigDict, field_validator, model_validator

from pipelines.config import Config
from pipelines.engines.base import Identity, Reply, Request, Tokens, request_seed
from pipelines.engines.chat_template import load_chat_template
from pipelines.engines.fleet import Failure, Fleet, Server
from pipelines.engines.openai_dialect import Dialect, Endpoint, Structured
from pipelines.engines.openai_probe import Served, broken, served
from pipelines.engines.openai_scoring import Scorer
from pipelines.engines.spelling import Speller, file_speller
from schemas.errors import BadReply, EngineDown, EngineError

BACKOFF_FIRST_S = 0.5
BACKOFF_LAST_S = 16.0
"""The wait before the n-th retry is uniform in [0, min(first * 2^(n-1), last)] seconds."""
CONNECT_S = 10.0
"""Seconds to make a connection, and to answer a probe."""
KEEP_ALIVE_S = 3.0
"""Idle connections are dropped before the server does it (uvicorn, so vLLM: 5 s)."""

Answer = TypeVar("Answer")

_PATHS = {"chat": "/chat/completions", "completions": "/completions"}


class OpenAIConfig(Config):
    """Settings of the `openai` engine."""

    # A URL with a password in it must not be repeated by the error that refuses it.
    model_config = ConfigDict(hide_input_in_errors=True)

    kind: Literal["openai"]
    """Which engine."""
    base_urls: Annotated[tuple[str, ...], MinLen(1)]
    """Where the API is, such as `http://127.0.0.1:8000/v1`; several: a fleet serving one model."""
    model: str | None = None
    """The model's name at the servers; none: the only one that they serve."""
    revision: str = ""
    """Revision of the model, for the record: servers do not state it."""
    endpoint: Endpoint = "chat"
    """`chat`: the server applies its chat template; where that trims a prefix, the run stops if the
    server is vLLM, which tells. `completions`: it is applied here, and a prefix is continued to the
    letter whatever whitespace it ends in."""
    template: str | None = None
    """For `completions`: the model's folder (with chat_template.jinja or tokenizer_config.json) or
    a .jinja file. With the model's tokenizer.json in the folder, steps are continued token for token."""
    continue_mode: Literal["vllm", "none"] = "vllm"
    """How `chat` continues a prefix. `vllm`: as a last assistant message with
    `continue_final_message` (vLLM, SGLang). `none`: the server cannot; such a request stops the run."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; none: no key is sent."""
    concurrency: Annotated[int, Ge(1)] = 64
    """Requests under way at once, over all servers."""
    timeout_s: Annotated[float, Gt(0)] = 300.0
    """Seconds for one attempt, from connecting to the reply's last byte."""
    retries: Annotated[int, Ge(0)] = 6
    """How many times a request is asked again after a failure that may pass."""
    give_up_s: Annotated[float, Ge(0)] = 30.0
    """Seconds for which every server may be down, such as during a restart, before the run stops."""
    structured: Structured = "json_schema"
    """How a JSON schema is sent: `json_schema` (response_format), `structured_outputs` (vLLM's own
    field) or `none` (not at all: the prompt has to ask for JSON). A weak model may fill its tokens
    with white space between JSON's own: start vLLM with
    `--structured-outputs-config '{"backend": "xgrammar", "disable_any_whitespace": true}'`."""
    logprobs: bool = False
    """Ask for the tokens' log-probabilities; a reply then holds their sum. Scoring does so anyway."""
    price_prompt: Annotated[float, Ge(0)] = 0.0
    """Money per million tokens read."""
    price_completion: Annotated[float, Ge(0)] = 0.0
    """Money per million tokens written."""

    @field_validator("base_urls")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            try:
                parts = urlsplit(url)
                fine = (
                    parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
                )
            except ValueError:
                fine = False
            if not fine or parts.username or parts.password or parts.query or parts.fragment:
                raise ValueError(
                    "a base URL is http(s)://HOST[:PORT][/PATH] without user, password or query; "
                    "a key goes into the environment variable that api_key_env names"
                )
        bare = tuple(url.rstrip("/") for url in urls)
        if len(set(bare)) < len(bare):
            raise ValueError("a base URL stands twice")
        return bare

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        if (self.endpoint == "completions") != (self.template is not None):
            raise ValueError('template goes with endpoint = "completions", and that needs one')
        return self


class OpenAIEngine:
    """Asks OpenAI-compatible servers over HTTP; see the module for what each trouble becomes.

    `identity` is what an earlier `probe` returned under the same settings; without it, `probe`
    before anything else. The key is read from the environment when it is first needed.
    """

    def __init__(self, config: OpenAIConfig, identity: Identity | None = None) -> None:
        self.config = config
        self._template = load_chat_template(config.template) if config.template else None
        self._identity = identity
        if identity:
            model, extra = config.model or identity.model, identity.extra
            known = Served(model, extra.get("root"), extra.get("server") == "vllm")
            if identity != self._make_identity(known):
                raise EngineError(
                    "the engine's settings are not those its identity was probed with"
                )
        self._key = ""
        self._probe_s = min(CONNECT_S, config.timeout_s)
        self._answers = 0
        self._session: aiohttp.ClientSession | None = None
        self._slots: asyncio.Semaphore
        self._fleet: Fleet
        self._dialect: Dialect
        self._scorer: Scorer
        self._digest: str

    def _read_key(self) -> str:
        name = self.config.api_key_env
        if name is None:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            raise EngineError(f"api_key_env: the environment variable {name} is not set")
        if not (key.isascii() and key.isprintable()):
            raise EngineError(f"api_key_env: {name} holds characters that no key has")
        return key

    @property
    def identity(self) -> Identity:
        """Who answers. Raises EngineError when neither probed nor given."""
        if self._identity is None:
            raise EngineError("the engine's identity is not known yet: probe its servers first")
        return self._identity

    @property
    def concurrency(self) -> int:
        """How many requests are worth having under way at once."""
        return self.config.concurrency

    async def probe(self) -> Identity:
        """Ask every server which models it serves, and settle the engine's identity.

        Raises EngineDown when a server is down, and EngineError when one refuses, does not serve
        the model, or serves something else under its name than the others do. A server without `/models` (404) is taken
        at its word if the config names a model.
        """
        self._key = self._read_key()
        dialect = self._make_dialect(self.config.model or "")
        async with self._open_session() as session:
            asked = (
                served(session, dialect, Server(url, ""), self._probe_s)
                for url in self.config.base_urls
            )
            answers = await asyncio.gather(*asked, return_exceptions=True)
        found = []
        wrong: list[Failure | EngineError] = []
        for answer in answers:
            if isinstance(answer, Served):
                found.append(answer)
            elif isinstance(answer, Failure | EngineError):
                wrong.append(answer)
            else:
                raise answer
        if wrong:
            line = "; ".join(map(str, wrong))
            if all(isinstance(trouble, Failure) for trouble in wrong):
                raise EngineDown(f"{line}; start the server or mend base_urls")
            raise EngineError(line)
        named = {one.model for one in found}
        if len(named) != 1:
            raise EngineError(f"the servers serve different models: {', '.join(sorted(named))}")
        roots = {one.root for one in found if one.root}
        if len(roots) > 1:
            raise EngineError(
                f"the servers serve different things as {named.pop()}: {', '.join(sorted(roots))}"
            )
        self._identity = self._make_identity(
            Served(named.pop(), roots.pop() if roots else None, all(one.is_vllm for one in found))
        )
        return self._identity

    def _make_identity(self, known: Served) -> Identity:
        config = self.config
        extra: dict[str, Any] = {"structured": config.structured, "logprobs": config.logprobs}
        if known.root:
            extra["root"] = known.root
        if known.is_vllm:
            extra["server"] = "vllm"
        if self._template and self._template.tokens:
            extra["special_tokens"] = self._template.tokens
        return Identity(
            kind=config.kind,
            model=known.model,
            revision=config.revision,
            template=self._template.sha256 if self._template else "",
            endpoint=config.endpoint,
            extra=extra,
        )

    async def _look(self, server: Server) -> None:
        """Probe of a server that was down: is it up, and is it still the same model?"""
        assert self._session is not None
        root = (await served(self._session, self._dialect, server, self._probe_s)).root
        if root and root != self.identity.extra.get("root", root):
            raise EngineError(f"{server.url}: now serves {root} as {self._dialect.model}")

    def _make_dialect(self, model: str, *, is_vllm: bool = False) -> Dialect:
        config = self.config
        return Dialect(
            model=model,
            endpoint=config.endpoint,
            template=self._template,
            structured=config.structured,
            continue_mode=config.continue_mode,
            logprobs=config.logprobs,
            is_vllm=is_vllm,
            secret=self._key,
        )

    def _open_session(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                # Slots for the probes, so that they never queue behind requests.
                limit=self.config.concurrency + len(self.config.base_urls),
                keepalive_timeout=KEEP_ALIVE_S,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(self.config.timeout_s, sock_connect=self._probe_s),
        )

    async def __aenter__(self) -> Self:
        identity = self.identity
        self._key = self._read_key()
        self._digest = identity.digest
        self._dialect = self._make_dialect(
            identity.model, is_vllm=identity.extra.get("server") == "vllm"
        )
        self._scorer = Scorer(self._dialect, lambda: self._speller, self._ask)
        self._session = self._open_session()
        self._slots = asyncio.Semaphore(self.config.concurrency)
        path = _PATHS[self.config.endpoint]
        self._fleet = Fleet(self.config.base_urls, path, self.config.give_up_s, self._look)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._scorer.close()
        session, self._session = self._session, None
        await self._fleet.close()
        if session is not None:
            await session.close()

    async def complete(self, request: Request) -> Reply:
        """Answer one request; at most `concurrency` are under way, the others wait.

        Raises BadReply where this request got no usable answer, EngineError where none would.
        """
        if self._session is None:
            raise RuntimeError("complete() outside `async with engine:`")
        if request.scored:
            async with self._slots:
                return await self._scorer.score(request)
        speller = self._speller if request.prefix_ids else None
        body = self._dialect.body(request, request_seed(self._digest, request), speller)
        async with self._slots:
            return await self._ask(body, lambda raw: self._dialect.reply(raw, request))

    def tokens(self, text: str) -> Tokens | None:
        """See `Engine`; None unless the template is a folder with a tokenizer.json.

        With `chat` a prefix is continued as text: how it is tokenised is the server's business.
        """
        return None if self._speller is None else self._speller.tokens(text)

    @cached_property
    def _speller(self) -> Speller | None:
        return file_speller(Path(self.config.template)) if self.config.template else None

    async def _ask(self, body: bytes, read: Callable[[bytes], Answer]) -> Answer:
        failures = refusals = 0
        answers = self._answers
        most = BACKOFF_FIRST_S
        while True:
            server = await self._fleet.pick()
            server.in_flight += 1
            try:
                reply = read(await self._attempt(server, body))
            except Failure as failure:
                self._fleet.failed(server, failure)
                if self._answers > answers:
                    refusals = 0  # a busy server that answers others will come to this row, too
                answers = self._answers
                failures += not failure.busy
                refusals += failure.busy
                if failures + refusals > self.config.retries:
                    raise _final(server, failure, failures + refusals) from failure
            except BadReply:
                self._answered(server)
                raise
            else:
                self._answered(server)
                return reply
            finally:
                server.in_flight -= 1
            await asyncio.sleep(random.uniform(0.0, most))
            most = min(2 * most, BACKOFF_LAST_S)

    def _answered(self, server: Server) -> None:
        self._answers += 1
        self._fleet.answered(server)

    async def _attempt(self, server: Server, body: bytes) -> bytes:
        assert self._session is not None
        try:
            async with self._session.post(server.ask, data=body, allow_redirects=False) as response:
                raw = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise broken(error, self.config.timeout_s) from error
        if not 200 <= response.status < 300:
            raise self._dialect.refusal(server.url, response.status, response.headers, raw)
        return raw


def _final(server: Server, failure: Failure, times: int) -> EngineError | BadReply:
    """What a failure becomes when no retry is left."""
    if failure.busy:
        return EngineDown(
            f"{server.url}: {failure.reason} ({times} times, nothing answered in between); lower "
            "concurrency or raise retries; answered requests are kept"
        )
    if failure.unsent:
        return EngineDown(
            f"{server.url}: {failure.reason} ({times} times); start the server or mend base_urls; "
            "answered requests are kept"
        )
    return BadReply(failure.code, f"{failure.reason} ({times} times)")
