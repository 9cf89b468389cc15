"""What a labelling method is: a generator that asks for rollouts and verdicts, and says what it found.

A method does no input or output. It yields a wave of what it wants to know; once it is resumed, the
question's `Book` holds that. So one method runs against an engine (scheduler.py), a simulated policy
(benchmarks) or a table (tests), and what it asks next depends on nothing but what came back: a
resumed run asks the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from pipelines.process.splitting import prefix_id
from schemas.errors import BadReply
from schemas.records import Asked, Prompt, Reject, StepPair, Trajectory

Outcome = Literal["right", "wrong", "unparsed", "truncated"]
Label = Literal["right", "wrong"]
Source = Literal["rollouts", "answer", "judge", "inferred", "none"]


class BudgetSpent(Exception):
    """Thrown into a method at its `yield`: there is no more; it is to say what it knows."""


class Drawn(NamedTuple):
    """A rollout: one continuation of a prefix."""

    outcome: Outcome
    answer: str | None
    text: str
    tokens: int


class Prefix(NamedTuple):
    """The beginning of a solution; `ids` are its tokens, empty where they are not known."""

    text: str
    position: int
    """How many steps it keeps."""
    ids: tuple[int, ...] = ()


class Ask(NamedTuple):
    """At least `n` rollouts of a prefix are wanted in the book, those there already included."""

    prefix: Prefix
    n: int
    prover: bool = False


class Query(NamedTuple):
    """A verdict of the judge is wanted: a JSON reply to a prompt template's filling.

    `template` names a file of pipelines/process/templates, `schema` is JSON text; `sample` tells
    repeated verdicts apart.
    """

    template: str
    values: tuple[tuple[str, str], ...]
    schema: str
    sample: int = 0


Wave = Sequence[Ask | Query]


class Tally(NamedTuple):
    """Outcomes of some rollouts, counted; `n` counts all of them."""

    n: int
    right: int
    wrong: int
    truncated: int
    unparsed: int
    tokens: int

    @property
    def counted(self) -> int:
        """Rollouts with an answer that could be checked."""
        return self.right + self.wrong


def tally(drawn: Sequence[Drawn]) -> Tally:
    """Count outcomes."""
    outcomes = Counter(d.outcome for d in drawn)
    return Tally(
        len(drawn),
        outcomes["right"],
        outcomes["wrong"],
        outcomes["truncated"],
        outcomes["unparsed"],
        sum(d.tokens for d in drawn),
    )


@dataclass
class Book:
    """What was asked about one question and what came back, shared by all its solutions."""

    draws: dict[tuple[bool, str], list[Drawn]] = field(default_factory=dict)
    """Rollouts by (prover, prefix text), in order of their draw."""
    positions: dict[str, int] = field(default_factory=dict)
    """How many steps each prefix keeps."""
    verdicts: dict[Query, str] = field(default_factory=dict)
    """The judge's replies, checked against their schema, as JSON text."""
    failed: dict[tuple[bool, str] | Query, BadReply] = field(default_factory=dict)
    """What got no usable answer."""
    spent: int = 0
    """Tokens written for this question."""

    def drawn(self, prefix: Prefix, count: int | None = None, prover: bool = False) -> list[Drawn]:
        """The first `count` rollouts of a prefix (None: all), fewer where fewer were drawn.

        Raises BadReply where one of them got no usable answer.
        """
        key = (prover, prefix.text)
        if key in self.failed:
            raise self.failed[key]
        return self.draws.get(key, [])[:count]

    def kept(self, prefix: Prefix) -> list[Drawn]:
        """The policy's rollouts of a prefix, also where a later one got no usable answer."""
        return self.draws.get((False, prefix.text), [])

    def verdict(self, query: Query) -> str | None:
        """The reply to a query; None where it was not asked. Raises BadReply."""
        if query in self.failed:
            raise self.failed[query]
        return self.verdicts.get(query)

    def lacks(self, wanted: Ask | Query) -> int:
        """How many rollouts or verdicts of this are still to be asked for."""
        if isinstance(wanted, Query):
            return int(wanted not in self.verdicts and wanted not in self.failed)
        key = (wanted.prover, wanted.prefix.text)
        if key in self.failed:
            return 0
        return max(0, wanted.n - len(self.draws.get(key, ())))


