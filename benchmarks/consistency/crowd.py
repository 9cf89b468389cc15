"""ukp_convarg_votes: real human noise. One worker's vote is the given label, two others are judges.

Pairs with a gold side and three votes or more that take one. The given label is a drawn worker's
vote; of the rest two are drawn, and what the one-coin model of all 3,815 workers (each pulled to the
crowd's accuracy) makes of them is the judge. The truth is the gold label, which its makers drew from
the same votes, five a pair: an easy truth, but the noise is real. 300 human labels on pairs of half
of the prompts (a topic's side), figures on the other half.

`crowd_auroc`, `crowd_noise_given`, `crowd_noise_left`, `ece_crowd` (all seeds in one diagram);
`crowd_alone_auroc`: without what other pairs of the prompt say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from benchmarks.consistency.data import World, answer, ask, pair_votes, read
from benchmarks.consistency.measures import auroc, ece
from pipelines.consistency.calibrate import CalibrateConfig, calibrate
from pipelines.consistency.features import features
from pipelines.consistency.latent import pooled_coins
from pipelines.consistency.matrix import votes_matrix
from schemas.records import Pair, Prompt, Response

LABELS = 300
JUDGES = 2


def world(seed: int, prompts: int | None) -> World:
    """The pairs of the first so many prompts, with drawn labels and judges."""
    rng = np.random.default_rng([seed, 4])
    pairs = read("ukp_convarg_pairs").filter(pl.col("gold").is_in(["a1", "a2"]))
    topics = pairs["topic"].unique().sort().to_list()[:prompts]
    pairs = pairs.filter(pl.col("topic").is_in(topics)).sort("topic", "pair_id")
    keyed = pairs.select("topic", "pair_id").with_row_index("row")
    votes = (
        read("ukp_convarg_votes")
        .filter(pl.col("value").is_in(["a1", "a2"]))
        .join(keyed, on=["topic", "pair_id"])
        .sort("row", "worker", "value")
        .with_columns(
            side=pl.when(pl.col("value") == "a1").then(1.0).otherwise(-1.0),
            who=pl.col("worker").rank("dense").cast(pl.Int64) - 1,
        )
    )
    votes = votes.with_columns(draw=pl.Series(rng.random(len(votes))))
    votes = votes.with_columns(place=pl.col("draw").rank("ordinal").over("row"))
    enough = votes.group_by("row").len().filter(pl.col("len") > JUDGES)["row"]
    kept = sorted(enough.to_list())
    renumber = {row: at for at, row in enumerate(kept)}
    votes = votes.filter(pl.col("row").is_in(kept)).with_columns(
        unit=pl.col("row").replace_strict(renumber, return_dtype=pl.Int64)
    )
    judged = votes.filter(pl.col("place").is_between(2, 1 + JUDGES)).sort("unit", "place")
    score, _ = pooled_coins(
        judged["unit"].to_numpy(), judged["who"].to_numpy(), judged["side"].to_numpy()
    )
    given = votes.filter(pl.col("place") == 1).sort("unit")["side"].to_numpy()
    return _tables(pairs[kept], given, np.tanh(score / 2))


def _tables(pairs: pl.DataFrame, given: np.ndarray, score: np.ndarray) -> World:
    asked = {topic: ask(topic) for topic in pairs["topic"].unique().sort().to_list()}
    texts: dict[str, Response] = {}
    rows = []
    for row, side in zip(pairs.iter_rows(named=True), given, strict=True):
        prompt = asked[row["topic"]].id
        a, b = (answer(prompt, 0, row[name]) for name in ("arg1", "arg2"))
        texts[a.id], texts[b.id] = a, b
        rows.append(
            Pair(
                prompt_id=prompt,
                response_a=a.id,
                response_b=b.id,
                label="a" if side > 0 else "b",
                label_source=row["pair_id"],
            )
        )
    table = Pair.to_table(rows)
    matrix = votes_matrix(table, pair_votes(table["id"].to_pylist(), "crowd", None, score))
    seen = features(
        table, Prompt.to_table(asked.values()), Response.to_table(texts.values()), matrix
    )
    truth = np.where(pairs["gold"].to_numpy() == "a1", 1, -1)
    number = pl.Series(seen["prompt_id"]).rank("dense").cast(pl.Int64).to_numpy()
    return World(table, matrix, seen, truth, truth == np.sign(given), number)


def measure(seeds: Sequence[int], quick: bool) -> dict[str, Any]:
    """`found`: figures by name, a value a seed; and tables."""
    found: dict[str, list[float]] = {}
    pooled: list[tuple[np.ndarray, np.ndarray]] = []
    pairs = 0
    for seed in seeds:
        real = world(seed, 8 if quick else None)
        pairs = len(real.truth)
        rng = np.random.default_rng([seed, 5])
        names = rng.permutation(np.unique(real.prompts))
        inside = np.isin(real.prompts, names[: len(names) // 2])
        rows = np.sort(rng.choice(np.flatnonzero(inside), LABELS, replace=False))
        people = real.people(rows, 0.0, seed)
        test = np.flatnonzero(~inside)
        p = {}
        for shared in (True, False):
            config = CalibrateConfig(shared_responses=shared)
            beliefs, _ = calibrate(real.matrix, real.features, people, None, config, seed)
            p[shared] = beliefs["probability"].to_numpy()[test]
        right = real.right[test]
        pooled.append((p[True], right))
        for name, value in {
            "crowd_auroc": auroc(-p[True], ~right),
            "crowd_alone_auroc": auroc(-p[False], ~right),
            "crowd_noise_given": float((~right).mean()),
            "crowd_noise_left": float(((p[True] > 0.5) != right).mean()),
        }.items():
            found.setdefault(name, []).append(value)
    found["ece_crowd"] = [
        ece(np.concatenate([p for p, _ in pooled]), np.concatenate([r for _, r in pooled]))
    ]
    return {"found": found, "tables": {"crowd_pairs": pairs}}
