"""People's votes on a pair put together, by the models of crowd-kit.

Each model gives the probability that response a is better, that b is, and, where people said so, that
neither is. A label's value is the mean of that, so where people disagree, or are not to be trusted,
it lies near nought: it is softened, and nothing is dropped. Its error is the chance that the side it
is on is the wrong one.

People with few votes are pooled: a confusion matrix of one's own cannot be told from six votes, and
the models then do worse than the majority.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from pipelines.humans import agreed
from schemas.errors import MissingExtra, SchemaError, UserError
from schemas.records import HumanLabel
from schemas.table import with_ids

if TYPE_CHECKING:
    import pandas as pd

NAME = "aggregate"
VERSION = 1

Floats = npt.NDArray[np.float64]
Method = Literal[
    "majority", "dawid_skene", "one_coin", "mace", "bradley_terry", "noisy_bradley_terry"
]
POOLED = "pooled"
_WITHOUT_TIES = ("one_coin", "bradley_terry", "noisy_bradley_terry")


class AggregateConfig(Config):
    """How people's votes are put together."""

    method: Method = "mace"
    """`majority`: the mean of the votes, strengths included. `dawid_skene`: a confusion matrix a
    person (Dawid and Skene 1979). `one_coin`: one accuracy a person (minutes for thousands of
    people). `mace`: how often a person guesses (Hovy et al. 2013). `bradley_terry`,
    `noisy_bradley_terry`: a score a response, where responses are compared in many pairs; it takes
    people for alike, or is slow. These two and `one_coin` know no ties: there a tie only softens."""
    pool_below: Annotated[int, Field(ge=1)] = 10
    """People with fewer votes count as one person in models of persons; 1: nobody is pooled."""
    error: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """How often one person is wrong, for the error of a majority, which cannot tell."""
    iterations: Annotated[int, Field(ge=1)] = 100
    """Most rounds of a model's fit."""


def aggregate(
    votes: pa.Table,
    config: AggregateConfig,
    *,
    pairs: pa.Table | None = None,
    asked: pa.Table | None = None,
    without: Collection[str] = (),
) -> pa.Table:
    """`HumanLabel` rows by pair id, of the pairs on which anyone took a side or saw a tie.

    Args:
        votes: `Vote` rows (or their unit, unit_kind, judge, judge_kind and value); only people's votes
            on pairs count, and of one person's votes on a pair the last row.
        config: The method.
        pairs: `Pair` rows, for the Bradley-Terry models: which responses a pair compares.
        asked: Why pairs were asked: pair_id, purpose, propensity. Others were asked for their value.
        without: Annotators that are left out.

    Raises SchemaError where Bradley-Terry lacks a pair, UserError where its noisy form does not
    converge, MissingExtra where crowd-kit is not there.
    """
    frame = read(votes, without)
    posterior = _POSTERIORS[config.method](frame, pairs, config)
    grouped = frame.group_by("pair_id").agg(pl.col("value"), people=pl.len()).sort("pair_id")
    labels = grouped.join(posterior, on="pair_id", how="left", maintain_order="left")
    if config.method == "majority":
        errors = [agreed(values, config.error) for values in labels["value"].to_list()]
        means = [math.fsum(v) / len(v) for v in labels["value"].to_list()]
    else:
        labels = labels.with_columns(pl.col("a", "b").fill_null(0.0))  # ties alone
        if config.method in _WITHOUT_TIES:
            sided = labels["value"].list.eval((pl.element() != 0).cast(pl.Float64)).list.mean()
            labels = labels.with_columns(pl.col("a", "b") * sided)
        a, b = labels["a"].to_numpy(), labels["b"].to_numpy()
        means = np.clip(a - b, -1.0, 1.0).tolist()
        with np.errstate(invalid="ignore", divide="ignore"):
            errors = np.where(a + b > 0, np.minimum(a, b) / (a + b), 0.5).tolist()
    why = _purposes(asked, labels["pair_id"])
    rows = pl.DataFrame(
        {
            "pair_id": labels["pair_id"],
            "value": pl.Series(means, dtype=pl.Float64),
            "people": labels["people"].cast(pl.Int64),
            "error": pl.Series(errors, dtype=pl.Float64),
            "purpose": why["purpose"],
            "propensity": why["propensity"],
        }
    )
    return with_ids(HumanLabel, rows.to_arrow())


