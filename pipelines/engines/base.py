"""The contract of an engine: what is asked, what comes back, and who answered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple, Protocol, Self

from schemas.record import digest
from schemas.records import Message

# Building an encoder takes longer than encoding a request.
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 switch those off."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One sample of one answer.

    `prefix` is a partial assistant answer that the engine continues exactly; the reply holds only
    what comes after it. `schema` is a JSON schema (as JSON text) that the reply must follow.
    `prefix_ids` are the prefix's tokens, from the engine's own `tokens`: where they are given, just
    these are continued, after the tokens of the prompt; else prompt and prefix are tokenised in one
    piece. An engine whose `tokens` knows none continues the text, which is always given too.

    `scored`, where it is not empty, is a text whose log-probability after the prompt and the prefix
    is asked. Nothing is drawn then: an engine ignores `schema` and all of `sampling`, though they
    stay in the key, so callers pass one fixed Sampling. The reply's text is empty, its
    `finish_reason` `stop`, its `logprob` the sum over the tokens of `scored`, no end token among
    them, and `completion_tokens` how many those are.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    sample: int = 0
    prefix: str = ""
    schema: str | None = None
    prefix_ids: tuple[int, ...] = ()
    scored: str = ""


class Tokens(NamedTuple):
    """A text as a model's tokenizer cuts it, so that its beginnings can be continued token for token.

    Decoded after the tokens of a prompt, `ids` are the text to the letter.
    """

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    """By token: how many characters of the text are spelled by then. It grows to the text's length,
    and stays where a token ends inside a character: where it grew, and only there, the tokens so far
    are `text[:end]` exactly."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `logprob` is the sum over the tokens written, in nats, where the engine gives it."""

    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    logprob: float | None = None


@dataclass(frozen=True)
class Identity:
    """Everything of an engine that can change an answer; no address, no key, no speed setting."""

    kind: str
    model: str
    revision: str
    template: str
    endpoint: str
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form, as manifests hold it."""
        return {
            "kind": self.kind,
            "model": self.model,
            "revision": self.revision,
            "template": self.template,
            "endpoint": self.endpoint,
            "extra": self.extra,
        }

    @cached_property
    def digest(self) -> str:
        """32 hex digits."""
        return digest("engine", self.as_dict())


class Engine(Protocol):
    """Answers requests, batched and bounded by itself.

    Used as `async with engine:`; `identity` is known before that. `complete` raises BadReply where
    one request got no usable answer, EngineError where no further request would.
    """

    @property
    def identity(self) -> Identity:
        """Who answers."""
        ...

    @property
    def concurrency(self) -> int:
        """How many requests are worth having under way at once."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def complete(self, request: Request) -> Reply:
        """Answer one request."""
        ...

    def tokens(self, text: str) -> Tokens | None:
        """A text that the model wrote, as its tokenizer cuts it; special tokens are not read in it.

        None where the engine has no tokenizer here, or where that does not spell the text to the
        letter. It can be called without entering the engine; the first call loads the tokenizer,
        not the model. Raises EngineError where there should be one and it cannot be read.
        """
        ...


def request_key(identity: str, request: Request) -> bytes:
    """16-byte hash of the engine's identity digest and all of a request but its sample index."""
    r = request
    return _key(identity, r.messages, r.prefix, r.schema, r.sampling, r.prefix_ids, r.scored)


# The journal and the engine ask for the same key, and so does every sample of a prompt. Few are
# held: prompts can be long.
@lru_cache(maxsize=64)
def _key(
    identity: str,
    messages: tuple[Message, ...],
    prefix: str,
    schema: str | None,
    sampling: Sampling,
    prefix_ids: tuple[int, ...],
    scored: str,
) -> bytes:
    content: list[Any] = [
        identity,
        [[m.role, m.content] for m in messages],
        prefix,
        schema,
        [
            # Numbers that are equal are one key here, so they are to be written in one way.
            float(sampling.temperature) + 0.0,
            float(sampling.top_p),
            sampling.top_k,
            sampling.max_tokens,
            sampling.stop,
            sampling.seed,
        ],
    ]
    if prefix_ids:  # a request without them has the key that it had before there were any
        content.append(prefix_ids)
    if scored:  # likewise; a text, so that it is not taken for tokens
        content.append(scored)
    return hashlib.sha256(_encode(content).encode("utf-8", "surrogatepass")).digest()[:16]


def request_seed(identity: str, request: Request) -> int:
    """Seed of one sample's randomness, in [0, 2^63): it depends on the request alone."""
    key = request_key(identity, request) + request.sample.to_bytes(8, "big")
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
