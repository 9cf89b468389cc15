"""What people are asked: the scales of their answers, and what a plan may add to a question."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from annotated_types import MinLen
from pydantic import AfterValidator

from pipelines.config import Config

RATINGS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""HelpSteer2 (Wang et al. 2024): each of a response, 0 to 4."""
PREFERENCES = {
    "-3": ("First is much better", "1"),
    "-2": ("First is better", "2"),
    "-1": ("First is slightly better", "3"),
    "tie": ("Equally good", "4"),
    "1": ("Second is slightly better", "5"),
    "2": ("Second is better", "6"),
    "3": ("Second is much better", "7"),
    "both_bad": ("Both are bad", "8"),
    "cannot_judge": ("I cannot judge", "9"),
}
"""The scale of HelpSteer2-Preference, left to right; a vote's sign is the other way round."""
STEP_VERDICTS = {"right": "Right", "wrong": "Wrong", "unsure": "Not sure"}
SPAN_VERDICTS = {
    "no_errors": ("No errors", "n"),
    "errors": ("Errors are marked", "m"),
    "cannot_judge": ("I cannot judge", "u"),
}
RUBRIC_VERDICTS = {"accept": "Accept", "edit": "Accept as edited below", "reject": "Reject"}

_NAME = re.compile(r"[^\x00-\x1f\x7f<>&\"'`$]{1,60}")


def _plain(name: str) -> str:
    if not _NAME.fullmatch(name) or name != name.strip():
        raise ValueError(f"{name!r}: 1 to 60 characters, none of them < > & \" ' ` $")
    return name


TypeName = Annotated[str, AfterValidator(_plain)]


class QuestionConfig(Config):
    """What a question asks for beside its main answer."""

    ratings: Literal["required", "optional", "none"] = "optional"
    """Five ratings of each response of a pair (helpfulness to verbosity, 0 to 4; HelpSteer2)."""
    justification: Literal["required", "optional", "none"] = "optional"
    """Why the better response of a pair is better, in words."""
    error_types: Annotated[tuple[TypeName, ...], MinLen(1)] = (
        "Incorrect fact",
        "Wrong reasoning",
        "Missing information",
        "Irrelevant or repeated",
        "Unsafe",
    )
    """Types of error that spans are marked with."""
