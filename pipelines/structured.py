"""JSON replies: asked for under a schema, read strictly, asked again where they are unusable.

What is taken as a reply's JSON is one of: the whole reply; the whole reply inside one ``` fence;
prose without any brace or fence, and after it, on a line of its own and as the last thing said, the
JSON, fenced or not. A reasoning model's thought, from `<think>` at the reply's start to the only
`</think>`, is passed over with the drafts in it. All else is refused: of two objects, of one quoted
in a sentence, or of half a one none is the reply for sure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

from pipelines.engines.base import Engine, Reply, Request, Sampling
from pipelines.sampling import opening
from schemas.errors import BadReply
from schemas.records import Message

MAX_DIGITS = 15
"""Longer integers are refused: beyond 2^53 other readers of JSON change them."""
RETRY_STRIDE = 1_000_000
"""How far apart the sample indices of a request's attempts are."""

_AGAIN = frozenset({"not_json", "bad_shape", "cut_off", "empty_reply"})
# Engines that refuse a request with a schema; whether one holds a schema is not in its contract.
_WITHOUT_SCHEMA = frozenset({"local"})
_ASK = "Reply with one JSON object that fits this JSON schema, and with nothing else:\n"

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


async def ask_json(
    engine: Engine,
    messages: tuple[Message, ...],
    schema: str,
    sampling: Sampling,
    sample: int = 0,
    attempts: int = 3,
    system: str | None = None,
    heard: Callable[[Reply], None] | None = None,
) -> str:
    """A reply that fits the schema, as canonical JSON text (sorted keys, no white space).

    The schema is stated at the end of the last message, which must be the user's, and held by the
    engine where it can. An unusable reply is asked for again under a sample index that follows from
    `sample`, in [0, RETRY_STRIDE). `heard` is called with every reply, usable or not: it cost its
    tokens. Raises BadReply with the last attempt's code: `not_json`,
    `bad_shape`, `cut_off`, `empty_reply`; an engine's other codes are raised at once.
    """
    if not 0 <= sample < RETRY_STRIDE or attempts < 1:
        raise ValueError(f"sample {sample} of {attempts} attempts")
    _checked(schema)
    *before, last = opening(messages, system)
    if last.role != "user":
        raise ValueError("the last message must be the user's")
    stated = Message(role="user", content=f"{last.content}\n\n{_ASK}{schema}")
    held = None if engine.identity.kind in _WITHOUT_SCHEMA else schema
    for attempt in range(attempts):
        index = sample + attempt * RETRY_STRIDE
        try:
            reply = await engine.complete(Request((*before, stated), sampling, index, schema=held))
            if heard is not None:
                heard(reply)
            if reply.finish_reason == "length":
                raise BadReply("cut_off", "the reply was stopped by the token limit")
            return read(reply.text, schema)
        except BadReply as error:
            if error.code not in _AGAIN:
                raise
            failure = error
    raise BadReply(failure.code, f"{failure.detail} (the last of {attempts} attempts)")


def read(text: str, schema: str) -> str:
    """The one JSON object of a reply, as canonical JSON text. Raises BadReply.

    `not_json`: none, more than one, or not for sure; NaN and Infinity; half a surrogate pair.
    `bad_shape`: it does not fit the schema, says a key twice, or holds an integer of more than
    MAX_DIGITS digits or a number beyond all floats. `empty_reply`: nothing but white space.
    """
    if not text.strip():
        raise BadReply("empty_reply", "the reply is empty")
    value = _decode(_only_object(_answer(text.strip())))
    _fit(value, _checked(schema), "reply")
    canonical = _encode(value)
    try:
        canonical.encode()
    except UnicodeEncodeError:
        raise BadReply("not_json", "a text holds half a surrogate pair") from None
    return canonical


