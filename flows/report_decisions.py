"""What the report says of decisions: are the probabilities right, what is accepted, who is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from flows import charts
from flows.frames import frame
from flows.report_charts import TONES, RiskPoint
from pipelines.consistency import risk
from pipelines.store import Published
from schemas.records import ErrorBound

BINS = 10
STRIP_BINS = 25
POINTS = 40
AUDITED = 20
"""Audit labels from which on they alone are drawn; below, all labels are."""
FACTS = 40
BANDS = ((0.0, 0.5), (0.5, 0.65), (0.65, 0.8), (0.8, 0.9), (0.9, 0.97), (0.97, 1.0))
"""Bands of a decision's probability, the upper end in the last alone."""


@dataclass(frozen=True)
class JudgeWeight:
    """What the calibration makes of a judge."""

    judge: str
    votes: int | None
    weight: float | None
    agreement_weight: float | None
    redundancy: float | None


@dataclass(frozen=True)
class Queued:
    """What people are to be asked for one purpose."""

    purpose: str
    pairs: int
    answers: int
    gain: float
    seconds: float


@dataclass(frozen=True)
class Decisions:
    """Beliefs, decisions, bounds and what people are to be asked."""

    pairs: int
    calibrated: int | None
    """Pairs whose probability rests on human labels; none: nothing was calibrated at all."""
    warning: str = ""
    labelled: int = 0
    """Pairs with a side by people, of which the diagrams are drawn."""
    audited: bool = False
    """Whether those were drawn at random."""
    split: int = 0
    """Further such pairs on which people took no side."""
    bins: tuple[charts.Bin, ...] = ()
    risk: tuple[RiskPoint, ...] = ()
    bounds: tuple[ErrorBound, ...] = ()
    accepted: int | None = None
    """Decisions within the bound; none: no bound was asked for."""
    actions: Mapping[str, charts.Histogram] | None = None
    actions_of: str = ""
    """What the histograms of the actions are of."""
    reasons: tuple[tuple[str, str, int], ...] = ()
    """(action, reason, pairs)."""
    judges: tuple[JudgeWeight, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    queue: tuple[Queued, ...] = ()
    worth_another_round: bool | None = None

    @property
    def ece(self) -> float:
        """Expected calibration error over the bins, in [0, 1]."""
        gaps = sum(abs(b.right - b.count * b.predicted) for b in self.bins)
        return gaps / self.labelled if self.labelled else 0.0

    @property
    def overall(self) -> ErrorBound | None:
        """The bound on all pairs."""
        return next((b for b in self.bounds if b.slice == "all"), None)

    @property
    def limit(self) -> tuple[tuple[float, float], ...]:
        """The bound as (share accepted, largest error of it) points."""
        found = self.overall
        if found is None:
            return ()
        if found.kind == "conditional":
            return ((0.0, found.alpha), (1.0, found.alpha))
        return tuple((x / 50, found.alpha / (x / 50)) for x in range(1, 51))


_WHY = {
    "too_few_labels": "There are too few audit labels to say so much: have more pairs, drawn at random, "
    "answered by people.",
    "too_many_errors": "People found too many wrong labels even among the surest pairs: better judges "
    "are needed, or a looser bound.",
    "nothing_to_accept": "No pair has a side that could be accepted.",
    "nothing_accepted_in_any_slice": "No slice has enough behind it.",
}


def why_none(bound: ErrorBound) -> str:
    """What stands in the way of a bound, and what would help."""
    return _WHY.get(bound.reason.partition(":")[0], "")


def duration(seconds: float) -> str:
    """Seconds as a person reckons them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def decisions(made: Mapping[str, Published]) -> Decisions | None:
    """What was decided; None: nothing yet."""
    if "decide" not in made:
        return None
    decided = frame(made["decide"], "decisions")
    beliefs = frame(made["calibrate"], "beliefs") if "calibrate" in made else None
    facts = made["calibrate"].manifest.facts if "calibrate" in made else {}
    bounds: tuple[ErrorBound, ...] = ()
    if "bounds" in made["decide"].manifest.tables:
        bounds = tuple(ErrorBound.from_table(made["decide"].table("bounds")))
    counted = decided.group_by("action", "reason").len().sort("action", "len", "reason")
    rank = {action: i for i, action in enumerate(TONES)}
    rows = sorted(counted.iter_rows(), key=lambda r: (rank.get(r[0], len(rank)), -r[2], r[1]))
    known = _known(made) if beliefs is not None else None
    asked = made.get("route", None)
    found = {
        "pairs": len(decided),
        "calibrated": None if beliefs is None else int(beliefs["calibrated"].sum()),
        "warning": str(facts.get("warning", "")),
        "bounds": bounds,
        "accepted": int(decided["accepted"].sum()) if decided["accepted"].count() else None,
        "reasons": tuple(rows),
        "judges": _judges(facts),
        "facts": _facts(facts),
        "queue": _queue(asked),
        "worth_another_round": asked.manifest.facts.get("worth_another_round") if asked else None,
        **_actions(decided, beliefs),
    }
    return Decisions(**{**found, **(known or {})})


def _actions(decided: pl.DataFrame, beliefs: pl.DataFrame | None) -> dict[str, Any]:
    """Histograms of P(label is right) by action: as believed, else as decided."""
    if not len(decided):
        return {}
    column = decided.select("pair_id", "action", "probability")
    what = "probability that the label is right, after the action"
    if beliefs is not None:
        before = beliefs.select("pair_id", believed="probability")
        column = column.join(before, on="pair_id", how="inner").drop("probability")
        column = column.rename({"believed": "probability"})
        what = "probability, before people voted on the pair, that its label is right"
    by = {
        action: charts.Histogram.of(own["probability"].to_list(), 0.0, 1.0, STRIP_BINS)
        for action in TONES
        if len(own := column.filter(pl.col("action") == action))
    }
    return {"actions": by or None, "actions_of": what}


def _known(made: Mapping[str, Published]) -> dict[str, Any]:
    """Beliefs against what people said, and risk against coverage."""
    if "humans" not in made:
        return {}
    beliefs = frame(made["calibrate"], "beliefs")
    people = frame(made["humans"], "labels")
    joined = (
        people.select("pair_id", "value", "purpose").join(beliefs, on="pair_id").sort("pair_id")
    )
    sided = joined.filter(pl.col("label").is_in(["a", "b"]))
    taken, split = sided.filter(pl.col("value") != 0), sided.filter(pl.col("value") == 0)
    audit = taken.filter(pl.col("purpose") == "audit")
    audited = len(audit) >= AUDITED
    taken = audit if audited else taken
    right = (taken["value"] > 0).to_numpy() == (taken["label"] == "a").to_numpy()
    return {
        "labelled": len(taken),
        "audited": audited,
        "split": len(split.filter(pl.col("purpose") == "audit") if audited else split),
        "bins": _bins(taken["probability"].to_numpy(), right),
        "risk": _risk(made),
    }


def _bins(probability: np.ndarray, right: np.ndarray) -> tuple[charts.Bin, ...]:
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    return tuple(
        charts.Bin(float(probability[own].mean()), int(right[own].sum()), int(own.sum()))
        for i in range(BINS)
        if (own := place == i).any()
    )


def _risk(made: Mapping[str, Published]) -> tuple[RiskPoint, ...]:
    """Error among audit labels down to each of some probabilities, by Clopper and Pearson (1934).

    About the side that the machine would settle on. Labels count as right or wrong as they are; the
    stated bounds also allow for people's errors, and for prompts that pairs share.
    """
    beliefs, labels = made["calibrate"].table("beliefs"), made["humans"].table("labels")
    scored = pl.DataFrame(pl.from_arrow(risk.final(beliefs))).select("pair_id", "probability")
    audit = (
        pl.DataFrame(pl.from_arrow(risk.answers(beliefs, labels)))
        .filter(pl.col("purpose") == "audit")
        .join(scored, on="pair_id")
        .drop_nulls("probability")
        .sort("probability", "pair_id", descending=[True, False])
    )
    if audit.is_empty():
        return ()
    chance = audit["probability"].to_numpy()
    wrong = np.cumsum(~audit["right"].to_numpy())
    every = np.sort(scored["probability"].drop_nulls().to_numpy())
    # Only where the probability changes: labels of one probability are accepted together.
    cuts = np.flatnonzero(np.append(chance[1:] < chance[:-1], True))
    if len(cuts) > POINTS:
        cuts = cuts[np.unique(np.linspace(0, len(cuts) - 1, POINTS).round().astype(int))]
    points = []
    for i in cuts:
        n, k = int(i) + 1, int(wrong[i])
        low, high = clopper_pearson(k, n)
        over = len(every) - int(np.searchsorted(every, chance[i], "left"))
        coverage = over / max(len(scored), 1)
        points.append(RiskPoint(coverage, k / n, low, high, n, float(chance[i])))
    return tuple(points)


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of k of n. [Clopper and Pearson 1934]"""
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return low, high


def _number(value: Any) -> float | None:
    """A finite number; None for anything else: the report is what another stage wrote."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if np.isfinite(value) else None


def _judges(facts: Mapping[str, Any]) -> tuple[JudgeWeight, ...]:
    rows = facts.get("judges")
    found = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and "judge" in row:
            votes = _number(row.get("votes"))
            numbers = (_number(row.get(k)) for k in ("weight", "agreement_weight", "redundancy"))
            found.append(
                JudgeWeight(str(row["judge"]), None if votes is None else int(votes), *numbers)
            )
    return tuple(sorted(found, key=lambda j: (-abs(j.weight or 0.0), j.judge)))


def _facts(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The rest of the calibration's report, in words, whatever is there."""
    rows: list[tuple[str, str]] = []

    def add(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{name}: {key}", inner)
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(_said(v) for v in value[:12])))
        elif value is not None:
            rows.append((name, _said(value)))

    for key, value in facts.items():
        if key not in ("judges", "warning", "rows"):
            add(key.replace("_", " "), value)
    return tuple(rows[:FACTS])


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    number = _number(value)
    if number is None:
        return str(value)[:200]
    return f"{number:,.0f}" if number == int(number) and abs(number) < 1e15 else f"{number:.4g}"


def _queue(output: Published | None) -> tuple[Queued, ...]:
    if output is None:
        return ()
    rows = (
        frame(output, "queue")
        .group_by("purpose", maintain_order=True)
        .agg(
            pairs=pl.len(),
            answers=pl.col("overlap").sum(),
            gain=pl.col("value").sum(),
            seconds=(pl.col("seconds") * pl.col("overlap")).sum(),
        )
        .sort("purpose")
    )
    return tuple(Queued(*row) for row in rows.iter_rows())
