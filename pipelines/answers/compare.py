"""Compare final answers with references, one way a verifier."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

from pipelines import sandbox
from pipelines.answers import symbolic
from pipelines.answers.code import bad_tests, find_code
from pipelines.answers.find import final_answer
from pipelines.answers.numbers import Number, number_as_written, read_number
from pipelines.answers.sets import read_sets, same_sets
from pipelines.answers.text import MAX_CHARS, first_sentence, normal, plain

Verifier = Literal["numeric", "choice", "exact", "set", "latex", "code"]


class Verdict(NamedTuple):
    """Whether an answer is right, none if it could not be read; and what makes it wrong."""

    right: bool | None
    why: str = ""


def find(
    text: str, verifier: Verifier, *, last_number: bool = False, cut: bool = False
) -> str | None:
    """Find a response's final answer, or its code for `code`; None if there is none.

    `last_number` and `cut` as in `final_answer`; the last number of a text is no formula or set.
    """
    if verifier == "code":
        return find_code(text, cut=cut)
    return final_answer(text, last_number=last_number and verifier != "latex", cut=cut)


def readable(text: str, verifier: Verifier) -> bool:
    """Whether `equal` can use this text as a reference."""
    return why_unreadable(text, verifier) is None


def why_unreadable(reference: str, verifier: Verifier) -> str | None:
    """What keeps a text from being a reference; None if nothing does. Runs no code."""
    if verifier == "code":
        why = bad_tests(reference)
        return f"is no test code: {why}" if why else None
    marked = final_answer(reference) or reference
    return None if _READABLE[verifier](marked) else f"is no {verifier} answer"


def equal(answer: str, reference: str, verifier: Verifier) -> bool | None:
    """Compare a final answer with a reference; None if one of them cannot be read.

    `reference` may be a whole solution that ends in a marked answer. If the answer goes on after
    its first sentence ("72. I hope this helps"), that sentence may be the answer.

    - `numeric` compares exact rationals and has no tolerance: 1/2 equals 0.5, 0.333 is not 1/3. A
      percent sign on one side only is either a number (50% equals 0.5) or, beside a number above
      1, a unit that the question asked for (50% equals 50, but 0.5% is not 0.5).
    - `choice` compares the letter.
    - `exact` compares text after Unicode NFC, case folding, collapsing white space and stripping
      Markdown, quotes, brackets and the final dot.
    - `set` compares collections: see `pipelines.answers.sets`.
    - `latex` compares numbers as `numeric` does, words as `exact` does, and formulas by their
      values at fixed points: see `pipelines.answers.symbolic_worker`. Over its limits: None.
    - `code` runs the answer and then the reference, which is unit tests, in a sandbox. None if the
      answer is no Python.
    """
    return judge(answer, reference, verifier).right


def judge(answer: str, reference: str, verifier: Verifier) -> Verdict:
    """As `equal`, with the reason. Raises UserError where code cannot be isolated here."""
    if verifier == "code":
        ran = sandbox.run_tests(answer, reference)
        return Verdict(ran.passed, "" if ran.passed else ran.reason)
    marked = final_answer(reference) or reference
    if verifier == "exact":
        right = _same_text(answer, marked, reference)
    else:
        right = _SAME[verifier](answer, marked)
    return Verdict(right, f"{_short(answer)} is not {_short(marked)}" if right is False else "")


def _same_numbers(answer: str, reference: str) -> bool | None:
    ours, theirs = read_number(answer), read_number(reference)
    return None if ours is None or theirs is None else _equal_numbers(ours, theirs)


def _equal_numbers(ours: Number, theirs: Number) -> bool:
    if ours.value == theirs.value or ours.percent == theirs.percent:
        return ours.value == theirs.value
    percent, bare = (ours, theirs) if ours.percent else (theirs, ours)
    return abs(bare.value) > 1 and percent.value * 100 == bare.value


# --- choices -------------------------------------------------------------------------------------

_CHOICE = re.compile(
    r"(?:(?:option|choice|answer) ?)?[(\[]? ?([A-Za-z]) ?(?:(?:[)\].:]+| - |(?=\())(?P<rest>.*))?",
    re.IGNORECASE | re.DOTALL,
)
_ANOTHER = re.compile(r"\s*(?:and\b|or\b|[,/&+])", re.IGNORECASE)


def _choice(text: str) -> str | None:
    """The letter of a multiple-choice answer: B of `B`, `b)`, `(B)`, `B. Paris`, `option B`."""
    match = _CHOICE.fullmatch(plain(text))
    if not match or _ANOTHER.match(match["rest"] or ""):
        return None
    return match[1].upper()


def _read_choice(text: str) -> str | None:
    return _choice(text) or _choice(first_sentence(text))


def _same_choice(answer: str, reference: str) -> bool | None:
    letter, right = _read_choice(answer), _read_choice(reference)
    return None if letter is None or right is None else letter == right


# --- text ----------------------------------------------------------------------------------------


def _same_text(answer: str, marked: str, reference: str) -> bool | None:
    if not normal(reference) or not normal(answer):
        return None
    ours_or_its_start = {normal(answer), normal(first_sentence(answer))}
    return not ours_or_its_start.isdisjoint({normal(reference), normal(marked)})


# --- formulas ------------------------------------------------------------------------------------

_WORDS = re.compile(r"[^\W\d_]{2,}(?:[ '’-][^\W\d_]+)*")
# Words behind a number that make it a formula and no number with a unit.
_IN_FORMULAS = re.compile(
    r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|log|ln|exp|sqrt|alpha|beta|gamma|delta|theta|lambda|mu|rho"
    r"|sigma|tau|phi|omega|infty|e|i|mod"
)
_FACTORIAL = re.compile(r"[\d)]!\W*$")


def _words(text: str) -> str | None:
    """An answer in words, such as `\\text{no solution}`, as `exact` compares it."""
    bare = normal(text)
    return bare if _WORDS.fullmatch(bare) and "\\" not in plain(text) else None


def _plain_number(text: str) -> Number | None:
    """A number that is no part of a formula: with no unit, or with words of three letters or more."""
    number = None if _FACTORIAL.search(text) else number_as_written(text)
    if number is None or not number.unit:
        return number
    words = re.findall(r"[^\W\d_]+", number.unit.casefold())
    is_unit = all(not _IN_FORMULAS.fullmatch(word) for word in words) and (
        not words or len(words[0]) > 2
    )
    return number if is_unit else None


def _is_latex(text: str) -> bool:
    if len(text) > MAX_CHARS:
        return False
    return bool(_plain_number(text) or _words(text)) or symbolic.is_formula(text)


def _same_latex(answer: str, reference: str) -> bool | None:
    if len(reference) > MAX_CHARS:
        return None
    verdict = None
    for text in dict.fromkeys((answer, first_sentence(answer))):
        if 0 < len(text) <= MAX_CHARS:
            same = _same_formula(text, reference)
            if same:
                return True
            verdict = same if verdict is None else verdict
    # `5!` is a factorial, or a cheer and right after all.
    if _FACTORIAL.search(answer) and _same_formula(answer.rstrip("!. "), reference):
        return True
    return verdict


def _same_formula(answer: str, reference: str) -> bool | None:
    ours, theirs = _plain_number(answer), _plain_number(reference)
    # Names count where both have one: x = 1 is not y = 1.
    if ours and theirs and not ("=" in answer and "=" in reference):
        return _equal_numbers(ours, theirs)
    said, words = _words(answer), _words(reference)
    # Two or three letters may be a product of variables.
    if words is not None and said is not None and (said == words or len(words) > 3):
        return said == words
    return symbolic.same_formulas(answer, reference)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else line[:39] + "…"


_READABLE: dict[str, Callable[[str], bool]] = {
    "numeric": lambda text: read_number(text) is not None,
    "choice": lambda text: _read_choice(text) is not None,
    "exact": lambda text: bool(normal(text)),
    "set": lambda text: bool(read_sets(text)),
    "latex": _is_latex,
}
_SAME: dict[str, Callable[[str, str], bool | None]] = {
    "numeric": _same_numbers,
    "choice": _same_choice,
    "set": same_sets,
    "latex": _same_latex,
}
