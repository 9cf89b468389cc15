"""The real votes, as the pipeline's tables, with flips planted in the labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from benchmarks.harness import REPO
from pipelines.consistency.features import features
from pipelines.consistency.matrix import votes_matrix
from schemas.errors import UserError
from schemas.records import Message, Pair, Prompt, Response

DATA = REPO.parent / "shared" / "data"
Flips = Literal["random", "length"]


@dataclass(frozen=True)
class World:
    """Pairs with known truth and planted flips."""

    pairs: pa.Table
    matrix: pa.Table
    features: pa.Table
    truth: np.ndarray
    """1: response a is better, -1: b is; shape [n]."""
    right: np.ndarray
    """Whether the pair's label is right; without labels: whether a is better. Shape [n]."""
    prompts: np.ndarray
    """Prompt of each pair as an integer, shape [n]."""

    def people(self, rows: np.ndarray, error: float, seed: int) -> pa.Table:
        """One annotator's votes on these rows, wrong at this rate."""
        wrong = np.random.default_rng([seed, 3]).random(len(rows)) < error
        return pa.table(
            {
                "pair_id": self.pairs["id"].take(pa.array(rows)),
                "value": np.where(wrong, -self.truth[rows], self.truth[rows]).astype(float),
                "annotator": ["annotator"] * len(rows),
            }
        )


def read(name: str) -> pl.DataFrame:
    """A file of the shared data; UserError where it is not there."""
    path = DATA / f"{name}.parquet"
    if not path.is_file():
        raise UserError(f"the benchmark reads {name}.parquet from the shared data, not found")
    return pl.read_parquet(path)


def ask(text: str) -> Prompt:
    """A prompt of one turn."""
    return Prompt(messages=(Message(role="user", content=text),), source="benchmark")


def answer(prompt: str, index: int, text: str) -> Response:
    """A response of no known engine."""
    return Response(
        prompt_id=prompt,
        engine="none",
        model="none",
        sample_index=index,
        text=text,
        prompt_tokens=0,
        completion_tokens=0,
        finish_reason="stop",
    )


def pair_votes(units: list[str], judge: str, order: str | None, values: np.ndarray) -> pa.Table:
    """A judge's votes on pairs, the columns that the matrix reads."""
    n = len(units)
    return pa.table(
        {
            "unit": units,
            "unit_kind": ["pair"] * n,
            "judge": [judge] * n,
            "judge_kind": ["llm"] * n,
            "order": pa.array([order] * n, pa.string()),
            "value": values.astype(float),
        }
    )


@cache
def _scores() -> tuple[np.ndarray, list[str], list[str]]:
    """Scores [problems, judges, 10] (solution 0 is right), judges, problems."""
    # A judge has three problems twice: the first score stands.
    rows = read("rewardmath_scores").unique(["problem", "judge"], keep="first", maintain_order=True)
    judges, problems = (sorted(rows[c].unique()) for c in ("judge", "problem"))
    rows = rows.sort("problem", "judge")
    whole = np.array(rows["scores"].to_list(), dtype=float)
    return whole.reshape(len(problems), len(judges), 10), judges, problems


