"""What the report says of people: how far they agree, how good each is, what their answers cost."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from annotation.agreement import Agreement
from annotation.cost import Cost, cost
from annotation.quality import Quality, QualityConfig, quality
from flows.plan import RoutePlan
from pipelines.store import Published

SHOWN = 60
"""Annotators shown at most: those with a flag first, then those with the most votes."""
FLAGS = {
    "gold_below_chance": "worse than a coin on known answers",
    "position_bias": "sides with a place, first or second",
    "fast": "answers in hardly any time",
}
CHANGED = "changed_by_people"
"""Fact of a decided run: pairs that people voted on and that are decided otherwise by it."""


@dataclass(frozen=True)
class Share:
    """`right` of `asked`, and Wilson's 95% interval of that share."""

    right: int
    asked: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, in [0, 1]."""
        return self.right / self.asked


@dataclass(frozen=True)
class AnnotatorShown:
    """One who answered; a share is none where nothing was there to measure it by."""

    name: str
    votes: int
    abstained: int
    gold: Share | None
    """Right on pairs whose answer is known."""
    rest: Share | None
    """With the majority of the others, where the others have one."""
    first: Share | None
    """Sides taken that fell on what was shown first."""
    seconds: float | None
    """Median."""
    flags: tuple[str, ...]
    """What stands out, in words."""


@dataclass(frozen=True)
class PeopleShown:
    """What people said in a run, and what it was worth."""

    people: int
    agreement: tuple[Agreement, ...]
    annotators: tuple[AnnotatorShown, ...]
    """At most `SHOWN` of them."""
    known: int | None
    """Pairs of the run whose answer is known; none: the plan names no such pairs."""
    first: tuple[float, float, float] | None
    """Share of all sides taken that fell on what was shown first, and its interval."""
    outliers: int
    """Answers whose time stands out."""
    method: str
    """How votes are put together; empty: their mean."""
    without: tuple[str, ...]
    """Who was left out."""
    rate: float | None
    """Money for an hour; none: nobody said."""
    cost: Cost
    waiting: int | None
    """Answers that the queue asks for; none: there is no queue."""

    @property
    def more(self) -> int:
        """Annotators that are not shown."""
        return self.people - len(self.annotators)


def people(made: Mapping[str, Published], rate: float | None) -> PeopleShown | None:
    """What people said in a run, at so much money an hour; None: nobody voted."""
    if "humans" not in made or not made["humans"].manifest.rows("votes"):
        return None
    config = made["humans"].manifest.config
    votes = made["humans"].table("votes")
    known = known_answers(made.get("route"))
    found = quality(votes, QualityConfig(), gold=known)
    queue = made["route"].table("queue") if "route" in made else None
    rows = annotators(found)
    return PeopleShown(
        people=len(rows),
        agreement=found.agreement,
        annotators=tuple(sorted(rows, key=lambda a: (not a.flags, -a.votes, a.name))[:SHOWN]),
        known=None if known is None else len(known),
        first=found.first_share,
        outliers=len(found.outliers),
        method=(config.get("aggregate") or {}).get("method", ""),
        without=tuple(config.get("without") or ()),
        rate=rate,
        cost=cost(votes, rate, changed=changed(made.get("decide")), queue=queue),
        waiting=None if queue is None else int(pc.sum(queue["overlap"]).as_py() or 0),
    )


def annotators(found: Quality) -> list[AnnotatorShown]:
    """A quality's annotators, as they are shown."""
    return [_annotator(row) for row in found.annotators.to_pylist()]


def _annotator(row: Mapping[str, Any]) -> AnnotatorShown:
    def share(name: str, right: str) -> Share | None:
        asked = row[f"{name}_asked"]
        if not asked:
            return None
        return Share(row[f"{name}_{right}"], asked, row[f"{name}_low"], row[f"{name}_high"])

    return AnnotatorShown(
        name=row["judge"],
        votes=row["votes"],
        abstained=row["abstained"],
        gold=share("gold", "right"),
        rest=share("rest", "right"),
        first=share("first", "chosen"),
        seconds=row["seconds"],
        flags=tuple(FLAGS[flag] for flag in row["flags"].split(",") if flag),
    )


def known_answers(route: Published | None) -> dict[str, float] | None:
    """Known answers by pair, above 0 where a is better; None: the plan names none."""
    if route is None or "known" not in route.manifest.tables:
        return None
    table: pa.Table = route.table("known")
    return dict(zip(table["pair_id"].to_pylist(), table["value"].to_pylist(), strict=True))


def changed(decide: Published | None) -> int | None:
    """Pairs that people's votes made a run decide otherwise; None: nobody counted."""
    found = decide.manifest.facts.get(CHANGED) if decide is not None else None
    return found if isinstance(found, int) else None


def hourly_rate(plan: Path) -> float | None:
    """Money for an hour of a person's time by a run's kept plan; None: it has no [route]."""
    if not plan.exists():
        return None
    route = tomllib.loads(plan.read_text("utf-8")).get("route")
    default: float = RoutePlan.model_fields["hourly_rate"].default
    return None if route is None else float(route.get("hourly_rate", default))
