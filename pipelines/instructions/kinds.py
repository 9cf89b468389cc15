"""The 25 kinds of verifiable instruction of IFEval (Zhou et al. 2023, arXiv 2311.07911), table 1.

Each checker takes the arguments and a text that is not blank, and says whether the instruction is
followed and what was found. Work is linear in the text. Where the paper's own program leans on
trained models, these are rules or another model: sentences end as `pipelines.process.sentences`
says (also at line breaks), words of capital letters are runs of letters and digits that hyphens,
dots or apostrophes may join, and languages are told apart by py3langid. Keywords are taken
literally, never as patterns, and `NaN` is no JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from pipelines.constraints import is_json
from pipelines.instructions.arguments import MAX_PROMPT, Arguments
from pipelines.instructions.language import LANGUAGES, language
from pipelines.process.sentences import sentence_gaps

Found = tuple[bool, str]


class Kind(NamedTuple):
    """A checker and the arguments that it takes."""

    check: Callable[[Arguments, str], Found]
    keys: tuple[str, ...] = ()


CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""What a constrained response must hold one of."""
_WORD = re.compile(r"\w+")
_JOINED = re.compile(r"\w+(?:[-.'’&]\w+)*")
_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_POSTSCRIPTS = {
    "P.S.": re.compile(r"p\.\s?s\."),
    "P.P.S": re.compile(r"p\.\s?p\.\s?s"),
}


def sentences(text: str) -> int:
    """How many sentences a text has; what holds no letter or digit is none."""
    start, count = 0, 0
    for stop, after in sentence_gaps(text):
        count += _WORD.search(text, start, stop) is not None
        start = after
    return count + (_WORD.search(text, start) is not None)


def bullets(text: str) -> int:
    """Lines that begin with `-`, or with `*` and something other than another `*`."""
    lines = (line.lstrip() for line in text.split("\n"))
    return sum(x[:1] == "-" or (x[:1] == "*" and len(x) > 1 and x[1] != "*") for x in lines)


def placeholders(text: str) -> int:
    """Brackets `[...]` that close in their line."""
    count = 0
    for line in text.split("\n"):
        at = 0
        while (start := line.find("[", at)) >= 0 and (end := line.find("]", start)) >= 0:
            count, at = count + 1, end + 1
    return count


def highlights(text: str) -> int:
    """Spans `*...*` of one line that hold something; `**...**` counts, too."""
    single = (m[0].strip("*") for m in re.finditer(r"\*[^\n*]*\*", text))
    double = (m[1] for m in re.finditer(r"\*\*([^\n*]*)\*\*", text))
    return sum(bool(x.strip()) for found in (single, double) for x in found)


