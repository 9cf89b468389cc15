"""Prompts and responses out of the forms that preference data takes."""

from __future__ import annotations

from typing import Any

from pipelines.readers import BadRow

MOST = 200_000
"""Characters of a text; a row with a longer one is rejected."""
_ASSISTANT = "\n\nAssistant:"


def is_messages(value: Any) -> bool:
    """Whether it is a list of messages with role and content."""
    return isinstance(value, list) and all(
        isinstance(m, dict) and "content" in m and "role" in m for m in value
    )


def text_of(value: Any) -> str:
    """A response's text: a string, or the messages that make it."""
    if isinstance(value, list) and value and is_messages(value):
        contents = [m["content"] for m in value]
        if all(isinstance(text, str) for text in contents):
            value = contents[0] if len(contents) == 1 else _joined(value)
    if not isinstance(value, str):
        raise BadRow("bad_type", f"a {type(value).__name__}, not a text or a list of messages")
    return _sound(value)


def _sound(text: str) -> str:
    if len(text) > MOST:
        raise BadRow("too_long", f"{len(text)} characters")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRow("invalid_utf8", "a lone surrogate") from error
    return text


def _joined(messages: list[dict[str, Any]]) -> str:
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def prompt_of(value: Any) -> tuple[str, str]:
    """The whole prompt, and what the user said last."""
    if value is None:
        return "", ""
    if isinstance(value, list) and value and is_messages(value):
        said = [m["content"] for m in value if m["role"] == "user"] or [value[-1]["content"]]
        return text_of(value), _sound(str(said[-1]))
    text = text_of(value)
    return text, _last_turn(text)


def _last_turn(text: str) -> str:
    """What the user says last in `\\n\\nHuman: ... \\n\\nAssistant:` text; else the whole text."""
    at = text.rfind("\n\nHuman:")
    return text[at + 8 :].removesuffix(_ASSISTANT).strip() if at >= 0 else text


def sides_of(prompt: Any, chosen: Any, rejected: Any) -> tuple[str, str, str, str]:
    """Prompt, what the user said last, and the two responses: what both begin with is the prompt's."""
    if is_messages(chosen) and is_messages(rejected) and chosen and rejected:
        same = 0
        while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
            same += 1
        shared = chosen[:same]
        if is_messages(prompt) and shared[: len(prompt)] != prompt:
            shared = [*prompt, *shared]
        asked, last = prompt_of(shared or prompt)
        good, bad = text_of(chosen[same:]), text_of(rejected[same:])
    else:
        asked, last = prompt_of(prompt)
        good, bad = text_of(chosen), text_of(rejected)
        if asked and good.startswith(asked) and bad.startswith(asked):
            good, bad = good[len(asked) :], bad[len(asked) :]
        head = _shared_turns(good, bad)
        if head:
            asked = asked + good[:head]
            last = _last_turn(asked)
            good, bad = good[head:], bad[head:]
    good, bad = good.strip(), bad.strip()
    if not good and not bad:
        raise BadRow("empty_side", "both responses are empty")
    if good == bad:
        raise BadRow("same_sides", "chosen and rejected are the same")
    return asked, last, good, bad


def _shared_turns(good: str, bad: str) -> int:
    """Characters up to and with the last `\\n\\nAssistant:` that both texts share; 0: there is none."""
    if _ASSISTANT not in good or _ASSISTANT not in bad:
        return 0
    low, high = 0, min(len(good), len(bad))
    while low < high:  # the length of the common beginning, by halves
        middle = (low + high + 1) // 2
        low, high = (middle, high) if good[:middle] == bad[:middle] else (low, middle - 1)
    at = good.rfind(_ASSISTANT, 0, low)
    return at + len(_ASSISTANT) if at >= 0 else 0
