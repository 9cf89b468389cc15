"""Questions whose rollouts and verdicts are told, and a driver that runs a method on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pipelines.process.config import ProcessConfig
from pipelines.process.search import (
    Ask,
    BudgetSpent,
    Drawn,
    Finding,
    Query,
    Question,
    Search,
    Solution,
    Tally,
)
from pipelines.process.splitting import split
from schemas.errors import BadReply
from schemas.records import Message, Prompt
from tests.pipelines.rows import response

RESPONSES = Tally(8, 6, 2, 0, 0, 80)
OUTCOMES = {"r": "right", "w": "wrong", "t": "truncated", "u": "unparsed"}
Judge = Callable[[Query], str | BadReply]


def settings(method: str = "monte_carlo", **change: Any) -> ProcessConfig:
    judge = {"judge": "j"} if method in ("reference", "ensemble", "consensus") else {}
    return ProcessConfig.model_validate({"engine": "policy", "method": method, **judge, **change})


def question(
    *texts: str,
    right: bool | None = False,
    ended: bool = True,
    responses: Tally = RESPONSES,
    reference: str = "6",
) -> Question:
    """A question whose solutions are texts of one step a line."""
    prompt = Prompt(
        messages=(Message(role="user", content="How many?"),),
        reference=reference,
        verifier="numeric",
        source="s",
    )
    solutions = []
    for index, text in enumerate(texts):
        finish = "stop" if ended else "length"
        trajectory = split(response(prompt.id, index, text, finish_reason=finish), "lines")
        assert trajectory is not None
        solutions.append(Solution(trajectory, text, ended, right, None, 9))
    return Question(prompt, tuple(solutions), responses)


def lines(count: int) -> str:
    """A solution of so many steps."""
    return "\n".join(f"step {index}" for index in range(1, count + 1))


def drive(
    asked: Question,
    search: Search,
    rollouts: Callable[[int, bool], str] | None = None,
    judge: Judge | None = None,
    waves: int | None = None,
) -> Finding:
    """Run a method; after `waves` waves there is no budget left.

    `rollouts` gives the outcomes after a position, from the prover or not, as letters of OUTCOMES,
    draw by draw.
    """
    book, served = asked.book, 0
    try:
        wave = next(search)
        while True:
            if served == waves:
                wave = search.throw(BudgetSpent())
                raise AssertionError("asked for more than the budget")
            served += 1
            for wanted in wave:
                if isinstance(wanted, Query):
                    assert judge is not None
                    reply = judge(wanted)
                    if isinstance(reply, BadReply):
                        book.failed[wanted] = reply
                    else:
                        book.verdicts[wanted] = reply
                    continue
                _draw(asked, wanted, rollouts)
            wave = next(search)
    except StopIteration as stop:
        finding: Finding = stop.value
        return finding


def _draw(asked: Question, wanted: Ask, rollouts: Callable[[int, bool], str] | None) -> None:
    assert rollouts is not None
    told = rollouts(wanted.prefix.position, wanted.prover)
    drawn = asked.book.draws.setdefault((wanted.prover, wanted.prefix.text), [])
    for letter in told[len(drawn) : wanted.n]:
        drawn.append(Drawn(OUTCOMES[letter], None, "", 3))  # type: ignore[arg-type]
    if len(drawn) < wanted.n:
        raise AssertionError(f"{wanted.n} asked of {told!r} after {wanted.prefix.position}")


def drawn_at(asked: Question, prover: bool = False) -> dict[str, int]:
    """How many rollouts were drawn, by the last line of the prefix."""
    return {
        text.rstrip("\n").rpartition("\n")[2]: len(drawn)
        for (own, text), drawn in asked.book.draws.items()
        if own == prover
    }


def graded(*verdicts: str | None, **more: Any) -> str:
    """A judge's reply that grades steps 1, 2 and so on; None leaves one out."""
    steps = [
        {"step": index, "explanation": "so", "verdict": verdict, **more}
        for index, verdict in enumerate(verdicts, start=1)
        if verdict
    ]
    return json.dumps({"steps": steps})
