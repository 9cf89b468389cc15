"""Rubrics: does `rubric value` find criteria that were turned round, from human verdicts alone?

In every trial a seeded share of the criteria is inverted (every verdict c on them becomes 1 - c), the
value of all criteria is measured on labelled pairs, and it is asked which were inverted. The verdict
under test never enters the label of its pair: each criterion is tested on pairs that are labelled for
it alone, from other people's or other criteria's verdicts, or from no verdict.

Designs, on public data with human verdicts:

- `ttcw_others` (14 criteria, 12 plots with 4 stories each, 3 experts a story): a seeded expert gives
  a plot's verdicts; a pair of its stories is labelled by the other two experts on the other 13
  criteria: the story with more yes is better, equal sums leave the pair out.
- `ttcw_authorship`: the same verdicts; the story of a human author is better than a model's.
- `rbr_others` (23 propositions on completions; one rubric for each of the policies comply, hard
  refuse and safe refuse, with what the policy does not want as pitfalls): completions of one policy
  and behaviour category are dealt into groups of 4 in a seeded order, a group being the unit of the
  intervals; a pair of a group is labelled by the sum of the other propositions, wanted ones plus,
  unwanted ones minus.
- `rbr_compliance`: the same groups; labelled by how far the completion complies (fully, partly, not),
  more being better under comply and worse under the others. The propositions that say so are not
  tested.
- `rbr_extremes`: as `rbr_others`, of pairs whose other propositions differ by 3 or more.
- `rbr_proven`: as `rbr_others` on the test file alone, of the propositions whose value on the train
  file, without any inversion, has its interval above 0: criteria that were kept, turned round later.

Figures by design: `DESIGN_auroc`, of minus the value, over the criteria that can be told (they
separate pairs, and there are 10 pairs of 5 prompts); `DESIGN_auroc_all`, over all that have a pair;
`DESIGN_found`, share of the inverted that are flipped; `DESIGN_false_flips`, share of the others
that are flipped; `DESIGN_kept`, share of the others that are kept; `DESIGN_against_nature`, share of
criteria that can be told and disagree with the labels when nothing is inverted: no measure of value
can know these from inverted ones. `inverted_criteria_auroc` is that of `ttcw_others`. Means over the
trials of a seed (shares .1, .25 and .5; 20 draws each), then over the seeds; Student's t over seeds.
Seeds draw experts, groups and inversions from the same stories and completions: the intervals do not
say how other data would do.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.harness import REPO, Result, mean_interval, options, report, say
from pipelines.rubrics import scoring, value
from schemas.records import Criterion, Rubric

FIRST_SEED = 17
SHARES = (0.1, 0.25, 0.5)
DRAWS = 20
GROUP = 4
DATA = REPO.parent / "shared" / "data"

COMPLIANCE = ("fully_complies", "partially_complies")
WANTED = {
    "Comply": COMPLIANCE,
    "Hard Refuse": ("apology", "inability_to_comply"),
    "Safe Refuse": (
        "apology_acknowledges_emotional_state",
        "conditional_verbiage",
        "encourage_professional_help",
        "gentle_encouragement_for_help",
        "provides_resources",
    ),
}
"""What each policy wants of a completion (Mu et al. 2024, as read by us); the rest it does not."""


@dataclass(frozen=True)
class Cell:
    """A labelled pair of one criterion: the verdicts on its better and its worse response."""

    criterion: str
    pitfall: bool
    prompt: str
    better: float
    worse: float


# --- pairs ----------------------------------------------------------------------------------------


def ttcw(data: Path, seed: int, label: str) -> list[Cell]:
    """Cells of the creativity test; `label` is `others` or `authorship`."""
    rows = pl.read_parquet(data / "ttcw_verdicts.parquet").sort("story_idx", "story_id", "ttcw_idx")
    said = {
        (row["story_id"], row["expert_idx"], row["ttcw_idx"]): float(row["binary_verdict"] == "Yes")
        for row in rows.to_dicts()
    }
    criteria = sorted(set(rows["ttcw_idx"]))
    rng = np.random.default_rng([seed, 1])
    cells = []
    for (plot,), own in rows.group_by("story_idx", maintain_order=True):
        stories, experts = sorted(set(own["story_id"])), sorted(set(own["expert_idx"]))
        judge = experts[rng.integers(len(experts))]
        for criterion in criteria:
            worth = {
                story: sum(
                    said[story, expert, other]
                    for expert in experts
                    for other in criteria
                    if expert != judge and other != criterion
                )
                if label == "others"
                else float(story.endswith("NewYorker"))
                for story in stories
            }
            verdict = {story: said[story, judge, criterion] for story in stories}
            cells += _cells(f"ttcw {criterion}", False, f"plot {plot}", worth, verdict)
    return cells


def rbr(data: Path, seed: int, label: str) -> list[Cell]:
    """Cells of the refusal propositions; `label` is the design's name, or `train`: others, of that file."""
    proven = None
    names: tuple[str, ...] = ("rbr_gold_train", "rbr_gold_test")
    if label in ("train", "proven"):
        names = names[:1] if label == "train" else names[1:]
    if label == "proven":
        before = measure(rbr(data, seed, "train"), frozenset())
        proven = {name for name, row in before.items() if (row["low"] or 0.0) > 0}
    rows = pl.concat([pl.read_parquet(data / f"{name}.parquet") for name in names])
    piles: dict[tuple[str, str], list[dict[str, bool]]] = defaultdict(list)
    for row in rows.to_dicts():
        policy = row["response_type"].rstrip(" 12")
        piles[policy, row["category"]].append(json.loads(row["propositions"]))
    rng = np.random.default_rng([seed, 2])
    cells = []
    for (policy, category), pile in sorted(piles.items(), key=lambda item: item[0]):
        order = rng.permutation(len(pile))
        for start in range(0, len(pile), GROUP):
            group = {int(index): pile[index] for index in order[start : start + GROUP]}
            for name in sorted(pile[0]):
                if label == "compliance" and name in COMPLIANCE:
                    continue
                worth = {index: _worth(one, policy, name, label) for index, one in group.items()}
                verdict = {index: float(one[name]) for index, one in group.items()}
                if proven is not None and f"{policy}: {name}" not in proven:
                    continue
                pitfall = name not in WANTED[policy]
                prompt = f"{category} {start}"
                least = 3.0 if label == "extremes" else 0.0
                cells += _cells(f"{policy}: {name}", pitfall, prompt, worth, verdict, least)
    return cells


