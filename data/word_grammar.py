"""The small grammar of the word problems, and the plan that is read back from a problem's text.

A problem is a few sentences and a question. `parse` reads its *plan* from the text alone: the
numbers that are given, and one equation after another that the sentences call for.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field

NAMES = {
    **dict.fromkeys(("Ana", "Eve", "Mia", "Zoe", "Lea", "Ida"), "She"),
    **dict.fromkeys(("Tom", "Ben", "Max", "Sam", "Leo", "Jon"), "He"),
}
ITEMS = ("pens", "cups", "hats", "keys", "nuts", "eggs", "figs", "pins", "toys", "maps")
BOXES = ("bags", "jars", "packs", "trays")
GAINS = ("gets", "finds", "makes")
LOSSES = ("loses", "sells", "gives away")
TIMES = {"twice": 2, "three times": 3, "half": 2}
FAMILIES = ("chain", "groups", "share", "scale", "compare", "prices")
MAX_VALUE = 99
MIN_STEPS, MAX_STEPS = 2, 6


class UnknownProblem(ValueError):
    """The text is not a problem of this grammar."""


@dataclass(frozen=True)
class Equation:
    """One planned equation: operation and the two slots of `Plan` that it joins."""

    op: str
    left: int
    right: int
    sentence: int
    update: bool  # it changes a running value (its left slot), so it can be missed


@dataclass(frozen=True)
class Plan:
    """Slots 0..len(given)-1 are the given numbers; slot len(given)+i is the result of equation i."""

    given: tuple[int, ...]
    equations: tuple[Equation, ...]
    distractors: frozenset[int]

    def values(self) -> list[int]:
        """The right value of every slot. Raises UnknownProblem where a division is not exact."""
        values = list(self.given)
        for eq in self.equations:
            result = compute(eq.op, values[eq.left], values[eq.right])
            if result is None:
                raise UnknownProblem("a division of the problem is not exact")
            values.append(result)
        return values


def compute(op: str, a: int, b: int) -> int | None:
    """a op b, or None where the division is not exact."""
    if op == "/":
        return a // b if b != 0 and a % b == 0 else None
    return a + b if op == "+" else a - b if op == "-" else a * b


# --- the grammar: one pattern a kind of sentence ------------------------------------------------

_NAME = "(?P<who>" + "|".join(NAMES) + ")"
_WHO = "(?P<who>She|He|" + "|".join(NAMES) + ")"
_ITEM = "(?P<item>" + "|".join(ITEMS) + ")"
_BOX = "(?:" + "|".join(BOXES) + ")"
_N, _M = "(?P<n>[0-9]{1,3})", "(?P<m>[0-9]{1,3})"
_OTHER = "(?P<other>" + "|".join(NAMES) + ")"
_SENTENCES = {
    kind: re.compile(pattern)
    for kind, pattern in {
        "start": f"{_NAME} has {_N} {_ITEM}",
        "boxes": f"{_NAME} has {_N} {_BOX} of {_M} {_ITEM}",
        "more_boxes": f"{_WHO} gets {_N} more {_BOX} of {_M}",
        "gain": f"{_WHO} (?:{'|'.join(GAINS)}) {_N} more",
        "loss": f"{_WHO} (?:{'|'.join(LOSSES)}) {_N}",
        "double": f"{_WHO} doubles them",
        "halve": f"{_WHO} gives away half",
        "share": f"{_WHO} puts them evenly in {_N} {_BOX}",
        "as_many": f"{_NAME} has (?P<times>{'|'.join(TIMES)}) as many as {_OTHER}",
        "relative": f"{_NAME} has {_N} (?P<sign>more|fewer) than {_OTHER}",
        "price": f"One (?P<one>{'|'.join(i[:-1] for i in ITEMS)}) costs {_N} coins",
        "buy": f"{_NAME} buys {_N} {_ITEM}",
        "coupon": f"A coupon takes off {_N} coins",
        "fee": f"A bag costs {_N} coins more",
        "pay": f"{_WHO} pays with {_N} coins",
        "idle": "It is a (?:warm|cold|long|nice) day",
    }.items()
}
_QUESTIONS = {
    kind: re.compile(pattern)
    for kind, pattern in {
        "have": f"How many {_ITEM} does {_NAME} have",
        "each": f"How many {_ITEM} are in each",
        "all": f"How many {_ITEM} do they have in all",
        "differ": f"How many more {_ITEM} does {_NAME} have than {_OTHER}",
        "cost": "How many coins is that",
        "change": "How many coins come back",
    }.items()
}


@dataclass
class _Reader:
    """Reads sentences into a plan; until the end, slot -1-i stands for equation i's result."""

    item: str | None
    given: list[int] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    distractors: set[int] = field(default_factory=set)
    held: dict[str, int] = field(default_factory=dict)  # who -> slot, in order of introduction
    prices: dict[str, int] = field(default_factory=dict)  # item -> slot
    subject: str = ""
    sentence: int = 0

    def number(self, value: int) -> int:
        self.given.append(value)
        return len(self.given) - 1

    def equation(self, op: str, left: int, right: int, update: bool = False) -> int:
        self.equations.append(Equation(op, left, right, self.sentence, update))
        return -len(self.equations)

    def update(self, who: str, op: str, right: int) -> None:
        self.held[who] = self.equation(op, self.held[who], right, update=True)

    def read(self, text: str, asked: Collection[str]) -> None:
        """Reads one sentence. `asked` are the bought items (empty where nothing is bought)."""
        kind, found = _match(_SENTENCES, text)
        g = found.groupdict()
        who = g.get("who") or ""
        if who in ("She", "He"):
            who = self.subject
        n = int(g["n"]) if g.get("n") else 0
        if kind == "idle":
            return
        if kind == "price":
            if g["one"] + "s" in asked:
                self.prices[g["one"] + "s"] = self.number(n)
            else:
                self.distractors.add(n)
            return
        if kind in ("start", "boxes") and g["item"] != self.item:
            self.distractors.update(int(g[k]) for k in ("n", "m") if g.get(k))
            return
        if kind == "start":
            self.held[who] = self.number(n)
        elif kind == "boxes":
            self.held[who] = self.equation("*", self.number(n), self.number(int(g["m"])))
        elif kind == "more_boxes":
            more = self.equation("*", self.number(n), self.number(int(g["m"])))
            self.update(who, "+", more)
        elif kind in ("gain", "loss"):
            self.update(who, "+" if kind == "gain" else "-", self.number(n))
        elif kind in ("double", "halve"):
            self.update(who, "*" if kind == "double" else "/", self.number(2))
        elif kind == "share":
            self.held[who] = self.equation("/", self.held[who], self.number(n))
        elif kind == "as_many":
            op = "/" if g["times"] == "half" else "*"
            times = self.number(TIMES[g["times"]])
            self.held[who] = self.equation(op, self.held[g["other"]], times)
        elif kind == "relative":
            op = "+" if g["sign"] == "more" else "-"
            self.held[who] = self.equation(op, self.held[g["other"]], self.number(n))
        elif kind == "buy":
            cost = self.equation("*", self.number(n), self.prices[g["item"]])
            bill = self.held.get(who)
            self.held[who] = cost if bill is None else self.equation("+", bill, cost, update=True)
        elif kind in ("coupon", "fee"):
            self.update(self.subject, "-" if kind == "coupon" else "+", self.number(n))
        elif kind == "pay":
            self.held[who] = self.equation("-", self.number(n), self.held[who])
        if kind not in ("gain", "loss"):
            self.subject = who or self.subject


