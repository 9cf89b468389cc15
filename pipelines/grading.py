"""Grade a solution: find its final answer, compare it with the prompt's reference."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal, NamedTuple

from pipelines import answers
from schemas.records import Prompt

_SLOW = frozenset({"latex", "code"})
"""Verifiers that wait for another process."""


class Grade(NamedTuple):
    """What a solution came to; truncated and unparsed are neither right nor wrong."""

    outcome: Literal["right", "wrong", "unparsed", "truncated"]
    answer: str | None
    """The final answer, or the code, as the solution has it."""
    why: str = ""
    """What makes a wrong answer wrong."""


class Solution(NamedTuple):
    """A text to grade."""

    prompt: Prompt
    """It must have a reference and a verifier."""
    text: str
    """The whole solution."""
    cut: bool
    """Whether it was stopped by the token limit."""


async def grade(prompt: Prompt, text: str, cut: bool) -> Grade:
    """Grade the text of a whole solution; `cut`: it was stopped by the token limit.

    The prompt must have a reference and a verifier. Formulas and code wait for their processes in
    threads, as many at a time as there are processors. Raises UserError where code cannot be run
    safely.
    """
    solution = Solution(prompt, text, cut)
    if prompt.verifier not in _SLOW:
        return _grade(solution)
    return await asyncio.get_running_loop().run_in_executor(_threads(), _grade, solution)


def grade_all(solutions: Sequence[Solution], *, last_number: bool = False) -> list[Grade]:
    """Grade many, in their order; blocks. `last_number`: see `answers.final_answer`."""
    waiting = {
        index: _threads().submit(_grade, solution, last_number)
        for index, solution in enumerate(solutions)
        if solution.prompt.verifier in _SLOW
    }
    try:
        return [
            waiting[index].result() if index in waiting else _grade(solution, last_number)
            for index, solution in enumerate(solutions)
        ]
    finally:
        for future in waiting.values():
            future.cancel()


def _grade(solution: Solution, last_number: bool = False) -> Grade:
    prompt, text, cut = solution
    assert prompt.reference is not None and prompt.verifier is not None
    answer = answers.find(text, prompt.verifier, last_number=last_number, cut=cut)
    if answer is None:
        return Grade("truncated" if cut else "unparsed", None)
    right, why = answers.judge(answer, prompt.reference, prompt.verifier)
    if right is None and prompt.verifier == "code" and answer != text:
        # A fenced block is meant as code, so one that does not compile fails.
        right = False
    return Grade(
        "unparsed" if right is None else "right" if right else "wrong",
        answer,
        why if right is False else "",
    )


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, os.cpu_count() or 1), thread_name_prefix="grading")


# The threads of a parent are not there after a fork.
os.register_at_fork(after_in_child=_threads.cache_clear)
