"""The page of an audit: what was found, and the hundred pairs most likely to be labelled wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flows import charts
from flows.page import environment
from pipelines.audit.audit import REASONS, Audit
from pipelines.audit.figures import WORDING

WORST = 100
BIASES = 12
SPREAD = 300
"""Pairs apart from which the strongest biases are told."""


@dataclass(frozen=True)
class Row:
    """A pair to read."""

    place: str
    split: str
    probability: float
    decision: str
    prompt: str
    chosen: str
    rejected: str
    findings: tuple[str, ...]
    """In words."""
    evidence: tuple[tuple[str, float], ...]
    """What each judge adds to the log-odds of the label, the most against first."""
    telling: tuple[str, ...]
    """Figures that speak against the label."""


def worst(found: Audit, most: int = WORST) -> list[Row]:
    """The pairs least likely to be labelled right, the first row of each."""
    order = np.lexsort((np.arange(len(found.probability)), found.probability))
    rows: list[Row] = []
    seen: set[tuple[int, float]] = set()
    pairs, judged = found.pairs, found.judged
    for at in order.tolist():
        case, sign = int(found.cases.case[at]), float(found.cases.sign[at])
        if (case, sign) in seen:
            continue
        seen.add((case, sign))
        evidence = [(name, float(part[case]) * sign) for name, part in judged.evidence.items()]
        line, _, other, _ = pairs.at[at]
        file = pairs.files[pairs.file[at]].name
        rows.append(
            Row(
                place=f"{file}, row {line:,}"
                + (f" against row {other:,}" if other != line else ""),
                split=pairs.splits[pairs.file[at]],
                probability=float(found.probability[at]),
                decision=found.decisions[at],
                prompt=pairs.texts[pairs.prompt[at]],
                chosen=pairs.texts[pairs.chosen[at]],
                rejected=pairs.texts[pairs.rejected[at]],
                findings=tuple(REASONS[r] for r in found.reasons[at] if r in REASONS),
                evidence=tuple(sorted(evidence, key=lambda one: (one[1], one[0]))),
                telling=tuple(found.telling[case]) if sign > 0 else (),
            )
        )
        if len(rows) == most:
            break
    return rows


def biases(found: Audit) -> list[tuple[str, Any]]:
    """Length first, then the figures of which chosen most often has more, or less."""
    length, *rest = found.biases
    least = max(20, len(found.cases.label) // SPREAD)
    rest = [b for b in rest if b.differ >= least and b.figure != "words"]
    rest.sort(key=lambda b: (-abs(b.share - 0.5), b.figure))
    return [(WORDING[b.figure], b) for b in (length, *rest[: BIASES - 1])]


def render(found: Audit, told: dict[str, Any]) -> str:
    """The page, whole: it loads nothing and runs nothing."""
    histogram = charts.Histogram.of(found.probability.tolist(), 0.0, 1.0, 20)
    length = found.biases[0]
    findings = [(name, REASONS[name], n) for name, n in told["findings"].items()]
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            told=told,
            name=_name(found),
            histogram=histogram,
            biases=biases(found),
            length=length,
            findings=findings,
            splits=list(told["splits"].items()),
            judges=sorted(told["judges"].items(), key=lambda one: (-abs(one[1]), one[0])),
            rows=worst(found),
            charts=charts,
        )
    )


def _name(found: Audit) -> str:
    names = list(dict.fromkeys(file.origin for file in found.pairs.files))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
