"""What is said to an OpenAI-compatible server, and how its words are read.

Pure functions of texts: no connection is made here. Replies are untrusted: whatever they hold, the
outcome is a `Reply`, a `Failure` (ask again), a `BadReply` (the row's) or an `EngineError`.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Literal, NoReturn

from pipelines.engines.base import Reply, Request
from pipelines.engines.chat_template import ChatTemplate
from pipelines.engines.fleet import Failure
from pipelines.engines.spelling import Speller
from schemas.errors import BadReply, EngineError

Endpoint = Literal["chat", "completions"]
Structured = Literal["json_schema", "structured_outputs", "none"]

RETRY_AFTER_CAP_S = 60.0
"""The longest wait taken from a Retry-After header."""
DETAIL_CHARS = 300
"""Characters of a server's words that an error repeats."""

_RETRIED = frozenset({408, 409, 429})
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|maximum.{0,20}length|max_model_len"
    r"|(prompt|input).{0,60}(too (long|large)|longer than|exceed)",
    re.IGNORECASE | re.DOTALL,
)
_VLLM_OFF = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""vLLM takes what is not said from the model's generation_config.json: say that it is off."""
_SNAPSHOT = re.compile(r"-\d{4}(-?\d{2}-?\d{2})?")
"""Hosted models answer as a dated snapshot of the name asked for, such as NAME-2024-08-06."""

# Python's encoder is slow to build: keep one. Lone surrogates leave as escapes.
encode = json.JSONEncoder(separators=(",", ":")).encode


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


@dataclass(frozen=True)
class Dialect:
    """How one model is asked. `secret` is the key: it is taken out of whatever an error repeats."""

    model: str
    endpoint: Endpoint = "chat"
    template: ChatTemplate | None = None
    structured: Structured = "json_schema"
    continue_mode: Literal["vllm", "none"] = "vllm"
    logprobs: bool = False
    is_vllm: bool = False
    secret: str = field(default="", repr=False)

    def body(self, request: Request, seed: int, speller: Speller | None = None) -> bytes:
        """The request as the JSON that is posted.

        `speller`: the model's tokenizer, with which a prefix's tokens are sent instead of its text.
        """
        return encode(self.fields(request, seed, speller)).encode()

    def fields(self, request: Request, seed: int, speller: Speller | None = None) -> dict[str, Any]:
        """What `body` encodes."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": seed,
        }
        if self.is_vllm:
            body |= _VLLM_OFF
        if sampling.top_k > 0:
            body["top_k"] = sampling.top_k
        if sampling.stop:
            body["stop"] = sampling.stop
        if request.schema is not None and self.structured != "none":
            body |= _structure(self.structured, request.schema)
        if self.template is not None:
            prompt = self.template.render(request.messages)
            if request.prefix_ids and speller is not None:
                body["prompt"] = [*speller.prompt(prompt), *request.prefix_ids]
            else:
                body["prompt"] = prompt + request.prefix
            # The template wrote the special tokens: the tokenizer must not add a second <s>.
            body["add_special_tokens"] = False
            if self.logprobs:
                body["logprobs"] = 1
            return body
        turns = [{"role": m.role, "content": m.content} for m in request.messages]
        if request.prefix:
            if self.continue_mode == "none":
                raise EngineError(
                    'continue_mode = "none": this engine cannot continue a prefix; use a server '
                    'that can, or endpoint = "completions" with the model\'s template'
                )
            turns.append({"role": "assistant", "content": request.prefix})
            body["continue_final_message"] = True
            body["add_generation_prompt"] = False
            if self.is_vllm:
                body["return_prompt_text"] = True
        body["messages"] = turns
        if self.logprobs:
            body["logprobs"] = True
        return body

    def reply(self, raw: bytes, request: Request) -> Reply:
        """Read a reply of status 200. Raises Failure, BadReply or EngineError."""
        data, choice = self.opened(raw, request)
        message = choice.get("message") if self.endpoint == "chat" else None
        holder: Any = message if self.endpoint == "chat" else choice
        text = None
        if isinstance(holder, dict):
            text = holder.get("content" if self.endpoint == "chat" else "text")
        finish = choice.get("finish_reason")
        if isinstance(message, dict) and message.get("refusal") and not text:
            raise BadReply("refused", self.clean(str(message["refusal"])))
        if finish is None:
            raise BadReply("cut_off", "the reply states no finish_reason")
        if finish not in ("stop", "length"):
            raise BadReply("refused", f"finish_reason {self.clean(str(finish))}")
        if text is None:
            raise BadReply("empty_reply", "the reply holds no text")
        if not isinstance(text, str) or not _is_unicode(text):
            raise BadReply("not_json", "the reply's content is not Unicode text")
        if not text and not (request.prefix and finish == "stop"):
            raise BadReply("empty_reply", "the reply is an empty text")
        usage = data.get("usage")
        return Reply(
            text=text,
            finish_reason=finish,
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            logprob=self._logprob(choice) if self.logprobs else None,
        )

    def opened(self, raw: bytes, request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
        """A reply of status 200 and its choice, if the model asked gave it. Raises as `reply`."""
        data = parse(raw)
        choices = data.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            what = self.words(raw) if "error" in data else "the reply holds no choices"
            raise Failure(what, "empty_reply")
        self._check_prefix(data.get("prompt_text"), request)
        claimed = data.get("model")
        if isinstance(claimed, str) and not _same_model(self.model, claimed):
            said = self.clean(claimed)
            raise BadReply("wrong_model", f"answered as {said}, asked for {self.model}")
        choice = choices[0]
        if (finish := choice.get("finish_reason")) in ("abort", "error"):
            raise Failure(f"the server broke off the reply ({finish})")
        return data, choice

    def _check_prefix(self, prompt: Any, request: Request) -> None:
        """Many models' templates trim a message: what is continued is then not the prefix."""
        if request.prefix and isinstance(prompt, str) and not prompt.endswith(request.prefix):
            raise EngineError(
                "the model's chat template changes a prefix (it trims white space), so that the "
                'server would continue another text; use endpoint = "completions" and its template'
            )

    def _logprob(self, choice: dict[str, Any]) -> float:
        given = choice.get("logprobs")
        try:
            if self.endpoint == "chat":
                total = math.fsum(token["logprob"] for token in given["content"])  # type: ignore[index]
            else:
                total = math.fsum(given["token_logprobs"])  # type: ignore[index]
        except (KeyError, TypeError, OverflowError) as error:
            raise EngineError(
                "the server gives no log-probabilities of its tokens; set logprobs = false"
            ) from error
        if not math.isfinite(total):
            raise BadReply("not_json", "the log-probabilities are not finite")
        return total

    def refusal(
        self, url: str, status: int, headers: Mapping[str, str], raw: bytes
    ) -> Failure | BadReply | EngineError:
        """What an HTTP status other than 2xx means."""
        what = f"HTTP {status}: {self.words(raw)}"
        if status in _RETRIED or status >= 500:
            return Failure(
                what,
                busy=status in (429, 503),
                sick=status >= 500,
                wait=retry_after(headers.get("Retry-After")),
            )
        if status == 413 or (status in (400, 422) and _TOO_LONG.search(what)):
            return BadReply("too_long", what)
        if status in (400, 422):
            return BadReply("bad_request", what)
        if 300 <= status < 400:
            return EngineError(
                f"{url}: HTTP {status}: redirects are not followed; put the server's own address "
                "in base_urls"
            )
        return EngineError(f"{url}: {what}; {_ADVICE.get(status, 'mend the engine in the plan')}")

    def words(self, raw: bytes) -> str:
        """What an error's body says."""
        try:
            said: Any = parse(raw)
        except Failure as failure:
            if failure.reason == _HTML:
                return "an HTML page"
            return self.clean(raw[:4096].decode("utf-8", "replace")) or "no body"
        for name in ("error", "message", "detail"):
            if isinstance(said, dict) and said.get(name):
                said = said[name]
        return self.clean(said if isinstance(said, str) else json.dumps(said))

    def clean(self, text: str) -> str:
        """A server's words as one short printable line without the key."""
        if self.secret:
            text = text.replace(self.secret, "***")
        text = text.encode("utf-8", "replace").decode()
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= DETAIL_CHARS else line[: DETAIL_CHARS - 1] + "…"


