"""A scripted policy over typed arithmetic chains, where the value of every prefix is exact.

A question has a start number and T typed operations. A solution is T lines, one a step, the last of
which also states the answer. The policy writes a line from what the text so far says: the running
value as written there, and the mode (plain or terse) of the line before. With a hazard that depends
on the operation's type and on the mode it writes an error: another operation, another number of
the question, or a slip. With probability `canonical` the error is the step's own systematic one, so
that sound prefixes sometimes lead to the same wrong answer. Later lines work rightly on the wrong
value, or err again.

Recovery. Monotone world: the last line checks the whole, and from a wrong running value it states
the right answer with probability q. Non-monotone world: at every line the policy may notice and
restate the right value, so seldom that from the middle of the chain it ever does with probability
about q; it also goes over to a terse mode, in which hazards triple, and back: there a right step
may lower the value; and hazards differ tenfold by type (twofold in the monotone world).

Exactness. An unsound line never comes upon the right running value by chance: operations are
injective, and an error that would hit it becomes another slip. So whether the running value is
right, the position and the mode are all that the future depends on, and V^pi follows by dynamic
programming. Truth of a prefix: it is sound where no line so far states a wrong value; after a
recovery a prefix keeps its error though its value is high.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import blake2b
from typing import Literal, NamedTuple

from scipy.optimize import brentq

from pipelines.process.search import Drawn

Type = Literal["add", "subtract", "double", "triple"]
Family = Literal["default", "systematic", "steep", "lenient"]

MILD: dict[Type, float] = {"add": 1.0, "subtract": 1.2, "double": 1.6, "triple": 2.0}
STRONG: dict[Type, float] = {"add": 0.3, "subtract": 0.8, "double": 1.6, "triple": 3.0}
TO_TERSE, BACK, TERSE_HAZARD = 0.08, 0.3, 3.0
MOST_HAZARD = 0.95
REFERENCE_QUESTIONS = 256


class Operation(NamedTuple):
    """One step of a question; `operand` is 2 or 3 for double and triple."""

    type: Type
    operand: int

    def of(self, value: int) -> int:
        """The value after it."""
        if self.type == "add":
            return value + self.operand
        if self.type == "subtract":
            return value - self.operand
        return value * self.operand


@dataclass(frozen=True)
class Cell:
    """A cell of the grid: which questions are asked, and how the policy errs."""

    steps: int
    """Lines of a solution, T."""
    rate: float
    """Chance of a solution without an error, on average over questions. V(root) lies above it: with
    recovery q no prefix has a value below about q, so V(root) = .1 could not be had at q = .15."""
    q: float
    """Recovery."""
    monotone: bool = True
    family: Family = "default"
    """`systematic`: most errors are the step's own; `steep`: hazard is concentrated in the last
    third; `lenient`: errors of the first half are often noticed there."""

    @property
    def canonical(self) -> float:
        """Share of errors that are the step's systematic one."""
        return 0.8 if self.family == "systematic" else 0.3

    @property
    def name(self) -> str:
        """Short, for tables."""
        kind = "monotone" if self.monotone else "modes"
        tail = "" if self.family == "default" else f",{self.family}"
        return f"T={self.steps},rate={self.rate},q={self.q},{kind}{tail}"


