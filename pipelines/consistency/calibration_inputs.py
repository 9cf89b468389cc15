"""The tables that a calibration reads, as arrays."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.consistency.features import SYMMETRIC
from pipelines.consistency.matrix import KEY

ALL = "all"
"""The slice of pairs that no slice was given for."""


@dataclass(frozen=True)
class Parts:
    """The inputs of n pairs as arrays, oriented as the matrix is."""

    votes: np.ndarray
    """Votes on one scale, 0 where missing, shape [n, judges]."""
    raw: np.ndarray
    """Votes as they came, NaN where missing, shape [n, judges]."""
    turning: np.ndarray
    """Scaled features that turn with the pair, shape [n, features]."""
    still: np.ndarray
    """Features that do not, shape [n, s]."""
    given: np.ndarray
    """1.0 where the pair came with label a or b, else 0.0, shape [n]."""
    fold: np.ndarray
    """Fold of the pair's prompt, shape [n]."""
    prompts: np.ndarray
    """Prompt as a number, shape [n]."""
    first: np.ndarray
    """The response that the label prefers, as a number, shape [n]."""
    second: np.ndarray
    """The other response, shape [n]."""
    prompt_ids: pl.Series
    """Prompt ids."""


def parts(
    matrix: pa.Table,
    features: pa.Table,
    judges: tuple[str, ...],
    scale: np.ndarray,
    names: tuple[str, ...],
    feature_scale: np.ndarray,
    folds: int,
    seed: int,
) -> Parts:
    """The tables as arrays; scales are a root mean square a column."""

    def block(table: pa.Table, names: tuple[str, ...]) -> np.ndarray:
        columns = [table[n].to_numpy().astype(np.float64) for n in names]
        return np.stack(columns, axis=1) if columns else np.zeros((len(table), 0))

    raw = block(matrix, judges)
    # A judge's largest differences say little more than its large ones.
    votes = np.nan_to_num(np.tanh(raw / scale)) / 0.6
    turning = np.clip(block(features, names) / feature_scale, -4, 4)
    label = pl.Series(features["label"])
    prompt_ids = pl.Series(features["prompt_id"])
    responses = pl.concat([pl.Series(features["response_a"]), pl.Series(features["response_b"])])
    code = responses.rank("dense").cast(pl.Int64).to_numpy()
    preferred = label.eq_missing("b").to_numpy()
    a, b = code[: len(label)], code[len(label) :]
    return Parts(
        votes=votes,
        raw=raw,
        turning=np.nan_to_num(turning),
        still=block(features, tuple(n for n in SYMMETRIC if n in features.column_names)),
        given=label.is_in(["a", "b"]).fill_null(False).cast(pl.Float64).to_numpy(),
        fold=hashed(prompt_ids, str(seed)) % folds,
        prompts=prompt_ids.rank("dense").cast(pl.Int64).to_numpy(),
        first=np.where(preferred, b, a),
        second=np.where(preferred, a, b),
        prompt_ids=prompt_ids,
    )


def root_mean_square(x: np.ndarray) -> np.ndarray:
    """Of each column, missing values left out; 1 for a column of zeros. Shape [columns]."""
    count = np.maximum(np.isfinite(x).sum(axis=0), 1)
    found = np.sqrt((np.nan_to_num(x) ** 2).sum(axis=0) / count)
    return np.where(found > 0, found, 1.0)


def people(features: pa.Table, labels: pa.Table | None) -> pl.DataFrame:
    """`score`: mean human vote oriented to the pair's label, in [-1, 1], NaN where nobody voted;
    `people` who voted. In the features' order. A row of `labels` is of one person, or of as many as its
    column `people` says."""
    frame = pl.from_arrow(features.select([KEY, "label"]))
    assert isinstance(frame, pl.DataFrame)
    if labels is None or not len(labels):
        count = len(frame)
        return pl.DataFrame({"score": np.full(count, np.nan), "people": np.zeros(count, np.int64)})
    several = "people" in labels.column_names
    votes = (
        pl.LazyFrame(pl.from_arrow(labels))
        .with_columns(people=pl.col("people") if several else pl.lit(1))
        .group_by(KEY, "annotator")
        .agg(pl.col("value").clip(-1.0, 1.0).sort(), pl.col("people").max())
        .select(KEY, "people", value=pl.col("value").list.mean())
        .group_by(KEY)
        .agg(pl.col("value").sort(), pl.col("people").sum())
        .select(KEY, "people", value=pl.col("value").list.mean())
    )
    sign = pl.when(pl.col("label") == "b").then(-1.0).otherwise(1.0)
    return (
        frame.lazy()
        .join(votes, on=KEY, how="left", maintain_order="left")
        .select(
            score=(sign * pl.col("value")).fill_null(float("nan")),
            people=pl.col("people").fill_null(0).cast(pl.Int64),
        )
        .collect()
    )


def slice_names(features: pa.Table, slices: pa.Table | None, keep: Any = None) -> np.ndarray:
    """Slice of each pair, in the features' order; of the pairs to keep alone, where that is given."""
    frame = pl.LazyFrame(pl.from_arrow(features.select([KEY])))
    if slices is None:
        names = np.full(len(features), ALL, dtype=object)
    else:
        table = pl.LazyFrame(pl.from_arrow(slices)).select(KEY, "slice")
        joined = frame.join(table, on=KEY, how="left", maintain_order="left").collect()
        names = joined["slice"].fill_null(ALL).to_numpy()
    return names if keep is None else names[np.asarray(keep)]


def sample(features: pa.Table, people: pl.DataFrame, most: int) -> pa.Array:
    """Pairs to fit on: all, or those of enough prompts by hash, and of all prompts with labels."""
    if len(features) <= most:
        return pa.array(np.ones(len(features), dtype=bool))
    share = most / len(features)
    drawn = hashed(pl.Series(features["prompt_id"]), "sample") < share * 2**32
    frame = pl.DataFrame({"p": pl.Series(features["prompt_id"]), "s": people["score"]})
    asked = frame.filter(pl.col("s").is_not_nan())["p"].unique().to_list()
    return pa.array(drawn | frame["p"].is_in(asked).to_numpy())


def hashed(prompts: pl.Series, salt: str) -> np.ndarray:
    """A hash of each prompt id, below 2^32, the same everywhere."""
    named = prompts.unique().to_list()
    codes = [zlib.crc32(f"{salt}:{name}".encode("utf-8", "surrogatepass")) for name in named]
    return prompts.replace_strict(named, codes, return_dtype=pl.Int64).to_numpy()


def deal(prompts: pl.Series, folds: int, seed: int) -> dict[str, int]:
    """A fold for each prompt, dealt out in turn: by hash alone, one fold could hold all labels."""
    named = prompts.unique().sort()
    order = np.argsort(hashed(named, f"people:{seed}"), kind="stable")
    return {name: at % folds for at, name in enumerate(named.gather(order).to_list())}


def folds_of(labelled: dict[str, int], prompts: pl.Series) -> np.ndarray:
    """Fold of each prompt, -1 where it has no human label, shape [n]."""
    return prompts.replace_strict(
        list(labelled), list(labelled.values()), default=-1, return_dtype=pl.Int64
    ).to_numpy()
