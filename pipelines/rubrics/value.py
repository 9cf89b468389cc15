"""What rubrics and their criteria are worth: do they tell the better response of labelled pairs?

A pair counts for a rubric if it was not made from it, is of its prompt (where it has one) and both
responses are judged. It is separated where the two are scored differently; `agreement` is the share
of the separated pairs on which the better response scores higher.

The unit of `value`:

- without a baseline: mean of (hit - 1/2), a hit being 1, or 1/2 where the pair is not separated, so
  separates * (agreement - 1/2);
- with baseline votes: mean of (hit - the baseline's hit);
- with margins, of a rubric as a whole: mean of m(r) - m0 in nats, the judge's log-odds of the right
  preference with and without the rubric (C2).

Prompts are the units of the interval, for the pairs of a prompt share responses. Hits have Wilson's
interval at the effective number of draws of Korn and Graubard (1998): share (1 - share) / variance,
with the variance that prompts show and their t quantile, no more than the pairs and no less than
Kish's (sum k)^2 / sum k^2, with k separated pairs a prompt: what is left if the pairs of a prompt
are all alike, and what is taken where no variance shows. A bootstrap by prompt would have no width
where few prompts all agree, and takes a thousand times longer. The interval is on the separated
pairs, multiplied by their share: that is taken as known, and moves no sign. Margins are unbounded:
theirs is Student's t over the prompts' totals.

Tests are exact (binomial at the effective number) or Student's t, two-sided, and the false
discoveries among a judge's criteria, and among its rubrics, are kept below `fdr` (Benjamini and
Hochberg, 1995).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from pipelines.intervals import Floats, effective_draws, wilson
from pipelines.rubrics import scoring
from pipelines.rubrics.scoring import members, oriented, verdicts
from schemas.records import RubricValue
from schemas.table import with_ids

NAME = "rubric_value"
VERSION = 1

MARGINS = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("rubric_id", "pair_id", "judge")]
    + [pa.field(name, pa.float64(), nullable=False) for name in ("with_rubric", "without")]
)
"""A judge's log-odds that response a is better, with a rubric and without: one row a pair."""


