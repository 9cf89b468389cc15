"""Prompt templates: Markdown files with slots, filled with text that nobody vouches for.

A template file has two parts, each under a line of its own, `# system` and `# user`. A line of the
user part that is `{{name}}` and nothing else is a slot. A filling stands there as a block between
tags whose code is a hash of all fillings and is in none of them, so no text can close its block:

    <steps-9f86d081884c7d65>
    ...
    </steps-9f86d081884c7d65>
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from schemas.record import digest as hashed
from schemas.records import Message

FORMAT = 1
"""Version of how a template is filled: part of every template's digest."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PARTS = re.compile(r"\s*# system\n(?P<system>.*?)\n# user\n(?P<user>.*)", re.DOTALL)
_SLOT = re.compile(r"^\{\{([a-z][a-z0-9_]*)\}\}$", re.MULTILINE)


@dataclass(frozen=True)
class Template:
    """A prompt with slots. `digest` covers its text and how it is filled."""

    name: str
    system: str
    user: str
    slots: frozenset[str]
    digest: str

    def fill(self, values: Mapping[str, str]) -> tuple[Message, ...]:
        """The system and the user message; every value stands in a block of its own, as it is.

        Raises ValueError where a slot has no value or a value no slot.
        """
        if wrong := self.slots ^ values.keys():
            said = ", ".join(sorted(wrong))
            raise ValueError(f"template {self.name}: slots and values differ in: {said}")
        code = _code(self.digest, values)
        # A function, so that nothing in a value is read as a pattern's reference.
        user = _SLOT.sub(lambda slot: _block(slot[1], values[slot[1]], code), self.user)
        return (Message(role="system", content=self.system), Message(role="user", content=user))


@lru_cache(maxsize=64)
def load(folder: Path, name: str) -> Template:
    """The template of the file `name`.md of a folder. Raises ValueError where it is not one."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a template's name")
    return parse(name, (folder / f"{name}.md").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Template:
    """The template that a file's text states."""
    match = _PARTS.fullmatch(text)
    if not match:
        raise ValueError(f"template {name}: has no line `# system` followed by a line `# user`")
    system, user = match["system"].strip(), match["user"].strip()
    if "{{" in system or "{{" in _SLOT.sub("", user):
        raise ValueError(f"template {name}: a slot stands alone on a line of the user part")
    slots = frozenset(_SLOT.findall(user))
    return Template(name, system, user, slots, hashed("template", FORMAT, name, text))


def numbered(kind: str, texts: Sequence[str]) -> str:
    """Texts as one value: each in a block of its own, `<kind-1-...>` and so on."""
    values = {f"{kind}-{index}": text for index, text in enumerate(texts, start=1)}
    code = _code(kind, values)
    return "\n".join(_block(name, text, code) for name, text in values.items())


def _block(name: str, text: str, code: str) -> str:
    return f"<{name}-{code}>\n{text}\n</{name}-{code}>"


def _code(salt: str, values: Mapping[str, str]) -> str:
    """16 hex digits that follow from the values and are in none of them."""
    tries = 0
    while True:
        code = hashed("block", salt, dict(values), tries)[:16]
        if not any(code in text.casefold() for text in values.values()):
            return code
        tries += 1
