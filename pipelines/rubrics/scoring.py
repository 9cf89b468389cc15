"""Scores of responses by rubrics, from verdicts; a verdict that is missing is missing, never 0.

Every criterion of a rubric is weighed, hard rules too; a hard rule that is not kept gates besides.
With verdicts c in [0, 1] and weights w, sums over the criteria that have a verdict:

- `share`: sum(w v) / sum(w), with v = 1 - c where a criterion counts against (a pitfall, or one of
  negative weight, weighed by its size), else c (Rubrics as Rewards).
- `points`: points achieved / positive points (HealthBench); may lie outside [0, 1], and is clipped
  only as a mean (`mean_score`). Points of either sign are scaled from the criteria judged to all, so
  that an unjudged one counts as those judged do.
- `tree`: every node is the weighted mean of its children, leaves are 0 or 1 (PaperBench).
"""

from __future__ import annotations

from typing import Annotated

import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from schemas.errors import SchemaError
from schemas.records import Vote
from schemas.table import with_ids

NAME = "rubric_scores"
VERSION = 1

SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("rubric_id", "response_id", "judge")]
    + [
        pa.field("score", pa.float64()),
        pa.field("judged_share", pa.float64(), nullable=False),
        pa.field("gated", pa.bool_(), nullable=False),
    ]
)
"""Scores: whose verdicts, the score (null: nothing judged), the share of the rubric's weight that
was judged, whether a hard rule is broken."""

_CELL = ["rubric", "response", "judge"]


class ScoringConfig(Config):
    """How verdicts become scores."""

    gate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """What a broken hard rule leaves of a positive score; 1: hard rules do not gate."""


def score(
    criteria: pa.Table,
    rubrics: pa.Table,
    votes: pa.Table,
    responses: pa.Table,
    config: ScoringConfig,
) -> pa.Table:
    """Scores (see SCHEMA) of every judge, rubric and response that has a vote on one of its criteria.

    Tables of Criterion, Rubric, Vote (others than of criteria are passed over) and Response, of
    which only `id` and `prompt_id` are read. A rubric of a prompt scores that prompt's responses,
    one of none all. A hard rule is broken at a verdict of 1/2 or less: half kept is not kept.
    Raises SchemaError where a rubric names an unknown criterion, or parents go in a circle.
    """
    items = members(criteria, rubrics)
    prompts = pl.DataFrame(pl.from_arrow(responses)).select(response="id", of="prompt_id")
    judged = (
        verdicts(votes)
        .join(prompts, on="response", how="left")
        .join(items, on="criterion")
        .filter(pl.col("prompt").is_null() | (pl.col("prompt") == pl.col("of")))
    )
    cells = judged.group_by(_CELL).agg(
        gated=((pl.col("kind") == "hard_rule") & (pl.col("value") <= 0.5)).any()
    )
    judged = judged.drop_nulls("value")
    found = pl.concat(
        [_shares(judged, items), _points(judged, items), _trees(judged, items)]
    ).with_columns(pl.col("judged_share").clip(0.0, 1.0))
    kept = pl.min_horizontal("score", pl.col("score") * config.gate)
    table = (
        cells.join(found, on=_CELL, how="left")
        .sort("rubric", "response", "judge")
        .select(
            rubric_id="rubric",
            response_id="response",
            judge="judge",
            # A minimum of numbers passes over nulls; a score that is null stays so.
            score=pl.when(pl.col("gated") & pl.col("score").is_not_null())
            .then(kept)
            .otherwise("score"),
            judged_share=pl.col("judged_share").fill_null(0.0),
            gated=pl.col("gated").fill_null(False),
        )
    )
    return table.to_arrow().cast(SCHEMA)


def mean_score(scores: pa.Table) -> float | None:
    """Mean score, clipped to [0, 1] (HealthBench clips nowhere else); None: there is no score."""
    column = pl.DataFrame(pl.from_arrow(scores))["score"].drop_nulls().sort()
    mean = column.mean()
    return None if mean is None else min(max(float(mean), 0.0), 1.0)  # type: ignore[arg-type]


