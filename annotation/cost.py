"""What people's labels cost, what they changed, and what more of them would be worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

NAME = "cost"
VERSION = 2

NEXT = 100


@dataclass(frozen=True)
class Cost:
    """Seconds, money and worth of a campaign's labels."""

    votes: int
    """People's votes."""
    labels: int
    """Units that anyone answered."""
    timed: int
    """Votes whose time is known."""
    seconds: float
    """Their seconds together, each vote's cut at the limit."""
    seconds_per_vote: float | None
    """Median, which a coffee break does not move."""
    seconds_per_label: float | None
    """Mean of all timed votes times the votes a label took."""
    money: float | None
    """What the votes cost: what was paid where that is known, else their time at the hourly rate.
    None: neither is known of some."""
    money_per_label: float | None
    """The same, a label."""
    changed: int | None
    """Pairs decided otherwise than they would have been without people; none: nobody counted."""
    money_per_change: float | None
    """Money for one such change."""
    next_pairs: int
    """The next pairs in the queue, at most a hundred."""
    next_worth: float
    """What those are expected to gain less what they cost, in the plan's money."""


def cost(
    votes: pa.Table,
    hourly_rate: float | None,
    *,
    longest: float = 1800.0,
    changed: int | None = None,
    queue: pa.Table | None = None,
) -> Cost:
    """Cost of people's votes, on whatever they are.

    Args:
        votes: `Vote` rows; those of people count.
        hourly_rate: Money for an hour of a person's time; none: nobody said.
        longest: Seconds that one answer counts at most: a page left open overnight is no work.
        changed: Pairs that these votes made a run decide otherwise (`decide.changed_by_people`).
        queue: `ReviewItem` rows that nobody has answered yet.
    """
    frame = pl.DataFrame(pl.from_arrow(votes)).filter(pl.col("judge_kind") == "human")
    times = frame.select(
        unit="unit",
        paid="cost",
        seconds=pl.when(pl.col("seconds") > 0).then(pl.col("seconds").clip(upper_bound=longest)),
    )
    known = times["seconds"].drop_nulls()
    labels = frame["unit"].n_unique()
    total = math.fsum(known)
    typical = known.median()
    each = total / len(known) if len(known) else None
    money = _money(times, each, hourly_rate)
    pairs, worth = _next(queue)
    return Cost(
        votes=len(frame),
        labels=labels,
        timed=len(known),
        seconds=total,
        seconds_per_vote=typical if isinstance(typical, float) else None,
        seconds_per_label=each * len(frame) / labels if each is not None and labels else None,
        money=money,
        money_per_label=money / labels if money is not None and labels else None,
        changed=changed,
        money_per_change=money / changed if money is not None and changed else None,
        next_pairs=pairs,
        next_worth=worth,
    )


def _money(times: pl.DataFrame, each: float | None, hourly_rate: float | None) -> float | None:
    spent = []
    for paid, seconds in times.select("paid", "seconds").iter_rows():
        # A vote of unknown length takes as long as the others.
        took = seconds if seconds is not None else each
        if paid is not None:
            spent.append(paid)
        elif took is None or hourly_rate is None:
            return None
        else:
            spent.append(took / 3600 * hourly_rate)
    return math.fsum(spent)


def _next(queue: pa.Table | None) -> tuple[int, float]:
    """The first hundred by rank: gold and audit cost what they cost."""
    if queue is None:
        return 0, 0.0
    values = pl.DataFrame(pl.from_arrow(queue)).sort("round", "rank", "pair_id")["value"]
    return min(len(values), NEXT), math.fsum(values.head(NEXT))
