"""Multi-step word problems in a small grammar, their solutions, and a checker of every step.

A problem is a few sentences and a question. `parse` reads the *plan* back from the text alone: the
numbers that are given, and one equation after another that the sentences call for. The generator
only writes sentences; answers and reference solutions come from the parsed plan, so what is
generated and what is checked cannot drift apart.

A solution is one equation a line and the answer on the last line, which is a step like the others:

    3+4=7
    7-2=5
    #5

What "locally valid" means. The checker keeps, for every quantity of the plan, the value that the
*solution* wrote for it (not the right one). A line `a op b = c` is valid if a planned equation that
is not done yet and whose operands are known has that operation and these two values (in either
order for + and *), and c is its exact result. So a step after an earlier error is valid if it
follows from the wrong value before it. Independent equations may come in any order. The final line
is valid if no planned equation is open and it repeats the value of the last one. Several people's
quantities are added in the order in which the people are introduced.

Kinds of a bad step, in the order in which they are tried:

- malformed: neither an equation nor a final line, or anything after the final line
- arithmetic: the right equation with a wrong result
- missed_sentence: an equation that would be due if a sentence before it were not there; or a final
  line that gives the current value although equations are open
- repeated: an equation that was written before
- extra: an equation after the last planned one
- operation: the values of a due equation under another operation
- distractor: a number from a sentence that does not matter, in the place of one of the values of a
  due equation, or joined to the running value
- operand: the operation of a due equation with one of its two values wrong, or with both swapped
- off_plan: any other equation
- final_line: a final line that differs from the last value

After a bad step its result counts as the value of the equation it stands for, or of the running
value if it stands for none, so that one mistake is one bad step wherever that can be told.
"""

import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from data.word_grammar import (
    BOXES,
    FAMILIES,
    GAINS,
    ITEMS,
    LOSSES,
    MAX_STEPS,
    MAX_VALUE,
    MIN_STEPS,
    NAMES,
    TIMES,
    Plan,
    UnknownProblem,
    compute,
    parse,
    solve,
)

__all__ = [
    "FAMILIES",
    "MAX_STEPS",
    "MAX_VALUE",
    "MIN_STEPS",
    "Kind",
    "Plan",
    "Problem",
    "SolutionCheck",
    "StepCheck",
    "UnknownProblem",
    "check",
    "generate",
    "parse",
    "solve",
]

Kind = Literal[
    "malformed",
    "arithmetic",
    "missed_sentence",
    "repeated",
    "operation",
    "distractor",
    "operand",
    "extra",
    "off_plan",
    "final_line",
]


@dataclass(frozen=True)
class Problem:
    """A problem, its right answer, the lines of its reference solution, and its family."""

    text: str
    answer: int
    solution: tuple[str, ...]
    family: str


@dataclass(frozen=True)
class StepCheck:
    """One line of a solution; `kind` says what is wrong with it, None if it is locally valid."""

    text: str
    kind: Kind | None

    @property
    def valid(self) -> bool:
        """Whether the step is locally valid."""
        return self.kind is None


@dataclass(frozen=True)
class SolutionCheck:
    """A checked solution.

    first_error: index of the first step that is not valid, None if there is none (a truncated
    solution can have none and still not be right). answer: the number on the final line, None if
    there is none. right: the answer is the problem's.
    """

    steps: tuple[StepCheck, ...]
    first_error: int | None
    answer: int | None
    right: bool

    @property
    def complete(self) -> bool:
        """Whether there is a final line."""
        return self.answer is not None


# --- checking -----------------------------------------------------------------------------------

_EQUATION = re.compile(r"(-?[0-9]{1,9})([-+*/])(-?[0-9]{1,9})=(-?[0-9]{1,9})")
_FINAL = re.compile(r"#(-?[0-9]{1,9})")


def check(problem_text: str, solution_text: str) -> SolutionCheck:
    """Checks every line of a solution against the plan of its problem (see this module's docstring).

    Any solution text is accepted, and spaces within a line do not matter. Raises UnknownProblem if
    the problem is not of the grammar.
    """
    plan = parse(problem_text)
    state = _Checker(plan)
    steps = [
        StepCheck(line, state.step(re.sub("[ \t\r]", "", line)))
        for line in solution_text.strip().split("\n")
        if solution_text.strip()
    ]
    return SolutionCheck(
        steps=tuple(steps),
        first_error=next((i for i, s in enumerate(steps) if not s.valid), None),
        answer=state.answer,
        right=state.answer == plan.values()[-1],
    )


