"""The report of a run: one HTML page that needs nothing else, made from what the store holds.

The page has no script, loads nothing and carries a policy that forbids both. Every text is escaped
and its hidden characters are shown (flows/visible.py). Counts that do not add up raise ValueError:
no page is written that contradicts itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from markupsafe import Markup

from flows import charts, visible
from flows.page import environment, write_page
from flows.sankey import FlowStep, flow, tone
from schemas.records import Decision, Pair, Prompt, Reject, Response, StepLabels, Vote

Group = Literal["agreeing", "narrow", "disagreeing", "dropped"]

GROUPS: dict[Group, str] = {
    "agreeing": "The judges agree",
    "narrow": "Narrow: barely decided",
    "disagreeing": "The judges disagree",
    "dropped": "Dropped",
}
_POSITIONS = 24
"""Step positions drawn one by one; later ones are pooled."""


@dataclass(frozen=True)
class EngineUsed:
    """An engine of the run; `role` is what it did, such as `policy` or `judge strict`."""

    role: str
    kind: str
    model: str
    revision: str


@dataclass(frozen=True)
class Place:
    """Where something of the run is: a path relative to the report's folder, or a URL."""

    name: str
    path: str
    what: str


@dataclass(frozen=True)
class StageCount:
    """What went into a stage, what came out, and what stopped there.

    `unit` is what `rows_in` counts; `made` is what `rows_out` counts where that is something else
    (prompts in, responses out). `each` is the number of rows made of a row: the page then claims,
    and checks, rows_in * each = rows_out + rejects. 1 is a filter; None claims nothing. `after`
    names the earlier stage whose whole output this one takes (checked). `outcomes` split rows_out
    (checked), such as right/wrong/unparsed/truncated or keep/flip/soften/drop/route.
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

    @property
    def out_unit(self) -> str:
        """What `rows_out` counts."""
        return self.made or self.unit

    @property
    def rejected(self) -> int:
        """Rows that stopped."""
        return sum(self.rejects.values())


@dataclass(frozen=True)
class StageDigest:
    """A published stage: what the store keeps it under."""

    stage: str
    version: str
    record: str
    rows: int
    digest: str


@dataclass(frozen=True)
class StepPositions:
    """Labels by position: item t counts step t of all trajectories.

    `first_error[t]` counts trajectories whose first wrong step is t; with `no_error` they make up
    `trajectories` (checked).
    """

    trajectories: int
    no_error: int
    labelled: tuple[int, ...]
    wrong: tuple[int, ...]
    first_error: tuple[int, ...]


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities of one scorer against what came true."""

    name: str
    bins: tuple[charts.Bin, ...]

    @property
    def count(self) -> int:
        """Predictions."""
        return sum(b.count for b in self.bins)

    @property
    def ece(self) -> float:
        """Expected calibration error over these bins, in [0, 1]. [Naeini et al. 2015]"""
        gaps = sum(abs(b.right - b.count * b.predicted) for b in self.bins)
        return gaps / self.count if self.count else 0.0