def rewardmath(
    seed: int, rate: float, flips: Flips, *, per_prompt: int = 9, problems: int | None = None
) -> World:
    """The right solution of each problem against wrong ones, under 22 judges, with flips planted.

    Which of the two is response a is a coin's toss. The file holds no texts: lengths are drawn, the
    same distribution for right and wrong, and flips of kind `length` favour the longer response:
    chance sigmoid(m + 2 z), z the standardised log length of the wrong response over the right.
    """
    scores, judges, names = _scores()
    rng = np.random.default_rng([seed, 1])
    scores = scores[: problems or len(scores)]
    count = len(scores)
    lengths = np.exp(rng.normal(5.5, 0.6, (count, 10))).astype(int) + 1
    prompts = [ask(name) for name in names[:count]]
    responses = [
        [answer(p.id, i, "x" * lengths[at, i]) for i in range(10)] for at, p in enumerate(prompts)
    ]
    wrong = np.stack([1 + rng.permutation(9)[:per_prompt] for _ in range(count)])
    at = np.repeat(np.arange(count), per_prompt)
    other = wrong.reshape(-1)
    truth = np.where(rng.random(len(at)) < 0.5, 1, -1)
    ratio = np.log(lengths[at, other]) - np.log(lengths[at, 0])
    flip = rng.random(len(at)) < (
        np.full(len(at), rate) if flips == "random" else _tilted(ratio / ratio.std(), rate)
    )
    given = np.where(flip, -truth, truth)
    rows = []
    for k in range(len(at)):
        good, bad = responses[at[k]][0].id, responses[at[k]][other[k]].id
        a, b = (good, bad) if truth[k] > 0 else (bad, good)
        rows.append(
            Pair(
                prompt_id=prompts[at[k]].id,
                response_a=a,
                response_b=b,
                label="a" if given[k] > 0 else "b",
            )
        )
    pairs = Pair.to_table(rows)
    units = pairs["id"].to_pylist()
    votes = pa.concat_tables(
        pair_votes(units, judge, None, (scores[at, j, 0] - scores[at, j, other]) * truth)
        for j, judge in enumerate(judges)
    )
    matrix = votes_matrix(pairs, votes)
    flat = Response.to_table([r for rs in responses for r in rs])
    seen = features(pairs, Prompt.to_table(prompts), flat, matrix)
    # Of drawn lengths nothing else of a text is worth a column.
    seen = seen.drop_columns(["repetition", "overlap", "lines", "digits", "questions", "finished"])
    return World(pairs, matrix, seen, truth, ~flip, at)


def _tilted(z: np.ndarray, rate: float) -> np.ndarray:
    """sigmoid(m + 2 z) with the m that makes its mean `rate`, shape [n]."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if (1 / (1 + np.exp(-middle - 2 * z))).mean() < rate else (low, middle)
        )
    return np.asarray(1 / (1 + np.exp(-low - 2 * z)))


def llmbar() -> World:
    """419 instructions under 65 judge settings, both orders; the pairs come without a label."""
    items, votes = read("llmbar"), read("llmbar_votes")
    # The slice of a prompt is in its task, and the same text stands under several.
    prompts = [ask(text) for text in items["input"]]
    texts = [
        [answer(p.id, i, row[f"output_{i}"]) for i in (1, 2)]
        for p, row in zip(prompts, items.iter_rows(named=True), strict=True)
    ]
    pairs = Pair.to_table(
        Pair(prompt_id=p.id, response_a=a.id, response_b=b.id)
        for p, (a, b) in zip(prompts, texts, strict=True)
    )
    keyed = items.select("subset", "item").with_columns(unit=pl.Series(pairs["id"].to_pylist()))
    joined = votes.join(keyed, on=["subset", "item"], how="inner").select(
        "unit",
        unit_kind=pl.lit("pair"),
        judge=pl.col("judge") + " " + pl.col("prompt_style"),
        judge_kind=pl.lit("llm"),
        order=pl.when("swapped").then(pl.lit("ba")).otherwise(pl.lit("ab")),
        value=pl.when(pl.col("winner") == 1).then(1.0).otherwise(-1.0),
    )
    matrix = votes_matrix(pairs, joined.to_arrow())
    unique = {p.id: p for p in prompts}
    flat = {r.id: r for rs in texts for r in rs}
    seen = features(
        pairs,
        Prompt.to_table(unique.values()),
        Response.to_table(flat.values()),
        matrix,
    )
    truth = np.where(items["label"].to_numpy() == 1, 1, -1)
    return World(
        pairs,
        matrix,
        seen,
        truth,
        truth > 0,
        pl.Series(seen["prompt_id"]).rank("dense").to_numpy(),
    )