class ValueConfig(Config):
    """When there is enough to say, and how sure it must be."""

    min_pairs: Annotated[int, Field(ge=1)] = 10
    """Retire what was tested on fewer pairs."""
    min_prompts: Annotated[int, Field(ge=1)] = 5
    """Retire what was tested on pairs of fewer prompts."""
    fdr: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Largest expected share of false ones among those that are kept as helping, or flipped."""


_KEY = ["judge", "rubric", "criterion"]
_COUNTS = ["pairs", "prompts", "separated", "right", "value", "low", "high", "p", "p_direction"]
_NONE = pl.lit(None, pl.String)
_Z = 1.959963984540054
"""As `intervals.Z`, to the digits that published values were made with."""


def value(
    criteria: pa.Table,
    rubrics: pa.Table,
    votes: pa.Table,
    scores: pa.Table,
    pairs: pa.Table,
    config: ValueConfig,
    baseline: pa.Table | None = None,
    margins: pa.Table | None = None,
) -> pa.Table:
    """RubricValue table: by rubric and judge the rubric as a whole, then its criteria.

    Takes verdict votes, scores (`scoring.SCHEMA`), pairs of which those labelled a or b count, votes
    on pairs to compare with (all judges' and orders' mean; its sign is the prediction), and MARGINS.
    Actions and reasons, in this order:

    - retire `too_few_pairs`: fewer than `min_pairs` pairs or `min_prompts` prompts;
    - retire `never_separates`;
    - flip `misleads`: it prefers the worse response, and its value's interval lies below 0;
    - retire `worse_than_baseline`: its value is below 0, though it does not prefer the worse one;
    - keep `helps`: its value is above 0;
    - retire `no_evidence`: none of these can be said.

    Raises SchemaError as `scoring.score` does.
    """
    items = members(criteria, rubrics)
    judged = verdicts(votes)
    known = scoring.labelled(pairs)
    made = scoring.made_from(rubrics)
    before = None if baseline is None else _baseline(baseline, known)
    tests = pl.concat(
        [
            _criterion_tests(items, judged, known, made, before),
            _score_tests(scores, known, made, before),
        ]
    )
    if margins is not None:
        measured = _measured(_right(margins, known).join(made, on=["rubric", "pair"], how="anti"))
        tests = pl.concat([tests.join(measured, on=_KEY, how="anti", nulls_equal=True), measured])
    every = pl.concat(
        [items.select("rubric", criterion=_NONE), items.select("rubric", "criterion")]
    )
    asked = every.join(judged.select("judge").unique(), how="cross").select(_KEY)
    table = (
        pl.concat([asked, tests.select(_KEY)])
        .unique()
        .join(tests, on=_KEY, how="left", nulls_equal=True)
        .sort("rubric", "judge", "criterion", nulls_last=False)
        .with_columns(pl.col("pairs", "prompts", "separated", "right").fill_null(0.0))
    )
    return with_ids(RubricValue, _decided(table, config).to_arrow())


def ends(share: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Wilson's 95% interval of shares of n draws each; of none, all of [0, 1]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = wilson(share, n, _Z)
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def binomial_test(share: Floats, n: Floats) -> Floats:
    """Two-sided p of a share of n draws under 1/2: twice the smaller tail, at most 1.

    The binomial tail as an incomplete beta integral, so n need not be whole.
    """
    from scipy.special import betainc

    most = np.maximum(share, 1.0 - share) * n
    with np.errstate(invalid="ignore"):
        tail = betainc(most, n - most + 1.0, 0.5)
    return np.where(n > 0, np.minimum(1.0, 2.0 * tail), 1.0)


# --- pairs ----------------------------------------------------------------------------------------


def _right(margins: pa.Table, known: pl.DataFrame) -> pl.DataFrame:
    """judge, rubric, pair, of; m, m0: log-odds of the right preference with the rubric and without."""
    return (
        pl.DataFrame(pl.from_arrow(margins))
        .rename({"rubric_id": "rubric", "pair_id": "pair"})
        .join(known, on="pair")
        .with_columns(
            m=pl.col("with_rubric") * pl.col("sign"), m0=pl.col("without") * pl.col("sign")
        )
    )


def _baseline(votes: pa.Table, known: pl.DataFrame) -> pl.DataFrame:
    """pair and base: the hit of the votes' mean on each labelled pair that has one."""
    return (
        pl.DataFrame(pl.from_arrow(votes))
        .filter(pl.col("unit_kind") == "pair")
        .drop_nulls("value")
        .group_by(pair="unit")
        .agg(pl.col("value").sort_by("id"))
        .join(known, on="pair")
        .select("pair", base=(pl.col("value").list.mean() * pl.col("sign")).sign() / 2 + 0.5)
    )


# --- tests ----------------------------------------------------------------------------------------


def _criterion_tests(
    items: pl.DataFrame,
    judged: pl.DataFrame,
    known: pl.DataFrame,
    made: pl.DataFrame,
    before: pl.DataFrame | None,
) -> pl.DataFrame:
    # Integers stand for ids: there can be as many rows as pairs times criteria.
    ends = pl.concat([known["better"], known["worse"]]).unique().sort()
    responses = pl.DataFrame({"response": ends}).with_row_index("r")
    criteria = items.select("criterion", "against").unique("criterion").sort("criterion")
    criteria = criteria.with_row_index("c")
    judges = judged.select("judge").unique().sort("judge").with_row_index("j")
    uses = items.select("rubric", "criterion", "prompt").with_row_index("u")
    rows = known.with_row_index("p")
    short = (
        judged.lazy()
        .drop_nulls("value")
        .join(criteria.lazy(), on="criterion")
        .join(responses.lazy(), on="response")
        .join(judges.lazy(), on="judge")
        .select("r", "c", "j", value=oriented())
    )
    better = rows.join(responses, left_on="better", right_on="response").select("p", "r")
    worse = rows.join(responses, left_on="worse", right_on="response").select("p", "r")
    prompts = known.select("of").unique().sort("of").with_row_index("g")
    place = rows.join(prompts, on="of").select("p", "g")
    # A rubric of a prompt that no pair is of is tested on none.
    bound = uses.join(prompts, left_on="prompt", right_on="of", how="left").filter(
        pl.col("prompt").is_null() | pl.col("g").is_not_null()
    )
    bound = bound.join(criteria, on="criterion").select("u", "c", "g")
    barred = made.join(uses, on="rubric").join(rows, on="pair").select("u", "p")
    fit = pl.col("g_right").is_null() | (pl.col("g_right") == pl.col("g"))
    sides = (
        better.lazy()
        .join(short, on="r")
        .join(worse.lazy().join(short, on="r"), on=["p", "c", "j"], suffix="_worse")
        .select("p", "c", "j", side=(pl.col("value") - pl.col("value_worse")).sign())
        .join(place.lazy(), on="p")
        .join(bound.lazy(), on="c")
        .filter(fit)
        .drop("g_right")
        .join(barred.lazy(), on=["u", "p"], how="anti")
    )
    base = None if before is None else rows.join(before, on="pair").select("p", "base")
    counted = _counted(sides, ["j", "u"], "g", "p", base)
    return counted.join(judges, on="j").join(uses, on="u").select(*_KEY, *_COUNTS)


