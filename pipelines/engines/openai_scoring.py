"""How an OpenAI-compatible server is asked for the log-probability of a given text.

| Endpoint      | Server | How                                                                       |
| ------------- | ------ | ------------------------------------------------------------------------- |
| `completions` | vLLM   | `prompt_logprobs` over prompt and text                                    |
| `completions` | other  | `echo` with `logprobs`, as the first OpenAI API had it                    |
| `chat`        | vLLM   | `prompt_logprobs`, the text as the end of a last assistant message that   |
|               |        | is continued                                                              |
| `chat`        | other  | EngineError: no other server tells                                        |

With the model's tokenizer.json beside the template, tokens are sent, so that the text begins with a
token of its own. Else the server cuts prompt and text in one piece. vLLM says into which tokens: it
is asked once for those of the prompt (kept for the prompt's other texts), and where they are not
the start of the whole's, the row is refused (`bad_request`). Others say where in the text a token
begins, which does the same. No end token is counted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, NamedTuple

from pipelines.engines.base import Reply, Request, Sampling
from pipelines.engines.openai_dialect import Dialect, encode
from pipelines.engines.scoring import beyond, scored_ids
from pipelines.engines.spelling import Speller
from schemas.errors import BadReply, EngineError
from schemas.records import Message

KEPT = 1024
"""Prompts of which the tokens are kept."""

_GREEDY = Sampling(temperature=0.0, max_tokens=1)
"""Servers want to write a token; it is not looked at."""
_SILENT = "the server gives no log-probabilities of a given text"
_TEMPLATE = (
    "the model's chat template changes a text to score, or puts something before it, so that the "
    'server would score another text; use endpoint = "completions" and its template'
)


class Read(NamedTuple):
    """A prompt as vLLM read it."""

    ids: list[int]
    text: str | None


Ask = Callable[[bytes, Callable[[bytes], Any]], Awaitable[Any]]
"""Posts a body, again where that may help, and gives what the reader makes of the reply."""


class Scorer:
    """Asks one model's servers, through `ask`. `speller` gives the model's tokenizer, if it is here."""

    def __init__(self, dialect: Dialect, speller: Callable[[], Speller | None], ask: Ask) -> None:
        self._dialect = dialect
        self._speller = speller
        self._ask = ask
        self._prompts: dict[tuple[tuple[Message, ...], str], asyncio.Task[Read]] = {}

    async def score(self, request: Request) -> Reply:
        """Raises BadReply and EngineError."""
        dialect = self._dialect
        if dialect.endpoint == "chat" and not dialect.is_vllm:
            raise EngineError(
                f'endpoint = "chat": {_SILENT}, unless it is vLLM; use endpoint = "completions" '
                "with the model's template, or another engine"
            )
        if dialect.template is not None and (speller := self._speller()) is not None:
            return await self._by_tokens(request, speller, dialect.template.render)
        whole = _plain(request, request.prefix + request.scored)
        fields = self._fields(whole)
        if dialect.is_vllm:
            before = await self._prompt(request)
            read = await self._ask(encode(fields).encode(), lambda raw: self._whole(raw, whole))
            ids, logprobs, text = read
            if None not in (text, before.text) and text != f"{before.text}{request.scored}":
                raise EngineError(_TEMPLATE)
            scored = beyond(before.ids, ids)
            return _reply(before.ids, scored, logprobs[len(before.ids) :])
        start = len(fields["prompt"]) - len(request.scored)
        logprobs, offsets = await self._ask(
            encode(fields).encode(), lambda raw: self._echoed(raw, whole)
        )
        if not start or start not in offsets:
            raise BadReply("bad_request", "no token begins where the text to score does")
        first = offsets.index(start)
        end = start + len(request.scored)
        inside = [p for p, at in zip(logprobs[first:], offsets[first:], strict=True) if at < end]
        return _reply(range(first), range(len(inside)), inside)

    async def close(self) -> None:
        """Let go of what nobody waits for."""
        tasks = list(self._prompts.values())
        self._prompts.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _by_tokens(
        self, request: Request, speller: Speller, render: Callable[[tuple[Message, ...]], str]
    ) -> Reply:
        start = render(request.messages)
        before = start + request.prefix
        if request.prefix_ids:
            prompt = (*speller.prompt(start), *request.prefix_ids)
        else:
            prompt = speller.prompt(before)
        spelled = speller.tokens(request.scored)
        ids = scored_ids(spelled, speller.prompt, before, request.scored)
        plain = _plain(request, "")
        fields = self._fields(plain) | {"prompt": [*prompt, *ids]}
        end = len(prompt) + len(ids)

        def read(raw: bytes) -> list[Any]:
            if not self._dialect.is_vllm:
                return self._echoed(raw, plain, end)[0]
            known, logprobs, _ = self._whole(raw, plain)
            if known != fields["prompt"]:
                raise EngineError("the server reads other tokens than it was given")
            return logprobs

        logprobs = await self._ask(encode(fields).encode(), read)
        return _reply(prompt, ids, logprobs[len(prompt) : end])

    def _fields(self, request: Request) -> dict[str, Any]:
        """What is asked about a prompt that is all that was given."""
        fields = self._dialect.fields(request, 0)
        del fields["seed"]  # nothing is drawn
        fields.pop("logprobs", None)
        if self._dialect.is_vllm:
            return fields | {"prompt_logprobs": 0, "return_token_ids": True}
        return fields | {"echo": True, "logprobs": 1}

    async def _prompt(self, request: Request) -> Read:
        """The tokens of a request's prompt: asked for once, however many wait for them."""
        key = (request.messages, request.prefix)
        task = self._prompts.get(key)
        if task is None:
            task = self._prompts[key] = asyncio.create_task(self._read(request))
            if len(self._prompts) > KEPT:
                del self._prompts[next(iter(self._prompts))]
        try:
            return await asyncio.shield(task)
        except (BadReply, EngineError):
            self._prompts.pop(key, None)
            raise

    async def _read(self, request: Request) -> Read:
        plain = _plain(request, request.prefix)
        fields = self._fields(plain)
        del fields["prompt_logprobs"]
        if self._dialect.endpoint == "chat":
            fields["return_prompt_text"] = True

        def read(raw: bytes) -> Read:
            data, choice = self._dialect.opened(raw, plain)
            ids = self._told(data, choice, "prompt_token_ids")
            return Read(ids, _text(data))

        found: Read = await self._ask(encode(fields).encode(), read)
        return found

    def _whole(self, raw: bytes, request: Request) -> tuple[list[int], list[Any], str | None]:
        """Of vLLM's reply: a prompt's tokens, the log-probability of each, and its text."""
        data, choice = self._dialect.opened(raw, request)
        ids = self._told(data, choice, "prompt_token_ids")
        entries = self._told(data, choice, "prompt_logprobs")
        if len(entries) != len(ids):
            raise EngineError(f"{_SILENT}: {len(entries)} of {len(ids)} tokens")
        try:
            # The first token follows nothing: it has none.
            logprobs = [
                entry and entry[str(token)]["logprob"]
                for token, entry in zip(ids, entries, strict=True)
            ]
        except (KeyError, TypeError) as error:
            raise EngineError(f"{_SILENT}: prompt_logprobs lack the tokens themselves") from error
        return ids, logprobs, _text(data)

    def _told(self, data: dict[str, Any], choice: dict[str, Any], name: str) -> list[Any]:
        found = (data if self._dialect.endpoint == "chat" else choice).get(name)
        if not isinstance(found, list):
            raise EngineError(f"{_SILENT}: no {name} in its reply; use a newer vLLM")
        return found

    def _echoed(
        self, raw: bytes, request: Request, end: int | None = None
    ) -> tuple[list[Any], list[int]]:
        """Of an echo: the log-probability of each token, and where in the text it begins.

        `end`: how many tokens were sent; none: a text was, so it has to say where they begin.
        """
        _, choice = self._dialect.opened(raw, request)
        given = choice.get("logprobs")
        told = given if isinstance(given, dict) else {}
        logprobs, offsets = told.get("token_logprobs"), told.get("text_offset")
        # Without an echo there is no more than the one token that was written.
        if not isinstance(logprobs, list) or len(logprobs) < (2 if end is None else end):
            raise EngineError(
                f'endpoint = "completions": {_SILENT} (it ignores `echo` with `logprobs`); serve '
                "the model with vLLM, or use another engine"
            )
        if end is not None:
            return logprobs, []
        if not isinstance(offsets, list) or len(offsets) != len(logprobs):
            raise EngineError(
                f"{_SILENT}: no text_offset in its echo; as `template` take a folder that holds "
                "the model's tokenizer.json too"
            )
        return logprobs, offsets


def _plain(request: Request, prefix: str) -> Request:
    return replace(request, sampling=_GREEDY, schema=None, scored="", prefix=prefix, prefix_ids=())


def _text(data: dict[str, Any]) -> str | None:
    text = data.get("prompt_text")
    return text if isinstance(text, str) else None


def _reply(prompt: Any, ids: Any, logprobs: list[Any]) -> Reply:
    try:
        total = math.fsum(logprobs)
    except (TypeError, OverflowError) as error:
        raise EngineError(f"{_SILENT}: not a number a token") from error
    if len(logprobs) != len(ids):
        raise EngineError(f"{_SILENT}: {len(logprobs)} of {len(ids)} tokens")
    if not math.isfinite(total):
        raise BadReply("not_json", "the log-probabilities are not finite")
    return Reply("", "stop", len(prompt), len(ids), total)