def _worth(propositions: dict[str, bool], policy: str, tested: str, label: str) -> float:
    if label == "compliance":
        level = 2 * propositions["fully_complies"] or 1 * propositions["partially_complies"]
        return float(level if policy == "Comply" else -level)
    return float(
        sum(
            (1 if name in WANTED[policy] else -1) * holds
            for name, holds in propositions.items()
            if name != tested
        )
    )


def _cells(
    criterion: str,
    pitfall: bool,
    prompt: str,
    worth: dict[Any, float],
    verdict: dict[Any, float],
    least: float = 0.0,
) -> list[Cell]:
    """A cell for every two responses whose worth differs, by `least` or more."""
    cells = []
    for one, other in combinations(sorted(worth), 2):
        gap = worth[one] - worth[other]
        if gap and abs(gap) >= least:
            better, worse = (one, other) if gap > 0 else (other, one)
            cells.append(Cell(criterion, pitfall, prompt, verdict[better], verdict[worse]))
    return cells


DESIGNS = {
    "ttcw_others": (ttcw, "others"),
    "ttcw_authorship": (ttcw, "authorship"),
    "rbr_others": (rbr, "others"),
    "rbr_compliance": (rbr, "compliance"),
    "rbr_extremes": (rbr, "extremes"),
    "rbr_proven": (rbr, "proven"),
}


# --- trials ---------------------------------------------------------------------------------------


def measure(cells: Iterable[Cell], inverted: frozenset[str]) -> dict[str, dict[str, Any]]:
    """The value of every criterion, by its name, with some of them inverted.

    A criterion's pairs have responses of their own, so that each is tested on its own labels.
    """
    criteria: dict[str, Criterion] = {}
    votes, pairs = [], []
    for index, cell in enumerate(cells):
        kind = "pitfall" if cell.pitfall else "principle"
        criterion = criteria.setdefault(cell.criterion, Criterion(kind=kind, text=cell.criterion))
        ends = (f"{index} better", f"{index} worse")
        for unit, said in zip(ends, (cell.better, cell.worse), strict=True):
            turned = 1.0 - said if cell.criterion in inverted else said
            votes.append({"unit": unit, "value": turned, "criterion": criterion.id})
        pairs.append((f"{index}", cell.prompt, *ends))
    rubric = Rubric(criteria=tuple(c.id for c in criteria.values()), method="benchmark")
    told = pa.Table.from_pylist(votes)
    for name, text in (("unit_kind", "criterion"), ("judge", "people")):
        told = told.append_column(name, pa.array([text] * len(votes)))
    columns = zip(*pairs, strict=True)
    names = ("id", "prompt_id", "response_a", "response_b")
    compared = pa.table({n: list(c) for n, c in zip(names, columns, strict=True)})
    compared = compared.append_column("label", pa.array(["a"] * len(pairs)))
    found = value.value(
        Criterion.to_table(criteria.values()),
        Rubric.to_table([rubric]),
        told,
        scoring.SCHEMA.empty_table(),
        compared,
        value.ValueConfig(),
    )
    texts = {criterion.id: name for name, criterion in criteria.items()}
    rows = found.to_pylist()
    return {texts[row["criterion_id"]]: row for row in rows if row["criterion_id"]}


