"""Leave out questions that are too hard or too easy, by rollouts that are the root's data afterwards."""

from __future__ import annotations

from pipelines.process.config import ProcessConfig
from pipelines.process.search import (
    STAGE,
    Ask,
    BudgetSpent,
    Finding,
    Prefix,
    Question,
    Search,
    tally,
)
from schemas.errors import BadReply
from schemas.records import Reject

_WAVE = 8
"""Rollouts asked for at once under curtailment."""


def filtered(question: Question, config: ProcessConfig, search: Search) -> Search:
    """The search, where the share of right rollouts of the bare question is within the filter.

    OmegaPRM's filter (arXiv 2406.06592) is 32 rollouts, those with none or all right dropped. The
    rollouts are requests like those that generated the responses: where engine and sampling are the
    same, the first of them are the responses, from the journal. Curtailed (`stop_at` not 0) where
    the filter only drops shares of 0 and 1: the first right and the first wrong one settle it.
    """
    limits = config.filter
    if limits is None:
        return (yield from search)
    root = Prefix("", 0)
    extreme = config.stop_at > 0 and limits.above == 0 and limits.below == 1
    drawn = 0
    seen = tally(())
    try:
        while drawn < limits.rollouts and not (extreme and seen.right and seen.wrong):
            drawn = min(limits.rollouts, drawn + _WAVE) if extreme else limits.rollouts
            yield [Ask(root, drawn)]
            seen = tally(question.book.drawn(root, drawn))
    except BudgetSpent:
        return _dropped(question, "over_budget", "the token budget ended before it was known")
    except BadReply as error:
        return _dropped(question, error.code, error.detail)
    if not seen.counted:
        return _dropped(question, "no_answer", f"none of {seen.n} rollouts had an answer")
    share = seen.right / seen.counted
    said = f"{seen.right} of {seen.counted} rollouts are right"
    if share <= limits.above:
        return _dropped(question, "too_hard", said)
    if share >= limits.below:
        return _dropped(question, "too_easy", said)
    return (yield from search)


def _dropped(question: Question, code: str, detail: str) -> Finding:
    units = [s.trajectory.response_id or s.trajectory.id for s in question.solutions]
    return Finding(
        (),
        rejects=tuple(Reject(unit=u, stage=STAGE, code=code, detail=detail[:500]) for u in units),
    )
