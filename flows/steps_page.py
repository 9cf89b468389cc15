"""The pages of step labels: one for a question, its tree on top and its solutions below, and an index.

As the report, a page has no script, loads nothing, carries a policy that forbids both, and shows
every text escaped with its hidden characters. Counts that do not add up raise ValueError.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows import charts, runs, steps_charts, steps_data, steps_tree
from flows.page import environment, write_page
from flows.steps_data import Drawn, Listed, QuestionSteps, Solved
from pipelines.store import Store
from schemas.records import Prompt, StepLabels

FOLDER = "steps"
MOST = 40
"""Questions that a run's pages show."""
SOLUTIONS = 32
"""Solutions of a question whose steps are shown; all are in the tree and the counts."""
STEPS = 120
"""Steps shown of a solution."""
ASKS = 200
"""Asks listed of a solution."""
_AT_ONCE = 8
"""Questions held in memory at once."""

STOPPED = {
    "complete": "everything that the method set out to ask was asked",
    "confident": "one first error, or none, had become probable enough",
    "refitted": "it was confident, and is less so under the priors that were fitted at the end",
    "uninformative": "the best next rollout would have told too little for its tokens",
    "cap": "the most rollouts that one solution may take were drawn",
    "budget": "the token budget was spent",
    "pool_empty": "no rollout was left that a search could start from",
    "searches": "the most searches that one question may take were made",
    "disagree": "the rollouts and the judge name different first errors",
    "contradicted": "another search has since had a success after the error that this one had found",
    "not_searched": "no search came to this solution",
    "rollouts": "the most rollouts that one question may take were drawn",
    "simulations": "the most expansions that the tree of one question may take were made",
    "undecided": "what was asked came back without an answer that would decide",
    "unsolved": "no rollout of the question alone was right, so there is nothing to compare with",
    "refused": "some requests got no usable answer",
}
"""Why a method stopped, in words. A code that is not here is shown as it is."""

RESTS_ON = {
    "rollouts": "rollouts after it",
    "answer": "the final answer",
    "judge": "a judge",
    "inferred": "other steps",
    "human": "people",
    "none": "nothing",
}
"""What a hard label rests on, in words."""


@dataclass(frozen=True)
class Index:
    """What the index shows: the whole run in numbers, and the questions written."""

    plan_name: str
    run_id: str
    questions: int
    total: Listed
    other_rollouts: int
    """Rollouts of questions of which no solution has labels: filtered out, or failed."""
    stopped: dict[str, int]
    """Solutions of the whole run by why their labelling stopped."""
    written: tuple[tuple[Listed, Prompt], ...]


def check(question: QuestionSteps) -> None:
    """Raise ValueError, naming the row, where a question's page would contradict itself."""
    for solved in question.solutions:
        labels, trajectory = solved.labels, solved.trajectory
        where = f"step labels {labels.id}"
        if labels.prompt_id != question.prompt.id or labels.trajectory_id != trajectory.id:
            raise ValueError(f"{where}: of another prompt or trajectory")
        if labels.steps != trajectory.steps:
            raise ValueError(f"{where}: its steps are not those of its trajectory")
        steps = len(labels.steps)
        if len(trajectory.prefixes) != steps + 1 or len(set(trajectory.prefixes)) != steps + 1:
            raise ValueError(f"{where}: {steps} steps need {steps + 1} prefixes, no two alike")
        for name in _LISTS:
            if len(getattr(labels, name)) != steps:
                raise ValueError(f"{where}: {len(getattr(labels, name))} of {name}, {steps} steps")
        for t in range(steps):
            known = labels.successes[t] + labels.truncated[t] + labels.unparsed[t]
            if known > labels.n[t]:
                raise ValueError(f"{where}: step {t + 1} has {labels.n[t]} rollouts, not {known}")
        first = labels.label.index("wrong") if "wrong" in labels.label else None
        if labels.first_error != first:
            raise ValueError(f"{where}: its first step labelled wrong is not its first error")
    for drawn in question.rollouts.values():
        if len(drawn.shown) > drawn.outcomes.n:
            raise ValueError(f"prompt {question.prompt.id}: more rollouts shown than counted")
    numbers = range(1, len(question.solutions) + 1)
    ends = [
        number for node in steps_tree.walk(steps_tree.merge(question)[0]) for number in node.ends
    ]
    if sorted(ends) != list(numbers):
        raise ValueError(
            f"prompt {question.prompt.id}: its tree has {len(ends)} solutions, not {len(numbers)}"
        )


_LISTS = (
    *("n", "successes", "truncated", "unparsed", "value", "low", "high", "sound", "error"),
    *("advantage", "judge_label", "judge_probability", "label", "source", "tokens"),
)


def check_index(index: Index) -> None:
    """Raise ValueError where the index's counts would not add up."""
    t = index.total
    for row, prompt in index.written:
        if _file(row.prompt_id) != _file(prompt.id):
            raise ValueError(f"{row.prompt_id}: its numbers stand beside prompt {prompt.id}")
    if index.other_rollouts < 0:
        raise ValueError(f"{-index.other_rollouts} rollouts more than there are")
    if sum(index.stopped.values()) != t.solutions:
        raise ValueError(f"{sum(index.stopped.values())} solutions stopped, not {t.solutions}")
    written = steps_data.total([row for row, _ in index.written])
    for name in ("solutions", "resolved", "errors", "rollouts", "tokens"):
        if getattr(written, name) > getattr(t, name):
            raise ValueError(f"{name}: {getattr(written, name)} written of {getattr(t, name)}")
    if t.resolved > t.solutions or t.labelled > t.steps or len(index.written) > index.questions:
        raise ValueError("more resolved, labelled or written than there is")


