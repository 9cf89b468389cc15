"""What labels are worth against the truth, as sums over questions, so that bootstraps are paired.

Truth of a step is the soundness of the prefix that ends with it: no line so far is wrong. Step
accuracy has two readings:

- `labelled`: of the steps with a hard label, the share that is right; `share_labelled` beside it.
- `forced`: of all steps. A step without a hard label counts by P(sound) >= .5 where that is given,
  else as wrong from the first step labelled wrong on, else as right.

Right labels per token count all that a method labelled, grown paths too: a prefix that several
solutions share counts once, and steps known from a checked final answer do not count, since those
cost nothing.

P(sound) of a method that gives none is its soft value, else its hard label. Brier, ECE (10 bins of
equal width) and coverage leave out steps that are known from the checked final answer; coverage is
that of the value's 90% interval against exact V^pi. Where the value is 0 exactly (after an error, no
recovery), a posterior that knows it has most of its mass on 0, and an interval holds that whole or not
at all. So `coverage_90_inside` is that of the steps whose value lies strictly between 0 and 1, and
`intervals_inside_share` their share; `coverage_90_labelled_right` that of the steps labelled right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.process_labels.driving import World
from pipelines.process.search import Finding, Found, Question, Step

BINS = 10
SUMS = (
    "questions",
    "solutions",
    "steps",
    "labelled",
    "labelled_right",
    "forced_right",
    "first_error_right",
    "unresolved",
    "tokens",
    "judge_tokens",
    "right_labels",
    "intervals",
    "covered",
    "intervals_inside",
    "covered_inside",
    "intervals_right",
    "covered_right",
    "width",
    "probabilities",
    "brier",
)
COLUMNS = (*SUMS, *(f"{what}{i}" for what in ("n", "p", "y") for i in range(BINS)))
AT = {name: i for i, name in enumerate(COLUMNS)}


def forced(found: Found) -> list[bool]:
    """Whether each step counts as sound where every step must be one or the other."""
    first = found.first_error
    calls = []
    for t, step in enumerate(found.steps):
        if step.label is not None:
            calls.append(step.label == "right")
        elif step.sound is not None:
            calls.append(step.sound >= 0.5)
        else:
            calls.append(first is None or t < first)
    return calls


def probability(step: Step) -> float | None:
    """P(sound) as the method gives it: else its soft value, else its hard label."""
    for given in (step.sound, step.value):
        if given is not None:
            return min(1.0, max(0.0, given))
    return None if step.label is None else float(step.label == "right")


def sums(world: World, question: Question, finding: Finding, judge_tokens: int = 0) -> np.ndarray:
    """One question's row: COLUMNS.

    Labels of grown paths count in `right_labels` alone. A solution that a method passes over (a
    Reject) has no labels and is unresolved.
    """
    row = np.zeros(len(COLUMNS))
    given = {s.trajectory.id for s in question.solutions}
    passed_over = {reject.unit for reject in finding.rejects}
    row[AT["questions"]] = 1
    row[AT["solutions"]] = len(given)
    row[AT["tokens"]] = question.book.spent
    row[AT["judge_tokens"]] = judge_tokens
    every = list(finding.found)
    for left in question.solutions:
        if left.trajectory.response_id in passed_over:
            every.append(Found(left, (Step(),) * left.steps, "rejected", resolved=False))
    labelled_right: set[str] = set()
    for found in every:
        solution = found.solution
        prefixes = [solution.prefix(t + 1).text for t in range(solution.steps)]
        truth = [world.is_sound(question, prefix) for prefix in prefixes]
        labels = [step.label for step in found.steps]
        hits = [
            label is not None and (label == "right") == true
            for label, true in zip(labels, truth, strict=True)
        ]
        labelled_right |= {
            prefix
            for prefix, hit, step in zip(prefixes, hits, found.steps, strict=True)
            if hit and step.source != "answer"
        }
        if solution.trajectory.id not in given:
            continue
        given.remove(solution.trajectory.id)
        calls = forced(found)
        row[AT["steps"]] += len(truth)
        row[AT["labelled"]] += sum(label is not None for label in labels)
        row[AT["labelled_right"]] += sum(hits)
        row[AT["forced_right"]] += sum(a == b for a, b in zip(calls, truth, strict=True))
        row[AT["first_error_right"]] += _first(calls) == _first(truth)
        row[AT["unresolved"]] += not found.resolved
        for step, prefix, true in zip(found.steps, prefixes, truth, strict=True):
            if step.source != "answer":
                _calibration(row, step, world.value(question, prefix), true)
    row[AT["right_labels"]] = len(labelled_right)
    if given:
        raise ValueError(f"{len(given)} given solutions got no labels")
    return row


def _first(calls: Sequence[bool]) -> int | None:
    return next((t for t, call in enumerate(calls) if not call), None)


def _calibration(row: np.ndarray, step: Step, value: float, true: bool) -> None:
    if step.low is not None and step.high is not None:
        # A bound is published to six decimals.
        covered = step.low - 1e-6 <= value <= step.high + 1e-6
        among = {"": True, "_inside": 0 < value < 1, "_right": step.label == "right"}
        for which, counts in among.items():
            row[AT[f"intervals{which}"]] += counts
            row[AT[f"covered{which}"]] += counts and covered
        row[AT["width"]] += step.high - step.low
    p = probability(step)
    if p is not None:
        row[AT["probabilities"]] += 1
        row[AT["brier"]] += (p - true) ** 2
        i = min(BINS - 1, int(p * BINS))
        row[AT[f"n{i}"]] += 1
        row[AT[f"p{i}"]] += p
        row[AT[f"y{i}"]] += true


def _share(total: np.ndarray, part: str, whole: str) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.asarray(total[..., AT[part]] / total[..., AT[whole]])
    return np.where(np.isfinite(found), found, np.nan)


def _ece(total: np.ndarray) -> np.ndarray:
    p = total[..., AT["p0"] : AT["p0"] + BINS]
    y = total[..., AT["y0"] : AT["y0"] + BINS]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs(p - y).sum(axis=-1) / total[..., AT["probabilities"]])


READINGS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "step_accuracy": lambda s: _share(s, "forced_right", "steps"),
    "step_accuracy_labelled": lambda s: _share(s, "labelled_right", "labelled"),
    "share_labelled": lambda s: _share(s, "labelled", "steps"),
    "first_error_accuracy": lambda s: _share(s, "first_error_right", "solutions"),
    "tokens_per_solution": lambda s: _share(s, "tokens", "solutions"),
    "judge_tokens_per_solution": lambda s: _share(s, "judge_tokens", "solutions"),
    "tokens_per_right_label": lambda s: _share(s, "tokens", "right_labels"),
    "brier": lambda s: _share(s, "brier", "probabilities"),
    "ece": _ece,
    "coverage_90": lambda s: _share(s, "covered", "intervals"),
    "coverage_90_inside": lambda s: _share(s, "covered_inside", "intervals_inside"),
    "coverage_90_labelled_right": lambda s: _share(s, "covered_right", "intervals_right"),
    "intervals_inside_share": lambda s: _share(s, "intervals_inside", "intervals"),
    "interval_width": lambda s: _share(s, "width", "intervals"),
    "unresolved_share": lambda s: _share(s, "unresolved", "solutions"),
}
"""Figures from sums (.., COLUMNS); NaN where nothing was counted."""

Stratum = tuple[str, int]
"""A cell's name and a seed."""
POOLED = {"ece": "probabilities"}
"""Readings that need many cases: cells are added up, each divided by its own count of these."""


