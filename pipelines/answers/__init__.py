"""Final answers: found in a response, read, and compared with a reference.

Nothing here guesses: what cannot be read is None, which is not the same as wrong. What runs in this
process takes time linear in the text, and numbers are bounded, so hostile text cannot stall a run;
formulas are compared, and code is run, in processes with hard limits.
"""

from pipelines.answers.compare import Verifier, equal, find, judge, readable, why_unreadable
from pipelines.answers.find import final_answer
from pipelines.answers.numbers import parse_number

__all__ = [
    "Verifier",
    "equal",
    "final_answer",
    "find",
    "judge",
    "parse_number",
    "readable",
    "why_unreadable",
]
