"""Texts of a ledger's rows, gathered by row number."""

from __future__ import annotations

import polars as pl

from pipelines.emit.ledger import Frames


def gather(part: pl.DataFrame, frames: Frames, table: str, side: str) -> pl.DataFrame:
    """Rows of the prompts or responses that a ledger points at by its column `{side}_row`."""
    return (frames.prompts if table == "prompt" else frames.responses)[part[f"{side}_row"]]


def prompt_text() -> pl.Expr:
    """The column `messages` as plain text: the message's text where it is a single user message,
    otherwise `role: content` paragraphs.
    """
    first = pl.col("messages").list.first().struct
    alone = (pl.col("messages").list.len() == 1) & (first.field("role") == "user")
    said = pl.element().struct
    turn = pl.concat_str(said.field("role"), pl.lit(": "), said.field("content"))
    transcript = pl.col("messages").list.eval(turn).list.join("\n\n")
    return pl.when(alone).then(first.field("content")).otherwise(transcript)


def answer(text: pl.Series | pl.Expr) -> pl.Expr:
    """Texts as lists of one assistant message."""
    said = pl.lit(text) if isinstance(text, pl.Series) else text
    return pl.concat_list(pl.struct(role=pl.lit("assistant"), content=said))


def pieces(part: pl.DataFrame, frames: Frames) -> pl.Series:
    """Each solution cut at its steps' ends, as a list of strings.

    A piece runs from the end of the step before it to its own; the first from the solution's start
    and the last to its end, so that joined they are the solution. A grown path's text is its
    trajectory's, any other solution's is its response's.
    """
    text = pl.coalesce(
        frames.responses["text"].gather(part["response_row"]),
        frames.trajectories["text"].gather(part["trajectory_row"]),
    )
    start = pl.col("ends").shift(1).over("row").fill_null(0)
    is_last = pl.int_range(pl.len()).over("row") == pl.len().over("row") - 1
    return (
        part.select("ends", "chars")
        .with_columns(text=text)
        .with_row_index("row")
        .explode("ends")
        .with_columns(start=start, end=pl.when(is_last).then("chars").otherwise("ends"))
        .with_columns(piece=pl.col("text").str.slice("start", pl.col("end") - pl.col("start")))
        .group_by("row", maintain_order=True)
        .agg("piece")["piece"]
    )
