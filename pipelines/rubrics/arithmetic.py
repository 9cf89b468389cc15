"""Sums written in a text, such as `16 - 3 - 4 = 9`, read and checked exactly. Nothing is evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

MAX_TOKENS = 60
"""Longest side of an equation that is read, in numbers, signs and brackets."""
_MAX_DIGITS = 30
_MAX_DEPTH = 8

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
_TOKEN = re.compile(
    rf"(?P<number>{_NUMBER})(?![^\W_])(?P<percent>%?)|(?P<number_x>{_NUMBER})(?=[xX][ \d(.$])"
    r"|(?P<sign>[-+*/×÷·−–()=])|(?P<x>(?<=[\d )])[xX](?=[ \d(.$]))"
    r"|(?P<skip>[ \t$€£]+)|(?P<word>\w+)|(?P<other>.)",
    re.DOTALL,
)
_CALCULATOR = re.compile(r"<<([^<>\n]{1,200})>>")
_BULLET = re.compile(r"^[ \t]*[-*•][ \t]+")
_SAME = {"×": "*", "·": "*", "x": "*", "X": "*", "÷": "/", "−": "-", "–": "-"}
_OPERATOR_WORDS = frozenset(
    ("of", "times", "plus", "minus", "by", "over", "than", "and", "percent")
)
"""Words that make of the sum behind them a part of a larger one."""


@dataclass(frozen=True, slots=True)
class Equation:
    """One equation of numbers, with a sum on its left side."""

    operands: tuple[Fraction, ...]
    """The numbers of the left side, in order."""
    result: Fraction
    """The number on the right side."""
    holds: bool
    """Whether both sides are equal; a right side with decimals may be rounded to them."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    value: Fraction = Fraction(0)
    decimals: int = 0


def numbers(text: str) -> list[Fraction]:
    """The numbers written in digits in a text, in order; calculator notes `<<...>>` left out."""
    found = (_number(m) for m in _TOKEN.finditer(_CALCULATOR.sub(" ", text)))
    return [token.value for token in found if token is not None]


def equations(text: str) -> list[Equation]:
    """Equations of a text in order: `2 x 3 = 6`, `$9 + $3 = $12`, chains `3 + 4 = 14 / 2 = 7`.

    Understood: + - * / and their other signs, brackets, decimals, percent, thousands separators,
    currency signs, and the calculator notes `<<3+4=7>>` of GSM8K, each once. Words end an equation
    (`3 apples + 4 apples = 7` is none), and so does whatever cannot be read.
    """
    found: list[Equation] = []
    for line in text.split("\n"):
        notes = [e for note in _CALCULATOR.findall(line) for e in _of_line(note)]
        spoken = _of_line(_CALCULATOR.sub(" ", _BULLET.sub("", line)))
        # A note says again what stands before it: `3 + 4 = <<3+4=7>>7`.
        noted = {(e.operands, e.result) for e in notes}
        found += notes
        found += [e for e in spoken if (e.operands, e.result) not in noted]
    return found


def _of_line(line: str) -> Iterator[Equation]:
    for run in _runs(line):
        sides: list[list[_Token]] = [[]]
        for token in run:
            if token.kind == "=":
                sides.append([])
            else:
                sides[-1].append(token)
        for left, right in pairwise(sides):
            equation = _equation(left, right)
            if equation is not None:
                yield equation


def _runs(line: str) -> Iterator[list[_Token]]:
    """Stretches of numbers and signs, less those that go on a sum begun in words."""
    run: list[_Token] = []
    after_operator = False
    for match in _TOKEN.finditer(line):
        if match["skip"]:
            continue
        token = _number(match)
        if token is None and (match["sign"] or match["x"]):
            sign = match["sign"] or match["x"]
            token = _Token(_SAME.get(sign, sign))
        if token is not None:
            run.append(token)
            continue
        if run and not after_operator:
            yield run
        run = []
        after_operator = (match["word"] or "").lower() in _OPERATOR_WORDS
    if run and not after_operator:
        yield run


def _number(match: re.Match[str]) -> _Token | None:
    digits = match["number"] or match["number_x"]
    if not digits or len(digits) > _MAX_DIGITS:
        return None
    value = Fraction(digits.replace(",", ""))
    decimals = len(digits.partition(".")[2])
    if match["percent"]:
        return _Token("number", value / 100, decimals + 2)
    return _Token("number", value, decimals)


def _equation(left: list[_Token], right: list[_Token]) -> Equation | None:
    if len(left) < 3 or not right or max(len(left), len(right)) > MAX_TOKENS:
        return None
    value, result = _value(left), _value(right)
    if value is None or result is None:
        return None
    decimals = right[0].decimals if len(right) == 1 else 0
    slack = Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)
    operands = tuple(token.value for token in left if token.kind == "number")
    return Equation(operands, result, abs(value - result) <= slack)


def _value(tokens: list[_Token]) -> Fraction | None:
    """Value of a sum; None where it is none, or divides by zero."""
    reader = _Reader(tokens)
    try:
        value = reader.sum(0)
    except (ValueError, ZeroDivisionError):
        return None
    return value if reader.at == len(tokens) else None


class _Reader:
    """Recursive descent over tokens; ValueError where they are no sum."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self.at = 0

    def _next(self, *kinds: str) -> str | None:
        if self.at < len(self._tokens) and self._tokens[self.at].kind in kinds:
            self.at += 1
            return self._tokens[self.at - 1].kind
        return None

    def sum(self, depth: int) -> Fraction:
        value = self._product(depth)
        while sign := self._next("+", "-"):
            term = self._product(depth)
            value = value + term if sign == "+" else value - term
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._factor(depth)
        while sign := self._next("*", "/"):
            factor = self._factor(depth)
            value = value * factor if sign == "*" else value / factor
        return value

    def _factor(self, depth: int) -> Fraction:
        if depth > _MAX_DEPTH:
            raise ValueError("brackets too deep")
        if self._next("-"):
            return -self._factor(depth + 1)
        if self._next("("):
            value = self.sum(depth + 1)
            if not self._next(")"):
                raise ValueError("an open bracket")
            return value
        if self._next("number"):
            return self._tokens[self.at - 1].value
        raise ValueError("no number")
