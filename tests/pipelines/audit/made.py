"""Made-up preferences whose better side can be told, and an embedder without a model."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ("table", "river", "stone", "cloud", "paper", "green", "early", "seven", "music", "candle")


def embed(texts: list[str]) -> np.ndarray:
    """Bags of words by hash, of length 1."""
    made = np.zeros((len(texts), 32), np.float32)
    for at, text in enumerate(texts):
        for word in text.lower().split():
            made[at, zlib.crc32(word.encode()) % 32] += 1
    return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-9)


EMBED = ("words", embed)


def preferences(
    count: int, flips: float = 0.0, seed: int = 0
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Rows in which the polite response is better, and which of them are turned round."""
    rng = np.random.default_rng(seed)
    flipped = rng.random(count) < flips
    rows = []
    for at in range(count):
        a, b, c, d = rng.choice(WORDS, 4)
        good = f"Thank you, the {a} is near the {b}, gladly."
        bad = f"Whatever, the {c} is near the {d}, stupid."
        sides = (bad, good) if flipped[at] else (good, bad)
        rows.append(
            {
                "prompt": f"Question {at} {rng.integers(1e9)}: where is the {a} of the {d}?",
                "chosen": sides[0],
                "rejected": sides[1],
            }
        )
    return rows, flipped


def write(path: Path, rows: list[Any]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
