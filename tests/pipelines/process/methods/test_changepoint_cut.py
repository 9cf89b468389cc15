"""`changepoint` on solutions that the token limit cut off: what is still to come may go wrong too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.process_labels.chain import Cell
from benchmarks.process_labels.driving import World, drive, solution
from pipelines.process.config import ProcessConfig
from pipelines.process.methods.changepoint import Changepoint
from pipelines.process.search import Book, Drawn, Found, Question

pytestmark = pytest.mark.filterwarnings("error")


def cut(question: Question, kept: int) -> Question:
    """The question's one solution, cut off after so many steps."""
    [whole] = question.solutions
    text = whole.prefix(kept).text.removesuffix("\n")
    made = solution(question.prompt, Drawn("truncated", None, text, len(text.split())))
    part = replace(made, ended=False, final_right=None)
    return replace(question, solutions=(part,), book=Book())


def found_in(cell: Cell, kept: int, count: int) -> tuple[list[Found], float]:
    """What is found in sound solutions that were cut off, and the tokens that each took."""
    world, method = World(cell), Changepoint(ProcessConfig(engine="p", method="changepoint"))
    questions = [cut(q, kept) for q in world.questions(count, wrong=0, right=1)]
    found = [drive(q, method.search(q), world.draw).found[0] for q in questions]
    return found, sum(q.book.spent for q in questions) / count


@pytest.mark.parametrize(("steps", "kept"), [(8, 4), (16, 8)])
def test_a_sound_solution_that_was_cut_off_has_no_error(steps: int, kept: int) -> None:
    """Of 20 at most one with a step labelled wrong, as at 90% confidence there may be."""
    found, tokens = found_in(Cell(steps, 0.3, 0.0), kept, 20)
    assert sum(any(step.label == "wrong" for step in f.steps) for f in found) <= 1
    assert sum(f.resolved for f in found) >= 18
    assert tokens < 4000