def posteriors(votes: pa.Table, config: AggregateConfig, pairs: pa.Table | None = None) -> pa.Table:
    """What a model makes of every pair that anyone took a side on: pair_id, a and b, the
    probabilities that a and that b is better; what is left is that neither is.

    A majority has none: its shares of the votes stand for them. As `aggregate` otherwise.
    """
    frame = read(votes)
    if config.method == "majority":
        sides = (pl.col("value") > 0).mean().alias("a"), (pl.col("value") < 0).mean().alias("b")
        return frame.group_by("pair_id").agg(*sides).sort("pair_id").to_arrow()
    return _POSTERIORS[config.method](frame, pairs, config).sort("pair_id").to_arrow()


def read(votes: pa.Table, without: Collection[str] = ()) -> pl.DataFrame:
    """People's last votes on pairs, by pair and judge: pair_id, judge, value (-1 to 1), order."""
    frame = pl.DataFrame(pl.from_arrow(votes))
    keep = (pl.col("unit_kind") == "pair") & (pl.col("judge_kind") == "human")
    return (
        frame.filter(keep & ~pl.col("judge").is_in(list(without)))
        .select(
            "judge", "value", "order" if "order" in frame.columns else _NO_ORDER, pair_id="unit"
        )
        .unique(["pair_id", "judge"], keep="last", maintain_order=True)
        .drop_nulls("value")
        .sort("pair_id", "judge")
        .select("pair_id", "judge", "value", "order")
    )


_NO_ORDER = pl.lit(None, dtype=pl.String).alias("order")


def _purposes(asked: pa.Table | None, ids: pl.Series) -> pl.DataFrame:
    frame = pl.DataFrame({"pair_id": ids})
    known = pl.DataFrame(
        schema={"pair_id": pl.String, "purpose": pl.String, "propensity": pl.Float64}
    )
    if asked is not None:
        known = pl.DataFrame(pl.from_arrow(asked)).select(known.columns)
        # A pair that was drawn at random stays so, whatever else it was asked for.
        order = pl.col("purpose").replace_strict({"audit": 0, "value": 1, "gold": 2})
        known = known.sort(order, maintain_order=True).unique(
            "pair_id", keep="first", maintain_order=True
        )
    joined = frame.join(known, on="pair_id", how="left", maintain_order="left")
    return joined.with_columns(
        pl.col("purpose").fill_null("value"), pl.col("propensity").fill_null(1.0)
    )


def _majority(frame: pl.DataFrame, pairs: pa.Table | None, config: AggregateConfig) -> pl.DataFrame:
    return frame.select("pair_id").unique(maintain_order=True)