def object_form(**properties: Any) -> dict[str, Any]:
    """Schema of an object of just these keys, in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _answer(text: str) -> str:
    """What follows a thought."""
    if not text.startswith("<think>"):
        return text
    _, ended, answer = text.partition("</think>")
    if not ended or "</think>" in answer:
        raise BadReply("not_json", "where the reply's thought ends is not for sure")
    return answer.strip()


def _only_object(text: str) -> str:
    """The text of the reply's object, by the rules stated above."""
    start = text.find("{")
    if start < 0:
        raise BadReply("not_json", f"the reply holds no JSON object: {_shown(text)}")
    before, rest = text[:start].rstrip(" \t"), text[start:]
    prose = before.rstrip()
    line = prose.rpartition("\n")[2].strip()
    if line.startswith("```"):
        if line.lower() not in ("```", "```json"):
            raise BadReply("not_json", f"the reply's fence is not one of JSON: {_shown(line)}")
        if not rest.endswith("```"):
            raise BadReply("not_json", "the reply's fence is open, or followed by more")
        prose, rest = prose[: prose.rfind("```")], rest[:-3]
    elif before and not before.endswith("\n"):
        raise BadReply("not_json", "the reply's object stands within a line of prose")
    if "}" in prose or "```" in prose:
        raise BadReply("not_json", "the prose before the reply's object holds braces or a fence")
    return rest.rstrip()


def _decode(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise BadReply("not_json", "the reply is nested too deeply") from None
    except ValueError as error:
        raise BadReply(
            "not_json", f"the reply does not end with one JSON object: {error}"
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BadReply("bad_shape", "an object says a key twice")
    return found


def _constant(name: str) -> NoReturn:
    raise BadReply("not_json", f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise BadReply("bad_shape", f"an integer of {len(digits.lstrip('-'))} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadReply("bad_shape", "a number beyond all floats")
    return value


# Building a decoder takes longer than decoding a reply.
_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
)


# --- schemas --------------------------------------------------------------------------------------

_KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set[str](),
    "null": set[str](),
}


@lru_cache(maxsize=256)
def _checked(schema: str) -> dict[str, Any]:
    """A schema, if it keeps to the subset of JSON Schema that is checked here, else ValueError.

    The subset is that of OpenAI's strict mode: the root is an object, an object requires all its
    properties and takes no others (what may be missing is null), `type` is always stated.
    """
    root = json.loads(schema)
    _check(root)
    if root["type"] != "object":
        raise ValueError("the schema's root is not an object")
    return dict(root)


def _check(schema: Any) -> None:
    stated: Any = schema.get("type") if isinstance(schema, dict) else None
    kinds: list[Any] = stated if isinstance(stated, list) else [stated]
    if not kinds or any(kind not in _KINDS for kind in kinds):
        raise ValueError(f"a schema without a known type: {schema}")
    allowed = {"type", "enum", "description"}.union(*(_KEYWORDS[kind] for kind in kinds))
    if unknown := schema.keys() - allowed:
        raise ValueError(f"the schema's {', '.join(sorted(unknown))} is not checked here")
    if "object" in kinds:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            raise ValueError("an object's additionalProperties must be false")
        if set(schema.get("required", ())) != properties.keys():
            raise ValueError("an object must require all its properties")
        for inner in properties.values():
            _check(inner)
    if "array" in kinds:
        _check(schema.get("items"))


def _fit(value: Any, schema: dict[str, Any], where: str) -> None:
    """Raise BadReply where a value does not fit; no deeper than the schema is."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    # A bool is an int to Python, not to JSON.
    if not any(
        isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
        for kind in kinds
    ):
        raise BadReply("bad_shape", f"{where} is not {' or '.join(kinds)}")
    if "enum" in schema and value not in schema["enum"]:
        raise BadReply("bad_shape", f"{where} is none of its choices: {_shown(str(value))}")
    if isinstance(value, dict):
        wrong = value.keys() ^ schema["properties"].keys()
        if wrong:
            said = _shown(", ".join(sorted(wrong)))
            raise BadReply("bad_shape", f"{where} lacks or adds: {said}")
        for key, inner in value.items():
            _fit(inner, schema["properties"][key], f"{where}.{key}")
    elif isinstance(value, list):
        _within(len(value), schema, "minItems", "maxItems", f"the length of {where}")
        for index, inner in enumerate(value):
            _fit(inner, schema["items"], f"{where}[{index}]")
    elif isinstance(value, str):
        _within(len(value), schema, "minLength", "maxLength", f"the length of {where}")
    elif value is not None and not isinstance(value, bool):
        _within(value, schema, "minimum", "maximum", where)


def _within(value: float, schema: dict[str, Any], low: str, high: str, what: str) -> None:
    if value < schema.get(low, -math.inf) or value > schema.get(high, math.inf):
        raise BadReply("bad_shape", f"{what} is {value}, outside its bounds")


def _shown(text: str) -> str:
    """The beginning of what a reply says, in one line of ASCII."""
    return ascii(text[:60])
