"""`changepoint` on chains whose first errors are known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.process_labels import ours
from benchmarks.process_labels.chain import Cell
from benchmarks.process_labels.driving import World, drive, fresh, solution
from pipelines.process.config import ChangepointConfig, ProcessConfig
from pipelines.process.methods.changepoint import Changepoint
from pipelines.process.search import Book, Drawn, Found, Prefix, Question, Solution
from schemas.errors import BadReply

pytestmark = pytest.mark.filterwarnings("error")

CELL = Cell(8, 0.5, 0.0)


def method(**settings: Any) -> Changepoint:
    own = ChangepointConfig.model_validate(
        {"min_gain": 0.0, "wave": 4, "max_rollouts": 128, **settings}
    )
    return Changepoint(ProcessConfig(engine="policy", method="changepoint", changepoint=own))


def asked_of(question: Question, *solutions: Solution) -> Question:
    """The question with these solutions, nothing asked yet."""
    return replace(question, solutions=solutions, book=Book())


def one(
    world: World, question: Question, budget: int | None = None, **settings: Any
) -> tuple[Question, Found]:
    question = fresh(question)
    finding = drive(question, method(**settings).search(question), world.draw, budget)
    [found] = finding.found
    return question, found


def likeliest(found: Found) -> int:
    """The first error that is most probable; T: none."""
    assert found.no_error is not None
    return int(np.argmax([*(step.error or 0.0 for step in found.steps), found.no_error]))


def true_error(world: World, question: Question, solution: Solution) -> int:
    first = world.of(question).state(solution.text).first_error
    return solution.steps if first is None else first


def positions(found: Found) -> list[int]:
    return [asked.position for asked in found.asked]


# --- it finds what is so -------------------------------------------------------------------------


@pytest.mark.parametrize("q", [0.0, 0.15])
def test_it_finds_the_first_error(q: float) -> None:
    """40 wrong solutions of 8 steps: at least 36 of the first errors, for 4,500 tokens each."""
    world = World(replace(CELL, q=q))
    hits = resolved = spent = 0
    for question in world.questions(40, wrong=1):
        asked, found = one(world, question)
        true = true_error(world, question, found.solution)
        hits += likeliest(found) == true
        resolved += found.resolved
        spent += asked.book.spent
        assert found.stopped == ("confident" if found.resolved else "cap")
        if found.resolved:
            assert found.first_error == likeliest(found)
    assert hits >= 36
    assert resolved >= 38
    assert spent / 40 < 4500  # every prefix 8 times would be about 8,000


def test_a_solution_that_is_right_is_sound_for_little() -> None:
    world = World(CELL)
    for question in world.questions(10, wrong=0, right=1):
        asked, found = one(world, question)
        assert found.solution.final_right
        assert found.no_error is not None and found.no_error >= 0.9
        assert found.first_error is None
        assert [step.label for step in found.steps] == ["right"] * 8
        assert len(found.asked) <= 2
        assert asked.book.spent == sum(step.tokens for step in found.steps)


def test_probabilities_are_those_of_one_first_error() -> None:
    world = World(replace(CELL, q=0.15))
    for question in world.questions(5, wrong=1, right=1):
        question = fresh(question)
        for found in drive(question, method().search(question), world.draw).found:
            error = [step.error for step in found.steps]
            sound = [step.sound for step in found.steps]
            assert sum(e for e in error if e is not None) + (found.no_error or 0) == pytest.approx(
                1, abs=1e-5
            )
            assert sound == sorted(sound, reverse=True)  # type: ignore[type-var]
            assert sound == pytest.approx(1 - np.cumsum(error), abs=1e-5)  # type: ignore[arg-type]
            for step in found.steps:
                assert (step.value is None) == (step.low is None) == (step.high is None)
                if step.value is not None and step.low is not None and step.high is not None:
                    assert 0 <= step.low <= step.value <= step.high <= 1
                numbers = (step.value, step.low, step.high, step.sound, step.error)
                assert all(x is None or x == round(x, 6) for x in numbers)


def test_values_come_near_the_true_ones() -> None:
    world = World(replace(CELL, q=0.15))
    errors, covered = [], []
    labelled, _ = ours.run(world, world.questions(40, wrong=1), ours.config())
    for question, finding in labelled:
        (found,) = finding.found
        for t, step in enumerate(found.steps[:-1], 1):
            if step.value is not None and step.low is not None and step.high is not None:
                true = world.value(question, found.solution.prefix(t).text)
                errors.append(abs(step.value - true))
                covered.append(step.low <= true <= step.high)
    assert len(errors) > 30
    assert np.mean(errors) < 0.1
    assert 0.84 < np.mean(covered) < 0.98


# --- where it asks, and when it stops ------------------------------------------------------------


def test_what_is_asked_is_logged_in_its_order_and_is_what_was_drawn() -> None:
    world = World(replace(CELL, q=0.15))
    for question in world.questions(10, wrong=1):
        asked, found = one(world, question, wave=3)
        drawn: Counter[int] = Counter()
        for entry in found.asked:
            assert (entry.of, entry.count) == ("policy", 3)
            assert entry.why.startswith("most informative, P(first error) 0.")
            drawn[entry.position] += entry.count
        book = asked.book
        assert drawn == {book.positions[text]: len(d) for (_, text), d in book.draws.items()}
        assert all(0 <= position <= found.solution.last for position in drawn)
        assert {t + 1: s.n for t, s in enumerate(found.steps) if s.n} == {
            t: n for t, n in drawn.items() if t
        }
        assert list(book.positions) == [
            found.solution.prefix(t).text for t in dict.fromkeys(positions(found))
        ]
        if found.asked:
            # What it believed before each wave: never as much as would have stopped it.
            beliefs = [float(entry.why.rpartition(" ")[2]) for entry in found.asked]
            assert max(beliefs) <= 0.9


def test_a_solution_that_ended_is_never_drawn_at_its_end() -> None:
    world = World(replace(CELL, q=0.15))
    for question in world.questions(6, wrong=2):
        question = fresh(question)
        drive(question, method(confidence=0.9999).search(question), world.draw)
        assert max(question.book.positions.values()) == 7
        assert not {s.text for s in question.solutions} & set(question.book.positions)


def test_it_stops_at_the_cap_unresolved_and_forces_no_label() -> None:
    world = World(replace(CELL, q=0.15))
    capped = 0
    for question in world.questions(12, wrong=1):
        asked, found = one(world, question, max_rollouts=6, confidence=0.99)
        drawn = sum(len(d) for d in asked.book.draws.values())
        if found.stopped == "confident":
            assert drawn <= 6
            continue
        capped += 1
        assert (found.stopped, found.resolved, drawn) == ("cap", False, 6)
        assert [entry.count for entry in found.asked] == [4, 2]
        for step in found.steps[:-1]:
            assert step.sound is not None
            sure = "right" if step.sound >= 0.99 else "wrong" if step.sound <= 0.01 else None
            assert step.label == sure
            assert (step.source == "none") == (step.label is None)
        assert (found.steps[-1].label, found.steps[-1].source) == ("wrong", "answer")
        assert max(step.error or 0 for step in found.steps) < 0.99
    assert capped >= 6


def test_it_says_what_it_knows_when_the_budget_is_spent() -> None:
    world = World(replace(CELL, q=0.15))
    [question] = [q for q in world.questions(12, wrong=1) if len(one(world, q)[1].asked) >= 4][:1]
    asked, whole = one(world, question)
    part, found = one(world, question, budget=asked.book.spent // 2)
    assert (found.stopped, found.resolved) == ("budget", False)
    assert part.book.spent < asked.book.spent
    assert found.asked == whole.asked[: len(found.asked)]
    # Also the rollouts of the wave in the midst of which it ended count.
    assert sum(step.n for step in found.steps) + len(part.book.draws.get((False, ""), ())) == sum(
        len(drawn) for drawn in part.book.draws.values()
    )
    assert max(step.error or 0 for step in found.steps) < 0.9
    nothing, found = one(world, question, budget=0)
    assert (
        found.stopped,
        len(found.asked),
        nothing.book.draws[(False, found.solution.prefix(found.asked[0].position).text)],
    ) == ("budget", 1, [])
    assert [step.n for step in found.steps] == [0] * 8


def test_it_stops_where_a_rollout_would_tell_too_little() -> None:
    world = World(CELL)
    [question] = world.questions(1, wrong=1)
    asked, found = one(world, question, min_gain=1e6)
    assert (found.stopped, found.resolved, found.asked) == ("uninformative", False, ())
    assert asked.book.spent == 0


def test_a_solution_that_stopped_confident_is_resolved() -> None:
    world = World(replace(CELL, q=0.15))
    every = [one(world, q)[1] for q in world.questions(12, wrong=1)]
    assert {f.resolved for f in every if f.stopped == "confident"} == {True}


# --- solutions of every kind ---------------------------------------------------------------------


def test_a_single_wrong_step_needs_no_rollout() -> None:
    world = World(Cell(1, 0.5, 0.0))
    asked, found = one(world, world.questions(1, wrong=1)[0])
    assert (found.stopped, found.resolved, found.asked) == ("confident", True, ())
    [step] = found.steps
    assert (step.label, step.source, step.value) == ("wrong", "answer", 0.0)
    assert asked.book.draws == {}


def test_where_rollouts_can_tell_nothing_none_are_drawn() -> None:
    world = World(Cell(1, 0.5, 0.0))
    [question] = world.questions(1, wrong=1)
    unknown = replace(question.solutions[0], final_right=None, answer=None)
    asked, found = one(world, asked_of(question, unknown))
    assert not found.resolved
    assert sum(len(drawn) for drawn in asked.book.draws.values()) <= 8


def test_code_has_no_answers_to_be_met_again() -> None:
    """Both answers None: that is no meeting."""
    world = World(CELL)

    def draw(question: Question, prefix: Prefix, index: int) -> Drawn:
        return world.draw(question, prefix, index)._replace(answer=None)

    for answers in (True, False):
        hits = 0
        for question in world.questions(10, wrong=1):
            bare = asked_of(question, replace(question.solutions[0], answer=None))
            [found] = drive(bare, method(answers=answers).search(bare), draw).found
            hits += likeliest(found) == true_error(world, question, found.solution)
        assert hits >= 8


def cut(world: World, after_error: int) -> tuple[Question, Solution]:
    """A solution cut off `after_error` lines after its first wrong one."""
    for question in world.questions(20, wrong=1):
        [whole] = question.solutions
        kept = true_error(world, question, whole) + 1 + after_error
        if 4 <= kept < whole.steps:
            text = whole.prefix(kept).text
            words = len(text.split())
            made = solution(question.prompt, Drawn("truncated", None, text.rstrip("\n"), words))
            part = replace(made, ended=False, final_right=None)
            return asked_of(question, part), part
    raise AssertionError("no solution fits")


def test_a_solution_that_was_cut_off_has_no_checked_step() -> None:
    world = World(CELL)
    question, part = cut(world, after_error=2)
    asked, found = one(world, question)
    assert part.last == part.steps
    assert likeliest(found) == true_error(world, question, part) == part.steps - 3
    assert found.steps[-1].source != "answer"
    assert found.steps[-1].label == "wrong"
    assert found.resolved
    assert len(asked.book.positions) > 1


def test_an_error_just_before_the_cut_is_found() -> None:
    """The last prefix of a solution that was cut off can go on, and is sampled."""
    world = World(CELL)
    question, part = cut(world, after_error=0)
    _, found = one(world, question)
    assert found.steps[part.steps - 1].n > 0
    assert found.steps[part.steps - 1].label == "wrong"


def test_solutions_that_begin_alike_share_their_rollouts() -> None:
    world = World(replace(CELL, q=0.15))
    [question] = [q for q in world.questions(30, wrong=2) if len(q.solutions) == 2][:1]
    first = question.solutions[0]
    twin = replace(first, trajectory=first.trajectory.model_copy(update={"response_id": "another"}))
    alone = asked_of(question, first)
    drive(alone, method().search(alone), world.draw)
    both = asked_of(question, first, twin)
    finding = drive(both, method().search(both), world.draw)
    assert both.book.draws == alone.book.draws
    assert both.book.spent == alone.book.spent
    one_found, two_found = finding.found
    assert (one_found.steps, one_found.asked) == (two_found.steps, two_found.asked)


def test_a_bad_reply_rejects_its_solution_alone() -> None:
    world = World(replace(CELL, q=0.15))
    question = fresh(next(q for q in world.questions(30, wrong=2) if len(q.solutions) == 2))
    bad, good = question.solutions
    alone = asked_of(question, good)
    [expected] = drive(alone, method().search(alone), world.draw).found
    for t in range(1, bad.steps):
        text = bad.prefix(t).text
        if text not in {good.prefix(k).text for k in range(good.steps)}:
            question.book.failed[(False, text)] = BadReply("refused", "no")
    finding = drive(question, method().search(question), world.draw)
    assert [(r.unit, r.code, r.stage) for r in finding.rejects] == [
        (bad.trajectory.response_id, "refused", "process")
    ]
    [found] = finding.found
    assert found.solution is good
    assert found.steps == expected.steps