def has_title(text: str) -> bool:
    """Whether a line holds `<<...>>` with something in it."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end - 2 and line[start:end].lstrip("<").rstrip(">").strip():
            return True
    return False


def _compare(arguments: Arguments, relation: str, count: str, found: int, what: str) -> Found:
    sign, limit = arguments.relation(relation), arguments.count(count)
    return (found >= limit if sign == "at least" else found < limit), f"{found} {what}"


def _at_least(arguments: Arguments, key: str, found: int, what: str) -> Found:
    return found >= arguments.count(key), f"{found} {what}"


def _exactly(arguments: Arguments, key: str, found: int, what: str) -> Found:
    return found == arguments.count(key), f"{found} {what}"


def _existence(arguments: Arguments, text: str) -> Found:
    low = text.lower()
    missing = [x for x in arguments.texts("keywords") if x.lower() not in low]
    return not missing, f"lacks {missing[0]!r}" if missing else "holds all keywords"


def _frequency(arguments: Arguments, text: str) -> Found:
    found = text.lower().count(arguments.text("keyword").lower())
    return _compare(arguments, "relation", "frequency", found, "times")


def _forbidden(arguments: Arguments, text: str) -> Found:
    low = text.lower()
    for word in arguments.texts("forbidden_words"):
        if re.search(rf"\b{re.escape(word.lower())}\b", low):
            return False, f"holds {word!r}"
    return True, "holds no forbidden word"


def _letters(arguments: Arguments, text: str) -> Found:
    letter = arguments.text("letter")
    if len(letter) != 1:
        raise arguments.bad(f"letter must be one character, not {letter!r}")
    found = text.lower().count(letter.lower())
    return _compare(arguments, "let_relation", "let_frequency", found, "times")


def _language(arguments: Arguments, text: str) -> Found:
    wanted = arguments.text("language")
    if wanted not in LANGUAGES:
        raise arguments.bad(f"language {wanted!r} is none of {', '.join(sorted(LANGUAGES))}")
    found = language(text)
    # As in the paper's program: what is in no language breaks no rule.
    return found in (wanted, None), f"language {found or 'cannot be told'}"


def _paragraphs(arguments: Arguments, text: str) -> Found:
    parts = [bool(part.strip()) for part in _DIVIDER.split(text)]
    if not all(parts[1:-1]):
        return False, "an empty paragraph"
    return _exactly(arguments, "num_paragraphs", sum(parts), "paragraphs")


def _words(arguments: Arguments, text: str) -> Found:
    found = sum(1 for _ in _WORD.finditer(text))
    return _compare(arguments, "relation", "num_words", found, "words")


def _sentences(arguments: Arguments, text: str) -> Found:
    return _compare(arguments, "relation", "num_sentences", sentences(text), "sentences")


def _first_word(arguments: Arguments, text: str) -> Found:
    wanted, nth = arguments.count("num_paragraphs"), arguments.count("nth_paragraph", 1)
    first = arguments.text("first_word").lower()
    if nth > wanted:
        raise arguments.bad(f"nth_paragraph {nth} is more than num_paragraphs {wanted}")
    parts = [part.strip() for part in text.split("\n\n")]
    count = sum(map(bool, parts))
    # As in the paper's program: empty ones are not counted, but the nth is counted among all.
    if nth > count or not parts[nth - 1]:
        return False, f"{count} paragraphs; paragraph {nth} is empty"
    word = parts[nth - 1].split(maxsplit=1)[0].lstrip("'").lstrip('"')
    word = re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower()
    return count == wanted and word == first, f"{count} paragraphs, first word {word[:40]!r}"


def _placeholders(arguments: Arguments, text: str) -> Found:
    return _at_least(arguments, "num_placeholders", placeholders(text), "placeholders")


def _postscript(arguments: Arguments, text: str) -> Found:
    marker = arguments.text("postscript_marker")
    pattern = _POSTSCRIPTS.get(marker)
    low = text.lower()
    there = pattern.search(low) is not None if pattern else marker.lower() in low
    return there, f"{'holds' if there else 'lacks'} {marker!r}"


def _bullets(arguments: Arguments, text: str) -> Found:
    return _exactly(arguments, "num_bullets", bullets(text), "bullets")


def _constrained(arguments: Arguments, text: str) -> Found:
    found = next((choice for choice in CHOICES if choice in text), None)
    return found is not None, f"holds {found!r}" if found else "holds none of the choices"


def _highlights(arguments: Arguments, text: str) -> Found:
    return _at_least(arguments, "num_highlights", highlights(text), "highlights")


def _sections(arguments: Arguments, text: str) -> Found:
    mark = re.escape(arguments.text("section_spliter"))
    found = sum(1 for _ in re.finditer(rf"{mark}\s?\d+", text))
    return _at_least(arguments, "num_sections", found, "sections")


def _json(arguments: Arguments, text: str) -> Found:
    bare = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(fence)
    return is_json(bare.removesuffix("```").strip())


def _title(arguments: Arguments, text: str) -> Found:
    there = has_title(text)
    return there, "has a title" if there else "has no title"


def _two_responses(arguments: Arguments, text: str) -> Found:
    parts = [part.strip() for part in text.split("******")]
    if not all(parts[1:-1]):
        return False, "an empty response"
    parts = [part for part in parts if part]
    if len(parts) != 2:
        return False, f"{len(parts)} responses"
    return parts[0] != parts[1], "2 responses" if parts[0] != parts[
        1
    ] else "the same response twice"


def _repeat(arguments: Arguments, text: str) -> Found:
    prompt = arguments.text("prompt_to_repeat", MAX_PROMPT).lower()
    fine = text.strip().lower().startswith(prompt)
    return fine, "begins with the prompt" if fine else "does not begin with the prompt"


def _ends(arguments: Arguments, text: str) -> Found:
    phrase = arguments.text("end_phrase", MAX_PROMPT).lower()
    fine = text.strip().strip('"').lower().endswith(phrase)
    return fine, "ends with the phrase" if fine else "does not end with the phrase"


def _capital_words(arguments: Arguments, text: str) -> Found:
    found = sum(word[0].isupper() for word in _JOINED.finditer(text))
    return _compare(arguments, "capital_relation", "capital_frequency", found, "capital words")


def _capitals(arguments: Arguments, text: str) -> Found:
    return (False, "not all capital") if not text.isupper() else _is_english(text)


def _lowercase(arguments: Arguments, text: str) -> Found:
    return (False, "not all lowercase") if not text.islower() else _is_english(text)


def _is_english(text: str) -> Found:
    found = language(text)
    return found in ("en", None), f"language {found or 'cannot be told'}"


def _no_comma(arguments: Arguments, text: str) -> Found:
    return "," not in text, f"{text.count(',')} commas"


def _quotation(arguments: Arguments, text: str) -> Found:
    bare = text.strip()
    fine = len(bare) > 1 and bare[0] == bare[-1] == '"'
    return fine, "in quotation marks" if fine else "not in quotation marks"


KINDS: dict[str, Kind] = {
    "keywords:existence": Kind(_existence, ("keywords",)),
    "keywords:frequency": Kind(_frequency, ("keyword", "relation", "frequency")),
    "keywords:forbidden_words": Kind(_forbidden, ("forbidden_words",)),
    "keywords:letter_frequency": Kind(_letters, ("letter", "let_relation", "let_frequency")),
    "language:response_language": Kind(_language, ("language",)),
    "length_constraints:number_sentences": Kind(_sentences, ("relation", "num_sentences")),
    "length_constraints:number_paragraphs": Kind(_paragraphs, ("num_paragraphs",)),
    "length_constraints:number_words": Kind(_words, ("relation", "num_words")),
    "length_constraints:nth_paragraph_first_word": Kind(
        _first_word, ("num_paragraphs", "nth_paragraph", "first_word")
    ),
    "detectable_content:number_placeholders": Kind(_placeholders, ("num_placeholders",)),
    "detectable_content:postscript": Kind(_postscript, ("postscript_marker",)),
    "detectable_format:number_bullet_lists": Kind(_bullets, ("num_bullets",)),
    "detectable_format:constrained_response": Kind(_constrained),
    "detectable_format:number_highlighted_sections": Kind(_highlights, ("num_highlights",)),
    "detectable_format:multiple_sections": Kind(_sections, ("section_spliter", "num_sections")),
    "detectable_format:json_format": Kind(_json),
    "detectable_format:title": Kind(_title),
    "combination:two_responses": Kind(_two_responses),
    "combination:repeat_prompt": Kind(_repeat, ("prompt_to_repeat",)),
    "startend:end_checker": Kind(_ends, ("end_phrase",)),
    "startend:quotation": Kind(_quotation),
    "change_case:capital_word_frequency": Kind(
        _capital_words, ("capital_relation", "capital_frequency")
    ),
    "change_case:english_capital": Kind(_capitals),
    "change_case:english_lowercase": Kind(_lowercase),
    "punctuation:no_comma": Kind(_no_comma),
}
"""Kinds by id, as they stand in IFEval's `instruction_id_list`."""
