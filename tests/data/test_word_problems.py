"""The checker on hand-written solutions of each family, and on planted errors."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.make_prompts import demo_problems, eval_problems, files
from data.word_grammar import compute
from data.word_problems import (
    FAMILIES,
    MAX_STEPS,
    MAX_VALUE,
    MIN_STEPS,
    Problem,
    UnknownProblem,
    check,
    generate,
    parse,
    solve,
)

CHAIN = "Ana has 3 pens. She gets 4 more. Tom has 6 hats. She loses 2. How many pens does Ana have?"
GROUPS = (
    "Sam has 3 trays of 9 cups. He gets 5 more trays of 4. He loses 7. How many cups does Sam have?"
)
SHARE = "Jon has 17 nuts. He gets 4 more. He puts them evenly in 7 bags. How many nuts are in each?"
SCALE = "Mia has 8 eggs. She doubles them. She finds 4 more. She gives away half. How many eggs does Mia have?"
COMPARE = (
    "Ida has 6 toys. Leo has three times as many as Ida. Ben has 5 fewer than Leo. Leo gets 9 more. "
    "How many toys do they have in all?"
)
DIFFER = "Ida has 6 toys. Leo has 8 more than Ida. How many more toys does Leo have than Ida?"
PRICES = (
    "One hat costs 4 coins. One cup costs 6 coins. One pen costs 5 coins. Ida buys 7 cups. "
    "Ida buys 3 hats. A coupon takes off 9 coins. She pays with 70 coins. How many coins come back?"
)

REFERENCES = {
    CHAIN: "3+4=7 7-2=5 #5",
    GROUPS: "3*9=27 5*4=20 27+20=47 47-7=40 #40",
    SHARE: "17+4=21 21/7=3 #3",
    SCALE: "8*2=16 16+4=20 20/2=10 #10",
    COMPARE: "6*3=18 18-5=13 18+9=27 6+27=33 33+13=46 #46",
    DIFFER: "6+8=14 14-6=8 #8",
    PRICES: "7*6=42 3*4=12 42+12=54 54-9=45 70-45=25 #25",
}

# (problem, solution, kinds of its steps, is the answer right)
CASES = [
    (CHAIN, "4+3=7 7-2=5 #5", "- - -", True),  # + commutes
    (CHAIN, "3+4=8 8-2=6 #6", "arithmetic - -", False),  # later steps follow from the wrong 8
    (CHAIN, "3+4=8 8-2=5 #5", "arithmetic arithmetic -", True),  # two errors cancel out
    (CHAIN, "3-4=-1 -1-2=-3 #-3", "operation - -", False),
    (CHAIN, "3+4=7 2-7=-5 #-5", "- operand -", False),  # - does not commute
    (CHAIN, "3+4=7 7-3=4 #4", "- operand -", False),
    (CHAIN, "3+4=7 9-2=7 #7", "- operand -", False),  # the running value copied wrongly
    (CHAIN, "3-2=1 #1", "missed_sentence -", False),
    (CHAIN, "3+4=7 #7", "- missed_sentence", False),  # it stops early
    (CHAIN, "3+4=7 7-6=1 #1", "- distractor -", False),  # Tom's hats in place of the 2
    (CHAIN, "3+4=7 7+6=13 13-2=11 #11", "- distractor - -", False),  # ... and beside it
    (CHAIN, "3+4=7 3+4=7 7-2=5 #5", "- repeated - -", True),
    (CHAIN, "3+4=7 7-2=5 5+1=6 #6", "- - extra -", False),
    (CHAIN, "3+4=7 8*9=72 #72", "- off_plan -", False),
    (CHAIN, "3+4=7 7-2=5 #6", "- - final_line", False),
    (CHAIN, "3+4=7 7-2=5 #5 #5", "- - - malformed", True),
    (CHAIN, "3+4=7 7- #5", "- malformed final_line", True),
    (CHAIN, "3+4=7", "-", False),  # truncated: no error yet, and no answer
    (CHAIN, "", "", False),
    (GROUPS, "5*4=20 3*9=27 27+20=47 47-7=40 #40", "- - - - -", True),  # independent order
    (GROUPS, "3+9=12 5*4=20 12+20=32 32-7=25 #25", "operation - - - -", False),
    (GROUPS, "3*9=27 27+5=32 32-7=25 #25", "- operand - -", False),  # trays counted as cups
    (GROUPS, "3*9=27 27-7=20 #20", "- missed_sentence -", False),
    (SHARE, "17+4=21 21/7=4 #4", "- arithmetic -", False),
    (SHARE, "17+4=22 22/7=3 #3", "arithmetic arithmetic -", True),  # 22/7 is not 3
    (SHARE, "17+4=21 21*7=147 #147", "- operation -", False),
    (SHARE, "17+4=21 21/0=0 #0", "- operand -", False),
    (SHARE, "17+4=21 #21", "- missed_sentence", False),
    (SCALE, "8*2=16 16/2=8 #8", "- missed_sentence -", False),
    (SCALE, "8+2=10 10+4=14 14/2=7 #7", "operation - - -", False),
    (SCALE, "8*2=16 16+4=20 20-2=18 #18", "- - operation -", False),
    (COMPARE, "6*3=18 18+9=27 18-5=13 6+27=33 33+13=46 #46", "- - - - - -", True),
    (COMPARE, "6*3=18 18+9=27 27-5=22 6+27=33 33+22=55 #55", "- - operand - - -", False),
    (COMPARE, "6*3=18 18-5=13 6+18=24 24+13=37 #37", "- - missed_sentence - -", False),
    (COMPARE, "6*3=18 18-5=13 18+9=27 6+27=33 #33", "- - - - missed_sentence", False),
    (DIFFER, "6+8=14 14+6=20 #20", "- operation -", False),
    (DIFFER, "6+8=14 6-14=-8 #-8", "- operand -", False),
    (PRICES, "3*4=12 7*6=42 42+12=54 54-9=45 70-45=25 #25", "- - - - - -", True),
    (PRICES, "7*4=28 3*4=12 28+12=40 40-9=31 70-31=39 #39", "operand - - - - -", False),
    (PRICES, "7*6=42 3*5=15 42+15=57 57-9=48 70-48=22 #22", "- distractor - - - -", False),
    (PRICES, "7*6=42 42-9=33 70-33=37 #37", "- missed_sentence - -", False),  # the hats
    (PRICES, "7*6=42 3*4=12 42+12=54 70-54=16 #16", "- - - missed_sentence -", False),
    (PRICES, "7*6=42 3*4=12 42+12=54 54-9=45 70+45=115 #115", "- - - - operation -", False),
]


@pytest.mark.parametrize("problem", REFERENCES)
def test_reference_solutions(problem: str) -> None:
    assert " ".join(solve(problem)) == REFERENCES[problem]


@pytest.mark.parametrize(("problem", "solution", "kinds", "right"), CASES)
def test_hand_written(problem: str, solution: str, kinds: str, right: bool) -> None:
    result = check(problem, solution.replace(" ", "\n"))
    wanted = [None if kind == "-" else kind for kind in kinds.split()]
    assert [step.kind for step in result.steps] == wanted
    assert result.first_error == next((i for i, k in enumerate(wanted) if k), None)
    assert result.right is right
    assert result.complete is ("#" in solution)


def test_spaces_within_a_line_do_not_matter() -> None:
    assert check(CHAIN, " 3 + 4 = 7\r\n7 - 2 = 5\r\n# 5 \n").first_error is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "one question"),
        ("What is love?", "one question"),
        ("Ana has 3 pens. She eats 2. How many pens does Ana have?", "not a sentence"),
        ("Ana has 3 pens. How many pens does Ana have?", "no step"),
        ("Ana has 3 pens. Tom gets 2 more. How many pens does Ana have?", "'Tom'"),
        (
            "Ana has 3 pens. Tom has 2 more than Ana. How many pens does Ana have?",
            "last quantity",
        ),
    ],
)
def test_other_problems_are_refused(text: str, why: str) -> None:
    with pytest.raises(UnknownProblem, match=why):
        check(text, "#3")


def test_generate_is_seeded_distinct_and_within_bounds() -> None:
    first = generate(600, seed=5)
    assert first == generate(600, seed=5)
    assert first[:100] == generate(100, seed=5)
    assert {p.family for p in first} == set(FAMILIES)
    assert len({p.text for p in first}) == 600
    assert {len(p.solution) - 1 for p in first} == set(range(MIN_STEPS, MAX_STEPS + 1))
    assert all(1 <= v <= MAX_VALUE for p in first for v in parse(p.text).values())
    others = generate(100, seed=5, exclude=[p.text for p in first])
    assert not {p.text for p in first} & {p.text for p in others}
    assert {p.family for p in generate(20, seed=1, families=["share"])} == {"share"}
    with pytest.raises(ValueError, match="unknown families"):
        generate(1, seed=1, families=["algebra"])


def test_prompt_files_are_what_make_prompts_writes() -> None:
    for path, text in files().items():
        assert path.read_bytes() == text.encode(), f"{path.name}: run python -m data.make_prompts"
    demo = {p.text for p in demo_problems()}
    held_out = {p.text for p in eval_problems()}
    assert (len(demo), len(held_out), len(demo & held_out)) == (400, 150, 0)


def test_word_problems_need_nothing_else() -> None:
    data = Path(__file__).parents[2] / "data"
    for name in ("word_problems.py", "word_grammar.py", "make_prompts.py"):
        source = (data / name).read_text(encoding="utf-8")
        assert not any(f"import {p}" in source for p in ("torch", "transformers", "numpy")), name


# --- properties ---------------------------------------------------------------------------------

problems = st.integers(0, 10**6).map(lambda seed: generate(1, seed)[0])
fast = settings(max_examples=150, deadline=None, derandomize=True)


def written(problem: Problem, change: Callable[[int, int, int], tuple[str, int] | None]) -> str:
    """A solution that follows the plan from whatever values `change(i, a, b)` puts in its way.

    `change` gives another line and its result for equation i, or None to leave it. The solution
    stops before a division that is no longer exact.
    """
    plan = parse(problem.text)
    values = list(plan.given)
    lines: list[str] = []
    for i, eq in enumerate(plan.equations):
        a, b = values[eq.left], values[eq.right]
        line, result = change(i, a, b) or (None, compute(eq.op, a, b))
        if result is None:
            return "\n".join(lines)
        lines.append(line or f"{a}{eq.op}{b}={result}")
        values.append(result)
    return "\n".join([*lines, f"#{values[-1]}"])


def bad_steps(problem: Problem, solution: str) -> dict[int, str]:
    result = check(problem.text, solution)
    bad = {i: str(s.kind) for i, s in enumerate(result.steps) if s.kind}
    assert result.first_error == min(bad, default=None)
    return bad


@fast
@given(problems)
def test_reference_solutions_are_sound(problem: Problem) -> None:
    result = check(problem.text, "\n".join(problem.solution))
    assert result.first_error is None
    assert (result.right, result.complete, result.answer) == (True, True, problem.answer)
    assert len(result.steps) == len(problem.solution)


@fast
@given(problems, st.data())
def test_planted_arithmetic(problem: Problem, data: st.DataObject) -> None:
    equations = parse(problem.text).equations
    at = data.draw(st.integers(0, len(equations) - 1))
    off = data.draw(st.sampled_from([-10, -1, 1, 2, 10]))

    def change(i: int, a: int, b: int) -> tuple[str, int] | None:
        wrong = (compute(equations[i].op, a, b) or 0) + off
        return (f"{a}{equations[i].op}{b}={wrong}", wrong) if i == at else None

    assert bad_steps(problem, written(problem, change)) == {at: "arithmetic"}


@fast
@given(problems, st.data())
def test_planted_operation(problem: Problem, data: st.DataObject) -> None:
    equations = parse(problem.text).equations
    at = data.draw(st.integers(0, len(equations) - 1))
    op = data.draw(st.sampled_from([o for o in "+-*" if o != equations[at].op]))

    def change(i: int, a: int, b: int) -> tuple[str, int] | None:
        wrong = compute(op, a, b)
        assert wrong is not None
        return (f"{a}{op}{b}={wrong}", wrong) if i == at else None

    bad = bad_steps(problem, written(problem, change))
    assert min(bad) == at
    if bad[at] != "operation":  # the line reads as a later sentence's, or as an earlier line
        assert bad[at] in ("missed_sentence", "repeated")
    else:
        assert bad == {at: "operation"}


@fast
@given(problems, st.data())
def test_planted_operand(problem: Problem, data: st.DataObject) -> None:
    plan = parse(problem.text)
    at = data.draw(st.integers(0, len(plan.equations) - 1))
    stray = data.draw(st.integers(200, 300))  # no number of the problem

    def change(i: int, a: int, b: int) -> tuple[str, int] | None:
        op = plan.equations[i].op
        if i != at or op == "/":
            return None
        wrong = compute(op, a, stray)
        assert wrong is not None
        return f"{a}{op}{stray}={wrong}", wrong

    assume(plan.equations[at].op != "/")
    assert bad_steps(problem, written(problem, change)) == {at: "operand"}


@fast
@given(problems, st.data())
def test_planted_missed_sentence(problem: Problem, data: st.DataObject) -> None:
    """The problem's solution without one sentence is sound for that other problem, not for this."""
    plan = parse(problem.text)
    updates = [i for i, e in enumerate(plan.equations[:-1]) if e.update]
    assume(updates)
    skipped = plan.equations[data.draw(st.sampled_from(updates))].sentence
    sentences = problem.text.split(". ")
    without = ". ".join(s for i, s in enumerate(sentences) if i != skipped)
    try:
        lines = solve(without)
    except UnknownProblem:  # a division that is not exact without it, or no step left
        assume(False)
    first = next(i for i, e in enumerate(plan.equations) if e.sentence == skipped)
    bad = bad_steps(problem, "\n".join(lines))
    assert min(bad) >= first
    assert bad[min(bad)] in ("missed_sentence", "operand", "arithmetic")
    if bad[min(bad)] == "missed_sentence":
        assert len(bad) == 1


