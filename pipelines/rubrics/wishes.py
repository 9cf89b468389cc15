"""What a prompt asks for in plain words that code can check: a small set of English patterns.

They rather miss a wish than read one that is not there: a rule that nobody asked for gates out good
responses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

MAX_PROMPT = 20_000
"""Characters of a prompt that are read."""


class Wish(NamedTuple):
    """A requirement found in a prompt."""

    check: str
    """Name of the verifier."""
    arguments: dict[str, Any]
    """Its arguments."""
    text: str
    """The requirement in words."""
    evidence: str
    """The span of the prompt that says so."""


_SMALL = "one two three four five six seven eight nine ten eleven twelve"
_NUMBERS = {word: n for n, word in enumerate(_SMALL.split(), 1)}
_N = rf"(?P<n>\d{{1,6}}|{'|'.join(_NUMBERS)})"
_UNIT = r"(?P<unit>words?|sentences?|bullet[ -]?points?|bullets|lines|paragraphs?)\b"
_COUNTS = (
    (rf"\b(?:at most|no more than|up to|a maximum of|maximum|not exceed(?:ing)?) {_N} {_UNIT}", "most", 0),
    (rf"\b(?:less|fewer) than {_N} {_UNIT}", "most", -1),
    (rf"\b{_N} {_UNIT} (?:or (?:less|fewer)|at most|maximum)\b", "most", 0),
    (rf"\b(?:at least|no (?:less|fewer) than|a minimum of|minimum) {_N} {_UNIT}", "least", 0),
    (rf"(?<!no )\bmore than {_N} {_UNIT}", "least", 1),
    (rf"\b{_N} ?\+ {_UNIT}", "least", 0),
    (rf"\b{_N} or more {_UNIT}", "least", 0),
    (rf"\b{_N} {_UNIT} (?:or more|at least|minimum)\b", "least", 0),
    (rf"\bexactly {_N} {_UNIT}", "exactly", 0),
)  # fmt: skip
_COUNT_PATTERNS = [(re.compile(p, re.IGNORECASE), key, step) for p, key, step in _COUNTS]
_BULLETS = re.compile(
    rf"\b(?:in|with|contain|include|of|give(?: me)?|list|write|use|using) (?:only )?{_N} "
    r"(?P<unit>bullet[ -]?points?|bullets)\b",
    re.IGNORECASE,
)
_QUOTED = r"[\"“'‘](?P<{}>[^\"”'’\n]{{1,60}})[\"”'’]"
_NOT = r"\b(?:do not|don['’]t|never|must not|should not|without|avoid|not) "
_VERB = r"(?:us(?:e|ing)|includ(?:e|ing)|mention(?:ing)?|contain(?:ing)?|say(?:ing)?|writ(?:e|ing))"
_KEYWORD = re.compile(
    rf"(?P<not>{_NOT})?(?:{_VERB} )?(?:any of )?(?:the )?(?:key)?(?P<word>words?|phrases?|terms?) "
    rf"(?:{_QUOTED.format('quoted')}|(?P<bare>[A-Za-z]{{2,30}})(?=\s*(?:[.,;!?]|$)))"
    rf"(?P<more>(?:(?:,? (?:and|or) |, ?){_QUOTED.format('q').replace('(?P<q>', '(?:')}){{0,9}})",
    re.IGNORECASE | re.MULTILINE,
)
_IN_QUOTES = re.compile(_QUOTED.format("q"))
_LEAD = re.compile(rf"(?:{_VERB}) (?:any of )?(?:the )?(?:key)?$", re.IGNORECASE)
_ANSWER = r"\b(?:answer|respond|reply|response|output|format(?:ted)?|return|written|write|provide|give|present|wrap|put)\b"
_PLAIN = (
    (
        rf"{_ANSWER}[^.\n]{{0,80}}\b(?:in|as|using|with) (?:a |an )?(?:valid )?JSON\b(?! ?schema)|\bin (?:valid )?JSON format\b",
        "constraint",
        {"kind": "json"},
        "Answer with one JSON document.",
    ),
    (
        r"\b(?:in|use|using|be|only) (?:all |only |entirely )?lower ?-?case(?: letters| english letters)?\b",
        "constraint",
        {"kind": "lowercase"},
        "Use no capital letter.",
    ),
    (
        r"\b(?:in|use|using) (?:all |only |entirely )?(?:capital letters|upper ?-?case|all ?-?caps)\b",
        "feature",
        {"name": "capitals", "least": 1.0},
        "Use capital letters only.",
    ),
    (
        r"\b(?:answer|respond|reply) (?:only )?with (?:just |only )?(?:a|one) (?:single )?number\b",
        "feature",
        {"name": "answer_is_number", "least": 1.0},
        "Answer with a number.",
    ),
    (
        r"\b(?:answer|respond|reply) (?:only |simply )?(?:with )?(?:only |just )?[\"“'‘]?yes[\"”'’]? or [\"“'‘]?no\b",
        "constraint",
        {"kind": "matches", "value": r"(?i)^\W*(yes|no)\b"},
        "Answer with yes or no.",
    ),
    (
        r"\b(?:do not|don['’]t|without|avoid|not|no)\b[^.\n]{0,30}\bcommas?\b",
        "instruction",
        {"id": "punctuation:no_comma", "arguments": {}},
        "Use no comma.",
    ),
)
_PLAIN_PATTERNS = [(re.compile(p, re.IGNORECASE), c, a, t) for p, c, a, t in _PLAIN]
_LANGUAGES = {
    "English": "en", "French": "fr", "German": "de", "Spanish": "es", "Italian": "it",
    "Portuguese": "pt", "Dutch": "nl", "Russian": "ru", "Polish": "pl", "Turkish": "tr",
    "Arabic": "ar", "Hindi": "hi", "Bengali": "bn", "Urdu": "ur", "Tamil": "ta", "Telugu": "te",
    "Marathi": "mr", "Gujarati": "gu", "Kannada": "kn", "Punjabi": "pa", "Nepali": "ne",
    "Persian": "fa", "Korean": "ko", "Japanese": "ja", "Chinese": "zh", "Vietnamese": "vi",
    "Thai": "th", "Swahili": "sw", "Finnish": "fi", "Bulgarian": "bg",
}  # fmt: skip
_LANGUAGE = re.compile(
    r"\b(?:answer|respond|reply|response|written|write (?:it|your \w+)|entirely|only)\b[^.\n]{0,40}?"
    rf"\b(?:in|using|use)(?: the| only)? (?P<language>{'|'.join(_LANGUAGES)})\b(?! (?:letters|capital|lower))",
    re.IGNORECASE,
)


_NEAR = 40
"""Characters before or behind a wish that may make another of it."""
_UNDONE = re.compile(r"\b(?:not|n['’]t|never|without|avoid|no)\b[^.\n]*$", re.IGNORECASE)
"""... before it: `do not answer in JSON`."""
_WORDS = re.compile(r"\bwords?\b[^.\n]*$", re.IGNORECASE)
"""... before capitals: `use 3 words in all caps`."""
_PARTIAL = re.compile(r"[^.\n]*\b(?:capital|caps|upper)", re.IGNORECASE)
"""... behind a count: `at least 5 words in all capital letters`."""


def wishes(text: str) -> list[Wish]:
    """The requirements found in a prompt's text, by pattern and then by place."""
    text = text[:MAX_PROMPT]
    return [*_counts(text), *_keywords(text), *_formats(text)]


