"""The contract of an engine: what is asked, what comes back, and who answered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal, Protocol, Self

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
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    sample: int = 0
    prefix: str = ""
    schema: str | None = None


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


def request_key(identity: str, request: Request) -> bytes:
    """16-byte hash of the engine's identity digest and all of a request but its sample index."""
    return _key(identity, request.messages, request.prefix, request.schema, request.sampling)


# The journal and the engine ask for the same key, and so does every sample of a prompt. Few are
# held: prompts can be long.
@lru_cache(maxsize=64)
def _key(
    identity: str,
    messages: tuple[Message, ...],
    prefix: str,
    schema: str | None,
    sampling: Sampling,
) -> bytes:
    content = [
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
    return hashlib.sha256(_encode(content).encode("utf-8", "surrogatepass")).digest()[:16]


def request_seed(identity: str, request: Request) -> int:
    """Seed of one sample's randomness, in [0, 2^63): it depends on the request alone."""
    key = request_key(identity, request) + request.sample.to_bytes(8, "big")
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
