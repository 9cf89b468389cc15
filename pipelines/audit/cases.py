"""Distinct pairs behind the rows: rows that say the same, or the opposite, are one case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.audit.duplicates import linked
from pipelines.audit.read import Pairs


@dataclass(frozen=True)
class Cases:
    """m distinct unordered pairs of responses to one prompt, turned as most of their rows are."""

    prompt: np.ndarray
    """Text numbers, shape [m], as `ask`, `chosen` and `rejected`."""
    ask: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    label: np.ndarray
    """1.0, or 0.0 where as many rows say the opposite, shape [m]."""
    judges: dict[str, np.ndarray]
    """Scores that the file brought, of typical size 1; 0 where there is none. Shape [m] each."""
    human: np.ndarray
    """Sum of people's answers, above 0 for chosen; 0 where there are none. Shape [m]."""
    case: np.ndarray
    """Case of each row's pair, shape [n]."""
    sign: np.ndarray
    """1.0 where the row is turned as its case, -1.0 where it says the opposite. Shape [n]."""


def cases(pairs: Pairs, same: np.ndarray) -> Cases:
    """Cases of the rows; `same` numbers the texts so that equal ones have equal numbers, [texts]."""
    prompt, chosen, rejected = (
        np.array(part, np.int64) for part in (pairs.prompt, pairs.chosen, pairs.rejected)
    )
    c, r = same[chosen], same[rejected]
    key = np.stack([same[prompt], np.minimum(c, r), np.maximum(c, r)], axis=1)
    _, first, case = np.unique(key, axis=0, return_index=True, return_inverse=True)
    # Numbered in the order of their first rows.
    order = np.argsort(first, kind="stable")
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    case, first = number[case.ravel()], first[order]
    way = np.where(c == c[first][case], 1.0, -1.0)
    net = np.bincount(case, way, len(first))
    turned = np.where(net < 0, -1.0, 1.0)
    sign = way * turned[case]
    a, b = chosen[first], rejected[first]
    total = np.bincount(case, minlength=len(first))
    scores = {}
    for name, values in pairs.judges.items():
        score = np.array(values)
        known = np.isfinite(score)
        mean = np.bincount(case, np.where(known, score * sign, 0.0), len(first)) / total
        size = float(np.sqrt((mean**2).mean())) or 1.0
        scores[name] = np.tanh(mean / (2 * size)) * 2
    return Cases(
        prompt=prompt[first],
        ask=np.array(pairs.ask, np.int64)[first],
        chosen=np.where(turned > 0, a, b),
        rejected=np.where(turned > 0, b, a),
        label=(net != 0).astype(float),
        judges=scores,
        human=np.bincount(case, np.nan_to_num(np.array(pairs.human)) * sign, len(first)),
        case=case,
        sign=sign,
    )


def groups(found: Cases, empty: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Cases that must not be fitted to and judged by turns: of one prompt, or of nearly one. [m].

    Where there is no prompt (`empty`, [texts]), cases that share a response, or nearly, are together.
    """
    m, texts = len(found.prompt), int(near.max()) + 1
    bare = empty[found.prompt]
    row = np.arange(m)
    left = np.concatenate([row[~bare], row[bare], row[bare]])
    right = np.concatenate(
        [
            near[found.prompt[~bare]],
            texts + near[found.chosen[bare]],
            texts + near[found.rejected[bare]],
        ]
    )
    parts = linked(m + 2 * texts, left, m + right)[:m]
    _, first, group = np.unique(parts, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[group])


def folds(group: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fold of each case: whole groups, folds of like size, drawn by the seed; shape [m].

    With fewer groups than folds, cases are dealt out one by one.
    """
    sizes = np.bincount(group)
    if len(sizes) < count:
        group, sizes = np.arange(len(group)), np.ones(len(group), np.int64)
    order = np.random.default_rng([seed, 1]).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    load = np.zeros(count)
    fold = np.zeros(len(sizes), np.int64)
    for at in order:
        fold[at] = load.argmin()
        load[fold[at]] += sizes[at]
    return np.asarray(fold[group])