def trial(cells: list[Cell], seed: int, share: float, draw: int) -> dict[str, float]:
    """One planting: what was found of it. Figures that are not defined are left out."""
    names = sorted({cell.criterion for cell in cells})
    rng = np.random.default_rng([seed, round(share * 100), draw])
    count = max(1, round(share * len(names)))
    inverted = frozenset(rng.permutation(names)[:count].tolist())
    rows = measure(cells, inverted)
    told = {name: row for name, row in rows.items() if testable(row)}
    figures = {}
    for key, some in (("auroc", told), ("auroc_all", rows)):
        area = auroc(
            [-row["value"] for name, row in some.items() if name in inverted],
            [-row["value"] for name, row in some.items() if name not in inverted],
        )
        if area is not None:
            figures[key] = area
    turned = [row["action"] for name, row in rows.items() if name in inverted]
    others = [row["action"] for name, row in rows.items() if name not in inverted]
    figures["found"] = turned.count("flip") / len(turned)
    if others:
        figures["false_flips"] = others.count("flip") / len(others)
        figures["kept"] = others.count("keep") / len(others)
    return figures


def testable(row: dict[str, Any]) -> bool:
    """Whether the criterion separates pairs, of which there are enough; so also if it is inverted."""
    return row["reason"] not in ("too_few_pairs", "never_separates")


def auroc(positive: list[float], negative: list[float]) -> float | None:
    """Chance that one of the positives is above one of the negatives, a tie counting half."""
    if not positive or not negative:
        return None
    gaps = np.subtract.outer(np.array(positive), np.array(negative))
    return float((np.sign(gaps) / 2 + 0.5).mean())


def seed_figures(design: str, seed: int, draws: int, data: Path = DATA) -> dict[str, float]:
    """Means over the trials of one design and seed."""
    make, label = DESIGNS[design]
    cells = make(data, seed, label)
    found: dict[str, list[float]] = defaultdict(list)
    for share in SHARES:
        for draw in range(draws):
            for key, figure in trial(cells, seed, share, draw).items():
                found[key].append(figure)
                found[f"{key}_at_{round(share * 100)}"].append(figure)
    plain = [row for row in measure(cells, frozenset()).values() if testable(row)]
    found["against_nature"] = [fmean(row["value"] < 0 for row in plain)]
    found["testable"] = [float(len(plain))]
    found["pairs"] = [float(len(cells))]
    return {key: fmean(figures) for key, figures in sorted(found.items())}


def natural(design: str, seed: int, data: Path = DATA) -> list[dict[str, Any]]:
    """Every criterion's value with nothing inverted, lowest first."""
    make, label = DESIGNS[design]
    keys = (
        "pairs",
        "prompts",
        "separates",
        "agreement",
        "value",
        "low",
        "high",
        "action",
        "reason",
    )
    rows = measure(make(data, seed, label), frozenset())
    return sorted(
        ({"criterion": name} | {key: row[key] for key in keys} for name, row in rows.items()),
        key=lambda row: row["value"],
    )


def main(argv: list[str] | None = None) -> dict[str, Any]:
    chosen = options(__doc__ or "", seeds=5, argv=argv)
    draws = 5 if chosen.quick else DRAWS
    result = Result("rubrics", list(range(FIRST_SEED, FIRST_SEED + chosen.seeds)))
    for design in DESIGNS:
        began = time.monotonic()
        runs = [seed_figures(design, seed, draws) for seed in result.seeds]
        for key in sorted(set.intersection(*(set(run) for run in runs))):
            name = f"{design}_{key}"
            result.figures[name], interval = mean_interval([run[key] for run in runs])
            if interval is not None:
                result.intervals[name] = interval
        result.tables[design] = {"runs": runs, "natural": natural(design, FIRST_SEED)}
        seconds = time.monotonic() - began
        say(f"{design}: AUROC {result.figures[f'{design}_auroc']:.3f} in {seconds:.0f} s")
    for key in ("auroc", "false_flips"):
        result.figures[f"inverted_criteria_{key}"] = result.figures[f"ttcw_others_{key}"]
        if f"ttcw_others_{key}" in result.intervals:
            result.intervals[f"inverted_criteria_{key}"] = result.intervals[f"ttcw_others_{key}"]
    return report(result, chosen)


if __name__ == "__main__":
    main()
