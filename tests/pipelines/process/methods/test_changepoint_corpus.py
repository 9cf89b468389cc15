"""`changepoint` on a corpus: the pilot, the fit, labels anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.process_labels.chain import Cell
from benchmarks.process_labels.driving import World, drive, fresh
from pipelines.process.config import ChangepointConfig, PriorsConfig, ProcessConfig
from pipelines.process.methods.changepoint import Changepoint
from pipelines.process.search import Finding, Question
from schemas.errors import BadReply

pytestmark = pytest.mark.filterwarnings("error")

CELL = Cell(8, 0.5, 0.0)


def method(**settings: Any) -> Changepoint:
    own = ChangepointConfig.model_validate(settings)
    return Changepoint(ProcessConfig(engine="policy", method="changepoint", changepoint=own))


def corpus(chosen: Changepoint, world: World, count: int) -> list[tuple[Question, Finding]]:
    done = []
    for question in world.questions(count, wrong=2):
        question = fresh(question)
        done.append((question, drive(question, chosen.search(question), world.draw)))
    return done


def test_two_runs_are_equal_and_do_not_depend_on_the_order_of_the_questions() -> None:
    world = World(replace(CELL, q=0.15))
    one, two = (corpus(method(), world, 6) for _ in range(2))
    assert [f for _, f in one] == [f for _, f in two]
    chosen = method()
    for question, finding in reversed(one):
        again = fresh(question)
        assert drive(again, chosen.search(again), world.draw) == finding


def test_labels_anew_under_the_same_priors_are_the_same() -> None:
    world = World(replace(CELL, q=0.15))
    chosen = method()
    for question in world.questions(8, wrong=1):
        question = fresh(question)
        [found] = drive(question, chosen.search(question), world.draw).found
        assert chosen.relabel(question, found) == found


def test_a_fit_changes_labels_by_the_priors_alone() -> None:
    world = World(replace(CELL, q=0.15))
    chosen = method(priors={"recovery": 0.3, "solve_rate": 0.9})
    done = corpus(chosen, world, 12)
    before = chosen.priors
    chosen.fit((q, f.found) for q, f in done)
    assert chosen.priors != before
    for question, finding in done:
        for found in finding.found:
            anew = chosen.relabel(question, found)
            assert anew.asked == found.asked
            assert anew.stopped in (found.stopped, "refitted")
            for step, was in zip(anew.steps, found.steps, strict=True):
                assert step.n >= was.n  # the other solution may have asked for more since
    fixed = method(fit=False, priors=PriorsConfig(recovery=0.3))
    kept = fixed.priors
    fixed.fit((q, f.found) for q, f in done)
    assert fixed.priors is kept


def test_a_fit_to_nothing_changes_nothing() -> None:
    chosen = method()
    before = chosen.priors
    chosen.fit([])
    chosen.fit([(World(CELL).questions(1)[0], ())])
    assert chosen.priors is before


def test_a_solution_that_was_done_before_a_shared_prefix_failed_keeps_its_labels() -> None:
    world = World(CELL)
    question = next(q for q in world.questions(30, wrong=1, right=1) if len(q.solutions) == 2)
    question = fresh(question)
    chosen = method()
    finding = drive(question, chosen.search(question), world.draw)
    # The other solution asks for more of the bare question, and gets no usable answer.
    question.book.failed[(False, "")] = BadReply("refused", "no")
    chosen.fit([(question, finding.found)])
    anew = [chosen.relabel(question, found) for found in finding.found]
    assert len(anew) == len(finding.found)


def test_the_pilot_is_as_many_questions_as_hold_so_many_solutions() -> None:
    world = World(CELL)
    questions = world.questions(6, wrong=2)
    sizes = [len(q.solutions) for q in questions]
    total = sum(sizes)
    assert method(pilot=1).pilot(questions) == 1
    assert method(pilot=sizes[0] + 1).pilot(questions) == 2
    assert method(pilot=total - sizes[-1] + 1).pilot(questions) == 6
    assert method(pilot=10 * total).pilot(questions) == 6
    assert method(fit=False).pilot(questions) == 0
    assert method().pilot([]) == 0
