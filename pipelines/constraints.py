"""Requirements of a prompt that code can check.

Words are what white space separates. `includes` and `excludes` look for the value as whole words,
ignoring case and how white space falls. `json` wants one JSON document, alone or in one Markdown
code fence. `matches` searches the text with RE2, whose running time is linear in the text
whatever the pattern (https://github.com/google/re2/wiki/WhyRE2), as it comes with pyarrow; it has
no look-around and no back references.
"""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.compute as pc

from schemas.records import Constraint

MAX_VALUE = 1000
"""Longest value of a constraint, in characters: it bounds the work of a check."""
_SHOWN = 40


class BadConstraint(ValueError):
    """A constraint that cannot be checked; the message says why."""


def check(constraint: Constraint, text: str) -> tuple[bool, str]:
    """Whether the text satisfies the constraint, and what was found.

    Raises BadConstraint where the constraint's value is missing, not a number or a bad pattern.
    """
    kind = constraint.kind
    if kind == "json":
        bare = text.strip()
        fenced = _FENCED.fullmatch(bare)
        return is_json(fenced[1] if fenced else bare)
    if kind == "lowercase":
        upper = next((c for c in text if c != c.lower()), None)
        return upper is None, "lowercase" if upper is None else f"holds {upper!r}"
    value = _value(constraint)
    shown = repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
    if kind == "max_words" or kind == "min_words":
        limit, words = _count(constraint, value), len(text.split())
        fine = words <= limit if kind == "max_words" else words >= limit
        return fine, f"{words} words, {'at most' if kind == 'max_words' else 'at least'} {limit}"
    if kind == "matches":
        fine = _search(value, text)
        return fine, f"{'matches' if fine else 'does not match'} {shown}"
    there = _holds_words(text, value)
    return there == (kind == "includes"), f"{'holds' if there else 'lacks'} {shown}"


def validate(constraint: Constraint) -> None:
    """Raise BadConstraint if the constraint could be checked on no text."""
    check(constraint, "")


def _value(constraint: Constraint) -> str:
    value = constraint.value
    if value is None or not value.strip():
        raise BadConstraint(f"{constraint.kind} needs a value")
    if len(value) > MAX_VALUE:
        raise BadConstraint(f"{constraint.kind}: a value of {len(value)} characters is too long")
    return value


def _count(constraint: Constraint, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()):
        raise BadConstraint(f"{constraint.kind} needs a whole number, not {value[:_SHOWN]!r}")
    return int(value)


def _holds_words(text: str, words: str) -> bool:
    text, words = (" ".join(s.split()).casefold() for s in (text, words))
    start = text.find(words)
    while start >= 0:
        end = start + len(words)
        before = start > 0 and _is_word(text[start - 1]) and _is_word(words[0])
        after = end < len(text) and _is_word(text[end]) and _is_word(words[-1])
        if not before and not after:
            return True
        start = text.find(words, start + 1)
    return False


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _search(pattern: str, text: str) -> bool:
    # A lone surrogate cannot be encoded; it stands for itself in no pattern.
    scalar = pa.scalar(text.encode("utf-8", "replace").decode())
    try:
        return bool(pc.match_substring_regex(scalar, pattern).as_py())
    except (pa.ArrowInvalid, UnicodeEncodeError) as error:
        raise BadConstraint(f"matches: {str(error).splitlines()[0][:200]}") from error


_FENCED = re.compile(r"```[A-Za-z]*[ \t]*\n(.*)\n[ \t]*```", re.DOTALL)


def is_json(text: str) -> tuple[bool, str]:
    """Whether a text is strict JSON and nothing else, and how it came out."""
    try:
        # Numbers stay text: their size is no concern of ours.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except RecursionError:
        return False, "nested too deeply"
    except ValueError as error:
        return False, f"not JSON: {error}"[:200]
    return True, "JSON"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
