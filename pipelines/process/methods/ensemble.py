"""Several judge prompts vote on every step, one of them in reverse from the reference answer.

AURORA (Tan et al. 2025, arXiv 2502.11520): prompts that look from different angles, and a check
against the reference answer. Here: each step by itself, each step beside the reference, and from
which step on the reference answer can no longer be reached. Most votes label a step; a tie does not.
"""

from __future__ import annotations

from pipelines.process.config import EnsembleConfig, ProcessConfig
from pipelines.process.methods.asking import Log
from pipelines.process.methods.judging import (
    Angle,
    concluded,
    judged,
    note,
    out_of_budget,
    query,
    read,
)
from pipelines.process.search import (
    BudgetSpent,
    Query,
    Question,
    Search,
    Solo,
    Solution,
    parallel,
)


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's solutions."""
    own = config.ensemble or EnsembleConfig()
    return parallel(question, [label(s, question, own) for s in question.solutions])


def label(solution: Solution, question: Question, config: EnsembleConfig) -> Solo:
    """Label one solution. Raises BadReply where no reply is usable."""
    log, queries = Log(), panel(solution, question, config)
    note(queries, solution, log)
    try:
        yield queries
    except BudgetSpent:
        return out_of_budget(solution, log)
    votes, failures = read(queries, question.book, solution)
    return concluded(solution, judged(solution, votes), failures, log)


def panel(solution: Solution, question: Question, config: EnsembleConfig) -> list[Query]:
    """All prompts' queries, `samples` of each."""
    angles: tuple[Angle, ...] = ("validity", "reference", "reverse")
    return [
        query(angle, question, solution, sample)
        for angle in (angles if config.reverse else angles[:2])
        for sample in range(config.samples)
    ]
