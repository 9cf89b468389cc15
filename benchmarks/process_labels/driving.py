"""Questions of a chain world, and running a labelling method against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate

from benchmarks.process_labels.chain import Cell, Chain, Policy
from pipelines.process.search import (
    Ask,
    Book,
    BudgetSpent,
    Drawn,
    Finding,
    Prefix,
    Query,
    Question,
    Search,
    Solution,
    tally,
)
from schemas.record import digest
from schemas.records import Message, Prompt, Trajectory

Draw = Callable[[Question, Prefix, int], Drawn]
"""Rollout `index` of a prefix of a question."""
Judge = Callable[[Question, Query], str]
"""A verdict as JSON text."""

RESPONSES = 8
"""Responses of a question, of which the wrong ones are labelled."""


@dataclass
class World:
    """A cell's policy on many questions; rollouts are kept, so that all methods share them."""

    cell: Cell
    seed: int = 0
    policies: dict[str, Policy] = field(default_factory=dict)
    """By the prompt's text."""
    drawn: dict[tuple[str, str], list[Drawn]] = field(default_factory=dict)

    def policy(self, text: str) -> Policy:
        """The policy at work on the question that a text asks."""
        found = self.policies.get(text)
        if found is None:
            found = self.policies[text] = Policy(self.cell, Chain.parse(text))
        return found

    def of(self, question: Question) -> Policy:
        """The policy at work on a question."""
        return self.policy(question.prompt.messages[0].content)

    def draw(self, question: Question, prefix: Prefix, index: int) -> Drawn:
        """Rollout `index` of a prefix: the same for all methods."""
        known = self.drawn.setdefault((question.prompt.messages[0].content, prefix.text), [])
        while len(known) <= index:
            known.append(self.of(question).draw(prefix.text, len(known), 2 * self.seed + 1))
        return known[index]

    def forget(self) -> None:
        """Drop what is kept: it takes memory, and comes again as it was."""
        self.policies.clear()
        self.drawn.clear()

    def value(self, question: Question, prefix: str) -> float:
        """V^pi of a prefix, exact."""
        return self.of(question).value(prefix)

    def is_sound(self, question: Question, prefix: str) -> bool:
        """Whether no line of a prefix is wrong."""
        return self.of(question).is_sound(prefix)

    def questions(self, count: int, wrong: int = 2, right: int = 0) -> list[Question]:
        """Questions with at least one wrong response (or right one, where only those are wanted).

        Of each question's 8 responses the first `wrong` wrong and the first `right` right ones
        are to be labelled; equal texts count once.
        """
        found: list[Question] = []
        for index in range(100 * count):
            if len(found) == count:
                return found
            made = self._question(Chain.make(self.cell.steps, f"{self.seed} {index}"), wrong, right)
            if made.solutions:
                found.append(made)
        raise ValueError(f"{self.cell.name}: too few questions with a response to be labelled")

    def _question(self, chain: Chain, wrong: int, right: int) -> Question:
        policy = self.policy(chain.text)
        prompt = Prompt(
            messages=(Message(role="user", content=chain.text),),
            reference=str(chain.right[-1]),
            task="math",
            verifier="numeric",
            source="chain",
        )
        responses = [policy.draw("", i, 2 * self.seed) for i in range(RESPONSES)]
        unique = {d.text: d for d in responses}.values()
        chosen = [d for d in unique if d.outcome == "wrong"][:wrong]
        chosen += [d for d in unique if d.outcome == "right"][:right]
        solutions = tuple(solution(prompt, d) for d in chosen)
        return Question(prompt, solutions, tally(responses))


def solution(prompt: Prompt, drawn: Drawn) -> Solution:
    """A whole solution, split at its lines; tokens are words."""
    steps = drawn.text.split("\n")
    ends = [end - 1 for end in accumulate(len(step) + 1 for step in steps)]
    kept = (*(end + 1 for end in ends[:-1]), ends[-1])
    prefixes = ("", *(drawn.text[:end] for end in kept))
    trajectory = Trajectory(
        prompt_id=prompt.id,
        response_id=digest("chain response", prompt.id, drawn.text),
        text=None,
        steps=tuple(steps),
        starts=(0, *kept[:-1]),
        ends=kept,
        token_ends=tuple(accumulate(len(step.split()) for step in steps)),
        prefixes=tuple(Question(prompt, (), tally(())).prefix_id(text) for text in prefixes),
    )
    right = drawn.outcome == "right"
    return Solution(trajectory, drawn.text, True, right, drawn.answer, drawn.tokens)


def fresh(question: Question) -> Question:
    """The same question, nothing asked yet."""
    return replace(question, book=Book())


def drive(
    question: Question,
    search: Search,
    draw: Draw,
    budget: int | None = None,
    judge: Judge | None = None,
) -> Finding:
    """Run a method to its end, filling `question.book`; `budget`: policy tokens for the question."""
    book = question.book
    try:
        wave = next(search)
        while True:
            spent = not all(_serve(question, book, wanted, draw, budget, judge) for wanted in wave)
            wave = search.throw(BudgetSpent()) if spent else next(search)
    except StopIteration as stop:
        finding: Finding = stop.value
        return finding


def _serve(
    question: Question,
    book: Book,
    wanted: Ask | Query,
    draw: Draw,
    budget: int | None,
    judge: Judge | None,
) -> bool:
    """Put what is wanted in the book; false where the budget ended first."""
    if isinstance(wanted, Query):
        if book.lacks(wanted):
            if judge is None:
                raise ValueError(f"no judge to answer {wanted.template}")
            book.verdicts[wanted] = judge(question, wanted)
        return True
    if wanted.prover:
        raise ValueError("a chain world has no prover of its own")
    drawn = book.draws.setdefault((False, wanted.prefix.text), [])
    book.positions[wanted.prefix.text] = wanted.prefix.position
    while len(drawn) < wanted.n:
        if budget is not None and book.spent >= budget:
            return False
        drawn.append(draw(question, wanted.prefix, len(drawn)))
        book.spent += drawn[-1].tokens
    return True
