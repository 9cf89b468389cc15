"""What code can see of a pair: its two texts, its judges' agreement, pairs like it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.consistency.matrix import KEY

BARE = (KEY, "prompt_id", "response_a", "response_b", "label")
"""Columns that say which pair it is."""
SYMMETRIC = ("agreement",)
"""Features that do not turn with the pair; all others change their sign with it."""
NEIGHBOURS = 8
TEXTS = ("length", "repetition", "overlap", "lines", "digits", "questions", "finished")
"""Features of a response's text; a pair has their differences."""


def features(
    pairs: pa.Table,
    prompts: pa.Table | None,
    responses: pa.Table | None,
    matrix: pa.Table,
    embeddings: np.ndarray | None = None,
) -> pa.Table:
    """Features of the pairs, in their order, oriented as the matrix is.

    Args:
        pairs: `Pair` table.
        prompts: `Prompt` table; none: no feature of texts.
        responses: `Response` table; none: no feature of texts.
        matrix: The pairs' votes, as `votes_matrix` gives them.
        embeddings: Vectors of the responses, in the order of `responses`, shape [responses, d].

    Returns:
        The columns of `BARE`; `agreement`: |mean sign of the votes|, in [0, 1], 0 without a vote; with
        texts, the preferred response's figure less the other's: `length` and `lines`, `digits`,
        `questions` (log1p of counts), `repetition` (1 - distinct words / words), `overlap` (share of
        the distinct words that stand in the prompt), `finished` (ends in a closing mark); with
        embeddings, `neighbours`: mean cosine between the pair's difference of vectors and those of
        the 8 labelled pairs of other prompts nearest to it or to its opposite.
    """
    sign = pl.when(pl.col("label") == "b").then(-1.0).otherwise(1.0)
    frame = pl.LazyFrame(pl.from_arrow(pairs)).select(
        pl.col("id").alias(KEY), *BARE[1:], sign.alias("sign")
    )
    frame = pl.concat([frame, _agreement(matrix)], how="horizontal")
    if prompts is not None and responses is not None:
        figures = _texts(prompts, responses)
        for side in ("a", "b"):
            frame = frame.join(
                figures.select("id", *(pl.col(name).alias(f"{name}_{side}") for name in TEXTS)),
                left_on=f"response_{side}",
                right_on="id",
                how="left",
                maintain_order="left",
            )
        frame = frame.with_columns(
            (
                pl.col("sign") * (pl.col(f"{name}_a") - pl.col(f"{name}_b")).fill_null(0.0) + 0.0
            ).alias(name)
            for name in TEXTS
        ).drop([f"{name}_{side}" for name in TEXTS for side in "ab"])
    whole = frame.collect()
    if embeddings is not None and responses is not None:
        near = _neighbours(whole, responses["id"], embeddings)
        whole = whole.with_columns(neighbours=near)
    return whole.drop("sign").to_arrow()


def _agreement(matrix: pa.Table) -> pl.LazyFrame:
    judges = [name for name in matrix.column_names if name != KEY]
    frame = pl.LazyFrame(pl.from_arrow(matrix))
    if not judges:
        return frame.select(agreement=pl.repeat(0.0, pl.len()))
    return frame.select(
        agreement=pl.mean_horizontal([pl.col(name).sign() for name in judges]).abs().fill_null(0.0)
    )


def _texts(prompts: pa.Table, responses: pa.Table) -> pl.LazyFrame:
    asked = pl.LazyFrame(pl.from_arrow(prompts)).select(
        pl.col("id").alias("prompt_id"),
        asked=pl.col("messages")
        .list.eval(pl.element().struct.field("content"))
        .list.join("\n")
        .str.to_lowercase()
        .str.extract_all(r"\w+"),
    )
    text = pl.col("text")
    return (
        pl.LazyFrame(pl.from_arrow(responses))
        .select("id", "prompt_id", "text", words=text.str.to_lowercase().str.extract_all(r"\w+"))
        .join(asked, on="prompt_id", how="left")
        .with_columns(distinct=pl.col("words").list.unique())
        .select(
            "id",
            length=text.str.len_chars().cast(pl.Float64).log1p(),
            repetition=(
                1 - pl.col("distinct").list.len() / pl.col("words").list.len().clip(lower_bound=1)
            ),
            overlap=pl.col("distinct").list.set_intersection(pl.col("asked")).list.len()
            / pl.col("distinct").list.len().clip(lower_bound=1),
            lines=text.str.count_matches("\n").cast(pl.Float64).log1p(),
            digits=text.str.count_matches(r"\d").cast(pl.Float64).log1p(),
            questions=text.str.count_matches(r"\?").cast(pl.Float64).log1p(),
            finished=text.str.contains(r"[.!?:;。！？…)\]}\"'`|$]\s*$").cast(pl.Float64),
        )
    )


def _neighbours(whole: pl.DataFrame, ids: pa.ChunkedArray, embeddings: np.ndarray) -> np.ndarray:
    """Mean signed cosine to the nearest labelled pairs of other prompts, shape [pairs]."""
    if len(embeddings) != len(ids):
        raise ValueError(f"{len(embeddings)} embeddings of {len(ids)} responses")
    place = {response: row for row, response in enumerate(ids.to_pylist())}
    a = np.array([place[name] for name in whole["response_a"]], dtype=np.int64)
    b = np.array([place[name] for name in whole["response_b"]], dtype=np.int64)
    vectors = (embeddings[a] - embeddings[b]).astype(np.float32)
    vectors *= whole["sign"].to_numpy()[:, None].astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    prompts = whole["prompt_id"].rank("dense").to_numpy()
    known = np.flatnonzero(whole["label"].is_in(["a", "b"]).fill_null(False).to_numpy())
    result = np.zeros(len(vectors))
    if not len(known):
        return result
    k = min(NEIGHBOURS, len(known))
    for start in range(0, len(vectors), 1024):
        rows = slice(start, start + 1024)
        cosines = vectors[rows] @ vectors[known].T
        cosines[prompts[rows][:, None] == prompts[known][None, :]] = 0.0
        nearest = np.argpartition(-np.abs(cosines), k - 1, axis=1)[:, :k]
        result[rows] = np.take_along_axis(cosines, nearest, axis=1).mean(axis=1, dtype=np.float64)
    return result
