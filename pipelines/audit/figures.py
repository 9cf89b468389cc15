"""What the small judges see of a pair: chosen's figures less rejected's, so that both ways are one."""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.rubrics.features import FEATURES, Reading, measure

COUNTS = frozenset(
    (
        "characters",
        "words",
        "lines",
        "sentences",
        "bullets",
        "headings",
        "fences",
        "numbers",
        "equations",
        "questions",
    )
)
"""Figures that are counts: their logarithm is compared."""
READ = 8000
"""Characters of a text that are measured."""
WORDS = 2**17
"""Columns that words and pairs of words are hashed to."""
NEIGHBOURS = 16
REFERENCES = 20_000
"""Most pairs among which neighbours are looked for."""
_WORD = re.compile(r"\w+|[^\w\s]")
_ENDED = re.compile(r"[.!?:;。！？…)\]}\"'`|$]\s*$")
OWN: dict[str, tuple[Callable[[str], float], str]] = {
    "questions": (lambda text: text.count("?"), "its number of question marks"),
    "repetition": (lambda text: 1 - _distinct(text), "the share of its words that repeat another"),
    "finished": (
        lambda text: float(bool(_ENDED.search(text))),
        "whether it ends in a closing mark",
    ),
}
NAMES = (*FEATURES, *OWN)
WORDING = {name: words for name, (_, words) in (*FEATURES.items(), *OWN.items())}
"""Figures in words."""


def figures(prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """What code measures of each response beside its prompt; NaN: has no meaning. [texts, NAMES]."""
    found = np.full((len(texts), len(NAMES)), np.nan)
    for at, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        reading = Reading(prompt[-READ:], text[:READ])
        for column, name in enumerate(NAMES):
            value = OWN[name][0](reading.text) if name in OWN else measure(name, reading)
            if value is not None:
                found[at, column] = math.log1p(value) if name in COUNTS else value
    return found


def differences(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Figures of one side less the other's, and whether only one has a figure; of typical size 1.

    Shape [n, 2 * figures]; columns that never differ are 0.
    """
    gap = np.nan_to_num(left - right)
    lone = np.isfinite(left).astype(float) - np.isfinite(right)
    whole = np.hstack([gap, lone])
    size = np.sqrt((whole**2).mean(axis=0))
    return np.asarray(np.clip(whole / np.where(size > 0, size, 1.0), -4, 4))


def words(texts: Sequence[str], advance: Callable[[int], None]) -> Any:
    """Which words and pairs of words stand in each text: sparse, rows of length 1 (or 0), [texts, k].

    Columns that are in one text alone are left out: nothing can be learned from them.
    """
    from scipy.sparse import csr_matrix

    starts, columns = [0], []
    for text in texts:
        found = [w.encode("utf-8", "surrogatepass") for w in _WORD.findall(text[:READ].lower())]
        pairs = [a + b" " + b for a, b in itertools.pairwise(found)]
        columns.append(
            np.unique([zlib.crc32(w) % WORDS for w in (*found, *pairs)]).astype(np.int32)
        )
        starts.append(starts[-1] + len(columns[-1]))
        advance(1)
    cells = np.concatenate(columns) if columns else np.zeros(0, np.int32)
    lengths = np.diff(starts)
    values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths)
    whole = csr_matrix((values, cells, np.array(starts)), shape=(len(texts), WORDS))
    return whole[:, np.flatnonzero(np.bincount(cells, minlength=WORDS) > 1)]


def meanings(ask: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Differences of vectors, alone and against the prompt's; float32 [n, 2 d + 1]."""
    gap = left - right
    scale = np.float32(math.sqrt(gap.shape[1]))
    fit = (gap * ask).sum(axis=1, keepdims=True) * np.float32(3)
    return np.hstack([gap, gap * ask * scale, fit])


def neighbours(
    gap: np.ndarray, weight: np.ndarray, fold: np.ndarray, used: np.ndarray
) -> np.ndarray:
    """Whether like pairs of other folds were labelled the same way, shape [n].

    Mean over the `NEIGHBOURS` nearest, by |cosine| of the differences of vectors, of the cosine: above 0
    where they are like the pair as labelled, below where they are like it turned round.
    """
    units = gap / np.maximum(np.linalg.norm(gap, axis=1, keepdims=True), 1e-12)
    known = np.flatnonzero(used & (weight > 0))
    known = known[:: max(1, -(-len(known) // REFERENCES))]
    result = np.zeros(len(gap))
    for start in range(0, len(gap), 1024):
        rows = slice(start, start + 1024)
        cosines = units[rows] @ units[known].T
        cosines[fold[rows][:, None] == fold[known][None, :]] = 0.0
        k = min(NEIGHBOURS, cosines.shape[1])
        if k:
            nearest = np.argpartition(-np.abs(cosines), k - 1, axis=1)[:, :k]
            result[rows] = np.take_along_axis(cosines, nearest, axis=1).mean(axis=1)
    return result


def _distinct(text: str) -> float:
    found = re.findall(r"\w+", text.lower())
    return len(set(found)) / len(found) if found else 1.0