@dataclass(frozen=True)
class Figure:
    """A figure of the evaluation, its interval, and its value under each seed."""

    name: str
    meaning: str
    value: float
    low: float | None = None
    high: float | None = None
    per_seed: tuple[float, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """How the trained models did; `about` says on which rows, `command` gives the figures again."""

    about: str
    command: str
    interval: str
    seeds: tuple[int, ...]
    figures: tuple[Figure, ...] = ()
    best_of_n: tuple[charts.Curve, ...] = ()
    reliability: tuple[Reliability, ...] = ()


@dataclass(frozen=True)
class PairRow:
    """A pair to read, with everything that was decided about it."""

    group: Group
    prompt: Prompt
    pair: Pair
    a: Response
    b: Response
    votes: tuple[Vote, ...]
    decision: Decision | None
    steps_a: StepLabels | None = None
    steps_b: StepLabels | None = None


@dataclass(frozen=True)
class ReportData:
    """All that a page shows. Empty parts are said to be empty, in words."""

    plan_name: str
    run_id: str
    plan_digest: str
    seed: int
    engines: tuple[EngineUsed, ...] = ()
    places: tuple[Place, ...] = ()
    next_steps: tuple[tuple[str, str], ...] = ()
    """(what to do in words, the command)."""
    stages: tuple[StageCount, ...] = ()
    step_values: charts.Histogram | None = None
    interval_widths: charts.Histogram | None = None
    decision_probabilities: charts.Histogram | None = None
    label_sources: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What is labelled (`pairs`, `steps`) -> what the label rests on -> count."""
    positions: StepPositions | None = None
    step_pages: bool = False
    """Whether steps/index.html lies beside the report: the page links to it."""
    evaluation: Evaluation | None = None
    rows: tuple[PairRow, ...] = ()
    rejects: tuple[Reject, ...] = ()
    """Examples; up to three of a stage and code are shown. Counts come from `stages`."""
    plan_text: str = ""
    digests: tuple[StageDigest, ...] = ()


def check(data: ReportData) -> None:
    """Raise ValueError, naming the stage, where the page's counts would not add up."""
    seen: dict[str, StageCount] = {}
    for s in data.stages:
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
    known = Counter[tuple[str, str]]()
    for s in data.stages:
        known.update({(s.stage, code): n for code, n in s.rejects.items()})
    for (stage, code), n in Counter((r.stage, r.code) for r in data.rejects).items():
        if n > known[stage, code]:
            raise ValueError(f"{stage}: {n} examples of {code}, but {known[stage, code]} counted")
    p = data.positions
    if p and p.no_error + sum(p.first_error) != p.trajectories:
        raise ValueError(
            f"first errors: {sum(p.first_error)} with and {p.no_error} without one are not "
            f"{p.trajectories} trajectories"
        )
    if p and len(p.labelled) != len(p.wrong):
        raise ValueError("step positions: as many counts of labelled as of wrong steps are needed")
    for place in data.places:
        path = place.path
        if PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive or path[:1] == "~":
            raise ValueError(f"{place.name}: its path must be relative to the report's folder")
    e = data.evaluation
    for f in e.figures if e else ():
        if f.per_seed and e and len(f.per_seed) != len(e.seeds):
            raise ValueError(f"{f.name}: {len(f.per_seed)} values for {len(e.seeds)} seeds")
        if f.low is not None and f.high is not None and not f.low <= f.value <= f.high:
            raise ValueError(f"{f.name}: {f.value} is outside its interval")


@dataclass(frozen=True)
class _Track:
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


def _tracks(stages: Sequence[StageCount]) -> list[_Track]:
    """Chain stages into flows of one unit; one that makes another unit, or branches, starts anew."""
    chains: list[list[StageCount]] = []
    for s in stages:
        home = next((c for c in chains if s.after and c[-1].stage == s.after), None)
        if home and not s.made and s.each == 1 and home[-1].out_unit == s.unit:
            home.append(s)
        else:
            chains.append([s])
    tracks = []
    for chain in chains:
        first = chain[0]
        origin = ""
        if first.made:
            times = f" × {first.each}" if first.each and first.each > 1 else ""
            origin = f"made from {charts.number(first.rows_in)} {first.unit}{times}"
        tracks.append(_Track(first.out_unit, origin, tuple(chain)))
    return tracks


def _split(stage: StageCount) -> list[tuple[str, int, str]]:
    """A stage's rows as (name, count, colour): outcomes or what went on, then what stopped."""
    parts = [(visible.plain(k), n, tone(k, i)) for i, (k, n) in enumerate(stage.outcomes.items())]
    parts = parts or [("went on", stage.rows_out, "s0")]
    return [*parts, ("rejected", stage.rejected, "bad hatch")] if stage.rejected else parts


def _pooled(counts: Sequence[int]) -> list[tuple[str, int]]:
    """Counts by step, numbered from 1, with the positions beyond the last drawn one pooled."""
    named = [(str(i + 1), n) for i, n in enumerate(counts[:_POSITIONS])]
    if len(counts) > _POSITIONS:
        named.append((f"{_POSITIONS + 1}+", sum(counts[_POSITIONS:])))
    return named


def _wrong_by_position(p: StepPositions) -> list[tuple[str, int, int]]:
    pairs = zip(_pooled(p.wrong), _pooled(p.labelled), strict=True)
    return [(name, wrong, labelled) for (name, wrong), (_, labelled) in pairs]


def _first_errors(p: StepPositions) -> list[tuple[str, int, int]]:
    return [(name, n, p.trajectories) for name, n in _pooled(p.first_error)]


def _short_names(series: Sequence[charts.Curve]) -> list[charts.Curve]:
    """The curves that have points, under names that fit beside their ends."""
    return [replace(c, name=visible.plain(c.name, 16)) for c in series if c.points]


def _unit_names(row: PairRow) -> dict[str, str]:
    """What a vote's unit id is called beside this pair."""
    names = {row.a.id: "response A", row.b.id: "response B", row.pair.id: "the pair"}
    for steps, name in ((row.steps_a, "steps of A"), (row.steps_b, "steps of B")):
        if steps:
            names |= {steps.id: name, steps.trajectory_id: name}
    return names


def _better(row: PairRow) -> str:
    """Which response the decision holds better: `a`, `b` or nothing."""
    if row.decision is None or row.decision.action in ("drop", "route"):
        return ""
    return "a" if row.decision.target > 0.5 else "b" if row.decision.target < 0.5 else ""


def _real(value: float | None) -> str:
    """A judge's value for a reader; what is no number is said to be none."""
    if value is None:
        return "no value"
    if value != value:
        return "not a number"
    return (f"{value:+.3f}" if abs(value) < 1e6 else f"{value:+.3g}").replace("-", "−")


def render(data: ReportData) -> str:
    """The page. Raises ValueError where its counts do not add up (see `check`)."""
    check(data)
    helpers = {
        "charts": charts,
        "split": _split,
        "short_names": _short_names,
        "unit_names": _unit_names,
        "better": _better,
        "real": _real,
        "wrong_by_position": _wrong_by_position,
        "first_errors": _first_errors,
        "wilson": charts.wilson,
    }
    groups = [(g, words, [r for r in data.rows if r.group == g]) for g, words in GROUPS.items()]
    page = environment().get_template("report.html.j2")
    return page.render(data=data, tracks=_tracks(data.stages), groups=groups, **helpers)


def write_report(data: ReportData, path: Path) -> None:
    """Write the page beside its final place, then rename: a reader never sees half a page."""
    write_page(render(data), path)