def _match(patterns: dict[str, re.Pattern[str]], text: str) -> tuple[str, re.Match[str]]:
    for kind, pattern in patterns.items():
        if found := pattern.fullmatch(text):
            return kind, found
    raise UnknownProblem(f"not a sentence of this grammar: {text[:80]!r}")


def parse(text: str) -> Plan:
    """The plan of a problem, read from its text. Raises UnknownProblem if it is not of this grammar."""
    body, dot, question = text.strip().rpartition(". ")
    if not dot or not question.endswith("?"):
        raise UnknownProblem("a problem is sentences that end in '.', and one question")
    kind, asked = _match(_QUESTIONS, question[:-1])
    names = asked.groupdict()
    sentences = body.split(". ")
    bought = {f["item"] for s in sentences if (f := _SENTENCES["buy"].fullmatch(s))}
    reader = _Reader(item=names.get("item"))
    try:
        for reader.sentence, sentence in enumerate(sentences):
            reader.read(sentence, bought)
        reader.sentence += 1
        if kind == "all":
            total, *others = reader.held.values()
            for slot in others:
                total = reader.equation("+", total, slot)
        elif kind == "differ":
            reader.equation("-", reader.held[names["who"]], reader.held[names["other"]])
    except KeyError as unknown:
        raise UnknownProblem(f"the problem does not say what {unknown} has") from None
    if not reader.equations:
        raise UnknownProblem("the problem calls for no step")
    last = -len(reader.equations)
    if kind == "have" and reader.held.get(names["who"]) != last:
        raise UnknownProblem("the question is not about the last quantity")
    offset = len(reader.given)

    def place(slot: int) -> int:
        return slot if slot >= 0 else offset - 1 - slot

    equations = tuple(
        Equation(e.op, place(e.left), place(e.right), e.sentence, e.update)
        for e in reader.equations
    )
    return Plan(tuple(reader.given), equations, frozenset(reader.distractors))


def solve(text: str) -> tuple[str, ...]:
    """The lines of the reference solution of a problem."""
    plan = parse(text)
    values = plan.values()
    lines = [
        f"{values[e.left]}{e.op}{values[e.right]}={result}"
        for e, result in zip(plan.equations, values[len(plan.given) :], strict=True)
    ]
    return (*lines, f"#{values[-1]}")
