"""What is wrong with a set of pairs beside single labels: contradictions, copies, leaks, biases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.audit.cases import Cases
from pipelines.audit.read import Pairs

DRAWS = 200


@dataclass(frozen=True)
class Rows:
    """What is found of each row's pair, bool, shape [n] each."""

    contradiction: np.ndarray
    """Another row has the same pair with the opposite label."""
    near_contradiction: np.ndarray
    """Another row has nearly the same pair with the opposite label."""
    cycle: np.ndarray
    """Its label is part of a cycle: a over b, b over c, c over a."""
    duplicate: np.ndarray
    """An earlier row of its split has the same pair with the same label."""
    near_duplicate: np.ndarray
    """An earlier row of its split has nearly the same pair with the same label."""
    leak: np.ndarray
    """Another split has the pair, or nearly."""
    prompt_leak: np.ndarray
    """Another split has the prompt, or nearly."""


@dataclass(frozen=True)
class Bias:
    """How often chosen has more of a figure, where the two differ."""

    figure: str
    more: int
    differ: int
    low: float
    high: float
    """95% interval of the share, by resampling prompts."""

    @property
    def share(self) -> float:
        """Share of the pairs that differ in which chosen has more."""
        return self.more / self.differ if self.differ else 0.5


def rows(pairs: Pairs, found: Cases, near: np.ndarray, empty: np.ndarray) -> Rows:
    """Findings of each row; `near` numbers near-duplicate texts alike, `empty` says which are empty."""
    prompt, chosen, rejected = (
        near[np.array(part, np.int64)] for part in (pairs.prompt, pairs.chosen, pairs.rejected)
    )
    names = {name: at for at, name in enumerate(dict.fromkeys(pairs.splits))}
    split = np.array([names[name] for name in pairs.splits])[np.array(pairs.file, np.int64)]
    low, high = np.minimum(chosen, rejected), np.maximum(chosen, rejected)
    alike = _numbered(prompt, low, high)
    told_apart = chosen != rejected
    way = np.where(chosen == low, 1, 0)
    bare = empty[np.array(pairs.prompt, np.int64)]
    return Rows(
        contradiction=_both(found.case, (found.sign > 0).astype(int)),
        near_contradiction=_both(alike, way) & told_apart,
        cycle=_cycles(found)[found.case],
        duplicate=_later(_numbered(split, found.case, (found.sign > 0).astype(int))),
        near_duplicate=_later(_numbered(split, alike, way)),
        leak=_several(alike, split),
        prompt_leak=_several(prompt, split) & ~bare,
    )


def bias(name: str, left: np.ndarray, right: np.ndarray, group: np.ndarray, seed: int) -> Bias:
    """How often the left side (chosen) has more; NaN is not compared. Shape [n] each."""
    differ = np.isfinite(left) & np.isfinite(right) & (left != right)
    more = differ & (np.nan_to_num(left) > np.nan_to_num(right))
    size = int(group.max()) + 1
    mores = np.bincount(group, more, size)
    totals = np.bincount(group, differ, size)
    rng = np.random.default_rng([seed, 11])
    shares = []
    for _ in range(DRAWS):
        weight = rng.exponential(size=size)
        shares.append(float(weight @ mores / max(float(weight @ totals), 1e-12)))
    low, high = np.quantile(shares, [0.025, 0.975]) if differ.any() else (0.0, 1.0)
    return Bias(name, int(more.sum()), int(differ.sum()), float(low), float(high))


def _numbered(*parts: np.ndarray) -> np.ndarray:
    """Equal combinations have equal numbers, shape [n]."""
    found: np.ndarray = np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)[1].ravel()
    return found


def _both(key: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Whether both sides, 0 and 1, are there among the rows of a key. Shape [n]."""
    ones = np.bincount(key, side)
    count = np.bincount(key)
    return np.asarray(((ones > 0) & (ones < count))[key])


def _later(key: np.ndarray) -> np.ndarray:
    """Whether an earlier row has the same key, shape [n]."""
    first = np.unique(key, return_index=True, return_inverse=True)
    return np.asarray(first[1][first[2]] != np.arange(len(key)))


def _several(key: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Whether rows of the key stand in several splits, shape [n]."""
    low = np.full(int(key.max()) + 1, split.max())
    high = np.zeros(int(key.max()) + 1, split.dtype)
    np.minimum.at(low, key, split)
    np.maximum.at(high, key, split)
    return np.asarray((low < high)[key])


def _cycles(found: Cases) -> np.ndarray:
    """Cases in a strongly connected part of the graph from chosen to rejected, shape [m]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    known = np.flatnonzero(found.label > 0)
    texts = int(max(found.chosen.max(), found.rejected.max())) + 1
    nodes = np.r_[found.prompt * texts + found.chosen, found.prompt * texts + found.rejected]
    number = np.unique(nodes, return_inverse=True)[1].ravel()
    a, b = number[: len(found.chosen)], number[len(found.chosen) :]
    size = int(number.max()) + 1
    edges = coo_matrix((np.ones(len(known), np.int8), (a[known], b[known])), shape=(size, size))
    part = connected_components(edges, directed=True, connection="strong")[1]
    return np.asarray((part[a] == part[b]) & (found.label > 0))