def _score_tests(
    scores: pa.Table, known: pl.DataFrame, made: pl.DataFrame, before: pl.DataFrame | None
) -> pl.DataFrame:
    sides = scoring.score_sides(scores, known).join(made, on=["rubric", "pair"], how="anti")
    counted = _counted(sides.lazy(), ["judge", "rubric"], "of", "pair", before)
    return counted.with_columns(criterion=_NONE).select(*_KEY, *_COUNTS)


def _counted(
    sides: pl.LazyFrame, key: list[str], prompt: str, pair: str, before: pl.DataFrame | None
) -> pl.DataFrame:
    """Counts of the tests and what follows from them. All sums are of halves, so exact in any order."""
    right = pl.col("side") / 2 + 0.5
    if before is None:
        sides, bound = sides.with_columns(gain=right - 0.5), 0.5
    else:
        sides = sides.join(before.lazy(), on=pair).with_columns(gain=right - pl.col("base"))
        bound = 1.0
    frame = (
        sides.group_by(*key, prompt)
        .agg(
            pairs=pl.len(),
            separated=(pl.col("side") != 0).sum(),
            right=(pl.col("side") > 0).sum(),
            moved=(pl.col("gain") != 0).sum(),
            gain=pl.col("gain").sum(),
        )
        .with_columns(pl.col("pairs", "separated", "right", "moved").cast(pl.Float64))
        # Gains in [-bound, bound] as shares in [0, 1], which vary no more than a share of hits.
        .with_columns(won=(pl.col("gain") / bound + pl.col("moved")) / 2)
        .group_by(key)
        .agg(
            pl.col("pairs", "separated", "right", "moved", "gain", "won").sum(),
            *_moments("right", "separated"),
            *_moments("won", "moved"),
            prompts=pl.len().cast(pl.Float64),
        )
        .collect()
    )
    counts = {name: frame[name].to_numpy() for name in frame.columns if name not in key}
    share, n = _effective(counts, "won", "moved")
    low, high = ends(share, n)
    part = counts["moved"] / counts["pairs"] * bound
    return frame.with_columns(
        value=pl.Series(counts["gain"] / counts["pairs"]),
        low=pl.Series(part * (2.0 * low - 1.0)),
        high=pl.Series(part * (2.0 * high - 1.0)),
        p=pl.Series(binomial_test(share, n)),
        p_direction=pl.Series(binomial_test(*_effective(counts, "right", "separated"))),
    )


def _moments(top: str, bottom: str) -> list[pl.Expr]:
    """Sums over prompts from which the variance of sum(top) / sum(bottom) follows."""
    h, k = pl.col(top), pl.col(bottom)
    return [
        expression.sum().alias(f"{top}_{name}")
        for name, expression in {"hh": h * h, "hk": h * k, "kk": k * k, "g": k > 0}.items()
    ]


def _effective(counts: dict[str, Floats], top: str, bottom: str) -> tuple[Floats, Floats]:
    """A share over clusters and its effective number of draws (Korn and Graubard, 1998)."""
    from scipy.stats import t

    h, k = counts[top], counts[bottom]
    hh, hk, kk, g = (counts[f"{top}_{name}"].astype(float) for name in ("hh", "hk", "kk", "g"))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(k > 0, h / k, 0.5)
        variance = np.maximum(hh - 2 * share * hk + share**2 * kk, 0.0) / k**2 * g / (g - 1)
        few = (_Z / t.ppf(0.975, g - 1)) ** 2
        n = np.where(variance > 1e-12, effective_draws(share, variance) * few, 0.0)
        least = np.where(k > 0, k**2 / kk, 0.0)
    return share, np.clip(np.nan_to_num(n), least, k)


