"""How many rows of people's answers a run took, and lost."""

from __future__ import annotations

from flows.frames import counted, frame
from flows.report_flow import StageCount
from pipelines.store import Published

KNOWN = "route: known answers"
"""Under which name the rows of known answers, and those that could not be read, are counted."""


def of_people(name: str, out: Published) -> StageCount:
    """Votes on pairs."""
    purposes = counted(frame(out, "labels")["purpose"])
    asked = ", ".join(f"{n:,} {purpose}" for purpose, n in purposes.items()) or "none"
    return _rows(name, out, "votes", f"pairs labelled: {asked}", "votes of people")


def of_people_on_steps(name: str, out: Published) -> StageCount:
    """Votes on steps, and how far they side with the labels."""
    facts = out.manifest.facts
    note = f"{facts['solutions']:,} solutions judged"
    if facts["compared"]:
        note += f"; as labelled: {facts['agreed']:,} of {facts['compared']:,} steps"
    return _rows(name, out, "votes", note, "votes on steps")


def answers_known(route: Published) -> StageCount:
    """Answers that were known beforehand."""
    note = "pairs of this run whose answer is known"
    return _rows(KNOWN, route, "known", note, "known answers")


def _rows(name: str, out: Published, table: str, note: str, made: str) -> StageCount:
    taken, lost = out.manifest.rows(table), counted(frame(out, "rejects")["code"])
    return StageCount(
        name, "rows", taken + sum(lost.values()), taken, lost, note, made, drawn=False
    )
