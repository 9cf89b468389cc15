"""Run a search against a policy that is a function, and keep what it asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipelines.process.search import (
    Ask,
    BudgetSpent,
    Drawn,
    Finding,
    Found,
    Question,
    Search,
    Solution,
    tally,
)
from pipelines.process.splitting import split
from schemas.errors import BadReply
from schemas.records import Message, Prompt
from tests.pipelines.rows import response

Policy = Callable[[str, int, bool], Drawn]
"""A rollout by (prefix text, index, prover)."""


class Driven(NamedTuple):
    """What a search found, and the waves of what it asked for that the book did not hold yet."""

    finding: Finding
    waves: list[list[Ask]]

    @property
    def asked(self) -> list[tuple[str, int]]:
        """Prefix text and the number of rollouts, in order."""
        return [(ask.prefix.text, ask.n) for wave in self.waves for ask in wave]

    def found(self, text: str) -> Found:
        """What was found about the solution of this text."""
        [found] = [f for f in self.finding.found if f.solution.text == text]
        return found


def drive(search: Search, question: Question, policy: Policy, budget: int | None = None) -> Driven:
    """Run a search; after `budget` rollouts there is no more, in the midst of a wave or not."""
    book, waves, left = question.book, [], budget
    wave: Sequence = next(search)
    try:
        while True:
            asked = [ask for ask in wave if book.lacks(ask)]
            if asked:
                waves.append(asked)
            for ask in asked:
                key = (ask.prover, ask.prefix.text)
                while book.lacks(ask):
                    if left == 0:
                        search.throw(BudgetSpent())
                        raise AssertionError("it asked for more after its budget was spent")
                    draws = book.draws.setdefault(key, [])
                    try:
                        draws.append(policy(ask.prefix.text, len(draws), ask.prover))
                    except BadReply as error:
                        book.failed[key] = error
                    left = None if left is None else left - 1
            wave = next(search)
    except StopIteration as stop:
        return Driven(stop.value, waves)


PROMPT = Prompt(
    messages=(Message(role="user", content="?"),), reference="1", verifier="numeric", source="test"
)


def solution(
    text: str, right: bool | None = False, tokens: int = 10, ended: bool = True
) -> Solution:
    """A solution whose steps are lines."""
    finish = "stop" if ended else "length"
    trajectory = split(response(PROMPT.id, 0, text, finish_reason=finish), "lines")
    assert trajectory is not None
    return Solution(trajectory, text, ended, right, None, tokens)


def question(*solutions: Solution) -> Question:
    return Question(PROMPT, solutions, tally([]))


def rollout(outcome: str, text: str, tokens: int = 10) -> Drawn:
    return Drawn(outcome, None, text, tokens)  # type: ignore[arg-type]