_ADVICE = {
    401: "set the right key in the environment variable that api_key_env names",
    403: "the key may not use this model; use another key or model",
    404: "check base_urls (it usually ends in /v1), model and endpoint",
}
_HTML = "the reply is an HTML page, not JSON"


def parse(raw: bytes) -> dict[str, Any]:
    """A JSON object; Failure (`not_json`) if it is anything else, cut or nested past all reason."""
    try:
        data = _decode(raw.decode())
    except (ValueError, RecursionError) as error:
        html = raw[:512].lstrip().startswith(b"<")
        what = _HTML if html else f"the reply is not JSON ({len(raw)} bytes)"
        raise Failure(what, "not_json") from error
    if not isinstance(data, dict):
        raise Failure("the reply is not a JSON object", "not_json")
    return data


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number or an HTTP date, 0 to the cap."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    if math.isnan(seconds):
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_CAP_S)


@lru_cache(maxsize=256)
def _structure(how: Structured, schema: str) -> dict[str, Any]:
    parsed = json.loads(schema)
    if how == "structured_outputs":
        return {"structured_outputs": {"json": parsed}}
    named = {"name": "reply", "schema": parsed, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _same_model(asked: str, claimed: str) -> bool:
    if claimed == asked:
        return True
    return claimed.startswith(asked) and bool(_SNAPSHOT.fullmatch(claimed, len(asked)))


def _is_unicode(text: str) -> bool:
    """Whether it can be stored as UTF-8: JSON's escapes can spell half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _count(usage: Any, name: str) -> int:
    """A token count; 0, which is to be read as `not stated`, where the server gives none."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0
