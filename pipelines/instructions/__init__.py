"""Verifiable instructions (IFEval): checked by code, strictly and loosely."""

from pipelines.instructions.arguments import BadInstruction
from pipelines.instructions.checking import check, follows, of_row
from pipelines.instructions.kinds import KINDS
from pipelines.instructions.language import LANGUAGES, language

__all__ = ["KINDS", "LANGUAGES", "BadInstruction", "check", "follows", "language", "of_row"]
