"""`changepoint` on a corpus, as the stage runs it: a pilot, a fit, the rest, a fit, labels anew."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from benchmarks.process_labels.chain import Cell, Family
from benchmarks.process_labels.driving import World, drive, fresh
from pipelines.process.config import ChangepointConfig, PriorsConfig, ProcessConfig
from pipelines.process.methods.changepoint import Changepoint
from pipelines.process.posterior import Priors
from pipelines.process.search import Finding, Question

PILOT = 24
"""Solutions before the first fit: a cell's corpus is smaller than the default's pilot."""
ELSEWHERE: tuple[Family, ...] = ("systematic", "steep", "lenient")
ELSEWHERE_SEED = 1000
"""Questions of which priors are fitted elsewhere are no cell's own."""

Labelled = tuple[Question, Finding]


def config(**settings: object) -> ProcessConfig:
    """The method's settings, the rest at their defaults."""
    own = ChangepointConfig.model_validate({"pilot": PILOT, **settings})
    return ProcessConfig(engine="policy", method="changepoint", changepoint=own)


def run(
    world: World,
    questions: Sequence[Question],
    chosen: ProcessConfig,
    priors: Priors | None = None,
) -> tuple[list[Labelled], Priors]:
    """Label a corpus; with `priors` given, or `fit` off, nothing is fitted. Also the last priors."""
    own = chosen.changepoint or ChangepointConfig()
    fitting = own.fit and priors is None
    method = Changepoint(chosen, priors)
    done: list[Labelled] = []
    solutions, fitted = 0, not fitting
    for question in questions:
        if not fitted and solutions >= own.pilot:
            method.fit([(q, f.found) for q, f in done])
            fitted = True
        asked = fresh(question)
        done.append((asked, drive(asked, method.search(asked), world.draw)))
        solutions += len(question.solutions)
    if fitting:
        method.fit([(q, f.found) for q, f in done])
        done = [
            (q, f._replace(found=tuple(method.relabel(q, found) for found in f.found)))
            for q, f in done
        ]
    return done, method.priors


def wrong_on_purpose(cell: Cell) -> ProcessConfig:
    """Priors that are off in everything, and no fit: rates on the other side, answers that lie."""
    priors = PriorsConfig(
        solve_rate=0.9 if cell.rate < 0.5 else 0.1,
        recovery=0.25 if cell.q < 0.1 else 0.01,
        repeat=0.1,
        chance_repeat=0.3,
    )
    return config(fit=False, priors=priors)


@lru_cache(maxsize=32)
def fitted_elsewhere(cell: Cell, count: int) -> Priors:
    """Priors fitted to `count` questions of a cell (of another family, say)."""
    world = World(cell, ELSEWHERE_SEED)
    return run(world, world.questions(count), config())[1]