@fast
@given(problems, st.integers(0, 99))
def test_planted_final_line(problem: Problem, answer: int) -> None:
    assume(answer != problem.answer)
    solution = "\n".join([*problem.solution[:-1], f"#{answer}"])
    assert bad_steps(problem, solution) == {len(problem.solution) - 1: "final_line"}


@fast
@given(problems, st.data())
def test_planted_stop_repeat_and_noise(problem: Problem, data: st.DataObject) -> None:
    lines = list(problem.solution)
    at = data.draw(st.integers(1, len(lines) - 2))
    early = [*lines[:at], "#" + lines[at - 1].split("=")[1]]
    assert bad_steps(problem, "\n".join(early)) == {at: "missed_sentence"}
    assert bad_steps(problem, "\n".join([*lines[:at], "hm", *lines[at:]])) == {at: "malformed"}
    twice = [*lines[:at], lines[at - 1], *lines[at:]]
    assert bad_steps(problem, "\n".join(twice)).get(at) in ("repeated", None)


@fast
@given(problems, st.one_of(st.text(), st.text("0123456789+-*/=#\n ", max_size=60)))
def test_garbage_never_raises(problem: Problem, garbage: str) -> None:
    result = check(problem.text, garbage)
    assert all(s.kind is None or isinstance(s.kind, str) for s in result.steps)


@fast
@given(st.text(max_size=80))
def test_garbage_is_not_a_problem(garbage: str) -> None:
    with pytest.raises(UnknownProblem):
        check(garbage, "#1")
