"""What people's verdicts on criteria make of a rubric.

A criterion stays where more people accept it, as it is or edited, than reject it. Its wording is the
one that most of those people want; its weight the median of theirs, on the rubric's own scale. A
rubric is approved when nothing of it is left undecided.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from schemas.records import Criterion, Rubric, Vote

ACCEPT, EDIT, REJECT = 1.0, 0.5, 0.0
WEIGHT = "weight"
"""`Vote.criterion` of a vote on a criterion's weight."""


@dataclass(frozen=True)
class Approval:
    """A rubric after people's verdicts."""

    rubric: Rubric
    criteria: list[Criterion]
    undecided: int
    """Criteria that nobody judged, or on which people are divided; they stay as they were."""


@dataclass
class Said:
    """What people said of one criterion."""

    accept: int = 0
    reject: int = 0
    edits: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def gather(votes: Sequence[Vote]) -> dict[str, Said]:
    """Votes on criteria, by criterion: verdicts, wordings and weights."""
    found: dict[str, Said] = defaultdict(Said)
    for vote in votes:
        if vote.unit_kind != "criterion" or vote.value is None:
            continue
        said = found[vote.unit]
        if vote.criterion == WEIGHT:
            said.weights.append(vote.value)
        elif vote.value == ACCEPT:
            said.accept += 1
        elif vote.value == EDIT:
            said.edits.append(vote.reason)
        elif vote.value == REJECT:
            said.reject += 1
    return dict(found)


def approve(
    rubric: Rubric, criteria: Mapping[str, Criterion], said: Mapping[str, Said]
) -> Approval:
    """The rubric as people want it: a new version that names this one, unless nothing changed.

    `criteria`: those of the rubric, and others, by id. Children of a rejected criterion move up to
    what was above it.
    """
    largest = max(abs(criteria[id].weight) for id in rubric.criteria)
    kept: dict[str, Criterion] = {}
    above: dict[str, str | None] = {}
    undecided = 0
    for id in _parents_first(rubric, criteria):
        old = criteria[id]
        parent = above[old.parent] if old.parent is not None else None
        verdict = said.get(id, Said())
        keep, text = _verdict(verdict, old.text)
        if keep is None:
            undecided += 1
        if keep is False:
            above[id] = parent
            continue
        weight = old.weight
        if keep and verdict.weights:
            weight = (-1.0 if old.weight < 0 else 1.0) * median(verdict.weights) * largest
        new = old.model_copy(update={"text": text, "weight": weight, "parent": parent})
        kept[id], above[id] = new, new.id
    rows = list({row.id: row for id in rubric.criteria if (row := kept.get(id))}.values())
    if not rows:
        return Approval(rubric.model_copy(update={"status": "retired"}), [], undecided)
    status = "draft" if undecided else "approved"
    new_rubric = rubric.model_copy(
        update={"criteria": tuple(row.id for row in rows), "status": status}
    )
    if new_rubric != rubric:
        new_rubric = new_rubric.model_copy(update={"replaces": rubric.id})
    return Approval(new_rubric, rows, undecided)


def _verdict(said: Said, text: str) -> tuple[bool | None, str]:
    """Whether the criterion stays (None: undecided), and its wording."""
    keep = said.accept + len(said.edits)
    if keep == said.reject:
        return None, text
    if keep < said.reject:
        return False, text
    wanted = Counter(said.edits)
    wanted[text] += said.accept
    (first, most), *rest = wanted.most_common()
    if rest and rest[0][1] == most:
        return None, text
    return True, first


def _parents_first(rubric: Rubric, criteria: Mapping[str, Criterion]) -> list[str]:
    order: dict[str, None] = {}

    def add(id: str) -> None:
        parent = criteria[id].parent
        if parent is not None and parent not in order:
            add(parent)
        order[id] = None

    for id in rubric.criteria:
        add(id)
    return list(order)
