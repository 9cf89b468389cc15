"""The methods that are compared, by name; one that is not there (yet) is left out with a note."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from benchmarks.process_labels import rivals
from benchmarks.process_labels.driving import World, drive, fresh
from benchmarks.process_labels.judge import NoisyJudge
from pipelines.process.config import ProcessConfig
from pipelines.process.search import Question, Search

Kind = Literal["fixed", "search", "judge", "ours"]
"""`fixed`: k rollouts of every prefix that it tests; `search`: tree searches and filters."""

KS = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Method:
    """A method with its settings."""

    name: str
    line: str
    """The points of one line differ in k alone."""
    kind: Kind
    search: Callable[[Question], Search]
    right_too: bool = False
    """Also shown on right solutions."""


def _published(name: str, **settings: Any) -> Callable[[Question], Search]:
    config = ProcessConfig(engine="policy", method=name, **settings)  # type: ignore[arg-type]

    def search(question: Question) -> Search:
        found: Search = _module(name).search(question, config)
        return found

    return search


@cache
def _module(name: str) -> Any:
    # MM-PRM's variant is a setting of the same module.
    module = "omega" if name == "omega_mm" else name
    return importlib.import_module(f"pipelines.process.methods.{module}")


def _missing(method: Method) -> str | None:
    """Why a method cannot run."""
    name = method.line.split()[0]
    if name in ("binary", "every"):
        return None
    try:
        _module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("pipelines.process.methods"):
            raise
        return f"{method.name}: left out, there is no {error.name}"
    return None


def _all() -> Iterator[Method]:
    """`line`'s first word is the module's name."""
    for k in KS:
        mc = _published("monte_carlo", k=k, stop_at=0)
        yield Method(f"monte_carlo k={k}", "monte_carlo", "fixed", mc, k == 8)
        half = _Half(k)
        yield Method(
            f"every k={k}, half of root", "every half of root", "fixed", half.every, k == 32
        )
        yield Method(f"binary k={k}", "binary", "fixed", half.any, k == 8)
        yield Method(f"binary k={k}, half of root", "binary half of root", "fixed", half.binary)
        epic = _published("epic", k=k, stop_at=0)
        yield Method(f"epic k={k}", "epic", "fixed", epic, k == 32)
        sorm = _published("sorm", k=k, stop_at=0)
        yield Method(f"sorm k={k}", "sorm", "fixed", sorm)
    for stop_at in (1, 2):
        mc = _published("monte_carlo", k=8, stop_at=stop_at)
        name = f"monte_carlo k=8, stop_at={stop_at}"
        yield Method(name, f"monte_carlo stop_at={stop_at}", "fixed", mc)
        name = f"binary k=8, stop_at={stop_at}"
        curtailed = _Half(8, stop_at)
        yield Method(name, f"binary stop_at={stop_at}", "fixed", curtailed.any)
    yield Method("omega", "omega", "search", _published("omega", stop_at=0), True)
    yield Method("omega_mm", "omega_mm", "search", _published("omega_mm", k=16, stop_at=0))
    yield Method("advantage", "advantage", "search", _published("advantage", stop_at=0))
    yield Method("scan", "scan", "search", _published("scan", stop_at=0))
    yield Method("tree", "tree", "search", _published("tree", stop_at=0))
    for name in ("reference", "ensemble", "consensus"):
        judged = _published(name, judge="judge", stop_at=0)
        yield Method(name, name, "judge", judged, True)


@dataclass(frozen=True)
class _Half:
    """The rivals with a k."""

    k: int
    stop_at: int = 0

    def every(self, question: Question) -> Search:
        return rivals.every(question, self.k)

    def any(self, question: Question) -> Search:
        return rivals.binary(question, self.k, stop_at=self.stop_at)

    def binary(self, question: Question) -> Search:
        return rivals.binary(question, self.k, half_root=True)


@cache
def methods() -> tuple[tuple[Method, ...], tuple[str, ...]]:
    """Those that can run, and notes on those that cannot."""
    found, notes = [], []
    for method in _all():
        note = _missing(method)
        if note is None:
            found.append(method)
        else:
            notes.append(note)
    return tuple(found), tuple(notes)


def label(world: World, question: Question, method: Method) -> tuple[Question, Any, int]:
    """Run a method on a question from nothing: the question with its book, finding, judge tokens."""
    asked = fresh(question)
    judge = NoisyJudge(world)
    finding = drive(asked, method.search(asked), world.draw, judge=judge)
    return asked, finding, judge.tokens
