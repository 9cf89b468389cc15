"""What people's labels cost, what they changed, and what more of them would be worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

NAME = "cost"
VERSION = 1

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
    money: float
    """What the votes cost: what was paid where that is known, else their time at the hourly rate."""
    money_per_label: float | None
    """The same, a label."""
    changed: int
    """Pairs decided otherwise than they would have been without people."""
    money_per_change: float | None
    """Money for one such change."""
    next_pairs: int
    """The next pairs in the queue, at most a hundred."""
    next_worth: float
    """What those are expected to gain less what they cost, in the plan's money."""


def cost(
    votes: pa.Table,
    hourly_rate: float,
    *,
    longest: float = 1800.0,
    before: pa.Table | None = None,
    after: pa.Table | None = None,
    queue: pa.Table | None = None,
) -> Cost:
    """Cost of people's votes, on whatever they are.

    Args:
        votes: `Vote` rows; those of people count.
        hourly_rate: Money for an hour of a person's time.
        longest: Seconds that one answer counts at most: a page left open overnight is no work.
        before: `Decision` rows without people's votes.
        after: `Decision` rows with them. A pair counts as changed when its action, or the side of its
            target, differs.
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
    # A vote of unknown length takes as long as the others.
    money = math.fsum(
        paid if paid is not None else (seconds if seconds is not None else each or 0.0)
        / 3600 * hourly_rate
        for paid, seconds in times.select("paid", "seconds").iter_rows()
    )  # fmt: skip
    changed = _changed(before, after)
    pairs, worth = _next(queue)
    return Cost(
        votes=len(frame),
        labels=labels,
        timed=len(known),
        seconds=total,
        seconds_per_vote=typical if isinstance(typical, float) else None,
        seconds_per_label=each * len(frame) / labels if each is not None and labels else None,
        money=money,
        money_per_label=money / labels if labels else None,
        changed=changed,
        money_per_change=money / changed if changed else None,
        next_pairs=pairs,
        next_worth=worth,
    )


def _changed(before: pa.Table | None, after: pa.Table | None) -> int:
    if before is None or after is None:
        return 0
    columns = ["pair_id", "action", "target"]
    old, new = (pl.DataFrame(pl.from_arrow(table)).select(columns) for table in (before, after))
    both = old.join(new, on="pair_id", suffix="_new").select(
        (pl.col("action") != pl.col("action_new"))
        | ((pl.col("target") - 0.5).sign() != (pl.col("target_new") - 0.5).sign())
    )
    return int(both.to_series().sum())


def _next(queue: pa.Table | None) -> tuple[int, float]:
    """The first hundred by rank: gold and audit cost what they cost."""
    if queue is None:
        return 0, 0.0
    values = pl.DataFrame(pl.from_arrow(queue)).sort("round", "rank", "pair_id")["value"]
    return min(len(values), NEXT), math.fsum(values.head(NEXT))