# The words of a line: plain ones of about 30 words, different by type, and terse ones.
_PLAIN: dict[Type, str] = {
    "add": "Step {n}: the total that stands before us now is {v} and the next thing the task asks is"
    " to add {a} , so we put them together and get {w}",
    "subtract": "Step {n}: from the total of {v} that we reached in the line above the task now tells"
    " us to take away {a} , which we subtract with care , and after that we get {w}",
    "double": "Step {n}: the running total is {v} and it is to be multiplied by {a} , so each part is"
    " counted twice and summed up once more with nothing left over , and we get {w}",
    "triple": "Step {n}: we are asked to multiply the running total of {v} by {a} , thus we lay three"
    " copies of it side by side , count all of them together , and in this way we get {w}",
}
_TERSE: dict[Type, str] = {
    "add": "Quick {n}: now add up {v} plus {a} and that is {w}",
    "subtract": "Quick {n}: now take off {v} minus {a} and that leaves just {w}",
    "double": "Quick {n}: now twice over {v} times {a} and that makes {w}",
    "triple": "Quick {n}: now thrice over {v} times {a} and so that makes {w}",
}
_FORMS = (_PLAIN, _TERSE)
_RESTATE = (
    "Step {n}: wait , going over the lines above again there is a mistake in them , and when it is"
    " put right and this step is done on top of it we get {w}",
    "Quick {n}: wait , that was wrong above , the right total here is {w}",
)
_ANSWER = " . The answer is {w}"


class State(NamedTuple):
    """What a prefix says."""

    position: int
    value: int
    """Running value as written."""
    mode: int
    """0 plain, 1 terse: of the last line."""
    first_error: int | None
    """First line that states a wrong value."""
    key: int
    """64-bit hash of the prefix."""


