"""Figures of many texts, made in chunks that are kept on disk: a stopped audit goes on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipelines.durable import explained, write_durably
from schemas.record import digest

CHUNK = 512
"""Texts of a chunk."""
READ = 4000
"""Characters of a text that are embedded: beyond the window of any small model."""
Make = Callable[[list[str]], np.ndarray]


def embed(
    texts: Sequence[str], identity: str, make: Make, folder: Path, advance: Callable[[int], None]
) -> np.ndarray:
    """Vectors by an embedder, float32 [texts, dimensions]; equal texts are embedded once.

    Texts of like length share a chunk, since what shares a batch is padded together.
    """
    cut = [text[:READ] for text in texts]
    unique = sorted(set(cut), key=lambda text: (len(text), text))
    place = {text: at for at, text in enumerate(unique)}
    found = chunked(unique, identity, lambda part, at: make(part), folder, advance)
    return found[[place[text] for text in cut]]


def chunked(
    texts: Sequence[str],
    identity: str,
    make: Callable[[list[str], int], np.ndarray],
    folder: Path,
    advance: Callable[[int], None],
) -> np.ndarray:
    """Figures of texts, float32 [texts, k], made chunk by chunk and kept.

    A chunk's file is named by `identity` and its texts, so nothing that changed is ever reused, and a
    chunk that is damaged is made again. `make` is called with a chunk and where it starts.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        path = folder / f"{digest(identity, part)}.f32"
        with explained(path):
            found = _read(path, len(part)) if path.is_file() else None
            if found is None:
                found = np.ascontiguousarray(make(part, start), np.dtype("<f4"))
                content = found.tobytes()
                write_durably(path, hashlib.sha256(content).digest() + content)
        parts.append(found)
        advance(len(part))
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _read(path: Path, rows: int) -> np.ndarray | None:
    """A chunk's figures; None where the file is not whole."""
    content = path.read_bytes()
    body = content[32:]
    if hashlib.sha256(body).digest() != content[:32] or not body or len(body) % (4 * rows):
        return None
    return np.frombuffer(body, np.dtype("<f4")).reshape(rows, -1)
