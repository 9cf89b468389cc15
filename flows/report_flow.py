"""Where rows went: the counts of the stages, checked, and chained into pictures of one unit each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from flows import charts, visible
from flows.sankey import FlowStep, flow, tone


@dataclass(frozen=True)
class StageCount:
    """What went into a stage, what came out, and what stopped there.

    `unit` is what `rows_in` counts; `made` is what `rows_out` counts where that is something else
    (prompts in, responses out). `each` is the number of rows made of a row: the page then claims,
    and checks, rows_in * each = rows_out + rejects. 1 is a filter; None claims nothing. `after`
    names the earlier stage whose whole output this one takes (checked). `outcomes` split rows_out
    (checked), such as right/wrong/unparsed/truncated or keep/flip/soften/drop/route. What is not
    `drawn` is beside the way of the rows, such as a judge's votes: it stands in the table alone.
    """

    stage: str
    unit: str
    rows_in: int
    rows_out: int
    rejects: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    made: str = ""
    each: int | None = 1
    after: str = ""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    drawn: bool = True

    @property
    def out_unit(self) -> str:
        """What `rows_out` counts."""
        return self.made or self.unit

    @property
    def rejected(self) -> int:
        """Rows that stopped."""
        return sum(self.rejects.values())


def check_stages(stages: Sequence[StageCount]) -> None:
    """Raise ValueError, naming the stage, where its counts do not add up."""
    seen: dict[str, StageCount] = {}
    for s in stages:
        counts = [s.rows_in, s.rows_out, *s.rejects.values(), *s.outcomes.values()]
        if min(counts) < 0:
            raise ValueError(f"{s.stage}: a count is below 0")
        if s.each is not None and s.rows_in * s.each != s.rows_out + s.rejected:
            raise ValueError(
                f"{s.stage}: {s.rows_in} {s.unit} in, {s.each} each, are not {s.rows_out} out "
                f"and {s.rejected} rejected"
            )
        if s.outcomes and sum(s.outcomes.values()) != s.rows_out:
            raise ValueError(
                f"{s.stage}: its outcomes sum to {sum(s.outcomes.values())}, not to the "
                f"{s.rows_out} that came out"
            )
        if s.after:
            if s.after not in seen:
                raise ValueError(f"{s.stage}: follows {s.after}, which is no earlier stage")
            before = seen[s.after]
            if (before.rows_out, before.out_unit) != (s.rows_in, s.unit):
                raise ValueError(
                    f"{s.stage}: takes {s.rows_in} {s.unit}, but {s.after} gave "
                    f"{before.rows_out} {before.out_unit}"
                )
        seen[s.stage] = s


@dataclass(frozen=True)
class Track:
    """Stages of one unit in a row, each taking what the one before gave."""

    unit: str
    origin: str
    stages: tuple[StageCount, ...]

    @property
    def drawing(self) -> Markup:
        """The flow's picture. Where a stage makes any number of rows, its rejects are of the unit
        it took: the table has them, this picture of the unit it made does not."""
        steps = [
            FlowStep(
                visible.plain(s.stage, 24),
                s.rows_in if not s.made else s.rows_out + (s.rejected if s.each else 0),
                {visible.plain(code, 32): n for code, n in s.rejects.items() if s.each},
                {visible.plain(name, 24): n for name, n in s.outcomes.items()},
                "in" if not s.made else "asked for" if s.each else "made",
            )
            for s in self.stages
        ]
        return flow(steps, visible.plain(self.unit, 24), f"Where the {self.unit} went")


def tracks(stages: Sequence[StageCount]) -> list[Track]:
    """Chain stages into flows of one unit; one that makes another unit, or branches, starts anew."""
    chains: list[list[StageCount]] = []
    for s in (stage for stage in stages if stage.drawn):
        home = next((c for c in chains if s.after and c[-1].stage == s.after), None)
        if home and not s.made and s.each == 1 and home[-1].out_unit == s.unit:
            home.append(s)
        else:
            chains.append([s])
    found = []
    for chain in chains:
        first = chain[0]
        origin = ""
        if first.made:
            times = f" × {first.each}" if first.each and first.each > 1 else ""
            origin = f"made from {charts.number(first.rows_in)} {first.unit}{times}"
        found.append(Track(first.out_unit, origin, tuple(chain)))
    return found


def split(stage: StageCount) -> list[tuple[str, int, str]]:
    """A stage's rows as (name, count, colour): outcomes or what went on, then what stopped."""
    parts = [(visible.plain(k), n, tone(k, i)) for i, (k, n) in enumerate(stage.outcomes.items())]
    parts = parts or [("went on", stage.rows_out, "s0")]
    return [*parts, ("rejected", stage.rejected, "bad hatch")] if stage.rejected else parts