@dataclass(frozen=True)
class Chain:
    """A question: start and operations."""

    start: int
    operations: tuple[Operation, ...]

    @cached_property
    def right(self) -> tuple[int, ...]:
        """Right running values, from the start to the answer; T + 1 of them."""
        values = [self.start]
        for operation in self.operations:
            values.append(operation.of(values[-1]))
        return tuple(values)

    @cached_property
    def text(self) -> str:
        """What is asked."""
        said = " ; ".join(f"{o.type} {o.operand}" for o in self.operations)
        return f"Start from {self.start} . Then : {said} . What is the result ?"

    @classmethod
    def parse(cls, text: str) -> Chain:
        """The question that a text asks; ValueError where it asks none."""
        head, _, rest = text.partition(" . Then : ")
        said = rest.removesuffix(" . What is the result ?").split(" ; ")
        operations = []
        for part in said:
            name, _, operand = part.partition(" ")
            if name not in MILD:
                raise ValueError(f"no chain question: {text[:80]!r}")
            operations.append(Operation(name, int(operand)))
        return cls(int(head.removeprefix("Start from ")), tuple(operations))

    @classmethod
    def make(cls, steps: int, seed: int | str) -> Chain:
        """A random question whose right running values are positive and seldom above some hundreds."""
        rng = random.Random(f"chain {steps} {seed}")
        start = value = rng.randint(5, 50)
        operations = []
        for _ in range(steps):
            small = value <= 80
            kinds: list[Type] = ["add", "subtract", "double", "triple"]
            kind = rng.choices(kinds, (0.3, 0.3, 0.2, 0.2) if small else (0.3, 0.7, 0, 0))[0]
            if kind == "subtract" and value < 8:
                kind = "add"
            if kind == "subtract":
                operand = rng.randint(2, value - 2) if small else rng.randint(value // 3, value - 5)
            else:
                operand = {"double": 2, "triple": 3}.get(kind) or rng.randint(3, 60)
            operations.append(Operation(kind, operand))
            value = operations[-1].of(value)
        return cls(start, tuple(operations))


def _line(n: int, steps: int, type_: Type, value: int, operand: int, after: int, mode: int) -> str:
    text = _FORMS[mode][type_].format(n=n + 1, v=value, a=operand, w=after)
    return text + _ANSWER.format(w=after) if n + 1 == steps else text


@dataclass
class Policy:
    """The policy of a cell at work on one question."""

    cell: Cell
    chain: Chain
    states: dict[str, State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cell, chain = self.cell, self.chain
        self.steps = len(chain.operations)
        base = base_hazard(cell.steps, cell.rate, cell.monotone, cell.family)
        self.hazard = hazards(chain, base, cell.monotone, cell.family)
        self.recovery = recoveries(cell, self.steps)
        self.v = dynamic(self.hazard, self.recovery, cell.monotone)
        self.key = _hash(chain.text.encode())
        self.states[""] = State(0, chain.start, 0, None, _hash(b"", self.key))
        right = chain.right
        self.lines = [
            [
                _line(t, self.steps, o.type, right[t], o.operand, right[t + 1], mode)
                for t, o in enumerate(chain.operations)
            ]
            for mode in (0, 1)
        ]
        self.words = [[len(line.split()) for line in lines] for lines in self.lines]
        self.restate_words = [len(text.split()) for text in _RESTATE]
        self.answer_words = len(_ANSWER.split())
        self.numbers = sorted({chain.start, *(o.operand for o in chain.operations)})
        rng = random.Random(self.key)
        self.canonical = [self._another(t, right[t], rng) for t in range(self.steps)]

    # --- what a prefix says ----------------------------------------------------------------------

    def state(self, prefix: str) -> State:
        """Read a prefix; every line but the last of a whole solution ends in a line break."""
        known = self.states.get(prefix)
        if known is not None:
            return known
        kept = prefix.removesuffix("\n")
        cut = kept.rfind("\n") + 1
        before = self.state(kept[:cut])
        if before.position == self.steps:
            raise ValueError(f"more than {self.steps} lines: {prefix[-80:]!r}")
        line, position = kept[cut:], before.position + 1
        value, first = int(line.rpartition(" ")[2]), before.first_error
        if first is None and value != self.chain.right[position]:
            first = before.position
        mode, key = int(line.startswith("Quick")), _hash(kept.encode(), self.key)
        found = State(position, value, mode, first, key)
        self.states[prefix] = found
        return found

    def value(self, prefix: str) -> float:
        """V^pi of a prefix, exact: the chance that the policy ends right from there."""
        state = self.state(prefix)
        return self.v[state.position][self.is_right(state)][state.mode]

    def is_right(self, state: State) -> bool:
        """Whether the running value is the right one."""
        return state.value == self.chain.right[state.position]

    def is_sound(self, prefix: str) -> bool:
        """Whether no line so far is wrong."""
        return self.state(prefix).first_error is None

    # --- what the policy writes ------------------------------------------------------------------

    def draw(self, prefix: str, index: int, stream: int) -> Drawn:
        """Continuation `index` of a prefix in a stream: the same whoever asks, whenever."""
        state = self.state(prefix)
        rng = random.Random(state.key ^ (stream * 1_000_003 + index) * 0x9E3779B97F4A7C15)
        uniform = rng.random
        chain, right, steps = self.chain, self.chain.right, self.steps
        hazard, recovery, modes = self.hazard, self.recovery, not self.cell.monotone
        value, mode = state.value, state.mode
        lines: list[str] = []
        words = 0
        for t in range(state.position, steps):
            if modes:
                mode = int(uniform() >= BACK) if mode else int(uniform() < TO_TERSE)
            sound = value == right[t]
            if not sound and recovery[t] and uniform() < recovery[t]:
                value = right[t + 1]
                line = _RESTATE[mode].format(n=t + 1, w=value)
                words += self.restate_words[mode]
                if t + 1 == steps:
                    line += _ANSWER.format(w=value)
                    words += self.answer_words
            elif uniform() < hazard[t][mode]:
                type_, operand, after = self._error(t, value, rng)
                line = _line(t, steps, type_, value, operand, after, mode)
                words += len(line.split())
                value = after
            elif sound:
                value = right[t + 1]
                line = self.lines[mode][t]
                words += self.words[mode][t]
            else:
                operation = chain.operations[t]
                after = operation.of(value)
                line = _line(t, steps, operation.type, value, operation.operand, after, mode)
                words += self.words[mode][t]
                value = after
            lines.append(line)
        outcome: Literal["right", "wrong"] = "right" if value == right[-1] else "wrong"
        return Drawn(outcome, str(value), "\n".join(lines), words)

    def _error(self, t: int, value: int, rng: random.Random) -> tuple[Type, int, int]:
        """A wrong line: operation, operand and value as written."""
        own, wanted = self.chain.operations[t], self.chain.right[t + 1]
        if rng.random() < self.cell.canonical:
            type_, operand, _ = self.canonical[t]
            after = Operation(type_, operand).of(value)
        else:
            type_, operand, after = self._another(t, value, rng)
        if after in (wanted, own.of(value)):
            after = own.of(value) + (1 if own.of(value) + 1 != wanted else -1)
            return own.type, own.operand, after
        return type_, operand, after

    def _another(self, t: int, value: int, rng: random.Random) -> tuple[Type, int, int]:
        own = self.chain.operations[t]
        kind = rng.random()
        if kind < 0.4:
            after = own.of(value) + rng.choice((1, -1, 10, -10))
            return own.type, own.operand, after
        if kind < 0.7:
            other = Operation(own.type, rng.choice(self.numbers))
        else:
            swaps: dict[Type, Type] = {
                "add": "subtract",
                "subtract": "add",
                "double": "add",
                "triple": "add",
            }
            other = Operation(swaps[own.type], own.operand)
        return other.type, other.operand, other.of(value)


def _hash(data: bytes, salt: int = 0) -> int:
    return int.from_bytes(blake2b(data, digest_size=8, key=salt.to_bytes(8, "big")).digest())


def hazards(
    chain: Chain, base: float, monotone: bool, family: Family
) -> tuple[tuple[float, float], ...]:
    """Chance of an error at each step, by mode."""
    scale = MILD if monotone else STRONG
    found = []
    for t, operation in enumerate(chain.operations):
        own = base * scale[operation.type]
        if family == "steep":
            own *= 4.0 if t >= 2 * len(chain.operations) / 3 else 0.25
        found.append((min(own, MOST_HAZARD), min(own * TERSE_HAZARD, MOST_HAZARD)))
    return tuple(found)


def recoveries(cell: Cell, steps: int) -> tuple[float, ...]:
    """Chance at each line that an unsound running value is put right."""
    if cell.monotone:
        found = [0.0] * (steps - 1) + [cell.q]
    else:
        found = [1 - (1 - cell.q) ** (2 / steps)] * steps
    if cell.family == "lenient":
        found = [max(r, 0.2) if t < steps / 2 else r for t, r in enumerate(found)]
    return tuple(found)


def dynamic(
    hazard: Sequence[tuple[float, float]], recovery: Sequence[float], monotone: bool
) -> list[list[list[float]]]:
    """V^pi by lines written, whether the running value is right, and the last line's mode."""
    switch = ((1.0, 0.0),) * 2 if monotone else ((1 - TO_TERSE, TO_TERSE), (BACK, 1 - BACK))
    v = [[[0.0, 0.0], [1.0, 1.0]]]
    for own, back in zip(reversed(hazard), reversed(recovery), strict=True):
        after = v[-1]
        now = []
        for up in ((back, back), (1 - own[0], 1 - own[1])):
            then = [up[m] * after[1][m] + (1 - up[m]) * after[0][m] for m in (0, 1)]
            now.append([p[0] * then[0] + p[1] * then[1] for p in switch])
        v.append(now)
    return v[::-1]


@cache
def base_hazard(steps: int, rate: float, monotone: bool, family: Family) -> float:
    """The base hazard at which the chance of no error is `rate` on average over questions."""
    chains = [Chain.make(steps, f"reference {i}") for i in range(REFERENCE_QUESTIONS)]

    def clean(base: float) -> float:
        none = (0.0,) * steps
        tables = (hazards(chain, base, monotone, family) for chain in chains)
        return sum(dynamic(table, none, monotone)[0][1][0] for table in tables) / len(chains)

    # No hazard: all are clean; the greatest: none is. The chance falls in between.
    return float(brentq(lambda base: clean(base) - rate, 0.0, 10.0, xtol=1e-9))