def _sided(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(side=pl.col("value").sign().cast(pl.Int8))


def _of_people(
    frame: pl.DataFrame, pairs: pa.Table | None, config: AggregateConfig
) -> pl.DataFrame:
    """Posteriors of the models that know people: columns pair_id, a, b."""
    import pandas as pd

    aggregators = _crowdkit()
    makers = {
        "dawid_skene": lambda: aggregators.DawidSkene(n_iter=config.iterations),
        "one_coin": lambda: aggregators.OneCoinDawidSkene(n_iter=config.iterations),
        # Its restarts all begin alike, since they draw from one seed: one is enough.
        "mace": lambda: aggregators.MACE(n_restarts=1, n_iter=min(config.iterations, 50)),
    }
    few = pl.len().over("judge") < config.pool_below
    said = _sided(frame)
    if config.method in _WITHOUT_TIES:
        said = said.filter(pl.col("side") != 0)
    said = said.with_columns(
        judge=pl.when(few).then(pl.lit(POOLED)).otherwise("judge"),
    )
    if said.is_empty():
        return _empty()
    # Numbers in the order of appearance: MACE mixes up people and labels that do not come sorted.
    tasks, task_names = pd.factorize(said["pair_id"].to_numpy())
    workers, _ = pd.factorize(said["judge"].to_numpy())
    labels, sides = pd.factorize(said["side"].to_numpy())
    data = pd.DataFrame({"task": tasks, "worker": workers, "label": labels})
    if len(sides) == 1:
        shares = pd.DataFrame(1.0, index=range(len(task_names)), columns=[0])
    else:
        shares = _quietly(makers[config.method]().fit_predict_proba, data)
    shares = shares.reindex(range(len(task_names)))
    column = {int(side): shares[i].to_numpy() for i, side in enumerate(sides)}
    nought = np.zeros(len(task_names))
    return pl.DataFrame(
        {
            "pair_id": pl.Series(list(task_names), dtype=pl.String),
            "a": column.get(1, nought),
            "b": column.get(-1, nought),
        }
    )


def _of_responses(
    frame: pl.DataFrame, pairs: pa.Table | None, config: AggregateConfig
) -> pl.DataFrame:
    """Probabilities by scores of responses, one fit for each set of responses that pairs connect.

    A tie would be one more item there: ties are taken out. Each pair adds half a win to either side,
    or a response that always lost would lose for certain.
    """
    import pandas as pd

    if pairs is None:
        raise SchemaError(f"{config.method} needs the pairs, to know which responses they compare")
    known = pl.DataFrame(pl.from_arrow(pairs)).select("response_a", "response_b", pair_id="id")
    said = _sided(frame).join(known, on="pair_id", how="left", maintain_order="left")
    lost = said.filter(pl.col("response_a").is_null())
    if len(lost):
        raise SchemaError(f"{config.method}: pair {lost['pair_id'][0]} is not among the pairs")
    compared = said.unique("pair_id", maintain_order=True)
    sets = _connected(compared["response_a"].to_list(), compared["response_b"].to_list())
    said = said.filter(pl.col("side") != 0).with_columns(
        set=pl.col("response_a").replace_strict(sets, return_dtype=pl.Int64)
    )
    scores: dict[str, float] = {}
    aggregators = _crowdkit()
    for part in said.partition_by("set", maintain_order=True):
        turned = pl.col("order").eq_missing("ba")  # its bias is for what was shown first
        table = part.select(
            worker="judge",
            left=pl.when(turned).then("response_b").otherwise("response_a"),
            right=pl.when(turned).then("response_a").otherwise("response_b"),
            label=pl.when(pl.col("side") > 0).then("response_a").otherwise("response_b"),
        )
        data = pd.DataFrame(table.to_dict(as_series=False))
        if config.method == "bradley_terry":
            each = pd.DataFrame(
                part.unique(["response_a", "response_b"], keep="first", maintain_order=True)
                .select(worker="judge", left="response_a", right="response_b")
                .to_dict(as_series=False)
            )
            # Every vote twice and one win to either side: half a win each, in whole numbers.
            ends = [each.assign(label=each["left"]), each.assign(label=each["right"])]
            data = pd.concat([data, data, *ends], ignore_index=True)
            model = aggregators.BradleyTerry(n_iter=config.iterations)
            found = np.log(_quietly(model.fit_predict, data))
        else:
            found = _noisy(aggregators, data, config)
        scores.update(zip(found.index.tolist(), found.tolist(), strict=True))
    gap = np.array(
        [
            scores.get(a, 0.0) - scores.get(b, 0.0)
            for a, b in compared.select("response_a", "response_b").iter_rows()
        ]
    )
    p = 1 / (1 + np.exp(-np.clip(gap, -30, 30)))
    return pl.DataFrame({"pair_id": compared["pair_id"], "a": p, "b": 1 - p})


def _noisy(aggregators: Any, data: pd.DataFrame, config: AggregateConfig) -> Any:
    """Log-odds scores. Its prior is left out: crowd-kit 1.4.2 has its sign wrong, and it diverges."""
    model = aggregators.NoisyBradleyTerry(n_iter=config.iterations, regularization_ratio=0.0)
    # It seeds numpy's one generator for the whole process: put back what was there.
    before = np.random.get_state()
    try:
        shares = _quietly(model.fit_predict, data)
    finally:
        np.random.set_state(before)
    if not np.isfinite(shares.to_numpy()).all():
        raise UserError("noisy_bradley_terry does not converge on these votes; take bradley_terry")
    shares = shares.clip(1e-9, 1 - 1e-9)
    return np.log(shares / (1 - shares))


def _connected(left: list[str], right: list[str]) -> dict[str, int]:
    """Which set of connected responses each response is in."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = sorted({*left, *right})
    place = {name: i for i, name in enumerate(names)}
    rows, columns = [place[n] for n in left], [place[n] for n in right]
    edges = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    _, number = connected_components(edges, directed=False)
    return dict(zip(names, number.tolist(), strict=True))


def _crowdkit() -> Any:
    try:
        import crowdkit.aggregation as aggregators
    except ModuleNotFoundError:
        raise MissingExtra("crowd-kit", "review") from None
    return aggregators


def _quietly(fit: Callable[[pd.DataFrame], Any], data: pd.DataFrame) -> Any:
    """What a model says; its many warnings are of pandas' next versions and of logarithms of nought."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return fit(data)


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema={"pair_id": pl.String, "a": pl.Float64, "b": pl.Float64})


_POSTERIORS = {
    "majority": _majority,
    "dawid_skene": _of_people,
    "one_coin": _of_people,
    "mace": _of_people,
    "bradley_terry": _of_responses,
    "noisy_bradley_terry": _of_responses,
}
