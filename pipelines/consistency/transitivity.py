"""What a prompt's other pairs say of a pair: its two responses are compared elsewhere, too."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

LARGEST = 64
"""Responses of a prompt up to which scores are solved exactly; above, one step over the neighbours."""
BLOCK = 1 << 20
"""Matrix cells that are inverted at once."""


def others(
    prompts: np.ndarray, first: np.ndarray, second: np.ndarray, evidence: np.ndarray, ridge: float
) -> np.ndarray:
    """What the other pairs of the prompt predict for each pair, its own evidence left out.

    A least-squares Bradley-Terry model (one score a response, ridge-penalised: every score is pulled
    to 0 as if by `ridge` comparisons with a response of score 0) is fitted to the evidence of a
    prompt's pairs; a pair's prediction is the difference of its two scores in the fit that left
    the pair out (by the leave-one-out identity of linear smoothers, so one inverse a prompt).

    Args:
        prompts: Prompt of each pair, integers, shape [n].
        first: Response whose win is positive evidence, integers unique over prompts, shape [n].
        second: The other response, shape [n].
        evidence: In [-1, 1], for `first` when above 0, shape [n].
        ridge: Above 0.

    Returns:
        Predicted evidence, shape [n]; 0 where a response is compared nowhere else.
    """
    result = np.zeros(len(evidence))
    if not len(evidence):
        return result
    order = np.lexsort((np.arange(len(prompts)), prompts))
    starts = np.flatnonzero(np.r_[True, np.diff(prompts[order]) != 0])
    edges = np.diff(np.r_[starts, len(order)])
    group = np.repeat(np.arange(len(starts)), edges)
    a, b, nodes = _local(group, first[order], second[order], len(starts))
    y = evidence[order]
    found = np.zeros(len(y))
    for size in np.unique(nodes[edges > 1]):
        rows = np.flatnonzero(((nodes == size) & (edges > 1))[group])
        slot = np.unique(group[rows], return_inverse=True)[1]
        if size > LARGEST:
            found[rows] = _one_step(slot, a[rows], b[rows], y[rows], int(size), ridge)
            continue
        step = max(1, BLOCK // int(size) ** 2)
        cuts = np.searchsorted(slot, np.arange(0, slot[-1] + step + 1, step))
        for low, high in pairwise(cuts):
            part = rows[low:high]
            if len(part):
                at = slot[low:high] - slot[low]
                found[part] = _exact(at, a[part], b[part], y[part], int(size), ridge)
    result[order] = found
    return result


def _local(
    group: np.ndarray, first: np.ndarray, second: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Responses numbered from 0 within their prompt, and how many a prompt has."""
    both = np.r_[first, second]
    groups = np.r_[group, group]
    order = np.lexsort((both, groups))
    new_group = np.r_[True, np.diff(groups[order]) != 0]
    new = new_group | np.r_[True, np.diff(both[order]) != 0]
    running = np.cumsum(new) - 1
    base = np.maximum.accumulate(np.where(new_group, running, 0))
    local = np.empty(len(both), dtype=np.int64)
    local[order] = running - base
    nodes = np.bincount(groups[order][new], minlength=count)
    return local[: len(first)], local[len(first) :], nodes


def _exact(
    slot: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    y: np.ndarray,
    size: int,
    ridge: float,
) -> np.ndarray:
    count = int(slot[-1]) + 1
    laplace = np.zeros((count, size, size))
    np.add.at(laplace, (slot, a, a), 1.0)
    np.add.at(laplace, (slot, b, b), 1.0)
    np.add.at(laplace, (slot, a, b), -1.0)
    np.add.at(laplace, (slot, b, a), -1.0)
    laplace[:, np.arange(size), np.arange(size)] += ridge
    inverse = np.linalg.inv(laplace)
    won = np.zeros((count, size))
    np.add.at(won, (slot, a), y)
    np.add.at(won, (slot, b), -y)
    score = np.einsum("gij,gj->gi", inverse, won)
    leverage = inverse[slot, a, a] + inverse[slot, b, b] - 2 * inverse[slot, a, b]
    own = score[slot, a] - score[slot, b]
    return np.asarray((own - leverage * y) / (1 - leverage))


def _one_step(
    slot: np.ndarray, a: np.ndarray, b: np.ndarray, y: np.ndarray, size: int, ridge: float
) -> np.ndarray:
    """Each response's mean over its other pairs: what is exact for a star of pairs."""
    left, right = slot * size + a, slot * size + b
    cells = (int(slot[-1]) + 1) * size
    total = np.bincount(left, y, cells) - np.bincount(right, y, cells)
    seen = np.bincount(left, None, cells) + np.bincount(right, None, cells)
    mine = (total[left] - y) / (seen[left] - 1 + ridge)
    theirs = (total[right] + y) / (seen[right] - 1 + ridge)
    return np.asarray(mine - theirs)
