"""What the tree searches share: paths that a search grew, and labels that follow from what was tested."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import NamedTuple

from pipelines.process.search import (
    Drawn,
    Label,
    Prefix,
    Question,
    Solution,
    Source,
    Step,
    final_step,
)
from pipelines.process.splitting import Splitter, completions
from schemas.records import Trajectory


class Stem(NamedTuple):
    """A prefix from which paths grow, and its split into steps."""

    prefix: Prefix
    steps: tuple[str, ...] = ()
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    tokens: float = 0.0
    """Its tokens, as far as they are known."""


ROOT = Stem(Prefix("", 0))


def stem(solution: Solution, position: int) -> Stem:
    """The first `position` steps of a solution."""
    t = solution.trajectory
    return Stem(
        solution.prefix(position),
        t.steps[:position],
        t.starts[:position],
        t.ends[:position],
        solution.tokens - solution.tokens_after(position),
    )


def longer(stem: Stem, pieces: Sequence[str], tokens: float) -> Stem:
    """The stem and some steps more, each with the separator that follows it."""
    first = len(stem.prefix.text)
    ends = tuple(itertools.accumulate(map(len, pieces), initial=first))
    return Stem(
        Prefix(stem.prefix.text + "".join(pieces), stem.prefix.position + len(pieces)),
        (*stem.steps, *(piece.rstrip() for piece in pieces)),
        (*stem.starts, *ends[:-1]),
        (*stem.ends, *ends[1:]),
        stem.tokens + tokens,
    )


def path(question: Question, stem: Stem, drawn: Drawn, splitter: Splitter) -> Solution:
    """The solution that a rollout made of its stem.

    The rollout is split on its own: the stem's steps stay what they are, whatever follows them.
    """
    whole = longer(stem, completions(drawn.text, splitter), drawn.tokens)
    text = whole.prefix.text
    return Solution(
        trajectory=Trajectory(
            prompt_id=question.prompt.id,
            response_id=None,
            text=text,
            steps=whole.steps,
            starts=whole.starts,
            ends=whole.ends,
            token_ends=(),
            prefixes=tuple(question.prefix_id(text[:end]) for end in (0, *whole.ends)),
        ),
        text=text,
        ended=drawn.outcome != "truncated",
        final_right={"right": True, "wrong": False}.get(drawn.outcome),
        answer=drawn.answer,
        tokens=round(whole.tokens),
    )


def labelled(
    solution: Solution, evidence: Sequence[Step], refuted: Collection[int]
) -> tuple[tuple[Step, ...], bool]:
    """Hard labels from what was found at positions 1 to T, and whether the first error is found.

    A position with a success is sound, and so is all before it. The first error is the step after
    the last sound position, where the position that it leads to is `refuted` or has the solution's
    own wrong answer; steps between a sound and an unsound position, and after the error, stay
    unlabelled. Of a right solution nothing is refuted: it is itself a success.
    """
    sound = max((p for p in range(1, solution.last + 1) if evidence[p - 1].successes), default=0)
    ends = [p for p in refuted if p > sound]
    if solution.final_right is False:
        ends.append(solution.steps)
    unsound = min(ends) if ends and not solution.final_right else None
    steps: list[Step] = []
    for p, step in enumerate(evidence, 1):
        label: Label | None = None
        source: Source = "none"
        if p <= sound:
            label, source = "right", "rollouts" if step.successes else "inferred"
        elif p == unsound == sound + 1:
            label, source = "wrong", "rollouts" if p in refuted else "answer"
        steps.append(step._replace(label=label, source=source))
    if solution.ended:
        steps[-1] = final_step(solution.final_right, steps[-1])
    found = (
        unsound == sound + 1 if unsound else bool(solution.final_right) and sound >= solution.last
    )
    return tuple(steps), found