@dataclass(frozen=True)
class Solution:
    """A solution of a question, split into steps."""

    trajectory: Trajectory
    text: str
    ended: bool
    """Whether it ended by itself (false: cut off by the token limit)."""
    final_right: bool | None
    """Whether its final answer is right; None: there is none to be checked."""
    answer: str | None
    """Its final answer."""
    tokens: int
    """Tokens of the whole."""
    ids: tuple[int, ...] = ()
    """Its tokens, where they are known."""

    @property
    def steps(self) -> int:
        """How many steps it has, T."""
        return len(self.trajectory.steps)

    @property
    def last(self) -> int:
        """The last position worth a rollout: T, or T-1 where it ended and nothing can follow."""
        return self.steps - 1 if self.ended else self.steps

    def prefix(self, position: int) -> Prefix:
        """The first `position` steps, 0 to T."""
        if position == 0:
            return Prefix("", 0)
        t = self.trajectory
        ids = self.ids[: t.token_ends[position - 1]] if t.token_ends else ()
        return Prefix(self.text[: t.ends[position - 1]], position, ids)

    def tokens_after(self, position: int) -> float:
        """Tokens of the solution after its first `position` steps: what a rollout there may cost."""
        t = self.trajectory
        if t.token_ends:
            return float(t.token_ends[-1] - (t.token_ends[position - 1] if position else 0))
        kept = t.ends[position - 1] if position else 0
        return self.tokens * (1 - kept / max(1, len(self.text)))


@dataclass(frozen=True)
class Question:
    """A prompt with a reference answer, the solutions to be labelled, and what is known of it."""

    prompt: Prompt
    solutions: tuple[Solution, ...]
    responses: Tally
    """Outcomes of all the prompt's responses, those not to be labelled included."""
    book: Book = field(default_factory=Book)

    def prefix_id(self, text: str) -> str:
        """Id of a prefix, by which its rollouts are found."""
        return prefix_id(self.prompt.id, text)


class Step(NamedTuple):
    """What was found about one step; the fields are those of StepLabels."""

    n: int = 0
    successes: int = 0
    truncated: int = 0
    unparsed: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    sound: float | None = None
    error: float | None = None
    advantage: float | None = None
    judge_label: Label | None = None
    judge_probability: float | None = None
    label: Label | None = None
    source: Source = "none"
    tokens: int = 0


@dataclass(frozen=True)
class Found:
    """What a method found about one solution: one `Step` a step, and why it stopped."""

    solution: Solution
    steps: tuple[Step, ...]
    stopped: str
    resolved: bool = True
    no_error: float | None = None
    asked: tuple[Asked, ...] = ()

    @property
    def first_error(self) -> int | None:
        """Index of the first step labelled wrong; where it is not `resolved`, not the first error."""
        return next((t for t, step in enumerate(self.steps) if step.label == "wrong"), None)


class Finding(NamedTuple):
    """What a method found about one question."""

    found: tuple[Found, ...]
    pairs: tuple[StepPair, ...] = ()
    rejects: tuple[Reject, ...] = ()
    """Solutions that got no labels, and why; unit: the response's or trajectory's id."""


Search = Generator[Wave, None, Finding]
"""A method at work on one question."""
Solo = Generator[Wave, None, Found]
"""A method at work on one solution."""

STAGE = "process"


def parallel(question: Question, searches: Sequence[Solo]) -> Search:
    """Work on a question's solutions side by side; one that raises BadReply becomes a Reject."""
    waves: dict[int, Wave] = {}
    found: dict[int, Found] = {}
    rejects: list[Reject] = []

    def move(index: int, spent: bool) -> None:
        waves.pop(index, None)
        try:
            if spent:
                waves[index] = searches[index].throw(BudgetSpent())
            else:
                waves[index] = next(searches[index])
        except StopIteration as stop:
            found[index] = stop.value
        except BudgetSpent:
            raise AssertionError("a method must catch BudgetSpent at its yield") from None
        except BadReply as error:
            rejects.append(rejected(question.solutions[index], error))

    for index in range(len(searches)):
        move(index, spent=False)
    while waves:
        try:
            yield [wanted for index in sorted(waves) for wanted in waves[index]]
        except BudgetSpent:
            for index in sorted(waves):
                move(index, spent=True)
        else:
            for index in sorted(waves):
                move(index, spent=False)
    return Finding(tuple(found[index] for index in sorted(found)), rejects=tuple(rejects))


def rejected(solution: Solution, error: BadReply) -> Reject:
    """The Reject of a solution that got no labels since a request of its got no usable answer."""
    unit = solution.trajectory.response_id or solution.trajectory.id
    return Reject(unit=unit, stage=STAGE, code=error.code, detail=error.detail[:500])


def final_step(final_right: bool | None, step: Step | None = None) -> Step:
    """The last step of a finished solution: its answer was checked, nothing need be sampled."""
    step = step or Step()
    if final_right is None:
        return step
    known = float(final_right)
    return step._replace(
        value=known,
        low=known,
        high=known,
        label="right" if final_right else "wrong",
        source="answer",
    )
