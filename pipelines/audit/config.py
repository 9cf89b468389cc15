"""Settings of an audit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config import Config

Action = Literal["drop", "soften", "flip", "report"]


class AuditConfig(Config):
    """What is audited, and what becomes of it."""

    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    """Files, globs or folders saved by `datasets`; several files or splits are compared."""
    model: str
    """Folder of a sentence-transformers model, or its Hub id (`org/name`)."""
    action: Action = "report"
    """What the written data set is: without wrong pairs, with a column of probabilities, with wrong
    pairs turned round, or none at all."""
    prompt: str | None = None
    """Column of the prompt; none: the usual names, or what both responses begin with."""
    chosen: str | None = None
    """Column of the better response."""
    rejected: str | None = None
    """Column of the other one."""
    responses: str | None = None
    """Column of a list of responses, or of one response a row, that are rated."""
    ratings: str | None = None
    """Column of their ratings."""
    judges: tuple[str, ...] = ()
    """Columns of judges' scores that the data brings: `MARGIN` (above 0: for chosen), or
    `CHOSEN_SCORE:REJECTED_SCORE`."""
    human: str | None = None
    """Column of people's own answers: chosen, rejected or tie, or a number above or below 0."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Folds of cross-fitting; near-duplicate prompts share one."""
    fit_pairs: Annotated[int, Field(ge=100)] = 30_000
    """Most pairs that a small model is fitted to; all are judged."""
    batch: Annotated[int, Field(ge=1)] = 64
    """Texts that are embedded at a time."""
    seed: int = 0
    """Seed of folds and resampling."""
