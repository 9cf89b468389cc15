import asyncio
import threading

import pytest

from pipelines import answers, grading
from pipelines.grading import Grade, Solution, grade, grade_all
from schemas.errors import UserError
from schemas.records import Message, Prompt

CODE = "```python\ndef f(x):\n    return {}\n```"
FIGURES = [
    ("numeric", "72", "so\n#### 72", False, Grade("right", "72")),
    ("numeric", "72", "so\n#### 172", False, Grade("wrong", "172", "172 is not 72")),
    ("numeric", "72", "so\n#### many", False, Grade("unparsed", "many")),
    ("numeric", "72", "so it is 72", False, Grade("unparsed", None)),
    ("numeric", "72", "so\n#### 7", True, Grade("truncated", None)),
    ("numeric", "72", "\\boxed{72} and", True, Grade("right", "72")),
    ("choice", "B", "The answer is A and B", False, Grade("unparsed", "A and B")),
    ("exact", "Bern", "Answer: Basel", False, Grade("wrong", "Basel", "Basel is not Bern")),
    ("set", "{1, 2}", "\\boxed{2, 1}", False, Grade("right", "2, 1")),
    ("set", "{1, 2}", "\\boxed{(1, 2)}", False, Grade("wrong", "(1, 2)", "(1, 2) is not {1, 2}")),
    ("set", "{1, 2}", "\\boxed{both}", False, Grade("unparsed", "both")),
    ("latex", "\\frac{\\pi}{2}", "\\boxed{0.5\\pi}", False, Grade("right", "0.5\\pi")),
    ("latex", "x^2", "\\boxed{x^3}", False, Grade("wrong", "x^3", "x^3 is not x^2")),
    ("latex", "x^2", "\\boxed{x^}", False, Grade("unparsed", "x^")),
    ("latex", "x^2", "The answer is x^2", True, Grade("truncated", None)),
    ("code", "assert f(2) == 4", CODE.format("4"), False, Grade("right", "def f(x):\n    return 4", "")),
    (
        "code",
        "assert f(2) == 4",
        CODE.format("5"),
        False,
        Grade("wrong", "def f(x):\n    return 5", "AssertionError in line 1 of the tests"),
    ),
    ("code", "assert f(2) == 4", "I return 4.", False, Grade("unparsed", None)),
    ("code", "assert f(2) == 4", CODE.format("4")[:-4], True, Grade("truncated", None)),
    ("code", "assert f(2) == 4", "```python\nno python here\n```", False, Grade("wrong", "no python here", "no python: SyntaxError")),
    ("code", "assert f(2) == 4", "So here it is:\ndef f(x): return 4", False, Grade("unparsed", "So here it is:\ndef f(x): return 4")),
]  # fmt: skip


def prompt(verifier, reference):
    user = Message(role="user", content="?")
    return Prompt(messages=(user,), reference=reference, verifier=verifier, source="test")


@pytest.mark.parametrize(("verifier", "reference", "text", "cut", "outcome"), FIGURES)
def test_grade(verifier, reference, text, cut, outcome):
    assert asyncio.run(grade(prompt(verifier, reference), text, cut)) == outcome


def test_grade_all_agrees_and_keeps_the_order():
    solutions = [Solution(prompt(v, r), text, cut) for v, r, text, cut, _ in FIGURES]
    assert grade_all(solutions) == [outcome for *_, outcome in FIGURES]


def test_the_last_number_counts_only_where_asked_for():
    solution = Solution(prompt("numeric", "8"), "3 and 5, so 8", False)
    assert grade_all([solution])[0].outcome == "unparsed"
    assert grade_all([solution], last_number=True)[0] == Grade("right", "8")


def test_slow_verifiers_do_not_block_the_loop_and_are_bounded(monkeypatch):
    inside, most, lock, gate = [0], [0], threading.Lock(), threading.Event()

    def judge(answer, reference, verifier):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        gate.wait(10)
        with lock:
            inside[0] -= 1
        return True, ""

    monkeypatch.setattr(answers, "judge", judge)

    async def run():
        waiting = [
            asyncio.create_task(grade(prompt("latex", "x"), "\\boxed{x}", False)) for _ in range(40)
        ]
        while not inside[0]:
            await asyncio.sleep(0.001)  # the loop goes on while threads wait
        await asyncio.sleep(0.05)
        gate.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(run()) == [Grade("right", "x")] * 40
    assert 1 <= most[0] <= grading._threads()._max_workers


def test_a_system_that_cannot_isolate_code_stops_the_run(monkeypatch):
    def refuse(code, tests):
        raise UserError("no")

    monkeypatch.setattr("pipelines.sandbox.run_tests", refuse)
    solution = Solution(prompt("code", "assert f(2) == 4"), CODE.format("4"), False)
    with pytest.raises(UserError, match="no"):
        grade_all([solution, solution])
    with pytest.raises(UserError, match="no"):
        asyncio.run(grade(*solution))
