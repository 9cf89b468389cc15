"""Published filters of single responses: process with outcome (PROF), and regions of reward (PF-PPO).

Their frames have a row a response (its id in `pair_id`, as what is decided about) with its prompt_id.
"""

from __future__ import annotations

import hashlib

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.consistency.presets_table import decisions, read
from schemas.errors import UserError

VERSION = 1

STRATEGIES = ("best", "best_random", "best_worst")


def prof(frame: pl.DataFrame | pa.Table, *, keep: int = 4) -> pa.Table:
    """PROF (Ye et al. 2025, arXiv 2509.03403): responses whose process agrees with their outcome.

    Columns: pair_id, prompt_id, `right` (the outcome) and `score` (mean process value; null:
    dropped). Of a prompt's n responses `keep` stay: among the right those of the lowest process
    values leave, among the wrong those of the highest, as many of each as leaves the two groups
    alike in size where that can be; an odd one leaves the right ones. Ties by id.
    """
    table = read(frame, ("right", "score"))
    scored = table.filter(pl.col("score").is_not_null() & pl.col("right").is_not_null())
    worth = pl.when("right").then(pl.col("score")).otherwise(-pl.col("score"))
    counts = (
        scored.with_columns(worth=worth)
        .sort("worth", "pair_id")
        .with_columns(
            place=pl.int_range(pl.len()).over("prompt_id", "right"),
            good=pl.col("right").sum().cast(pl.Int64).over("prompt_id"),
            all=pl.len().cast(pl.Int64).over("prompt_id"),
        )
    )
    leave = (pl.col("all") - keep).clip(lower_bound=0)
    bad = pl.col("all") - pl.col("good")
    even = (pl.col("good") - bad + leave + 1) // 2  # halves up
    of_right = pl.max_horizontal(
        pl.min_horizontal(even, leave, pl.col("good")), leave - bad, pl.lit(0)
    )
    counts = counts.with_columns(
        leaving=pl.when("right").then(of_right).otherwise(leave - of_right)
    ).select("pair_id", stays=pl.col("place") >= pl.col("leaving"))
    table = table.join(counts, on="pair_id", how="left", maintain_order="left")
    cases = [
        (pl.col("stays").is_null(), "drop", "no_process_value", None),
        (pl.col("stays"), "keep", "consistent", 1.0),
    ]
    return decisions(table, cases, ("drop", "process_against_outcome", None), "prof", VERSION)


def pf_ppo(
    frame: pl.DataFrame | pa.Table, *, strategy: str | None = None, seed: int = 0
) -> pa.Table:
    """PF-PPO (Zhang et al. 2024, arXiv 2409.06957): only responses where the reward can be relied on.

    Columns: pair_id, prompt_id, `reward`, and `score`, the actual one (null where it is not known;
    not needed when the strategy is named). Of a prompt's responses by reward, `best` keeps the
    first, `best_random` that and one other by a hash of the seed, `best_worst` that and the last.
    Not named, the strategy of the greatest R2 (`r_squared`) is taken, the earlier one of equals.
    """
    table = read(frame, ("reward",))
    kept = _regions(table, seed)
    if strategy is None:
        found = r_squared(table, seed=seed)
        known = {name: value for name, value in found.items() if value is not None}
        if not known:
            raise UserError("presets: pf_ppo knows too few actual scores; name the strategy")
        strategy = max(known, key=lambda name: round(known[name], 12))
    if strategy not in STRATEGIES:
        raise UserError(f"presets: no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    cases = [
        (pl.col("reward").is_null(), "drop", "no_reward", None),
        (pl.col(strategy), "keep", strategy, 1.0),
    ]
    rest = ("drop", "unreliable_region", None)
    return decisions(kept, cases, rest, f"pf_ppo_{strategy}", VERSION)


def r_squared(frame: pl.DataFrame | pa.Table, *, seed: int = 0) -> dict[str, float | None]:
    """R2 of a straight line from reward to actual score over what each strategy keeps.

    None where fewer than three kept responses have a score, or their rewards are all alike.
    """
    table = read(frame, ("reward", "score"))
    kept = _regions(table, seed)
    found: dict[str, float | None] = {}
    for name in STRATEGIES:
        part = kept.filter(pl.col(name) & pl.col("score").is_not_null())
        x, y = (part[column].cast(pl.Float64).to_numpy() for column in ("reward", "score"))
        able = len(x) > 2 and np.ptp(x) > 0
        varies = able and np.ptp(y) > 0
        found[name] = (
            float(np.corrcoef(x, y)[0, 1] ** 2) if varies else 0.0 if able else None
        )  # a constant score is explained by nothing
    return found


def _regions(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The table with a column a strategy: whether it keeps the response. Ties by id."""
    able = table.filter(pl.col("reward").is_not_null())
    drawn = [
        hashlib.blake2b(f"{seed}\x00{name}".encode(), digest_size=8).hexdigest()
        for name in able["pair_id"]
    ]
    last = pl.col("place") == pl.len().over("prompt_id") - 1
    able = (
        able.with_columns(drawn=pl.Series(drawn, dtype=pl.String))
        .sort(["reward", "pair_id"], descending=[True, False])
        .with_columns(place=pl.int_range(pl.len()).over("prompt_id"))
        .with_columns(best=pl.col("place") == 0)
        .with_columns(
            other=pl.col("drawn") == pl.col("drawn").filter(~pl.col("best")).min().over("prompt_id")
        )
        .select(
            "pair_id",
            "best",
            best_random=pl.col("best") | (pl.col("other") & ~pl.col("best")).fill_null(False),
            best_worst=pl.col("best") | last,
        )
    )
    return table.join(able, on="pair_id", how="left", maintain_order="left").with_columns(
        pl.col(STRATEGIES).fill_null(False)
    )