def pair_votes(pairs: pa.Table, scores: pa.Table, judge: str) -> pa.Table:
    """Votes of `judge` on the pairs, in order: score of a less score of b, clipped to [-1, 1].

    Where several rubrics (or several judges' verdicts) score both responses, the mean of the
    differences. Without one the vote has no value, and the reason `not_judged`.
    """
    scored = pl.DataFrame(pl.from_arrow(scores)).drop_nulls("score")
    by = ["rubric_id", "judge"]
    own = scored.select(*by, "score", response_a="response_id")
    other = scored.select(*by, "score", response_b="response_id")
    gaps = (
        pl.DataFrame(pl.from_arrow(pairs))
        .with_row_index("row")
        .select("row", "id", "response_a", "response_b")
        .join(own, on="response_a", how="left")
        .join(other, on=["response_b", *by], how="left", suffix="_b")
        .with_columns(gap=pl.col("score") - pl.col("score_b"))
    )
    said = (
        gaps.drop_nulls("gap")
        .group_by("row")
        # A float sum depends on its order.
        .agg(pl.col("gap", "score", "score_b").sort_by(*by))
        .with_columns(pl.col("gap", "score", "score_b").list.mean())
        .with_columns(
            reason=pl.format("a: {}; b: {}", pl.col("score").round(3), pl.col("score_b").round(3))
        )
    )
    whole = gaps.select("row", "id").unique().join(said, on="row", how="left").sort("row")
    bare = whole.select(
        unit="id",
        unit_kind=pl.lit("pair"),
        judge=pl.lit(judge),
        judge_kind=pl.lit("rubric"),
        order=pl.lit(None, pl.String),
        value=pl.col("gap").clip(-1.0, 1.0),
        criterion=pl.lit(None, pl.String),
        step=pl.lit(None, pl.Int64),
        span_start=pl.lit(None, pl.Int64),
        span_end=pl.lit(None, pl.Int64),
        reason=pl.col("reason").fill_null("not_judged"),
        seconds=pl.lit(None, pl.Float64),
        cost=pl.lit(None, pl.Float64),
    )
    return with_ids(Vote, bare.to_arrow())


def consistent(rubrics: pa.Table, scores: pa.Table, pairs: pa.Table) -> pa.Table:
    """Consistency rejection (OpenRubrics): does a rubric give the preferences it was made from?

    By judge and rubric: `pairs` (labelled ones of its own that it scores), `right` (the share of
    them whose better response scores higher: a tie is not right), `kept` and `reason`: `consistent`
    at a share of 1/2 or more, else `inconsistent`, or `not_judged` where there is none.
    """
    own = (
        score_sides(scores, labelled(pairs))
        .join(made_from(rubrics), on=["rubric", "pair"], how="semi")
        .group_by("judge", "rubric")
        .agg(pairs=pl.len().cast(pl.Int64), right=(pl.col("side") > 0).mean())
    )
    judges = pl.DataFrame(pl.from_arrow(scores)).select("judge").unique()
    reason = (
        pl.when(pl.col("right").is_null())
        .then(pl.lit("not_judged"))
        .when(pl.col("right") >= 0.5)
        .then(pl.lit("consistent"))
        .otherwise(pl.lit("inconsistent"))
    )
    return (
        pl.DataFrame(pl.from_arrow(rubrics))
        .select(rubric="id")
        .join(judges, how="cross")
        .join(own, on=["judge", "rubric"], how="left")
        .sort("rubric", "judge")
        .select(
            "judge",
            pl.col("pairs").fill_null(0),
            "right",
            rubric_id="rubric",
            kept=reason == "consistent",
            reason=reason,
        )
        .to_arrow()
    )


def members(criteria: pa.Table, rubrics: pa.Table) -> pl.DataFrame:
    """Every criterion of every rubric, once: rubric, prompt, scoring, criterion, kind, weight, parent
    (null at the top), n (its number), `against` (it counts against). Raises SchemaError."""
    own = pl.DataFrame(pl.from_arrow(criteria)).select(
        "kind", "weight", "parent", criterion="id", known=pl.lit(True)
    )
    items = (
        pl.DataFrame(pl.from_arrow(rubrics))
        .select("scoring", rubric="id", prompt="prompt_id", criterion="criteria")
        .explode("criterion")
        .drop_nulls("criterion")
        .unique(["rubric", "criterion"], maintain_order=True)
        .join(own, on="criterion", how="left", maintain_order="left")
        .with_row_index("n")
    )
    lost = items.filter(pl.col("known").is_null())
    if len(lost):
        row = lost.row(0, named=True)
        raise SchemaError(f"rubric {row['rubric']}: criterion {row['criterion']} is not there")
    return items.drop("known").with_columns(
        against=(pl.col("kind") == "pitfall") | (pl.col("weight") < 0)
    )


