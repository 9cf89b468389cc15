"""What the methods share: keeping the order of what was asked, and drawing with curtailment."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Literal

from pipelines.process.estimate import interval, value
from pipelines.process.search import Ask, Book, Drawn, Label, Prefix, Solution, Step, Tally, tally
from schemas.records import Asked


class Log:
    """What was asked for one solution, in order."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def note(
        self, position: int, count: int, why: str, of: Literal["policy", "prover", "judge"]
    ) -> None:
        """Add an entry."""
        self.asked.append(Asked(position=position, count=count, of=of, why=why))


Draws = Generator[Sequence[Ask], None, list[list[Drawn]]]


def draw(
    book: Book,
    prefixes: Sequence[Prefix],
    k: int,
    stop_at: int,
    log: Log,
    why: str,
    threshold: float = 0.0,
    prover: bool = False,
) -> Draws:
    """Draw up to k rollouts of each prefix; curtailed where `stop_at` is not 0.

    Curtailed at `threshold` 0: a prefix is done at its `stop_at`-th success, and waves are just
    large enough to reach it. At a threshold above 0, where the hard label is `share > threshold`:
    done once no further draw can change it. BudgetSpent is the caller's to catch; what was drawn
    by then is in the book.
    """
    drawn: list[list[Drawn]] = [[] for _ in prefixes]
    wanted = {index: 0 for index in range(len(prefixes))}
    while True:
        for index in list(wanted):
            more = _more(tally(drawn[index]), k, stop_at, threshold)
            if more:
                wanted[index] = len(drawn[index]) + more
            else:
                del wanted[index]
        if not wanted:
            return drawn
        for index, count in wanted.items():
            own = "prover" if prover else "policy"
            log.note(prefixes[index].position, count - len(drawn[index]), why, own)  # type: ignore[arg-type]
        yield [Ask(prefixes[index], count, prover) for index, count in wanted.items()]
        for index, count in wanted.items():
            drawn[index] = book.drawn(prefixes[index], count, prover)


def _more(seen: Tally, k: int, stop_at: int, threshold: float) -> int:
    """How many draws to ask for next."""
    left = k - seen.n
    if not stop_at or left <= 0:
        return max(0, left)
    if threshold <= 0:
        return min(left, stop_at - seen.right) if seen.right < stop_at else 0
    # `right` needs more successes than the threshold's share of all that can still be counted; it
    # is settled once they are there or can no longer come.
    need = math.floor(threshold * (seen.counted + left) + 1e-9) + 1 - seen.right
    if need <= 0 or need > left:
        return 0
    return min(need, left - need + 1)


def step_of(drawn: Sequence[Drawn], stop_at: int, threshold: float = 0.0) -> Step:
    """The step's estimate from its rollouts; nothing is claimed where none had an answer."""
    seen = tally(drawn)
    step = Step(
        n=seen.n,
        successes=seen.right,
        truncated=seen.truncated,
        unparsed=seen.unparsed,
        tokens=seen.tokens,
    )
    if not seen.counted:
        return step
    stop = stop_at if threshold <= 0 else 0
    low, high = interval(seen.right, seen.counted, stop)
    label: Label = "right" if seen.right / seen.counted > threshold else "wrong"
    return step._replace(
        value=value(seen.right, seen.counted, stop),
        low=low,
        high=high,
        label=label,
        source="rollouts",
    )


def positions(solution: Solution) -> range:
    """The positions worth a rollout after at least one step: 1 to `last`."""
    return range(1, solution.last + 1)
