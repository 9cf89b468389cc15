"""One pass of a judge over a solution, beside the reference.

SPARE (Rizvi, Zhu and Gurevych 2025, arXiv 2506.15498): align each step with the reference's steps,
explain, label. A step that the judge leaves out stays unlabelled. No rollouts.
"""

from __future__ import annotations

from pipelines.process.config import ProcessConfig
from pipelines.process.methods.asking import Log
from pipelines.process.methods.judging import concluded, judged, note, out_of_budget, query, read
from pipelines.process.search import (
    BudgetSpent,
    Question,
    Search,
    Solo,
    Solution,
    parallel,
)


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's solutions."""
    return parallel(question, [label(s, question) for s in question.solutions])


def label(solution: Solution, question: Question) -> Solo:
    """Label one solution. Raises BadReply where the judge's reply is unusable."""
    log, queries = Log(), [query("reference", question, solution)]
    note(queries, solution, log)
    try:
        yield queries
    except BudgetSpent:
        return out_of_budget(solution, log)
    votes, failures = read(queries, question.book, solution)
    return concluded(solution, judged(solution, votes), failures, log)
