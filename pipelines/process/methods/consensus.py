"""Keep a solution where rollouts and a judge agree on its first error.

Qwen (Zhang et al. 2025, "The Lessons of Developing Process Reward Models", arXiv 2501.07301):
Monte Carlo's first error is the first step after which none of k rollouts ends right. Labels are
kept up to and including the first error; what follows it is dropped.

The judge is asked first, and rollouts are drawn only up to the step where it sees the first error:
whether both agree depends on no later step. The judge is one verdict beside the reference, or the
vote of all prompts where `ensemble` is set.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.process.config import ProcessConfig
from pipelines.process.methods.asking import Log, draw, step_of
from pipelines.process.methods.ensemble import panel
from pipelines.process.methods.judging import first_error, judged, note, query, read
from pipelines.process.search import (
    Book,
    BudgetSpent,
    Found,
    Question,
    Search,
    Solo,
    Solution,
    Step,
    final_step,
    parallel,
)


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's solutions."""
    return parallel(question, [label(s, question, config) for s in question.solutions])


def label(solution: Solution, question: Question, config: ProcessConfig) -> Solo:
    """Label one solution, or leave it unlabelled: `disagree`, or `undecided` where one of the two
    does not say where the first error is. Raises BadReply where no reply is usable.
    """
    book, log = question.book, Log()
    queries = (
        panel(solution, question, config.ensemble)
        if config.ensemble
        else [query("reference", question, solution)]
    )
    note(queries, solution, log)
    judge = [Step()] * solution.steps
    reach = 0
    """Positions up to which rollouts matter."""
    try:
        yield queries
        votes, _ = read(queries, book, solution)
        judge = judged(solution, votes)
        known, seen = first_error([step.judge_label for step in judge])
        if not known:
            return _found(solution, _steps(solution, judge, 0, book, config), "undecided", log)
        if seen is None and solution.ended and solution.final_right is False:
            return _found(solution, _steps(solution, judge, 0, book, config), "disagree", log)
        reach = min(solution.last, solution.steps if seen is None else seen + 1)
        prefixes = [solution.prefix(position) for position in range(1, reach + 1)]
        yield from draw(book, prefixes, config.k, config.stop_at, log, "up to the judge's error")
    except BudgetSpent:
        return _found(solution, _steps(solution, judge, reach, book, config), "budget", log)
    steps = _steps(solution, judge, reach, book, config)
    end = solution.steps if seen is None else seen + 1
    sampled, error = first_error([step.label for step in steps[:end]])
    if not sampled:
        return _found(solution, steps, "undecided", log)
    if error != seen:
        return _found(solution, steps, "disagree", log)
    return _found(solution, steps, "complete", log, kept=end)


def _steps(
    solution: Solution, judge: Sequence[Step], reach: int, book: Book, config: ProcessConfig
) -> list[Step]:
    """The rollouts' steps with the judge's columns."""
    steps = [Step()] * solution.steps
    for position in range(1, reach + 1):
        drawn = book.drawn(solution.prefix(position), config.k)
        steps[position - 1] = step_of(drawn, config.stop_at)
    if solution.ended:
        steps[-1] = final_step(solution.final_right)
    return [
        step._replace(judge_label=own.judge_label, judge_probability=own.judge_probability)
        for step, own in zip(steps, judge, strict=True)
    ]


def _found(
    solution: Solution, steps: Sequence[Step], stopped: str, log: Log, kept: int = 0
) -> Found:
    """The first `kept` steps labelled, no other."""
    shown = [
        step if index < kept else step._replace(label=None, source="none")
        for index, step in enumerate(steps)
    ]
    return Found(solution, tuple(shown), stopped, stopped == "complete", asked=tuple(log.asked))
