"""What code can measure of a response: the features that mined rules put limits on.

A feature is None where it has no meaning for a text (the share of the equations that hold, where
there is none), which is not the same as 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import cached_property

from pipelines.answers import final_answer, parse_number
from pipelines.constraints import check
from pipelines.instructions import language
from pipelines.instructions.kinds import sentences
from pipelines.rubrics.arithmetic import Equation, equations, numbers
from schemas.records import Constraint, Prompt

_BULLET = re.compile(r"^[ \t]*(?:[-*+•][ \t]+|\d{1,3}[.)][ \t]+)\S")
_WORDS = re.compile(r"[^\W\d_]{4,}")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+\S", re.MULTILINE)
_JSON = Constraint(kind="json")


def asked(prompt: Prompt) -> str:
    """What the user says in a prompt, turn by turn."""
    return "\n".join(m.content for m in prompt.messages if m.role == "user")


class Reading:
    """A response beside its prompt; what several features need is read once."""

    def __init__(self, prompt_text: str, text: str) -> None:
        self.prompt = prompt_text
        self.text = text

    @cached_property
    def lines(self) -> list[str]:
        """Lines with something in them."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @cached_property
    def equations(self) -> list[Equation]:
        """The equations of numbers."""
        return equations(self.text)

    @cached_property
    def given(self) -> set[Fraction]:
        """Numbers of the prompt."""
        return set(numbers(self.prompt))

    @cached_property
    def numbers(self) -> list[Fraction]:
        """Numbers of the response."""
        return numbers(self.text)

    @cached_property
    def answer(self) -> str | None:
        """The final answer, as far as the response marks one."""
        return final_answer(self.text)

    @cached_property
    def number(self) -> Fraction | None:
        """The final answer as a number."""
        return None if self.answer is None else parse_number(self.answer)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _equations_hold(r: Reading) -> float | None:
    return _share(sum(e.holds for e in r.equations), len(r.equations))


def _operands_known(r: Reading) -> float | None:
    """Share of the operands that the prompt gives or an earlier equation came to."""
    known, found, total = set(r.given), 0, 0
    for equation in r.equations:
        found += sum(operand in known for operand in equation.operands)
        total += len(equation.operands)
        known.add(equation.result)
    return _share(found, total)


def _results_used(r: Reading) -> float | None:
    """Share of the results, but the last, that a later equation takes up."""
    used: set[Fraction] = set()
    count = 0
    for equation in reversed(r.equations):
        count += equation.result in used
        used.update(equation.operands)
    return _share(count, len(r.equations) - 1)


def _results_repeated(r: Reading) -> float | None:
    results = [e.result for e in r.equations]
    return _share(len(results) - len(set(results)), len(results))


def _given_used(r: Reading) -> float | None:
    return _share(len(r.given & set(r.numbers)), len(r.given))


def _answer_is_last_result(r: Reading) -> float | None:
    if r.number is None or not r.equations:
        return None
    return float(r.number == r.equations[-1].result)


def _answer(holds: Callable[[Fraction], bool]) -> Callable[[Reading], float | None]:
    return lambda r: None if r.number is None else float(holds(r.number))


def _repeated_lines(r: Reading) -> float | None:
    return _share(len(r.lines) - len(set(r.lines)), len(r.lines))


def _prompt_words(r: Reading) -> float | None:
    wanted = {word.lower() for word in _WORDS.findall(r.prompt)}
    return _share(len(wanted & {word.lower() for word in _WORDS.findall(r.text)}), len(wanted))


def _same_language(r: Reading) -> float | None:
    theirs, ours = language(r.prompt), language(r.text)
    return None if theirs is None or ours is None else float(theirs == ours)


def _capitals(r: Reading) -> float | None:
    big = sum(map(str.isupper, r.text))
    return _share(big, big + sum(map(str.islower, r.text)))


Feature = tuple[Callable[[Reading], float | None], str]
FEATURES: dict[str, Feature] = {
    "characters": (lambda r: len(r.text), "its length in characters"),
    "words": (lambda r: len(r.text.split()), "its number of words"),
    "lines": (lambda r: len(r.lines), "its number of lines or steps"),
    "sentences": (lambda r: sentences(r.text), "its number of sentences"),
    "bullets": (lambda r: sum(map(bool, map(_BULLET.match, r.lines))), "its number of bullets"),
    "headings": (lambda r: len(_HEADING.findall(r.text)), "its number of headings"),
    "fences": (lambda r: len(_FENCE.findall(r.text)), "its number of code fences"),
    "json": (lambda r: float(check(_JSON, r.text)[0]), "whether it is JSON"),
    "capitals": (_capitals, "the share of its letters that are capitals"),
    "same_language": (_same_language, "whether it is in the prompt's language"),
    "prompt_words": (_prompt_words, "the share of the prompt's words in it"),
    "repeated_lines": (_repeated_lines, "the share of its lines that repeat another"),
    "numbers": (lambda r: len(r.numbers), "the count of numbers in it"),
    "given_used": (_given_used, "the share of the prompt's numbers in it"),
    "equations": (lambda r: len(r.equations), "its number of equations"),
    "equations_hold": (_equations_hold, "the share of its equations that hold"),
    "operands_known": (_operands_known, "the share of operands given or worked out before"),
    "results_used": (_results_used, "the share of results that a later equation uses"),
    "results_repeated": (_results_repeated, "the share of its results that repeat another"),
    "final_answer": (lambda r: float(r.answer is not None), "whether it marks a final answer"),
    "answer_is_number": (
        lambda r: float(r.number is not None or parse_number(r.text) is not None),
        "whether its final answer is a number",
    ),
    "answer_is_whole": (
        _answer(lambda n: n.denominator == 1),
        "whether its final answer is a whole number",
    ),
    "answer_is_positive": (_answer(lambda n: n > 0), "whether its final answer is above 0"),
    "answer_is_given": (
        lambda r: None if r.number is None else float(r.number in r.given),
        "whether its final answer is a number of the prompt",
    ),
    "answer_is_last_result": (
        _answer_is_last_result,
        "whether its final answer is the last equation's result",
    ),
}
"""Features by name: how each is measured, and what it is in words (`whether ...`: 1 or 0)."""


def measure(name: str, reading: Reading) -> float | None:
    """A feature's value; None where it has no meaning for the text. KeyError if it is unknown."""
    value = FEATURES[name][0](reading)
    return None if value is None else float(value)
