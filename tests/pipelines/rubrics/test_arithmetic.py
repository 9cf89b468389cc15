"""Sums in a text: what is read, and what is not taken for one."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.rubrics.arithmetic import equations, numbers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs", [("16 3 4", "9", True)]),
        ("9 * 2 = $<<9*2=18>>18.", [("9 2", "18", True)]),
        ("He eats <<3+4=8>>8 meals", [("3 4", "8", False)]),
        ("2 x 3 = 6, 2x3=7", [("2 3", "6", True), ("2 3", "7", False)]),
        ("50 × 20% = 10", [("50 1/5", "10", True)]),
        ("(1+2)*3 = 9.", [("1 2 3", "9", True)]),
        ("$1,000 + $2,500 = $3,500", [("1000 2500", "3500", True)]),
        ("3 + 4 = 14 ÷ 2 = 7", [("3 4", "7", True), ("14 2", "7", True)]),
        ("- 3 + 4 = 7\n* 1 + 1 = 2", [("3 4", "7", True), ("1 1", "2", True)]),
        ("-3 + 4 = 1", [("3 4", "1", True)]),
        ("10 / 3 = 3.33", [("10 3", "333/100", True)]),
        ("10 / 3 = 3.34", [("10 3", "167/50", False)]),
        ("7 / 2 = 4", [("7 2", "4", False)]),
        ("20% of 50 + 3 = 13", []),
        ("3 apples + 4 apples = 7", []),
        ("x + 3 = 7, 2x = 6, 1/0 = 3, 5 = 5, 3 + = 4, (1 + 2 = 3", []),
        ("((((((((((1+1)))))))))) = 2", []),
        ("1+1=2=2", [("1 1", "2", True)]),
        ("9" * 31 + " + 1 = 2", []),
    ],
)
def test_equations(text: str, found: list[tuple[str, str, bool]]) -> None:
    assert [
        (" ".join(map(str, e.operands)), str(e.result), e.holds) for e in equations(text)
    ] == found


@given(st.integers(0, 9999), st.integers(1, 9999), st.sampled_from("+-*/"), st.integers(-1, 1))
def test_equations_hold_as_fractions_do(a: int, b: int, sign: str, off: int) -> None:
    right = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign] + off
    exact = {
        "+": Fraction(a + b),
        "-": Fraction(a - b),
        "*": Fraction(a * b),
        "/": Fraction(a, b),
    }[sign]
    (equation,) = equations(f"So {a:,} {sign} {b} = {right:,} in all")
    assert equation.operands == (a, b)
    assert equation.result == right
    assert equation.holds is (exact == right)


@given(st.text("0123456789+-*/=x().,$% \n<>a", max_size=60))
def test_no_text_of_signs_breaks_the_reader(text: str) -> None:
    for equation in equations(text):
        assert len(equation.operands) >= 1
        assert set(equation.operands) <= set(numbers(text)) or "<<" in text


def test_numbers() -> None:
    text = "3 cats, 1,250.5 dogs, 20% of $4 in A4, <<1+1=2>>2"
    assert numbers(text) == [3, Fraction(2501, 2), Fraction(1, 5), 4, 2]