def _counts(text: str) -> Iterator[Wish]:
    for pattern, key, step in _COUNT_PATTERNS:
        for match in pattern.finditer(text):
            limit = _number(match["n"]) + step
            keys = ("least", "most") if key == "exactly" else (key,)
            yield from _limits(match, keys, limit)
    for match in _BULLETS.finditer(text):
        yield from _limits(match, ("least", "most"), _number(match["n"]))


def _limits(match: re.Match[str], keys: tuple[str, ...], limit: int) -> Iterator[Wish]:
    if _PARTIAL.match(match.string, match.end(), match.end() + _NEAR):
        return
    unit = match["unit"].lower().rstrip("s")
    for key in keys:
        words = f"Write at {key} {limit} {unit}{'' if limit == 1 else 's'}."
        if unit == "word":
            kind = "max_words" if key == "most" else "min_words"
            yield Wish("constraint", {"kind": kind, "value": str(limit)}, words, match[0])
        elif unit != "paragraph":
            # What a paragraph is, prompts say in too many ways.
            name = "bullets" if unit.startswith("bullet") else f"{unit}s"
            yield Wish("feature", {"name": name, key: limit}, words, match[0])


def _number(text: str) -> int:
    return _NUMBERS.get(text.lower()) or int(text)


def _keywords(text: str) -> Iterator[Wish]:
    for match in _KEYWORD.finditer(text):
        forbidden = match["not"] is not None
        lead = text[match.start() : match.start("word")]
        if not forbidden and not _LEAD.search(lead):
            continue
        words = [match["quoted"] or match["bare"]]
        words += [more["q"] for more in _IN_QUOTES.finditer(match["more"])]
        for word in words:
            kind = "excludes" if forbidden else "includes"
            yield Wish(
                "constraint",
                {"kind": kind, "value": word.strip(" .,;")},
                f"{'Do not use' if forbidden else 'Use'} the words “{word.strip(' .,;')}”.",
                match[0],
            )


def _undone(match: re.Match[str], partial: bool) -> bool:
    before = match.string[max(0, match.start() - _NEAR) : match.start()]
    return _UNDONE.search(before) is not None or (partial and _WORDS.search(before) is not None)


def _formats(text: str) -> Iterator[Wish]:
    for pattern, check, arguments, words in _PLAIN_PATTERNS:
        match = next(
            (
                m
                for m in pattern.finditer(text)
                if check == "instruction" or not _undone(m, check == "feature")
            ),
            None,
        )
        if match:
            yield Wish(check, dict(arguments), words, match[0])
    found = _LANGUAGE.search(text)
    if found:
        name = found["language"].capitalize()
        arguments = {
            "id": "language:response_language",
            "arguments": {"language": _LANGUAGES[name]},
        }
        yield Wish("instruction", arguments, f"Answer in {name}.", found[0])