def render(
    question: QuestionSteps, name: str, first: str | None = None, index: bool = False
) -> str:
    """The page of a question. `name`: plan and run, for its head; `first`: the trajectory shown first.

    `index`: whether index.html lies beside it. Raises ValueError where counts do not add up.
    """
    check(question)
    shown = _shown(question.solutions, first)
    root, astray = steps_tree.merge(question)
    outcomes = Counter[str]()
    for drawn in question.rollouts.values():
        outcomes.update(drawn.outcomes._asdict())
    page = environment().get_template("steps.html.j2")
    return page.render(
        question=question,
        name=name,
        index=index,
        first=first,
        shown=shown,
        listed_at=_listed_at(shown),
        outcomes=outcomes,
        tree=steps_tree.layout(root) if len(question.solutions) > 1 else [],
        nodes=steps_tree.size(root),
        root=root,
        astray=astray,
        columns=columns,
        STOPPED=STOPPED,
        RESTS_ON=RESTS_ON,
        STEPS=STEPS,
        ASKS=ASKS,
        charts=charts,
        drawings=steps_charts,
        drawn=question.rollouts.get,
        parts=parts,
        in_words=in_words,
    )


def render_index(index: Index) -> str:
    """The page that lists the questions written."""
    check_index(index)
    page = environment().get_template("steps_index.html.j2")
    return page.render(data=index, STOPPED=STOPPED)


def _shown(solutions: Sequence[Solved], first: str | None) -> list[tuple[int, Solved]]:
    """Solutions by number, at most SOLUTIONS of them: the one asked for, unresolved ones, the rest."""
    numbered = list(enumerate(solutions, 1))
    by_need = sorted(
        numbered, key=lambda item: (item[1].trajectory.id != first, item[1].labels.resolved)
    )
    kept = by_need[:SOLUTIONS]
    return sorted(kept, key=lambda item: (item[1].trajectory.id != first, item[0]))


def _listed_at(shown: Sequence[tuple[int, Solved]]) -> dict[str, tuple[int, int]]:
    """Solution and position under which a prefix's rollouts are listed: the first shown that has it."""
    places: dict[str, tuple[int, int]] = {}
    for number, solved in shown:
        for position, prefix_id in enumerate(solved.trajectory.prefixes[: STEPS + 1]):
            places.setdefault(prefix_id, (number, position))
    return places


def columns(labels: StepLabels) -> set[str]:
    """The optional columns of which the method found anything."""
    names = {"sound": "sound", "error": "error", "advantage": "advantage", "judge": "judge_label"}
    found = {name for name, of in names.items() if any(v is not None for v in getattr(labels, of))}
    if any(v is not None for v in labels.judge_probability):
        found.add("judge")
    return found


def parts(drawn: Drawn) -> list[tuple[str, int, str]]:
    """Outcomes as (name, count, colour) of a bar."""
    tones = {"right": "good", "wrong": "bad", "truncated": "warn", "unparsed": "mute"}
    return [(name, getattr(drawn.outcomes, name), tone) for name, tone in tones.items()]


def in_words(drawn: Drawn) -> str:
    """Outcomes that there are, such as `6 right, 2 wrong`."""
    return ", ".join(f"{charts.number(n)} {name}" for name, n, _ in parts(drawn) if n)


def write_pages(store: Store, record: runs.RunRecord, most: int = MOST) -> Path | None:
    """Write the pages of a run's step labels to steps/ in its folder; gives the index's path.

    None where the run has no step labels: pages of an earlier try are then removed. The folder is
    made beside its place and renamed, so what is there is of one making.
    """
    made = dict(record.outputs(store))
    folder = runs.folder(store, record.id) / FOLDER
    if not steps_data.labelled(made):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    rows = steps_data.overview(made)
    whole = steps_data.total(rows)
    chosen = steps_data.choose(rows, most, made["process"].manifest.seed)
    fresh = folder.with_name(f".{FOLDER}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    written = []
    try:
        for start in range(0, len(chosen), _AT_ONCE):
            some = chosen[start : start + _AT_ONCE]
            for row, question in zip(
                some, steps_data.questions(made, [row.prompt_id for row in some]), strict=True
            ):
                page = render(question, f"{record.plan} · run {record.id}", index=True)
                write_page(page, fresh / _file(row.prompt_id))
                written.append((row, question.prompt))
        index = Index(
            plan_name=record.plan,
            run_id=record.id,
            questions=len(rows),
            total=whole,
            other_rollouts=made["process"].manifest.rows("rollouts") - whole.rollouts,
            stopped=steps_data.stopped(made),
            written=tuple(written),
        )
        if whole.solutions != made["process"].manifest.rows("step_labels"):
            raise ValueError(f"{whole.solutions} solutions read, not all of the table")
        write_page(render_index(index), fresh / "index.html")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder / "index.html"


def page_for(store: Store, record: runs.RunRecord, unit_id: str) -> str:
    """The page of the question that an id names, the solution that it names shown first.

    The id, or an unambiguous beginning, of a prompt, a response, a trajectory or step labels.
    Raises UserError where it names nothing that was labelled, or several questions.
    """
    made = dict(record.outputs(store))
    prompt_id, trajectory_id = steps_data.find(made, unit_id)
    [question] = steps_data.questions(made, [prompt_id])
    return render(question, f"{record.plan} · run {record.id}", trajectory_id)


def _file(prompt_id: str) -> str:
    """Name of a question's page; an id that is no digest is never made a path."""
    if not re.fullmatch(r"[0-9a-f]{32}", prompt_id):
        raise ValueError(f"{prompt_id!r} is no id")
    return f"{prompt_id}.html"
