"""Matrix, strength, calibrate (applied) and decide on 1 and 10 million pairs under 8 judges.

Shards of pairs and votes lie as Parquet and are read, worked and written one after another, as a run
does; the calibration is fitted once, on the first shard with 2,000 human labels. `pairs_per_s`: over
reading, all stages, content ids and writing, fit included, at the largest size; `linear`: seconds a
pair at the largest size over those at the smallest; `peak_mib`: of the whole process. The scripted
judges and their texts are this benchmark's own; a prompt has four pairs that share a response.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Options, peak_mib, say
from pipelines.consistency.calibrate import CalibrateConfig, apply, fit
from pipelines.consistency.decide import PosteriorConfig, decide_by_posterior
from pipelines.consistency.features import features
from pipelines.consistency.matrix import votes_matrix
from pipelines.consistency.strength import StrengthConfig, strength

JUDGES = 8
SHARD = 250_000
SIZES = (1_000_000, 10_000_000)


def write_shard(folder: Path, number: int, count: int) -> None:
    """Pairs and votes of one shard; labels are wrong one time of ten."""
    rng = np.random.default_rng([number, 7])
    row = np.arange(count) + number * SHARD
    prompt = pl.Series(row // 4)
    truth = np.where(rng.random(count) < 0.5, 1.0, -1.0)
    given = np.where(rng.random(count) < 0.1, -truth, truth)
    name = pl.select(pl.format("{}", pl.Series(row).cast(pl.String).str.zfill(32))).to_series()
    good = prompt.cast(pl.String) + "-right"
    bad = prompt.cast(pl.String) + "-" + pl.Series(row % 4).cast(pl.String)
    pairs = pl.DataFrame(
        {"id": name, "prompt_id": prompt.cast(pl.String).str.zfill(32), "good": good, "bad": bad}
    ).with_columns(
        response_a=pl.when(pl.Series(truth > 0)).then("good").otherwise("bad"),
        response_b=pl.when(pl.Series(truth > 0)).then("bad").otherwise("good"),
        label=pl.when(pl.Series(given > 0)).then(pl.lit("a")).otherwise(pl.lit("b")),
        truth=pl.Series(truth),
    )
    pairs.drop("good", "bad").write_parquet(folder / f"pairs-{number:04}.parquet")
    with pq.ParquetWriter(folder / f"votes-{number:04}.parquet", _VOTES) as writer:
        for judge in range(JUDGES):
            value = truth * 0.5 + rng.normal(0, 0.6 + 0.1 * judge, count)
            table = pl.DataFrame({"unit": name, "value": np.clip(value, -1, 1)}).select(
                "unit",
                unit_kind=pl.lit("pair"),
                judge=pl.lit(f"judge {judge}"),
                judge_kind=pl.lit("reward_model"),
                order=pl.lit(None, pl.String),
                value="value",
            )
            writer.write_table(table.to_arrow().cast(_VOTES))


_VOTES = pa.schema(
    [
        ("unit", pa.string()),
        ("unit_kind", pa.string()),
        ("judge", pa.string()),
        ("judge_kind", pa.string()),
        ("order", pa.string()),
        ("value", pa.float64()),
    ]
)


def work(folder: Path, shards: int, seconds: dict[str, float]) -> int:
    """All stages over the shards; returns the pairs decided and adds up each stage's seconds."""
    calibration = None
    done = 0

    def timed(name: str, since: float) -> float:
        now = time.perf_counter()
        seconds[name] = seconds.get(name, 0.0) + now - since
        return now

    for number in range(shards):
        at = time.perf_counter()
        pairs = pq.read_table(folder / f"pairs-{number:04}.parquet")
        votes = pq.read_table(folder / f"votes-{number:04}.parquet")
        at = timed("read", at)
        matrix = votes_matrix(pairs, votes)
        del votes
        at = timed("matrix", at)
        strong = strength(matrix, StrengthConfig())
        at = timed("strength", at)
        seen = features(pairs, None, None, matrix)
        at = timed("features", at)
        if calibration is None:
            first = pairs.slice(0, 2000)
            labels = pa.table(
                {"pair_id": first["id"], "value": first["truth"], "annotator": ["one"] * 2000}
            )
            calibration, _ = fit(matrix, seen, labels, None, CalibrateConfig(), 0)
            at = timed("fit", at)
        beliefs = apply(calibration, matrix, seen)
        at = timed("apply", at)
        decisions = decide_by_posterior(beliefs, pairs, PosteriorConfig())
        at = timed("decide", at)
        for name, table in (("strength", strong), ("beliefs", beliefs), ("decisions", decisions)):
            pq.write_table(table, folder / f"{name}-{number:04}.parquet")
        timed("write", at)
        done += len(decisions)
        for path in folder.glob(f"*-{number:04}.parquet"):
            os.truncate(path, 0)
        say(f"{done} pairs")
    return done


def measure(chosen: Options, most: int | None) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and tables."""
    sizes = [100_000] if chosen.quick else [size for size in SIZES if size <= (most or SIZES[-1])]
    rows = []
    for size in sizes:
        shard = min(SHARD, size)
        seconds: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for number in range(size // shard):
                write_shard(folder, number, shard)
            started = time.perf_counter()
            done = work(folder, size // shard, seconds)
            whole = time.perf_counter() - started
        rows.append(
            {"pairs": done, "seconds": round(whole, 2), "pairs_per_s": round(done / whole)}
            | {name: round(value, 2) for name, value in seconds.items()}
        )
    figures = {"pairs_per_s": done / whole, "peak_mib": peak_mib()}
    if len(rows) > 1:
        figures["linear"] = rows[0]["pairs_per_s"] / rows[-1]["pairs_per_s"]
    return figures, {"scale": rows}
