"""The arguments of a verifiable instruction, read strictly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 200
"""Longest keyword, in characters: it bounds the work of a check."""
MAX_PROMPT = 100_000
"""Longest prompt or phrase to be repeated, in characters."""
MAX_COUNT = 10**9
RELATIONS = ("at least", "less than")


class BadInstruction(ValueError):
    """An instruction that cannot be checked; the message says why."""


class Arguments:
    """Arguments of one instruction; a bad one raises BadInstruction as it is read."""

    def __init__(self, id: str, values: Mapping[str, Any]) -> None:
        self.id = id
        self._values = values

    def count(self, key: str, least: int = 0) -> int:
        """A whole number; a float that is one counts, since tables often turn numbers into floats."""
        value = self._required(key)
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_COUNT:
            raise self.bad(f"{key} must be a whole number of at least {least}, not {value!r:.60}")
        return value

    def text(self, key: str, longest: int = MAX_TEXT) -> str:
        """A text with something in it, without the white space around it."""
        return self._text(key, self._required(key), longest)

    def texts(self, key: str) -> list[str]:
        """A list of at least one such text."""
        value = self._required(key)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= 100:
            raise self.bad(f"{key} must be a list of 1 to 100 texts")
        return [self._text(key, item, MAX_TEXT) for item in value]

    def relation(self, key: str) -> str:
        """`at least` or `less than`."""
        value = self._required(key)
        if value not in RELATIONS:
            raise self.bad(f"{key} must be one of {', '.join(RELATIONS)}, not {value!r:.60}")
        return str(value)

    def bad(self, why: str) -> BadInstruction:
        """The error that says so of this instruction."""
        return BadInstruction(f"{self.id}: {why}")

    def _required(self, key: str) -> Any:
        value = self._values.get(key)
        if value is None:
            raise self.bad(f"{key} is missing")
        return value

    def _text(self, key: str, value: Any, longest: int) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.bad(f"{key} must be text, not {value!r:.60}")
        if len(value) > longest:
            raise self.bad(f"{key}: {len(value)} characters are more than {longest}")
        return value.strip()
