"""Real text: the splitter and the answer checker on solutions that real models wrote.

BIG-Bench Mistake states each solution as a list of steps: joined by line breaks and split by
`lines`, are they those steps? With `Step 1:` and so on before them and split by `markers`? GSM8K's published solutions (1,319 questions, four models) come with
`is_correct`: is the checker's verdict the same? A solution without a final answer is counted as
neither right nor wrong; the published verdict has no such case, so there it is not right.

Figures: `splitter_agreement` (`lines`) and `markers_agreement`: share of BIG-Bench Mistake's
solutions whose steps come out as stated; `lossless_SPLITTER`: share of all texts whose pieces joined are the text; `checker_agreement`
and `checker_agreement_MODEL`: share of verdicts equal to `is_correct`; `unreadable`: share of
solutions whose answer is not found. Tables: all that disagrees, and those. The data is not part of the project; without
it nothing is measured. Seeds play no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, get_args

import pyarrow.parquet as pq

from benchmarks.harness import REPO, Options, say
from pipelines import grading
from pipelines.process.splitting import Splitter, completions, split
from schemas.errors import UserError
from schemas.records import Message, Prompt, Response

Measured = tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, Any]]
"""Figures, their intervals, tables."""
Row = dict[str, Any]

DATA = REPO.parent / "shared" / "data"
QUICK = 200
"""Rows of each file at a first look."""
SHOWN = 200
"""Characters of a solution's end that a table shows."""


class Verdict(NamedTuple):
    """A solution's grade and the published one."""

    question_id: int
    model: str
    reference: str
    published: bool
    outcome: str
    answer: str | None
    why: str
    end: str
    """The solution's last characters."""


def rows(name: str, limit: int | None) -> list[Row]:
    """Rows of a file of the shared data. Raises UserError where it is not there."""
    path = DATA / f"{name}.parquet"
    if not path.exists():
        raise UserError(f"--part real: {name}.parquet is not in the shared data of this checkout")
    found: list[Row] = pq.read_table(path).slice(0, limit).to_pylist()
    return found


def unlike(mistakes: Iterable[Row], splitter: Splitter) -> list[dict[str, Any]]:
    """The solutions of BIG-Bench Mistake whose steps come out other than stated."""
    found = []
    for row in mistakes:
        stated = row["steps"]
        if splitter == "markers":
            stated = [f"Step {number}: {step}" for number, step in enumerate(stated, 1)]
        made = split(_response("\n".join(stated)), splitter)
        steps = [] if made is None else list(made.steps)
        if steps != stated:
            found.append(
                {
                    "splitter": splitter,
                    "task": row["task"],
                    "item": row["item"],
                    "stated": len(stated),
                    "split": len(steps),
                    "equal_but_for_empty": steps == [step for step in stated if step.strip()],
                }
            )
    return found


def _response(text: str) -> Response:
    return Response(
        prompt_id="0",
        engine="0",
        model="published",
        sample_index=0,
        text=text,
        prompt_tokens=0,
        completion_tokens=0,
        finish_reason="stop",
    )


def lossless(texts: Sequence[str]) -> tuple[dict[str, float], dict[str, Any]]:
    """By splitter: the share of texts whose pieces joined are the text, and steps a text."""
    shares: dict[str, float] = {}
    steps: dict[str, Any] = {}
    for splitter in get_args(Splitter):
        pieces = [completions(text, splitter) for text in texts]
        kept = sum("".join(own) == text for own, text in zip(pieces, texts, strict=True))
        shares[splitter] = kept / len(texts)
        counts = sorted(map(len, pieces))
        places = {"median": len(counts) // 2, "p90": len(counts) * 9 // 10, "most": -1}
        steps[splitter] = {name: counts[place] for name, place in places.items()}
    return shares, steps


def check(solutions: Sequence[Row]) -> tuple[list[Verdict], list[Verdict]]:
    """Verdicts that differ from the published ones, and those of solutions without an answer."""
    asked = [
        grading.Solution(
            Prompt(
                messages=(Message(role="user", content=row["question"]),),
                reference=row["reference"],
                task="math",
                verifier="numeric",
                source="gsm8k",
            ),
            row["solution"],
            cut=False,
        )
        for row in solutions
    ]
    unlike: list[Verdict] = []
    unreadable: list[Verdict] = []
    for row, grade in zip(solutions, grading.grade_all(asked), strict=True):
        verdict = Verdict(
            row["question_id"],
            row["model"],
            row["reference"].rpartition("\n")[2],
            row["is_correct"],
            grade.outcome,
            grade.answer,
            grade.why,
            row["solution"][-SHOWN:],
        )
        if (grade.outcome == "right") != row["is_correct"]:
            unlike.append(verdict)
        if grade.outcome == "unparsed":
            unreadable.append(verdict)
    return unlike, unreadable


def measure(chosen: Options, seeds: Sequence[int]) -> Measured:
    """Both files."""
    limit = QUICK if chosen.quick else None
    mistakes, solutions = rows("bigbench_mistake", limit), rows("gsm8k_model_solutions", limit)
    other, marked = unlike(mistakes, "lines"), unlike(mistakes, "markers")
    texts = ["\n".join(row["steps"]) for row in mistakes] + [row["solution"] for row in solutions]
    shares, steps = lossless(texts)
    disagreeing, unreadable = check(solutions)
    by_model = Counter(row["model"] for row in solutions)
    wrong = Counter(one.model for one in disagreeing)
    figures = {
        "splitter_agreement": 1 - len(other) / len(mistakes),
        "markers_agreement": 1 - len(marked) / len(mistakes),
        "checker_agreement": 1 - len(disagreeing) / len(solutions),
        "unreadable": len(unreadable) / len(solutions),
        **{f"lossless_{splitter}": share for splitter, share in shares.items()},
        **{
            f"checker_agreement_{model}": 1 - wrong[model] / count
            for model, count in sorted(by_model.items())
        },
    }
    for one in other + marked:
        say(f"split otherwise: {one}")
    for verdict in disagreeing:
        say(f"graded otherwise: {verdict}")
    tables = {
        "solutions": len(solutions),
        "questions": len({row["question_id"] for row in solutions}),
        "mistakes": len(mistakes),
        "steps_a_text": steps,
        "splitter_disagrees": other + marked,
        "checker_disagrees": [verdict._asdict() for verdict in disagreeing],
        "unreadable": [verdict._asdict() for verdict in unreadable],
    }
    return figures, {}, tables