class Interval(NamedTuple):
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float


class Bootstrap:
    """Questions resampled within their cell and seed: the same questions for all methods.

    A figure over several cells is the mean of the cells' figures, so that long chains do not count
    for more than short ones; a pooled one (ECE) is read from the mean of the cells' shares.
    """

    def __init__(
        self, rows: Mapping[str, Mapping[Stratum, np.ndarray]], draws: int = 1000, seed: int = 7
    ) -> None:
        self.rows = rows
        some: Mapping[Stratum, np.ndarray] = next(iter(rows.values()), {})
        rng = np.random.default_rng(seed)
        self.weights: dict[Stratum, np.ndarray] = {}
        for stratum in sorted(some):
            n = len(some[stratum])
            drawn = rng.multinomial(n, np.full(n, 1 / n), size=draws)
            self.weights[stratum] = np.vstack([np.ones(n), drawn])
        self._known: dict[tuple[str, tuple[str, ...]], dict[str, np.ndarray]] = {}

    def _cell(self, method: str, cell: str) -> np.ndarray:
        """Sums over a cell: the sample's own in row 0, resampled ones below."""
        own = [s for s in self.weights if s[0] == cell]
        return np.asarray(sum(self.weights[s] @ self.rows[method][s] for s in own))

    def samples(self, method: str, cells: Sequence[str]) -> dict[str, np.ndarray]:
        """Every figure of a method: the sample's own first, then the resampled ones."""
        key = (method, tuple(cells))
        if key not in self._known:
            totals = [self._cell(method, cell) for cell in cells]
            found = {}
            for reading, of in READINGS.items():
                if reading in POOLED:
                    with np.errstate(invalid="ignore", divide="ignore"):
                        parts = [t / t[:, [AT[POOLED[reading]]]] for t in totals]
                    found[reading] = of(np.sum(parts, axis=0))
                else:
                    found[reading] = np.mean([of(total) for total in totals], axis=0)
            self._known[key] = found
        return self._known[key]

    def read(self, reading: str, method: str, cells: Sequence[str]) -> Interval:
        """A figure of a method."""
        return _interval(self.samples(method, cells)[reading])

    def ratio(self, reading: str, method: str, other: str, cells: Sequence[str]) -> Interval:
        """A figure of a method over that of another."""
        ours, theirs = self.samples(method, cells), self.samples(other, cells)
        return _interval(ours[reading] / theirs[reading])

    def difference(self, reading: str, method: str, other: str, cells: Sequence[str]) -> Interval:
        """A figure of a method less that of another."""
        ours, theirs = self.samples(method, cells), self.samples(other, cells)
        return _interval(ours[reading] - theirs[reading])


def _interval(values: np.ndarray) -> Interval:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Interval(float(values[0]), float(low), float(high))