class _Checker:
    """The state of one solution: what each slot holds as written, and which equations are open."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.offset = len(plan.given)
        self.value: dict[int, int] = dict(enumerate(plan.given))
        self.open = list(range(len(plan.equations)))
        self.written: set[tuple[str, int, int]] = set()
        self.running = plan.equations[0].left
        self.answer: int | None = None

    def step(self, line: str) -> Kind | None:
        """Judges the next line and moves the state on; None if the line is locally valid."""
        if self.answer is not None:
            return "malformed"
        if final := _FINAL.fullmatch(line):
            return self._final(int(final[1]))
        found = _EQUATION.fullmatch(line)
        if not found:
            return "malformed"
        op, a, b, c = found[2], int(found[1]), int(found[3]), int(found[4])
        kind = self._equation(op, a, b, c)
        self.written.add((op, a, b))
        return kind

    def _final(self, answer: int) -> Kind | None:
        self.answer = answer
        if answer != self.value[self.running]:
            return "final_line"
        return "missed_sentence" if self.open else None

    def _equation(self, op: str, a: int, b: int, c: int) -> Kind | None:
        due = [i for i in self.open if not self._missed(i)]
        idle = self.plan.distractors
        for i in due:
            if self._same(i, op, a, b):
                self._done(i, c)
                return None if compute(op, a, b) == c else "arithmetic"
        for i in self.open:
            if self._same(i, op, a, b):
                self._done(i, c, self._missed(i))
                return "missed_sentence"
        if (op, a, b) in self.written or not due:
            self.value[self.running] = c
            return "repeated" if (op, a, b) in self.written else "extra"
        for i in due:
            if sorted((a, b)) == sorted(self._operands(i)):
                self._done(i, c)
                return "operand" if op == self.plan.equations[i].op else "operation"
        for i in due + [i for i in self.open if self._sentence(i) == self._sentence(due[0])]:
            known = self._operands(i)
            if op == self.plan.equations[i].op and (a in known or b in known):
                self._done(i, c, self._missed(i))
                return "distractor" if (b if a in known else a) in idle else "operand"
        now = self.value[self.running]
        if (a == now and b in idle) or (b == now and a in idle):
            self.value[self.running] = c
            return "distractor"
        self._done(due[0], c)
        return "off_plan"

    def _sentence(self, i: int) -> int:
        return self.plan.equations[i].sentence

    def _missed(self, i: int) -> set[int]:
        """The open equations of the sentences that must be missed for equation i to be due."""
        eq = self.plan.equations[i]
        sentences = set()
        slots = [eq.left, eq.right]
        while slots:
            slot = slots.pop()
            if slot not in self.value:
                before = self.plan.equations[slot - self.offset]
                sentences.add(before.sentence)
                slots.append(before.left)
        return {j for j in self.open if j != i and self._sentence(j) in sentences}

    def _value(self, slot: int) -> int | None:
        """What a slot holds; for an open update, what it would hold were its sentence missed."""
        while slot not in self.value:
            eq = self.plan.equations[slot - self.offset]
            if not eq.update:
                return None
            slot = eq.left
        return self.value[slot]

    def _operands(self, i: int) -> list[int]:
        """The known operands of equation i."""
        eq = self.plan.equations[i]
        return [v for v in (self._value(eq.left), self._value(eq.right)) if v is not None]

    def _same(self, i: int, op: str, a: int, b: int) -> bool:
        operands = self._operands(i)
        return op == self.plan.equations[i].op and (
            operands == [a, b] or (op in "+*" and operands == [b, a])
        )

    def _done(self, i: int, result: int, missed: Collection[int] = ()) -> None:
        for j in sorted(missed):
            self.open.remove(j)
            held = self._value(self.plan.equations[j].left)
            if held is not None:
                self.value[self.offset + j] = held
        self.open.remove(i)
        self.running = self.offset + i
        self.value[self.running] = result


# --- generating ---------------------------------------------------------------------------------


def generate(
    n: int,
    seed: int,
    families: Sequence[str] = FAMILIES,
    exclude: Collection[str] = (),
) -> list[Problem]:
    """n problems with distinct texts, none of them in `exclude`; the same for the same arguments.

    Families and numbers of steps (MIN_STEPS to MAX_STEPS, shorter ones more often) are drawn at
    random; every value of a problem lies in 1..MAX_VALUE. Raises ValueError for an unknown family.
    """
    unknown = set(families) - set(FAMILIES)
    if unknown or not families:
        raise ValueError(f"unknown families {sorted(unknown)}; there are {', '.join(FAMILIES)}")
    rng = random.Random(seed)
    seen = set(exclude)
    problems: list[Problem] = []
    while len(problems) < n:
        family = rng.choice(families)
        text = _write(family, rng)
        while text in seen or not _is_clear(parse(text)):
            text = _write(family, rng)
        seen.add(text)
        lines = solve(text)
        problems.append(Problem(text, int(lines[-1][1:]), lines, family))
    return problems


def _is_clear(plan: Plan) -> bool:
    """In range, of a wanted length, and no two of its numbers make one mistake look like another."""
    if not MIN_STEPS <= len(plan.equations) <= MAX_STEPS:
        return False
    try:
        values = plan.values()
    except UnknownProblem:
        return False
    changes = [str(values[e.right]) if e.op in "+-" else e.op for e in plan.equations if e.update]
    return (
        all(1 <= v <= MAX_VALUE for v in values)
        and len(set(changes)) == len(changes)
        and plan.distractors.isdisjoint(values)
    )


def _write(family: str, rng: random.Random) -> str:
    """The text of one problem, which may turn out to be out of range."""
    who, other, third = rng.sample(sorted(NAMES), 3)
    pronoun = NAMES[who]
    item, other_item, idle_item = rng.sample(ITEMS, 3)
    box = rng.choice(BOXES)
    length = rng.choices((0, 1, 2, 3, 4), (30, 30, 20, 12, 8))[0]
    start = f"{who} has {rng.randint(2, 20)} {item}"
    question = f"How many {item} does {who} have"

    def small() -> int:
        return rng.randint(2, 9)

    def change(subject: str) -> str:
        if rng.random() < 0.5:
            return f"{subject} {rng.choice(GAINS)} {small()} more"
        return f"{subject} {rng.choice(LOSSES)} {small()}"

    if family == "chain":
        body = [start] + [change(pronoun) for _ in range(length + 2)]
    elif family == "groups":
        body = [f"{who} has {small()} {box} of {small()} {item}"]
        if length >= 2 and rng.random() < 0.5:
            body += [change(pronoun) for _ in range(length - 2)]
            body.append(f"{pronoun} gets {rng.randint(2, 5)} more {box} of {rng.randint(2, 5)}")
        body += [change(pronoun) for _ in range(length + 2 - len(body))]
    elif family == "share":
        body = [start] + [change(pronoun) for _ in range(length + 1)]
        body.append(f"{pronoun} puts them evenly in {small()} {box}")
        question = f"How many {item} are in each"
    elif family == "scale":
        body = [start] + [change(pronoun) for _ in range(length + 1)]
        for word in rng.sample(("doubles them", "gives away half"), 2)[: 1 + (length > 1)]:
            body.insert(rng.randint(1, len(body)), f"{pronoun} {word}")
    elif family == "compare":
        body = [start]
        pairs = [(other, who)] + [(third, other)] * (length > 1)
        for new, old in pairs:
            if rng.random() < 0.5:
                body.append(f"{new} has {rng.choice(sorted(TIMES))} as many as {old}")
            else:
                sign = rng.choice(("more", "fewer"))
                body.append(f"{new} has {small()} {sign} than {old}")
        people = [who, *(new for new, _ in pairs)]
        body += [change(rng.choice(people)) for _ in range(length % 3)]
        question = f"How many {item} do they have in all"
        if rng.random() < 0.3:
            more, less = rng.sample(people, 2)
            question = f"How many more {item} does {more} have than {less}"
    else:
        prices = [f"One {item[:-1]} costs {rng.randint(2, 9)} coins"]
        body = [f"{who} buys {small()} {item}"]
        if length > 1:
            prices.append(f"One {other_item[:-1]} costs {rng.randint(2, 9)} coins")
            body.append(f"{who} buys {small()} {other_item}")
        if rng.random() < 0.3:
            prices.append(f"One {idle_item[:-1]} costs {rng.randint(2, 9)} coins")
        rng.shuffle(prices)
        extras = [f"A coupon takes off {small()} coins", f"A bag costs {small()} coins more"]
        body = prices + body + rng.sample(extras, 2)[: rng.randint(0, 2)]
        question = "How many coins is that"
        if rng.random() < 0.7:
            body.append(f"{pronoun} pays with {10 * rng.randint(2, 9)} coins")
            question = "How many coins come back"
    if rng.random() < 0.4:
        stranger = rng.choice([name for name in sorted(NAMES) if NAMES[name] != pronoun])
        idle = f"{stranger} has {rng.randint(2, 20)} {idle_item}"
        if family == "prices" or rng.random() < 0.25:
            idle = f"It is a {rng.choice(('warm', 'cold', 'long', 'nice'))} day"
        body.insert(rng.randint(1, len(body)), idle)
    return ". ".join(body) + f". {question}?"
