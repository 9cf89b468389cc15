"""What routing chooses with: uniform hashes, information density, greedy k-center in blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

REFERENCES = 2048
"""Pairs that densities are measured against: a uniform sample, so a million pairs cost one product."""
TEMPERATURE = 0.1
"""Similarity that makes a neighbour count e times less."""
BLOCK = 1024
"""Pairs chosen at a time by k-center; the last block's are kept at a distance as well."""
ROWS = 1 << 12
"""Rows of a product at a time."""


def uniform(ids: Sequence[str], *salt: object) -> Floats:
    """A number in [0, 1) for each id, [n]: from the id and the salt alone."""
    start = hashlib.blake2b("\x00".join(map(str, salt)).encode(), digest_size=8)
    numbers = np.empty(len(ids), np.uint64)
    for i, name in enumerate(ids):
        one = start.copy()
        one.update(b"\x00" + name.encode("utf-8", "surrogatepass"))
        numbers[i] = int.from_bytes(one.digest(), "big")
    return np.asarray((numbers >> np.uint64(11)).astype(np.float64) / 2**53)


def units(vectors: Vectors) -> Vectors:
    """Rows [n, d] divided by their length; a row of zeros stays one."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


def density(vectors: Vectors, references: Vectors) -> Floats:
    """How crowded the place of each vector is, [n], 1 being the references' mean, within 1/2 and 2.

    Mean of exp((cosine - 1) / temperature) over the references: the information density of Settles
    and Craven (2008) with a kernel, as plain cosines of sentence embeddings hardly differ. The clip
    keeps ten thousand copies of one pair from outweighing everything else. Rows are unit vectors.
    """
    own = _kernel(references, references).mean()
    whole = np.concatenate(
        [
            _kernel(vectors[i : i + ROWS], references).mean(axis=1)
            for i in range(0, len(vectors), ROWS)
        ]
        or [np.empty(0)]
    )
    return np.asarray(np.clip(whole / own, 0.5, 2.0))


def _kernel(a: Vectors, b: Vectors) -> Floats:
    return np.asarray(np.exp(((a @ b.T).astype(np.float64) - 1) / TEMPERATURE))


def spread(vectors: Vectors, count: int) -> Indices:
    """Indices [count] of rows that lie far from each other; rows are candidates, the best first.

    Greedy k-center (Gonzalez 1985; Sener and Savarese 2018), begun at the best candidate, ties to
    the better one. In blocks: of each next `BLOCK * n / count` candidates `BLOCK` are chosen, far
    from each other and from those of the block before, so time is n * BLOCK * d.
    """
    n = len(vectors)
    if count >= n:
        return np.arange(n)
    blocks = -(-count // BLOCK)
    chosen: list[int] = []
    before: list[int] = []
    for block in range(blocks):
        low, high = n * block // blocks, n * (block + 1) // blocks
        wanted = count * (block + 1) // blocks - count * block // blocks
        rows = vectors[low:high]
        near = np.full(len(rows), -np.inf)
        if before:
            near = (rows @ vectors[before].T).max(axis=1).astype(np.float64)
        picked = []
        for _ in range(wanted):
            best = int(np.argmin(near))
            picked.append(low + best)
            near = np.maximum(near, rows @ rows[best])
            near[best] = np.inf
        before = picked
        chosen += picked
    return np.sort(np.array(chosen, np.int64))
