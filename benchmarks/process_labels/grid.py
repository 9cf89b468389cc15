"""The chain world's grid: all methods on the same questions and rollouts, cell by cell.

Figures (each with its table by cell): `tokens_ratio_to_omega_q0`: policy tokens a given solution of
`changepoint` over those of published OmegaPRM (k = 8), cells with q = 0, and
`step_accuracy_less_omega_q0`, the difference beside it. OmegaPRM labels what it grows, too: in
`right_label_tokens_ratio_to_omega_q0` all its labels count (tokens a right label, over the same of
OmegaPRM); `*_omega_search_q0` compares with its inner search on the given solutions alone (`binary
k=8`). `step_accuracy_q15`: step accuracy of
`changepoint` (`forced` reading of metrics.py) where q = .15. `tokens_ratio_to_best_rival_q15`: its
tokens over those of the best fixed-k rival there: the cheapest that reaches .95, else the most
accurate. `ece`, `coverage_90` (also `coverage_90_inside` and `coverage_90_labelled_right`, see
metrics.py), `unresolved_share`: over all cells. `*_wrong_priors`: the same with
priors fitted on another family (worst of three), and `*_false_priors` with priors that are wrong on
purpose and never fitted. Tokens are the policy's; a judge's stand apart.

Primary table: up to two wrong responses of eight a question. Second table: one right response.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import Options, plot, say
from benchmarks.process_labels import ours, table
from benchmarks.process_labels.chain import Cell
from benchmarks.process_labels.driving import World
from benchmarks.process_labels.frontier import Spot, frontier
from benchmarks.process_labels.metrics import READINGS, Bootstrap, Interval, Stratum, sums

OURS = "changepoint"
FALSE = f"{OURS}, false priors"
QUESTIONS = 15
QUICK_QUESTIONS = 6
GOAL = 0.95
"""Step accuracy that a rival is to reach at q = .15."""

Measured = tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, Any]]
"""Figures, their intervals, tables."""


class Task(NamedTuple):
    """A cell under a seed."""

    cell: Cell
    seed: int
    questions: int
    right: bool
    """Label one right response of each question, by fewer methods."""


Rows = dict[str, np.ndarray]
"""By method: one row a question."""


def cells(quick: bool) -> list[Cell]:
    """The grid; a quick one has its corners in the middle of the rates."""
    steps, rates, qs = (
        ((8, 16), (0.3,), (0.0, 0.15))
        if quick
        else (
            (8, 16, 32),
            (0.1, 0.3, 0.7),
            (0.0, 0.05, 0.15),
        )
    )
    return [Cell(*point) for point in product(steps, rates, qs, (True, False))]


def measure(chosen: Options, seeds: Sequence[int]) -> Measured:
    """Run the grid on all cores; writes the frontier plots beside `--out`."""
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
    grid = cells(chosen.quick)
    count = QUICK_QUESTIONS if chosen.quick else QUESTIONS
    tasks = [
        Task(cell, seed, count, right)
        for cell in sorted(grid, key=lambda c: -c.steps)
        for seed in seeds
        for right in (False, True)
    ]
    tables: dict[str, Any] = {"left_out": list(table.methods()[1])}
    for note in tables["left_out"]:
        say(note)
    wrong, right = _run(tasks)
    boots = Bootstrap(wrong, 200 if chosen.quick else 1000)
    names = [cell.name for cell in grid]
    figures, intervals, chosen_by = headline(boots, grid)
    tables |= chosen_by
    for part, q in (("all", None), ("q0", 0.0), ("q15", 0.15)):
        own = [c.name for c in grid if q is None or c.q == q]
        tables[f"methods_{part}"] = methods_table(boots, own)
        plot(str(frontier(_spots(boots, own), f"Frontier, {part}")), chosen, f"frontier-{part}")
    tables["cells"] = {name: methods_table(boots, [name], brief=True) for name in names}
    tables["root_value"] = {cell.name: root_value(cell) for cell in grid}
    tables["methods_right_solutions"] = methods_table(Bootstrap(right, 200), names)
    tables["questions_a_cell_and_seed"] = count
    return figures, intervals, tables


def root_value(cell: Cell) -> float:
    """Mean V^pi of the bare question over the first 40 questions of seed 0, solved or not."""
    from benchmarks.process_labels.chain import Chain, Policy

    chains = [Chain.make(cell.steps, f"0 {index}") for index in range(40)]
    return float(np.mean([Policy(cell, chain).value("") for chain in chains]))


def _run(tasks: Sequence[Task]) -> tuple[dict[str, dict[Stratum, np.ndarray]], ...]:
    """Rows of wrong and of right solutions, by method and stratum."""
    found: tuple[dict[str, dict[Stratum, np.ndarray]], ...] = ({}, {})
    cores = min(len(os.sched_getaffinity(0)), len(tasks))
    context = multiprocessing.get_context("spawn")
    with context.Pool(cores) as pool:
        for done, (task, rows) in enumerate(pool.imap_unordered(stratum, tasks), 1):
            for method, own in rows.items():
                found[task.right].setdefault(method, {})[task.cell.name, task.seed] = own
            say(f"{done}/{len(tasks)} {task.cell.name} seed {task.seed}")
    return found


def stratum(task: Task) -> tuple[Task, Rows]:
    """All methods on the questions of one cell and seed."""
    world = World(task.cell, task.seed)
    questions = world.questions(task.questions, wrong=0 if task.right else 2, right=int(task.right))
    methods = [m for m in table.methods()[0] if m.right_too or not task.right]
    rows: dict[str, list[np.ndarray]] = {}
    for question in questions:
        for method in methods:
            asked, finding, judged = table.label(world, question, method)
            rows.setdefault(method.name, []).append(sums(world, asked, finding, judged))
        # Rollouts are kept for the methods that share them, not for other questions.
        world.forget()
    for name, settings, priors in _variants(task):
        labelled, _ = ours.run(world, questions, settings, priors)
        rows[name] = [sums(world, asked, finding) for asked, finding in labelled]
    return task, {name: np.array(own) for name, own in rows.items()}


def _variants(task: Task) -> list[tuple[str, Any, Any]]:
    """Ours: as it is, and (for wrong solutions) under priors that do not belong here."""
    found: list[tuple[str, Any, Any]] = [(OURS, ours.config(), None)]
    if not task.right:
        found.append((f"{OURS}, no answers", ours.config(answers=False), None))
        found.append((FALSE, ours.wrong_on_purpose(task.cell), None))
        for family in ours.ELSEWHERE:
            priors = ours.fitted_elsewhere(replace(task.cell, family=family), task.questions)
            found.append((_elsewhere(family), ours.config(), priors))
    return found


def _elsewhere(family: str) -> str:
    return f"{OURS}, priors of {family}"


def best_rival(boots: Bootstrap, names: Sequence[str]) -> str:
    """The cheapest fixed-k rival that reaches the goal, else the most accurate one."""
    rivals = [m.name for m in table.methods()[0] if m.kind == "fixed" and m.name in boots.rows]

    def at(name: str, reading: str) -> float:
        return float(boots.samples(name, names)[reading][0])

    good = [name for name in rivals if at(name, "step_accuracy") >= GOAL]
    if good:
        return min(good, key=lambda name: at(name, "tokens_per_solution"))
    return max(rivals, key=lambda name: at(name, "step_accuracy"))


def headline(
    boots: Bootstrap, grid: Sequence[Cell]
) -> tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, Any]]:
    """The figures that goals are set for, of ours under its own and under wrong priors."""
    figures: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    everywhere = [cell.name for cell in grid]
    q0 = [cell.name for cell in grid if cell.q == 0]
    q15 = [cell.name for cell in grid if cell.q == 0.15]
    rival = best_rival(boots, q15)

    def put(name: str, found: Interval) -> None:
        figures[name] = found.value
        intervals[name] = (found.low, found.high)

    by_method: dict[str, dict[str, Interval]] = {}
    for method in (OURS, FALSE, *map(_elsewhere, ours.ELSEWHERE)):
        own = by_method[method] = {}
        for other, called in (("omega", "omega"), ("binary k=8", "omega_search")):
            if other in boots.rows:
                tokens = boots.ratio("tokens_per_solution", method, other, q0)
                own[f"tokens_ratio_to_{called}_q0"] = tokens
                more = boots.difference("step_accuracy", method, other, q0)
                own[f"step_accuracy_less_{called}_q0"] = more
                each = boots.ratio("tokens_per_right_label", method, other, q0)
                own[f"right_label_tokens_ratio_to_{called}_q0"] = each
        for reading in ("step_accuracy", "step_accuracy_labelled", "share_labelled"):
            own[f"{reading}_q15"] = boots.read(reading, method, q15)
        own["tokens_ratio_to_best_rival_q15"] = boots.ratio(
            "tokens_per_solution", method, rival, q15
        )
        for reading in (
            *("ece", "brier", "unresolved_share"),
            *("coverage_90", "coverage_90_inside", "coverage_90_labelled_right"),
        ):
            own[reading] = boots.read(reading, method, everywhere)
    for name, found in by_method[OURS].items():
        put(name, found)
        put(f"{name}_false_priors", by_method[FALSE][name])
        others = [by_method[_elsewhere(family)][name] for family in ours.ELSEWHERE]
        put(f"{name}_wrong_priors", max(others, key=lambda i: _badness(name, i.value)))
    rows = {
        method: {name: list(found) for name, found in own.items()}
        for method, own in by_method.items()
    }
    notes = {"rival_q15": rival, "rival_q15_reads": methods_table(boots, q15)[rival]}
    return figures, intervals, {"priors": rows, **notes}


def _badness(name: str, value: float) -> float:
    """Larger is worse."""
    if name.startswith("coverage"):
        return abs(value - 0.9)
    if name.startswith(("step_accuracy", "share_labelled")):
        return -value
    return value


def methods_table(
    boots: Bootstrap, names: Sequence[str], brief: bool = False
) -> dict[str, dict[str, Any]]:
    """Every method's figures over some cells, with intervals unless brief; None: nothing counted."""

    def shown(value: float) -> float | None:
        return None if np.isnan(value) else round(value, 4)

    found: dict[str, dict[str, Any]] = {}
    for method in boots.rows:
        samples = boots.samples(method, names)
        if brief:
            found[method] = {reading: shown(samples[reading][0]) for reading in READINGS}
        else:
            found[method] = {
                reading: [shown(x) for x in boots.read(reading, method, names)]
                for reading in READINGS
            }
    return found


def _spots(boots: Bootstrap, names: Sequence[str]) -> list[Spot]:
    known = {method.name: method for method in table.methods()[0]}
    spots = []
    for name in boots.rows:
        samples = boots.samples(name, names)
        tokens, accuracy = samples["tokens_per_solution"][0], samples["step_accuracy"][0]
        method = known.get(name)
        line, kind = (method.line, method.kind) if method else (name, "ours")
        spots.append(Spot(name, line, kind, float(tokens), float(accuracy)))
    return spots
