"""Prompt templates: Markdown files with slots, filled with text that nobody vouches for.

A template file has two parts, each under a line of its own, `# system` and `# user`. A line of the
user part that is `{{name}}` and nothing else is a slot. A filling stands there as a block between
tags whose code is a hash of all fillings and is in none of them, so no text can close its block:

    <steps-9f86d081884c7d65>
    ...
    </steps-9f86d081884c7d65>

What stands between the lines `{{#name}}` and `{{/name}}` is a section: it holds the slot `{{name}}`
and the words about it, and is left out where `name` has no value.

The special tokens of chat models (`<|im_end|>`, `[INST]`, `<s>` and the like) are broken by a
zero-width joiner after their first character: they read the same and no tokenizer takes them for
what they say, so no text can end its turn either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from schemas.record import digest as hashed
from schemas.records import Message

FORMAT = 2
"""Version of how a template is filled: part of every template's digest."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PARTS = re.compile(r"\s*# system\n(?P<system>.*?)\n# user\n(?P<user>.*)", re.DOTALL)
_SLOT = re.compile(r"^\{\{([a-z][a-z0-9_]*)\}\}$", re.MULTILINE)
_SECTION = re.compile(
    r"^\{\{#(?P<name>[a-z][a-z0-9_]*)\}\}\n(?P<text>.*?)^\{\{/(?P=name)\}\}\n\s*",
    re.MULTILINE | re.DOTALL,
)
# First characters of special tokens: <|im_end|> and <｜User｜>; <s>, </s>, <bos>, <think> ...;
# <start_of_turn>, <tool_call>; <<SYS>>; [INST], [/TOOL_RESULTS], [UNUSED_TOKEN_1]. No part of the
# pattern can match a text in two ways: it takes linear time.
_SPECIAL = re.compile(
    r"<(?=[|｜])"
    r"|<(?=/?(?:s|bos|eos|bot|eot|pad|unk|mask|cls|sep|sop|eop|think|image|audio|video|unused\d+)>)"
    r"|<(?=/?[A-Za-z]+(?:[_▁][A-Za-z0-9]+)+>)"
    r"|<(?=</?SYS>>)"
    r"|\[(?=/?[A-Z][A-Z0-9_]{2,}\])"
    r"|\[(?=(?:gMASK|sMASK|unused\d+)\])"
)
_JOINER = "\u200d"


@dataclass(frozen=True)
class Template:
    """A prompt with slots. `digest` covers its text and how it is filled."""

    name: str
    system: str
    user: str
    slots: frozenset[str]
    optional: frozenset[str]
    """The slots that need no value: those of sections."""
    digest: str

    def fill(self, values: Mapping[str, str]) -> tuple[Message, ...]:
        """The system and the user message; every value stands in a block of its own, as it reads.

        Raises ValueError where a slot has no value or a value no slot.
        """
        if wrong := (self.slots ^ values.keys()) - (self.optional - values.keys()):
            said = ", ".join(sorted(wrong))
            raise ValueError(f"template {self.name}: slots and values differ in: {said}")
        shown = {name: unspecial(text) for name, text in values.items()}
        code = _code(self.digest, shown)
        # Words and slots' names by turns.
        pieces = list(_pieces(self.user, frozenset(shown)))
        pieces[1::2] = [_block(name, shown[name], code) for name in pieces[1::2]]
        user = Message(role="user", content="".join(pieces))
        return (Message(role="system", content=self.system), user)


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
    system, user = match["system"].strip(), match["user"].strip() + "\n"
    optional = set()
    for section in _SECTION.finditer(user):
        if _SLOT.findall(section["text"]) != [section["name"]] or section["name"] in optional:
            raise ValueError(
                f"template {name}: section {section['name']} is to hold its slot alone"
            )
        optional.add(section["name"])
    if "{{" in system or "{{" in _SLOT.sub("", _SECTION.sub(r"\g<text>", user)):
        raise ValueError(f"template {name}: a slot stands alone on a line of the user part")
    slots = frozenset(_SLOT.findall(user))
    if twice := optional.intersection(_SLOT.findall(_SECTION.sub("", user))):
        raise ValueError(f"template {name}: {', '.join(sorted(twice))} is also outside its section")
    return Template(
        name, system, user, slots, frozenset(optional), hashed("template", FORMAT, name, text)
    )


def numbered(kind: str, texts: Sequence[str]) -> str:
    """Texts as one value: each in a block of its own, `<kind-1-...>` and so on."""
    return tagged([(kind, text) for text in texts])


def tagged(parts: Sequence[tuple[str, str]]) -> str:
    """Texts of several kinds as one value: (kind, text) each, in blocks `<kind-1-...>` and so on."""
    values = {
        f"{kind}-{index}": unspecial(text) for index, (kind, text) in enumerate(parts, start=1)
    }
    code = _code("", values)
    return "\n".join(_block(name, text, code) for name, text in values.items())


def unspecial(text: str) -> str:
    """A text that reads the same and holds no special token of a chat model."""
    if "<" not in text and "[" not in text:
        return text  # most texts, and much faster
    return _SPECIAL.sub(rf"\g<0>{_JOINER}", text)


@lru_cache(maxsize=64)
def _pieces(user: str, given: frozenset[str]) -> list[str]:
    """A user part without the sections that have no value, cut at its slots."""
    kept = _SECTION.sub(lambda part: part["text"] if part["name"] in given else "", user)
    return _SLOT.split(kept.strip())


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
