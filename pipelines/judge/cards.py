"""What is known of each judge from its votes: does it hold its mind, and is it right?

Values of one order of a pair are averaged; a pair's value is the mean over its orders, and 0 (a
tie) where these side with different responses: a position clash. A tie counts half everywhere, so a
judge that never takes a side has an accuracy of .5 and no preference. A preference is a share less
.5: 0 is none, below 0 the other way round.

Intervals are 95%, by Wilson (1927) with the effective sample size of Korn and Graubard (1998): the
variance is that of the means of clusters (prompts), since pairs of one prompt are no independent
evidence. It never counts more cases than there are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Literal

import polars as pl
import pyarrow as pa

from pipelines.intervals import effective_draws, share_ends
from schemas.errors import UserError
from schemas.records import JudgeCard
from schemas.table import with_ids

Direction = Literal["least", "most", "size"]
"""A limit is the least that a figure may be, the most, or the most that its size may be."""

DIRECTIONS: Mapping[str, Direction] = {
    "usable_share": "least",
    "swap_consistency": "least",
    "position_preference": "size",
    "tie_share": "most",
    "accuracy": "least",
    "accuracy_ab": "least",
    "accuracy_ba": "least",
    "length_preference": "size",
    "length_bias": "size",
    "master_key_false_positives": "most",
    "off_topic_preference": "most",
    "contrast_accuracy": "least",
    "self_preference": "size",
}
"""The measures of cards and probes, in the order in which cards list them, and which way each is
limited."""

_SIGNED = ("position_preference", "length_preference", "self_preference")
"""Shares less .5; `length_bias` is a difference of two shares."""

_SAID = {
    "usable_share": "votes with a value",
    "swap_consistency": "pairs judged in both orders whose votes do not side with different responses",
    "position_preference": "share of votes for the response shown first, less .5",
    "tie_share": "pairs without a side, position clashes among them",
    "accuracy": "pairs whose better response it sides with, orders averaged",
    "accuracy_ab": "the same in order ab alone",
    "accuracy_ba": "the same in order ba alone",
    "length_preference": "share of pairs of equal quality where it sides with the longer, less .5",
    "length_bias": "share of labelled pairs where it sides with the longer, less the labels' share",
}


def cards(
    votes: pa.Table,
    labels: pa.Table | None = None,
    lengths: pa.Table | None = None,
    limits: Mapping[str, float] | None = None,
) -> pa.Table:
    """`JudgeCard` table: the measures of every judge that votes on pairs, judges by name.

    `votes`: `Vote` rows; those on other units than pairs are left aside. `labels`: columns id,
    prompt_id and label (a, b, tie or none) of pairs with known answers, as a `Pair` table has them;
    it gives the accuracies, and the prompts that intervals go by. `lengths`: columns unit, a and b,
    the lengths of the two responses; it gives `length_preference` (pairs labelled tie) and
    `length_bias` (pairs labelled a or b). `limits`: by measure, in the direction of DIRECTIONS. A
    judge that was asked and gave nothing to measure does not pass. Raises UserError for a limit on
    a measure that is not known.
    """
    check_limits(limits or {})
    cases = _cases(votes, labels, lengths)
    return as_cards(summary(cases), limits or {}, _SAID)


def failing(table: pa.Table) -> dict[str, str]:
    """The judges that break a limit, by name, and by which measures."""
    found: dict[str, str] = {}
    rows = table.select(["judge", "measure", "value", "n", "limit", "passed"]).to_pylist()
    for row in (row for row in rows if row["passed"] is False):
        value = "not measured" if row["value"] is None else f"{row['value']:.3f} of {row['n']}"
        said = (
            f"{row['measure']} {value}, {_WORDS[DIRECTIONS[row['measure']]].format(row['limit'])}"
        )
        found[row["judge"]] = f"{found[row['judge']]}; {said}" if row["judge"] in found else said
    return found


_WORDS = {"least": "at least {:g}", "most": "at most {:g}", "size": "at most {:g} either way"}


def check_limits(limits: Iterable[str]) -> None:
    """Raise UserError for a measure that there is not."""
    for name in limits:
        if name not in DIRECTIONS:
            near = difflib.get_close_matches(name, DIRECTIONS, n=1, cutoff=0.0)[0]
            raise UserError(f"limits: no measure {name!r}; the nearest is {near!r}")


def oriented(votes: pa.Table) -> pl.DataFrame:
    """Columns judge, unit, order, value: one row an order of a pair, its votes averaged."""
    return (
        pl.DataFrame(pl.from_arrow(votes.select(["id", "unit", "unit_kind", *_VOTE])))
        .filter(pl.col("unit_kind") == "pair")
        .group_by("judge", "unit", "order")
        # A float sum depends on its order; sorted lists are summed in theirs.
        .agg(pl.col("value").drop_nulls().sort())
        .with_columns(pl.col("value").list.mean())
    )


_VOTE = ("judge", "order", "value")


def paired(orders: pl.DataFrame) -> pl.DataFrame:
    """Columns judge, unit, ab, ba, both, clash, value of `oriented` rows, one row a pair.

    `both`: it has a value in both orders. `value` is null where there is none in any order.
    """
    side = {name: pl.col("value").filter(pl.col("order") == name).first() for name in ("ab", "ba")}
    pairs = orders.group_by("judge", "unit").agg(
        **side, ordered=pl.col("order").is_not_null().any(), value=pl.col("value").sort()
    )
    clash = (pl.col("ab") * pl.col("ba") < 0).fill_null(False)
    return pairs.with_columns(
        both=pl.col("ab").is_not_null() & pl.col("ba").is_not_null(),
        clash=clash,
        value=pl.when(clash).then(0.0).otherwise(pl.col("value").list.drop_nulls().list.mean()),
    )


def for_side(value: pl.Expr) -> pl.Expr:
    """1 where a value sides with a, 0 where with b, .5 where with neither; null where it is null."""
    return (value.sign() + 1) / 2


def summary(cases: pl.DataFrame) -> pl.DataFrame:
    """Columns judge, measure, value, low, high, n, asked of cases (judge, measure, cluster, hit).

    `hit` is in [0, 1], null where the judge was asked and nothing came of it. `value` is the mean
    hit; see the top for the interval.
    """
    by = ["judge", "measure"]
    asked = cases.group_by(by).agg(asked=pl.len())
    clusters = (
        cases.drop_nulls("hit")
        .group_by(*by, "cluster")
        .agg(hits=pl.col("hit").sort(), n=pl.len())
        .with_columns(pl.col("hits").list.sum())
        .sort(*by, "cluster")
    )
    p = pl.col("hits").sum() / pl.col("n").sum()
    off = pl.col("hits") - pl.col("n") * p
    measured = clusters.group_by(by, maintain_order=True).agg(
        p=p, n=pl.col("n").sum(), groups=pl.len(), squares=off.pow(2).sum()
    )
    n, groups = pl.col("n"), pl.col("groups")
    variance = pl.col("squares") * groups / ((groups - 1) * n.pow(2))
    effective = (
        pl.when(groups < 2)
        .then(1.0)
        # Clusters that are all alike say nothing of how much they vary: each is one case.
        .when(variance < 1e-12)
        .then(groups.cast(pl.Float64))
        .otherwise(pl.min_horizontal(effective_draws(pl.col("p"), variance), n))
    )
    low, high = share_ends(pl.col("p"), pl.col("effective").clip(1.0))
    figures = measured.with_columns(effective=effective).select(
        *by, "n", value="p", low=low, high=high
    )
    return asked.join(figures, on=by, how="left")


def as_cards(
    figures: pl.DataFrame, limits: Mapping[str, float], said: Mapping[str, str]
) -> pa.Table:
    """`JudgeCard` table of `summary` rows: shares as preferences where they are, limits applied.

    A column `note` of the rows, if there is one, is said after what was measured.
    """
    measure = pl.col("measure")
    note = pl.col("note") if "note" in figures.columns else pl.lit("")
    shown = [_shown(pl.col(name), measure).alias(name) for name in ("value", "low", "high")]
    limit = measure.replace_strict(dict(limits), default=None, return_dtype=pl.Float64)
    way = measure.replace_strict(dict(DIRECTIONS), return_dtype=pl.String)
    value = pl.col("value")
    kept = (
        pl.when(way == "least")
        .then(value >= pl.col("limit"))
        .when(way == "most")
        .then(value <= pl.col("limit"))
        .otherwise(value.abs() <= pl.col("limit"))
    )
    unasked = pl.format("not measured: {}", _words(said))
    silent = pl.format("no usable vote in {} cases: {}", pl.col("asked"), _words(said))
    nothing = pl.when(pl.col("asked") == 0).then(unasked).otherwise(silent)
    rank = {name: index for index, name in enumerate(DIRECTIONS)}
    table = (
        figures.with_columns(*shown, limit=limit, note=note.fill_null(""))
        .with_columns(
            n=pl.col("n").fill_null(0).cast(pl.Int64),
            passed=pl.when(pl.col("limit").is_null() | (pl.col("asked") == 0))
            .then(None)
            .otherwise(kept.fill_null(False)),
            detail=pl.when(value.is_null()).then(nothing).otherwise(_words(said)) + pl.col("note"),
        )
        .sort("judge", measure.replace_strict(rank, return_dtype=pl.Int64))
        .select(list(JudgeCard.model_fields))
    )
    return with_ids(JudgeCard, table.to_arrow())


def _words(said: Mapping[str, str]) -> pl.Expr:
    return pl.col("measure").replace_strict(dict(said), return_dtype=pl.String)


def _shown(share: pl.Expr, measure: pl.Expr) -> pl.Expr:
    """A share as its measure shows it: as it is, less .5, or (a difference) from [0, 1] to [-1, 1]."""
    bias = measure == "length_bias"
    return (
        pl.when(bias)
        .then(2 * share - 1)
        .when(measure.is_in(_SIGNED))
        .then(share - 0.5)
        .otherwise(share)
    )


def _cases(votes: pa.Table, labels: pa.Table | None, lengths: pa.Table | None) -> pl.DataFrame:
    """Rows (judge, measure, cluster, hit) of all measures of `cards`."""
    every = pl.DataFrame(pl.from_arrow(votes.select(["unit", "unit_kind", *_VOTE])))
    every = every.filter(pl.col("unit_kind") == "pair")
    orders = oriented(votes)
    pairs = paired(orders)
    if labels is not None:
        known = pl.DataFrame(pl.from_arrow(labels.select(["id", "prompt_id", "label"]))).select(
            unit="id", prompt="prompt_id", label="label"
        )
        every, orders, pairs = (
            frame.join(known, on="unit", how="left") for frame in (every, orders, pairs)
        )
    cluster = pl.col("unit") if labels is None else pl.col("prompt").fill_null(pl.col("unit"))
    first = pl.when(pl.col("order") == "ab").then(pl.col("value")).otherwise(-pl.col("value"))
    ordered = pl.col("order").is_not_null()

    def rows(frame: pl.DataFrame, measure: str, hit: pl.Expr) -> pl.DataFrame:
        return frame.select(
            "judge", measure=pl.lit(measure), cluster=cluster, hit=hit.cast(pl.Float64)
        )

    held = pl.when(pl.col("both")).then(~pl.col("clash"))
    found = [
        rows(every, "usable_share", pl.col("value").is_not_null()),
        rows(pairs.filter("ordered"), "swap_consistency", held),
        rows(orders.filter(ordered), "position_preference", for_side(first)),
        rows(pairs, "tie_share", pl.col("value") == 0),
    ]
    if labels is not None:
        sided = pairs.filter(pl.col("label").is_in(["a", "b"]))
        found.append(rows(sided, "accuracy", _right(pl.col("value"))))
        found += [
            rows(sided.filter("ordered"), f"accuracy_{order}", _right(pl.col(order)))
            for order in ("ab", "ba")
        ]
    if lengths is not None and labels is not None:
        sizes = pl.DataFrame(pl.from_arrow(lengths)).select(
            "unit", longer=(pl.col("a").cast(pl.Int64) - pl.col("b").cast(pl.Int64)).sign()
        )
        uneven = pairs.join(sizes.filter(pl.col("longer") != 0), on="unit", how="inner")
        longer = for_side(pl.col("value") * pl.col("longer"))
        told = pl.when(pl.col("label") == "a").then(1).otherwise(-1)
        equal = uneven.filter(pl.col("label") == "tie")
        sided = uneven.filter(pl.col("label").is_in(["a", "b"]))
        bias = (longer - for_side(told * pl.col("longer")) + 1) / 2
        found += [rows(equal, "length_preference", longer), rows(sided, "length_bias", bias)]
    return pl.concat(found)


def _right(value: pl.Expr) -> pl.Expr:
    a = for_side(value)
    return pl.when(pl.col("label") == "a").then(a).otherwise(1 - a)