def _measured(margins: pl.DataFrame) -> pl.DataFrame:
    """The tests of rubrics as a whole that a judge's log-odds give."""
    from scipy.stats import t

    gain = (pl.col("m") - pl.col("m0")).sort_by("pair")
    frame = (
        margins.group_by("judge", "rubric", "of")
        .agg(
            gain=gain,
            pairs=pl.len().cast(pl.Float64),
            separated=(pl.col("m") != 0).sum().cast(pl.Float64),
            right=(pl.col("m") > 0).sum().cast(pl.Float64),
        )
        .with_columns(pl.col("gain").list.sum())
        .group_by("judge", "rubric")
        .agg(
            pl.col("pairs", "separated", "right").sum(),
            pl.col("gain").sort_by("of"),
            *_moments("right", "separated"),
            each=pl.col("pairs").sort_by("of"),
            prompts=pl.len().cast(pl.Float64),
        )
        .with_columns(value=pl.col("gain").list.sum() / pl.col("pairs"))
        .with_columns(
            spread=(pl.col("gain") - pl.col("each") * pl.col("value"))
            .list.eval(pl.element() ** 2)
            .list.sum()
        )
        .with_columns(criterion=_NONE)
    )
    counts = {name: frame[name].to_numpy() for name in frame.select(pl.selectors.numeric()).columns}
    free, middle = np.maximum(counts["prompts"] - 1.0, 1.0), counts["value"]
    several = counts["prompts"] > 1  # Of one alone there is no variance: its interval has no ends.
    error = np.sqrt(counts["spread"] * (free + 1.0) / free) / counts["pairs"]
    half = np.where(several, t.ppf(0.975, free) * error, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(several & (middle != 0), 2.0 * t.sf(np.abs(middle) / error, free), 1.0)
    return frame.with_columns(
        low=pl.Series(middle - half).fill_nan(None),
        high=pl.Series(middle + half).fill_nan(None),
        p=pl.Series(p),
        p_direction=pl.Series(binomial_test(*_effective(counts, "right", "separated"))),
    ).select(*_KEY, *_COUNTS)


def _decided(table: pl.DataFrame, config: ValueConfig) -> pl.DataFrame:
    """Columns of RubricValue. What was too little tested, or never separates, is in no family."""
    from scipy.stats import false_discovery_control

    few = (pl.col("pairs") < config.min_pairs) | (pl.col("prompts") < config.min_prompts)
    never = pl.col("separated") == 0
    numbered = table.with_row_index("row").with_columns(whole=pl.col("criterion").is_null())
    families = numbered.filter(~few & ~never).partition_by("judge", "whole")
    sure = [
        family.select(
            "row",
            clear=pl.Series(false_discovery_control(family["p"].to_numpy()) <= config.fdr),
            turned=pl.Series(
                false_discovery_control(family["p_direction"].to_numpy()) <= config.fdr
            ),
        )
        for family in families
    ]
    none = pl.DataFrame(schema={"row": pl.UInt32, "clear": pl.Boolean, "turned": pl.Boolean})
    agreement = pl.when(~never).then(pl.col("right") / pl.col("separated"))
    lower = pl.col("clear") & (pl.col("high") < 0)
    cases = [
        (few, "retire", "too_few_pairs"),
        (never, "retire", "never_separates"),
        (lower & pl.col("turned") & (agreement < 0.5), "flip", "misleads"),
        (lower, "retire", "worse_than_baseline"),
        (pl.col("clear") & (pl.col("low") > 0), "keep", "helps"),
    ]
    action, reason = pl.lit("retire"), pl.lit("no_evidence")
    for condition, what, why in reversed(cases):
        action = pl.when(condition).then(pl.lit(what)).otherwise(action)
        reason = pl.when(condition).then(pl.lit(why)).otherwise(reason)
    share = pl.when(pl.col("pairs") > 0).then(pl.col("separated") / pl.col("pairs"))
    return (
        numbered.join(pl.concat([none, *sure]), on="row", how="left")
        .sort("row")
        .select(
            "judge",
            pl.col("pairs", "prompts").cast(pl.Int64),
            "value",
            "low",
            "high",
            rubric_id="rubric",
            criterion_id="criterion",
            separates=share.fill_null(0.0),
            agreement=agreement,
            action=action,
            reason=reason,
        )
    )
