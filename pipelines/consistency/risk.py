"""Which pairs may be accepted under a stated bound on the error of what is accepted.

`bounds` says which two bounds there are, why they hold, and what they make of prompts, of unequal
chances and of people's errors.

Which labels count. Routed labels are no random sample: they are of the pairs that are hardest to
tell. Only the uniform audit counts, unless `weighted` is asked for; then every label but gold counts
by the probability with which it was drawn, which has to be true of it. A label that was forced
(probability 1) beside an audit that could have drawn it too can only raise the joint estimate, as
the sum is divided by the number of pairs; for a conditional bound such labels are refused.

What it is about. Labels drawn uniformly over the pairs are exchangeable with the rest of these very
pairs, whatever their prompts: the bound is about this dataset. Labels that came prompt by prompt
(`units = "prompts"`, and also whenever they have far fewer prompts than a uniform draw would have)
count as one loss per prompt, and the bound holds for new prompts of the same source too.

The scores have to be made without a pair's own label: cross-fitted by prompt where the labels also
fitted the calibration. `final` reads them off `Belief.probability`, which is so by its definition.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from pipelines.consistency.bounds import (
    Labels,
    conditional_cut,
    joint_cut,
    least_conditional,
    least_joint,
)
from schemas.errors import SchemaError
from schemas.records import Decision, ErrorBound
from schemas.table import with_ids

NAME = "risk"
VERSION = 1


class RiskConfig(Config):
    """Settings of the bound on the error of what is accepted."""

    kind: Literal["joint", "conditional"] = "joint"
    """`joint`: wrong and accepted, as a share of all pairs, in expectation. `conditional`: wrong
    among the accepted, with the stated confidence."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    """The bound."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    """Confidence of a conditional bound."""
    slices: bool = False
    """Hold the bound in every slice, with a threshold for each; false: over all pairs. The
    confidences of conditional bounds are then Bonferroni's: slices have no order to test them in,
    and k slices cost only ln(k) / alpha more labels each. Bounds in expectation need no such care."""
    units: Literal["pairs", "prompts"] = "pairs"
    """What was drawn to be labelled: single pairs, uniformly, or prompts with their pairs."""
    label_error: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Error rate that the labels have at least; what they have beyond it makes the bound stricter."""
    weighted: bool = False
    """Use every label by its propensity, not the uniform audit alone."""


def final(beliefs: pa.Table) -> pa.Table:
    """What the machine would settle on, of `Belief` rows: pair_id, slice, flipped, probability.

    `probability` is that of the more probable side, made without a human vote on the pair; null,
    and so never accepted, where there is no side to take (no label, or a tie).
    """
    p = pl.col("probability")
    frame = pl.DataFrame(pl.from_arrow(beliefs)).select(
        "pair_id",
        "slice",
        flipped=p < 0.5,
        probability=pl.when(pl.col("label").is_in(["a", "b"])).then(pl.max_horizontal(p, 1 - p)),
    )
    return frame.to_arrow()


def answers(beliefs: pa.Table, people: pa.Table) -> pa.Table:
    """Labels for `bound`: pair_id, right, purpose, propensity, of the pairs that people voted on.

    `people`: `HumanLabel` rows (or their pair_id, value, purpose, propensity). `right` is about the
    side that `final` settles on; people who are split count as against it.
    """
    for_a = (pl.col("label") == "a") != (pl.col("probability") < 0.5)
    frame = (
        pl.DataFrame(pl.from_arrow(people))
        .select("pair_id", "value", "purpose", "propensity")
        .join(pl.DataFrame(pl.from_arrow(beliefs)), on="pair_id", maintain_order="left")
        .filter(pl.col("label").is_in(["a", "b"]))
        .select(
            "pair_id",
            right=pl.when(for_a).then(pl.col("value") > 0).otherwise(pl.col("value") < 0),
            purpose="purpose",
            propensity="propensity",
        )
    )
    return frame.to_arrow()


