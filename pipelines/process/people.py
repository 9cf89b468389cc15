"""People's verdicts on steps, and what they make of the labels.

A person's verdict on a step is wrong with probability e, independently of all else, and verdicts on
the steps after the first wrong one tell nothing: those may be right or wrong. So where the first error
is at step t (or nowhere), of the verdicts on the steps before t those that say right count 1 - e and
the others e, on step t the other way round, on later ones each a half; the product times what was
believed before, made to sum to 1, is the new `error` and `no_error`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from schemas.records import StepLabels, Vote

Verdicts = Mapping[int, Sequence[bool]]
"""By step, whether each person held it right."""


def verdicts(votes: Sequence[Vote]) -> dict[str, Verdicts]:
    """Verdicts by trajectory and step; who could not tell, or stood in the middle, gave none."""
    found: dict[str, dict[int, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        if vote.value is not None and vote.value != 0.5 and vote.step is not None:
            found[vote.unit][vote.step].append(vote.value > 0.5)
    return {unit: dict(steps) for unit, steps in found.items()}


def agreement(labels: Sequence[StepLabels], said: Mapping[str, Verdicts]) -> dict[str, int]:
    """How far people side with the labels: solutions they judged, steps with a side of theirs and a
    label (`compared`), and of those the steps where both are the same (`agreed`)."""
    found = {"solutions": 0, "compared": 0, "agreed": 0}
    for row in labels:
        given = said.get(row.trajectory_id, {})
        found["solutions"] += bool(given)
        for step, sides in given.items():
            margin = 2 * sum(sides) - len(sides)
            if margin and row.label[step] is not None:
                found["compared"] += 1
                found["agreed"] += (margin > 0) == (row.label[step] == "right")
    return found


def with_people(labels: StepLabels, said: Verdicts, error: float) -> StepLabels:
    """Labels after what people said of the steps.

    A step takes the label that most of them gave it, with the source `human`; where they are divided,
    and where nobody was asked, the label stays. `sound`, `error` and `no_error` are Bayes' (see the
    module); with nothing known before, every place of the first error counts alike. Values are the
    policy's chances, on which nobody was asked: they stay.
    """
    count = len(labels.steps)
    label, source = list(labels.label), list(labels.source)
    right, wrong = np.zeros(count), np.zeros(count)
    for step, given in said.items():
        right[step], wrong[step] = sum(given), len(given) - sum(given)
        if right[step] != wrong[step]:
            label[step] = "right" if right[step] > wrong[step] else "wrong"
            source[step] = "human"
    yes, no = math.log(1 - error), math.log(error)
    before = np.concatenate([[0.0], np.cumsum(right * yes + wrong * no)])
    there = np.concatenate([right * no + wrong * yes, [0.0]])
    later = np.cumsum(((right + wrong) * math.log(0.5))[::-1])[::-1]
    after = np.concatenate([later[1:], [0.0, 0.0]])[: count + 1]
    log_likelihood = before + there + after
    known = [p for p in (*labels.error, labels.no_error) if p is not None]
    prior = np.asarray(known) if len(known) == count + 1 else np.full(count + 1, 1 / (count + 1))
    weight = np.log(np.maximum(prior, 1e-12)) + log_likelihood
    posterior = np.exp(weight - weight.max())
    posterior /= posterior.sum()
    sound = np.clip(1 - np.cumsum(posterior[:count]), 0.0, 1.0)
    return labels.model_copy(
        update={
            "label": tuple(label),
            "source": tuple(source),
            "error": tuple(posterior[:count].tolist()),
            "sound": tuple(sound.tolist()),
            "no_error": float(posterior[count]),
            "first_error": next((i for i, one in enumerate(label) if one == "wrong"), None),
            "resolved": labels.resolved or all(step in said for step in range(count)),
        }
    )
