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

from flows import charts, report_charts, visible
from flows.calibrating import in_words
from flows.page import environment, write_page
from flows.report_decisions import Decisions, duration, why_none
from flows.report_flow import StageCount as StageCount
from flows.report_flow import check_stages, split, tracks
from flows.report_judges import MEASURED, JudgeShown, limit_words, side_parts
from flows.report_people import PeopleShown
from flows.report_rounds import RoundShown
from flows.report_rubrics import RubricsShown
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
class Band:
    """Pairs whose decision's probability is in a range, and some of them to read."""

    low: float
    high: float
    pairs: int
    rows: tuple[PairRow, ...] = ()


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
    judges: tuple[JudgeShown, ...] = ()
    people: PeopleShown | None = None
    rubrics: RubricsShown | None = None
    decisions: Decisions | None = None
    rounds: tuple[RoundShown, ...] = ()
    rows: tuple[PairRow, ...] = ()
    bands: tuple[Band, ...] = ()
    """Pairs of each probability; none of them is among `rows`."""
    rejects: tuple[Reject, ...] = ()
    """Examples; up to three of a stage and code are shown. Counts come from `stages`."""
    plan_text: str = ""
    digests: tuple[StageDigest, ...] = ()


def check(data: ReportData) -> None:
    """Raise ValueError, naming the stage, where the page's counts would not add up."""
    check_stages(data.stages)
    known = Counter[tuple[str, str]]()
    for s in data.stages:
        known.update({(s.stage, code): n for code, n in s.rejects.items()})
    for (stage, code), n in Counter((r.stage, r.code) for r in data.rejects).items():
        if n > known[stage, code]:
            raise ValueError(f"{stage}: {n} examples of {code}, but {known[stage, code]} counted")
    for band in data.bands:
        if len(band.rows) > band.pairs:
            raise ValueError(f"{len(band.rows)} pairs of a band that has {band.pairs}")
    for judge in data.judges:
        if sum(judge.sides.values()) > judge.usable or judge.usable > judge.votes:
            raise ValueError(
                f"judge {judge.name}: more pairs than usable votes, or those than votes"
            )
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


def _reach(rubrics: RubricsShown) -> float:
    """The ends of the bars of rubrics' values: a half, or what the largest needs."""
    every = [r.value for r in rubrics.rubrics] + [
        c.value for r in rubrics.rubrics for c in r.criteria
    ]
    return max([0.5, *(abs(v.value) for v in every if v is not None and v.value is not None)])


def render(data: ReportData) -> str:
    """The page. Raises ValueError where its counts do not add up (see `check`)."""
    check(data)
    helpers = {
        "charts": charts,
        "split": split,
        "short_names": _short_names,
        "unit_names": _unit_names,
        "better": _better,
        "real": _real,
        "wrong_by_position": _wrong_by_position,
        "first_errors": _first_errors,
        "wilson": charts.wilson,
        "drawings": report_charts,
        "bound_words": in_words,
        "reach": _reach,
        "weight_reach": lambda rows: max([1e-9, *(abs(j.weight) for j in rows if j.weight)]),
        "side_parts": side_parts,
        "MEASURED": MEASURED,
        "limit_words": limit_words,
        "why_none": why_none,
        "duration": duration,
    }
    groups = [(g, words, [r for r in data.rows if r.group == g]) for g, words in GROUPS.items()]
    page = environment().get_template("report.html.j2")
    return page.render(data=data, tracks=tracks(data.stages), groups=groups, **helpers)


def write_report(data: ReportData, path: Path) -> None:
    """Write the page beside its final place, then rename: a reader never sees half a page."""
    write_page(render(data), path)
