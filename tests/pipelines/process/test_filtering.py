"""Questions that are too hard or too easy are left out, each with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.process.config import FilterConfig, ProcessConfig
from pipelines.process.filtering import filtered
from pipelines.process.methods import monte_carlo
from pipelines.process.search import (
    Ask,
    BudgetSpent,
    Drawn,
    Finding,
    Found,
    Prefix,
    Question,
    Search,
    Wave,
    tally,
)
from schemas.errors import BadReply
from tests.pipelines.process.methods.driving import PROMPT, solution

OUTCOMES = {"r": "right", "w": "wrong", "t": "truncated", "u": "unparsed"}
ROOT = Prefix("", 0)


def config(stop_at: int = 2, **limits: Any) -> ProcessConfig:
    return ProcessConfig(engine="policy", stop_at=stop_at, filter=FilterConfig(**limits))


def asked_of(*texts: str) -> Question:
    return Question(PROMPT, tuple(solution(text) for text in texts or ("a\nb",)), tally(()))


def begun(question: Question) -> Search:
    """A method that wants two rollouts of the root, and says what it was given."""
    yield [Ask(ROOT, 2)]
    drawn = question.book.drawn(ROOT)
    return Finding((Found(question.solutions[0], (), f"{len(drawn)} at the root"),))


def drive(
    question: Question, settings: ProcessConfig, outcomes: str, spent_after: int | None = None
) -> tuple[Finding, list[Wave]]:
    """Root draws come to these letters; after so many waves there is no budget."""
    search = filtered(question, settings, begun(question))
    waves: list[Wave] = []
    drawn = question.book.draws.setdefault((False, ""), [])
    try:
        wave = next(search)
        while True:
            if len(waves) == spent_after:
                search.throw(BudgetSpent())
                raise AssertionError("asked for more than the budget")
            waves.append(wave)
            for wanted in wave:
                assert isinstance(wanted, Ask)
                for letter in outcomes[len(drawn) : wanted.n]:
                    drawn.append(Drawn(OUTCOMES[letter], None, "", 3))  # type: ignore[arg-type]
                assert len(drawn) >= wanted.n
            wave = next(search)
    except StopIteration as stop:
        return stop.value, waves


def code(finding: Finding) -> str:
    assert finding.found == ()
    [reject] = finding.rejects
    return f"{reject.code}: {reject.detail}"


def test_without_a_filter_the_method_is_all_there_is() -> None:
    question = asked_of()
    finding, waves = drive(question, ProcessConfig(engine="policy"), "rw")
    assert finding.found[0].stopped == "2 at the root"
    assert waves == [[Ask(ROOT, 2)]]


@pytest.mark.parametrize(
    ("outcomes", "limits", "expected"),
    [
        ("w" * 8, {}, "too_hard: 0 of 8 rollouts are right"),
        ("r" * 8, {}, "too_easy: 8 of 8 rollouts are right"),
        ("ttttuuwt", {}, "too_hard: 0 of 1 rollouts are right"),
        ("ttttuurt", {}, "too_easy: 1 of 1 rollouts are right"),
        ("ttttuutt", {}, "no_answer: none of 8 rollouts had an answer"),
        ("rwwwwwww", {"above": 0.125}, "too_hard: 1 of 8 rollouts are right"),
        ("rrrrrrww", {"below": 0.75}, "too_easy: 6 of 8 rollouts are right"),
    ],
)
def test_what_is_left_out_says_why(outcomes: str, limits: Any, expected: str) -> None:
    question = asked_of()
    finding, waves = drive(question, config(stop_at=0, rollouts=8, **limits), outcomes)
    assert code(finding) == expected
    assert finding.rejects[0].unit == question.solutions[0].trajectory.response_id
    assert finding.rejects[0].stage == "process"
    assert waves == [[Ask(ROOT, 8)]]


@pytest.mark.parametrize(
    ("outcomes", "limits"),
    [
        ("wwwwwwwr", {}),
        ("rrrrrrrw", {}),
        ("rrwwwwww", {"above": 0.125}),
        ("rrrrrwww", {"below": 0.75}),
    ],
)
def test_what_lies_within_goes_on_and_reuses_the_rollouts(outcomes: str, limits: Any) -> None:
    question = asked_of()
    finding, waves = drive(question, config(stop_at=0, rollouts=8, **limits), outcomes)
    assert finding.found[0].stopped == "8 at the root"
    assert waves == [[Ask(ROOT, 8)], [Ask(ROOT, 2)]]
    assert question.book.lacks(Ask(ROOT, 2)) == 0


def test_every_solution_of_a_question_left_out_is_a_reject() -> None:
    question = asked_of("a\nb", "a\nc", "d")
    finding, _ = drive(question, config(rollouts=8), "w" * 8)
    assert [r.unit for r in finding.rejects] == [
        s.trajectory.response_id for s in question.solutions
    ]
    assert {r.code for r in finding.rejects} == {"too_hard"}


@pytest.mark.parametrize(
    ("outcomes", "asked"),
    [
        ("wr" + "w" * 30, [8]),
        ("w" * 15 + "r" * 17, [8, 16]),
        ("r" * 31 + "w", [8, 16, 24, 32]),
        ("t" * 8 + "wu" * 3 + "tr" + "t" * 16, [8, 16]),
    ],
)
def test_curtailed_it_ends_with_the_first_right_and_wrong_one(
    outcomes: str, asked: list[int]
) -> None:
    finding, waves = drive(asked_of(), config(rollouts=32), outcomes)
    assert finding.found[0].stopped == f"{asked[-1]} at the root"
    assert waves == [[Ask(ROOT, n)] for n in (*asked, 2)]


def test_curtailed_it_goes_to_the_end_where_all_agree() -> None:
    finding, waves = drive(asked_of(), config(rollouts=20), "r" * 20)
    assert code(finding) == "too_easy: 20 of 20 rollouts are right"
    assert waves == [[Ask(ROOT, n)] for n in (8, 16, 20)]


def test_a_share_within_the_limits_is_not_curtailed() -> None:
    """One right and one wrong do not say whether a fifth are right."""
    _, waves = drive(asked_of(), config(rollouts=20, above=0.2), "rw" + "w" * 9 + "r" * 9)
    assert waves[0] == [Ask(ROOT, 20)]


@pytest.mark.parametrize("waves", [0, 1])
def test_a_budget_that_ends_first_leaves_the_question_out(waves: int) -> None:
    finding, _ = drive(asked_of(), config(rollouts=32), "w" * 32, spent_after=waves)
    assert code(finding) == "over_budget: the token budget ended before it was known"


def test_a_budget_that_ends_later_is_the_methods_own() -> None:
    question = asked_of("a\nb\nc")
    settings = config(rollouts=8)
    search = filtered(question, settings, monte_carlo.search(question, settings))
    assert next(search) == [Ask(ROOT, 8)]
    question.book.draws[(False, "")] = [
        Drawn("right", None, "", 3),
        Drawn("wrong", None, "", 3),
    ] * 4
    assert [w.prefix.text for w in next(search) if isinstance(w, Ask)] == ["a\n", "a\nb\n"]
    with pytest.raises(StopIteration) as stop:
        search.throw(BudgetSpent())
    [found] = stop.value.value.found
    assert (found.stopped, found.resolved) == ("budget", False)


def test_a_bad_reply_leaves_the_question_out_with_its_code() -> None:
    question = asked_of()
    question.book.failed[(False, "")] = BadReply("refused", "no " * 300)
    settings = config(rollouts=8)
    search = filtered(question, settings, begun(question))
    next(search)
    with pytest.raises(StopIteration) as stop:
        next(search)
    assert code(stop.value.value) == f"refused: {('no ' * 300)[:500]}"