def bound(
    scored: pa.Table, labels: pa.Table, prompts: pa.Table, config: RiskConfig
) -> tuple[pa.Table, pa.Table]:
    """Accepted pairs (pair_id, accepted; in `scored`'s order) and the `ErrorBound` table.

    `scored`: pair_id, slice, probability of the final label (null: not to be accepted). `labels`:
    pair_id, right, purpose, propensity; one row a pair, others than those scored are left out.
    `prompts`: pair_id, prompt_id of every pair scored. The last bound, of slice `all`, is about all
    pairs; with `slices` it follows from those before it: it is as strict as they are, and its
    threshold is the least of theirs. A slice that is called `all` is reported as `pooled`.

    Raises SchemaError on a pair twice, a pair without a prompt, or a propensity outside (0, 1].
    """
    frame, known = _read(scored, labels, prompts, config)
    if config.slices:
        # `all` is the name of the whole.
        pooled = pl.col("slice").replace("all", "pooled")
        frame, known = frame.with_columns(slice=pooled), known.with_columns(slice=pooled)
        parts = frame.partition_by("slice", as_dict=True, maintain_order=True)
        names = sorted(str(key[0]) for key in parts)
        confidence = 1 - (1 - config.confidence) / max(1, len(names))
        rows = [_one(name, parts[(name,)], known, config, confidence) for name in names]
        rows.append(_whole(rows, frame, config))
    else:
        rows = [_one("all", frame, known, config, config.confidence)]
    cuts = {row["slice"]: row["threshold"] for row in rows}
    threshold = (
        pl.col("slice").replace_strict(cuts, return_dtype=pl.Float64, default=None)
        if config.slices
        else pl.lit(cuts["all"], pl.Float64)
    )
    accepted = frame.select(
        "pair_id", accepted=(pl.col("probability") >= threshold).fill_null(False)
    )
    schema = ErrorBound.arrow_schema().remove(0)
    return accepted.to_arrow(), with_ids(ErrorBound, pa.Table.from_pylist(rows, schema=schema))


def accept(decisions: pa.Table, beliefs: pa.Table, accepted: pa.Table) -> pa.Table:
    """`Decision` rows with `accepted` filled in.

    A pair is accepted where `bound` accepts it and the decision is the one the bound is about: the
    machine's more probable side, kept, flipped or softened. What people overruled, what is dropped
    or still out with them is not; leaving those out cannot raise the joint error, nor the
    conditional one as long as people overrule wrong labels more often than right ones.
    """
    frame = (
        pl.DataFrame(pl.from_arrow(decisions.drop_columns(["id", "accepted"])))
        .join(
            pl.DataFrame(pl.from_arrow(final(beliefs))).select("pair_id", "flipped"),
            on="pair_id",
            how="left",
            maintain_order="left",
        )
        .join(
            pl.DataFrame(pl.from_arrow(accepted)), on="pair_id", how="left", maintain_order="left"
        )
    )
    same = (
        pl.when(pl.col("action") == "flip")
        .then(pl.col("flipped"))
        .when(pl.col("action").is_in(["keep", "soften"]))
        .then(~pl.col("flipped"))
        .otherwise(False)
    )
    frame = frame.with_columns(accepted=(pl.col("accepted") & same).fill_null(False))
    return with_ids(Decision, frame.drop("flipped").to_arrow())