def verdicts(votes: pa.Table) -> pl.DataFrame:
    """Verdicts: response, criterion, judge, value (null: none). Raises SchemaError at a second one."""
    frame = (
        pl.LazyFrame(pl.from_arrow(votes))
        .filter(pl.col("unit_kind") == "criterion")
        .select("judge", "criterion", "value", response="unit")
        .collect()
    )
    # Their codes are compared, not their letters: there can be many.
    ids = pl.col("judge", "criterion", "response").cast(pl.Categorical).to_physical()
    twice = frame.select(ids).is_duplicated()
    if twice.any():
        row = frame.filter(twice).row(0, named=True)
        raise SchemaError(
            f"judge {row['judge']} has two verdicts on response {row['response']} under "
            f"criterion {row['criterion']}"
        )
    if frame.filter((pl.col("value") < 0) | (pl.col("value") > 1)).height:
        raise SchemaError("a verdict lies outside [0, 1]")
    return frame


def labelled(pairs: pa.Table) -> pl.DataFrame:
    """Labelled pairs: pair, of (the prompt), better, worse, sign (1 where a is better)."""
    better_a = pl.col("label") == "a"
    return (
        pl.DataFrame(pl.from_arrow(pairs))
        .filter(pl.col("label").is_in(["a", "b"]))
        .select(
            pair="id",
            of="prompt_id",
            better=pl.when(better_a).then("response_a").otherwise("response_b"),
            worse=pl.when(better_a).then("response_b").otherwise("response_a"),
            sign=pl.when(better_a).then(1.0).otherwise(-1.0),
        )
    )


def made_from(rubrics: pa.Table) -> pl.DataFrame:
    """rubric and pair: the pairs that rubrics were made from."""
    made = pl.DataFrame(pl.from_arrow(rubrics)).select(rubric="id", pair="pairs")
    return made.explode("pair").drop_nulls().unique()


def score_sides(scores: pa.Table, known: pl.DataFrame) -> pl.DataFrame:
    """judge, rubric, pair, of and side: 1 where the better response scores higher, -1 lower, else 0."""
    frame = pl.DataFrame(pl.from_arrow(scores)).drop_nulls("score")
    own = frame.select("judge", "score", rubric="rubric_id", better="response_id")
    return (
        known.join(own, on="better")
        .join(own.rename({"better": "worse"}), on=["worse", "judge", "rubric"], suffix="_worse")
        .select(
            "judge", "rubric", "pair", "of", side=(pl.col("score") - pl.col("score_worse")).sign()
        )
    )


def oriented() -> pl.Expr:
    """A verdict as the share of the criterion's worth that it earns: 1 - c where it counts against."""
    return pl.when("against").then(1.0 - pl.col("value")).otherwise("value")


def _sum(what: pl.Expr) -> pl.Expr:
    """Values in an order of their own, to be summed in it: a float sum depends on its order."""
    return what.sort_by("n")


