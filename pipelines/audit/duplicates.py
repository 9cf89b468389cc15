"""Texts that are the same, or nearly: words in threes, MinHash, and a check of every match.

Work grows with the characters of the texts, never with the square of their number: texts are compared
only within a bucket, and there only with the bucket's first.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np

SHINGLE = 3
"""Words of a shingle."""
HASHES = 64
"""Hash functions of a signature."""
BANDS = 16
"""Bands of a signature; texts that share a whole band are compared."""
LIKE = 0.8
"""Jaccard similarity of shingles from which texts are near-duplicates."""
_MOST = 4000
"""Words of a text that are looked at."""
_PRIME = np.uint64(2**31 - 1)
_WORD = re.compile(r"\w+")


def exact(texts: Sequence[str]) -> np.ndarray:
    """Equal texts (white space aside) have equal numbers; shape [texts]."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(" ".join(t.split()), len(seen)) for t in texts], np.int64)


def near(texts: Sequence[str], advance: Callable[[int], None] | None = None) -> np.ndarray:
    """Near-duplicates, and what they are linked by, have equal numbers; shape [texts].

    Two texts are near-duplicates when the Jaccard similarity of their word shingles is `LIKE` or more.
    MinHash finds candidates (Broder 1997): at a similarity of .8 a pair is missed about once in 5,000.
    """
    rng = np.random.default_rng(0)
    a = rng.integers(1, int(_PRIME), HASHES, dtype=np.uint64)
    b = rng.integers(0, int(_PRIME), HASHES, dtype=np.uint64)
    shingles: list[np.ndarray] = []
    signatures = np.zeros((len(texts), HASHES), np.uint32)
    for at, text in enumerate(texts):
        found = _shingles(text)
        shingles.append(found)
        if len(found):
            mixed = (found[:, None].astype(np.uint64) * a + b) % _PRIME
            signatures[at] = mixed.min(axis=0)
        if advance is not None:
            advance(1)
    parent = np.arange(len(texts))
    filled = np.array([len(s) > 0 for s in shingles], bool)
    wide = HASHES // BANDS
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * wide : (band + 1) * wide])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * wide))).ravel()
        rows = np.flatnonzero(filled)
        _, first, which = np.unique(keys[rows], return_index=True, return_inverse=True)
        for row, leader in zip(rows.tolist(), rows[first][which].tolist(), strict=True):
            if row != leader and _root(parent, row) != _root(parent, leader):
                if (signatures[row] == signatures[leader]).mean() < LIKE - 0.2:
                    continue
                if _jaccard(shingles[row], shingles[leader]) >= LIKE:
                    _join(parent, row, leader)
    same = exact(texts)
    for at, leader in enumerate(_leaders(same).tolist()):
        _join(parent, at, leader)
    return np.unique([_root(parent, row) for row in range(len(texts))], return_inverse=True)[1]


def linked(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Number of each node's connected component; edges from left to right; shape [count]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _shingles(text: str) -> np.ndarray:
    """Hashes of the text's distinct shingles, sorted; a text shorter than one is one shingle."""
    words = [zlib.crc32(w.encode("utf-8", "surrogatepass")) for w in _words(text)[:_MOST]]
    if not words:
        return np.zeros(0, np.uint64)
    row = np.array(words, np.uint64)
    if len(row) < SHINGLE:
        row = np.pad(row, (0, SHINGLE - len(row)))
    mixed: np.ndarray = np.zeros(len(row) - SHINGLE + 1, np.uint64)
    for at in range(SHINGLE):
        mixed = mixed * np.uint64(1_000_003) + row[at : at + len(mixed)]
    found: np.ndarray = np.unique((mixed ^ (mixed >> np.uint64(29))) % _PRIME)
    return found


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def _leaders(numbers: np.ndarray) -> np.ndarray:
    """The first row with the same number, shape [n]."""
    _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
    return np.asarray(first[which])


def _root(parent: np.ndarray, row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int(parent[row])
    return int(row)


def _join(parent: np.ndarray, one: int, other: int) -> None:
    low, high = sorted((_root(parent, one), _root(parent, other)))
    parent[high] = low