def _read(
    scored: pa.Table, labels: pa.Table, prompts: pa.Table, config: RiskConfig
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The pairs with their prompts, and the labels that count with their pairs' columns."""
    for table, what in ((scored, "scored"), (labels, "labels"), (prompts, "prompts")):
        ids = pl.Series(pl.from_arrow(table["pair_id"].combine_chunks()))
        if ids.n_unique() != len(ids):
            raise SchemaError(
                f"risk: {what} holds a pair twice: {ids.filter(ids.is_duplicated())[0]}"
            )
    frame = (
        pl.DataFrame(pl.from_arrow(scored))
        .select("pair_id", "slice", pl.col("probability").cast(pl.Float64))
        .join(
            pl.DataFrame(pl.from_arrow(prompts)).select("pair_id", "prompt_id"),
            on="pair_id",
            how="left",
            maintain_order="left",
        )
    )
    lost = frame.filter(pl.col("prompt_id").is_null())
    if len(lost):
        raise SchemaError(f"risk: no prompt is given for pair {lost['pair_id'][0]}")
    known = pl.DataFrame(pl.from_arrow(labels)).select("pair_id", "right", "purpose", "propensity")
    bad = known.filter(~pl.col("propensity").is_between(0, 1, closed="right").fill_null(False))
    if len(bad):
        raise SchemaError(f"risk: propensity of pair {bad['pair_id'][0]} is not in (0, 1]")
    counts = pl.col("purpose") != "gold" if config.weighted else pl.col("purpose") == "audit"
    known = known.filter(counts).join(frame, on="pair_id", how="inner")
    if config.weighted and config.kind == "conditional":
        # Counted as certain and also by the audit's weight, they would dilute the accepted.
        known = known.filter((pl.col("purpose") == "audit") | (pl.col("propensity") < 1))
    return frame, known


def _one(
    name: str, frame: pl.DataFrame, known: pl.DataFrame, config: RiskConfig, confidence: float
) -> dict[str, object]:
    """The bound of one slice, as a row."""
    mine = known if name == "all" and not config.slices else known.filter(pl.col("slice") == name)
    mine = mine.with_columns(pl.col("probability").fill_null(-math.inf)).sort(
        "probability", "pair_id", descending=[True, False]
    )
    labels = Labels(
        mine["probability"].to_numpy(),
        ~mine["right"].to_numpy(),
        mine["prompt_id"].rank("dense").cast(pl.Int64).to_numpy() - 1,
        1 / mine["propensity"].to_numpy() if config.weighted else np.ones(len(mine)),
    )
    n, joint = len(mine), config.kind == "joint"
    by_prompt = not config.weighted and (config.units == "prompts" or _clustered(frame, mine))
    most = max(1, labels.most) if by_prompt else 1
    able = frame["probability"].drop_nulls()
    row: dict[str, object] = {
        "slice": name,
        "kind": config.kind,
        "alpha": config.alpha,
        "confidence": None if joint else confidence,
        "threshold": None,
        "accepted": 0,
        "pairs": len(frame),
        "bound": None,
        "labels": n,
        "prompts": mine["prompt_id"].n_unique(),
    }
    if joint:
        needed, have = least_joint(config.alpha, config.label_error, most), n
    else:
        needed = least_conditional(config.alpha, confidence, config.label_error)
        have = math.floor(n / labels.design_effect[-1]) if by_prompt and n else n
    if have < needed and not (joint and config.weighted):
        spread = " (as independent ones: they share prompts)" if have < n else ""
        return {**row, "reason": f"too_few_labels: needs {needed} clean, has {have}{spread}"}
    if not len(able) or not n:
        return {**row, "reason": "nothing_to_accept" if n else "too_few_labels: has none"}
    threshold: float | None
    if joint:
        cut = joint_cut(
            labels, config.alpha, config.label_error,
            pairs=len(frame), most=most, weighted=config.weighted,
        )  # fmt: skip
        if cut is None:
            return {**row, "reason": "too_few_labels: one alone weighs more than the bound"}
        above = able.filter(able > cut)
        threshold = float(above.min()) if len(above) else None  # type: ignore[arg-type]
    else:
        threshold = conditional_cut(
            labels, able.sort(descending=True).to_numpy(), config.alpha, confidence,
            config.label_error, pairs=len(frame), by_prompt=by_prompt, weighted=config.weighted,
        )  # fmt: skip
    if threshold is None:
        return {**row, "reason": "too_many_errors"}
    accepted = int((able >= threshold).sum())
    stated = {"threshold": threshold, "accepted": accepted, "bound": config.alpha}
    return {**row, **stated, "reason": "holds"}


def _clustered(frame: pl.DataFrame, mine: pl.DataFrame) -> bool:
    """Whether the labels have far fewer prompts than a uniform draw of as many pairs would have.

    Four deviations fewer; a prompt of m pairs is missed with a chance of about (1 - n / N)^m.
    """
    if not len(mine):
        return False
    sizes = frame.group_by("prompt_id").len()["len"].to_numpy()
    missed = (1 - len(mine) / len(frame)) ** sizes
    expected, deviation = (1 - missed).sum(), math.sqrt((missed * (1 - missed)).sum())
    return bool(mine["prompt_id"].n_unique() < expected - 4 * deviation - 1)


def _whole(
    rows: list[dict[str, object]], frame: pl.DataFrame, config: RiskConfig
) -> dict[str, object]:
    """What the slices' bounds say of all pairs together: none can be above alpha if no slice is."""
    thresholds = [row["threshold"] for row in rows if row["threshold"] is not None]
    joint = config.kind == "joint"
    return {
        "slice": "all",
        "kind": config.kind,
        "alpha": config.alpha,
        "confidence": None if joint else config.confidence,
        "threshold": min(thresholds) if thresholds else None,  # type: ignore[type-var]
        "accepted": sum(row["accepted"] for row in rows),  # type: ignore[misc]
        "pairs": len(frame),
        "bound": config.alpha if thresholds else None,
        "labels": sum(row["labels"] for row in rows),  # type: ignore[misc]
        "prompts": sum(row["prompts"] for row in rows),  # type: ignore[misc]
        "reason": "holds" if thresholds else "nothing_accepted_in_any_slice",
    }