def _shares(judged: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    size = pl.col("weight").abs()
    whole = items.group_by("rubric").agg(whole=_sum(size)).with_columns(pl.col("whole").list.sum())
    return (
        judged.filter(pl.col("scoring") == "share")
        .group_by(_CELL)
        .agg(won=_sum(size * oriented()), weight=_sum(size))
        .with_columns(pl.col("won", "weight").list.sum())
        .join(whole, on="rubric")
        .select(*_CELL, score=_ratio("won", "weight"), judged_share=_ratio("weight", "whole"))
    )


def _points(judged: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    weight = pl.col("weight")
    # A pitfall of positive points earns them where it is avoided.
    earned = pl.when(weight > 0).then(oriented()).otherwise("value")
    plus, minus = weight.clip(0.0, None), (-weight).clip(0.0, None)
    sums = {"plus": _sum(plus), "minus": _sum(minus)}
    whole = items.group_by("rubric").agg(**sums).with_columns(pl.col(*sums).list.sum())
    own = sums | {"won": _sum(plus * earned), "lost": _sum(minus * earned)}
    lost = _ratio("lost", "minus") * pl.col("minus_whole") / pl.col("plus_whole")
    return (
        judged.filter(pl.col("scoring") == "points")
        .group_by(_CELL)
        .agg(**own)
        .with_columns(pl.col(*own).list.sum())
        .join(whole, on="rubric", suffix="_whole")
        .select(
            *_CELL,
            score=_ratio("won", "plus") - lost.fill_null(0.0),
            judged_share=(pl.col("plus") + pl.col("minus"))
            / (pl.col("plus_whole") + pl.col("minus_whole")),
        )
        .with_columns(pl.col("judged_share").fill_nan(0.0))
    )


def _trees(judged: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """From the deepest level up; a node with no judged child is not judged."""
    nodes = _levels(items.filter(pl.col("scoring") == "tree"))
    size = pl.col("weight").abs()
    place = nodes.filter("leaf").select("rubric", "criterion", "level", "under", "part")
    below = (
        judged.filter(pl.col("scoring") == "tree")
        .join(place, on=["rubric", "criterion"])
        .select(
            *_CELL,
            *("criterion", "n", "level", "under"),
            size.alias("weight"),
            pl.col("part").alias("judged_share"),
            score=(oriented() > 0.5).cast(pl.Float64),
        )
    )
    above = nodes.select("rubric", "level", "under", "criterion", "n", size.alias("weight"))
    deepest = nodes["level"].max()
    for level in range(deepest if isinstance(deepest, int) else 0, -1, -1):
        now = below.filter(pl.col("level") == level)
        merged = (
            now.group_by(*_CELL, "under")
            .agg(
                won=_sum(pl.col("score") * pl.col("weight")),
                weight=_sum(pl.col("weight")),
                judged_share=_sum(pl.col("judged_share")),
            )
            .with_columns(pl.col("won", "weight", "judged_share").list.sum())
            .select(*_CELL, "under", "judged_share", score=_ratio("won", "weight"))
        )
        if level == 0:
            return merged.select(*_CELL, "score", "judged_share")
        parents = merged.drop_nulls("score").rename({"under": "criterion"})
        lifted = parents.join(above, on=["rubric", "criterion"]).select(below.columns)
        below = pl.concat([below.filter(pl.col("level") < level), lifted])
    return below.select(*_CELL, "score", "judged_share")


def _levels(items: pl.DataFrame) -> pl.DataFrame:
    """Nodes of the trees with `level` (0 at the top), `under` (the parent; null at the top), `leaf`,
    and `part`, the share of the whole tree's weight that hangs on the node."""
    keys = items.select("rubric", under="criterion", there=pl.lit(True))
    nodes = items.with_columns(under="parent").join(keys, on=["rubric", "under"], how="left")
    # A parent that is not of this rubric leaves its children at the top.
    nodes = nodes.with_columns(under=pl.when("there").then("under")).drop("there")
    sizes = nodes.group_by("rubric", "under").agg(among=_sum(pl.col("weight").abs()))
    parents = nodes.select("rubric", criterion="under", leaf=pl.lit(False)).unique()
    nodes = (
        nodes.join(sizes, on=["rubric", "under"], nulls_equal=True)
        .join(parents, on=["rubric", "criterion"], how="left")
        .with_columns(
            leaf=pl.col("leaf").fill_null(True),
            own=(pl.col("weight").abs() / pl.col("among").list.sum()).fill_nan(0.0),
        )
        .drop("among")
    )
    placed = nodes.filter(pl.col("under").is_null()).with_columns(
        level=pl.lit(0, pl.Int64), part="own"
    )
    levels = [placed]
    while len(placed):
        up = placed.select("rubric", "level", "part", under="criterion")
        placed = (
            nodes.join(up, on=["rubric", "under"])
            .with_columns(pl.col("level") + 1, part=pl.col("part") * pl.col("own"))
            .select(levels[0].columns)
        )
        levels.append(placed)
    whole = pl.concat(levels)
    if len(whole) < len(nodes):
        raise SchemaError("the parents of a rubric's criteria go in a circle")
    return whole


def _ratio(top: str, bottom: str) -> pl.Expr:
    return pl.when(pl.col(bottom) > 0).then(pl.col(top) / pl.col(bottom))
