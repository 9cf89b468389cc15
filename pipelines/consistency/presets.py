"""Published filters of preference pairs, for comparison with `decide` and for those who want them.

Each takes a wide frame: pair_id, prompt_id, and a column a judge, its votes oriented to the pair's
label (above 0: the judge sides with it; null: no vote). A column `label` (a or b) says which side
the label is on; without it targets are of the label's side, as if it were a. Out comes a `Decision`
table, a row a pair in the frame's order. Filters know no posterior: `probability` is the training
target of the side the filter settles on, and 1/2 where it drops the pair. Shares count pairs of
equal strength together: a group that does not fit a share whole is left out of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from pipelines.consistency.presets_process import pf_ppo, prof
from pipelines.consistency.presets_table import decisions, judges_of, read

VERSION = 1

Frame: TypeAlias = pl.DataFrame | pa.Table


def secrets(
    frame: Frame,
    *,
    flip: float = 0.1,
    smooth: float = 0.4,
    smoothing: float = 0.1,
    name: str = "secrets2",
) -> pa.Table:
    """Secrets of RLHF Part II (Wang et al. 2024, arXiv 2401.06080): by mean preference strength.

    The lowest `flip` of pairs by the judges' mean are flipped, the rest of the lowest `smooth` get
    the target 1 - `smoothing`, all others are kept; `margin` is the adaptive margin, the mean
    itself (of the side settled on). The paper's mean is over 10 reward models.
    """
    table = read(frame)
    mean = pl.mean_horizontal(judges_of(table))
    table = table.with_columns(mean=mean).with_columns(
        place=pl.col("mean").rank("max") / pl.col("mean").count()
    )
    cases = [
        (pl.col("mean").is_null(), "drop", "no_votes", None),
        (pl.col("place") <= flip, "flip", "lowest_strength", 1.0),
        (pl.col("place") <= smooth, "soften", "low_strength", 1 - smoothing),
    ]
    return decisions(table, cases, ("keep", "strength", 1.0), name, VERSION)


def secrets_flip(frame: Frame, *, flip: float = 0.1) -> pa.Table:
    """Secrets of RLHF Part II: the label flip alone."""
    return secrets(frame, flip=flip, smooth=0.0, name="secrets2_flip")


def secrets_smooth(frame: Frame, *, smooth: float = 0.4, smoothing: float = 0.1) -> pa.Table:
    """Secrets of RLHF Part II: label smoothing of the low strengths alone."""
    return secrets(frame, flip=0.0, smooth=smooth, smoothing=smoothing, name="secrets2_smooth")


def secrets_margin(frame: Frame) -> pa.Table:
    """Secrets of RLHF Part II: every label kept, its mean strength as the adaptive margin."""
    return secrets(frame, flip=0.0, smooth=0.0, name="secrets2_margin")


def worst_case(frame: Frame) -> pa.Table:
    """Worst-case optimisation, WCO (Coste et al. 2023, arXiv 2310.02743): the least vote counts.

    The paper takes the least reward of an ensemble. For pairs: kept where the least vote for the
    label is above 0, flipped where the least vote for the other side is, else dropped.
    """
    table = read(frame)
    names = judges_of(table)
    table = table.with_columns(mean=pl.mean_horizontal(names))
    return _by_side(table, pl.min_horizontal(names), -pl.max_horizontal(names), "wco")


def uncertainty_weighted(frame: Frame, *, weight: float = 0.5) -> pa.Table:
    """Uncertainty-weighted optimisation, UWO (Coste et al. 2023, arXiv 2310.02743).

    Mean vote less `weight` times the votes' variance (of the population): kept where that is above
    0 for the label, flipped where it is for the other side, else dropped.
    """
    table = read(frame)
    votes = table.select(judges_of(table)).to_numpy().astype(float)
    count = (~np.isnan(votes)).sum(axis=1)
    mean = np.nansum(votes, axis=1) / np.maximum(count, 1)
    variance = np.nansum((votes - mean[:, None]) ** 2, axis=1) / np.maximum(count, 1)
    table = table.with_columns(
        mean=pl.when(pl.Series(count > 0)).then(pl.Series(mean)),
        variance=pl.Series(variance),
    )
    penalty = weight * pl.col("variance")
    return _by_side(table, pl.col("mean") - penalty, -pl.col("mean") - penalty, "uwo")


def cream(
    frame: Frame,
    *,
    previous: str | None = None,
    current: str | None = None,
    per_prompt: bool = False,
) -> pa.Table:
    """CREAM (Wang et al. 2024, arXiv 2410.12735): targets softened by rank consistency of two rounds.

    `previous` and `current` name the two rounds' columns (the first two judges if not given).
    Kendall's tau of a prompt's two rankings is the mean of the product of the two rounds' signs over
    its pairs; pairs missing from a round, or tied in one, tell nothing and are left out. The
    consistency C = (tau + 1) / 2, averaged over prompts as in the paper (`per_prompt`: each its
    own), weighs the loss of a pair and 1 - C that of the pair turned round: a target of C for the
    side that the current round prefers. A pair without a current vote, or of a prompt without C, is
    dropped.
    """
    table = read(frame)
    names = judges_of(table, at_least=2)
    old, new = previous or names[0], current or names[1]
    judges_of(table, [old, new])
    agrees = pl.col(old).sign() * pl.col(new).sign()
    rates = (
        table.filter(agrees != 0)
        .group_by("prompt_id")
        .agg(consistency=(agrees.mean() + 1) / 2)
        .sort("prompt_id")
    )
    if per_prompt:
        table = table.join(rates, on="prompt_id", how="left", maintain_order="left")
    else:
        table = table.with_columns(consistency=pl.lit(rates["consistency"].mean(), pl.Float64))
    table = table.with_columns(mean=pl.col(new))
    rate = pl.col("consistency")
    cases = [
        (pl.col(new).is_null() | (pl.col(new) == 0) | rate.is_null(), "drop", "no_round", None),
        (pl.col(new) < 0, "flip", "current_round_disagrees", rate),
    ]
    return decisions(table, cases, ("soften", "current_round_agrees", rate), "cream", VERSION)


def scir(frame: Frame, *, judges: Sequence[str] | None = None) -> pa.Table:
    """SCIR (Zhou et al. 2025, arXiv 2502.08922): only pairs whose internal reward models agree.

    The paper's are the model as a judge and its implicit reward; here all judges, or those named.
    A pair is kept or flipped to the side that every one of them takes; one that is missing, tied or
    on the other side drops it.
    """
    table = read(frame)
    names = judges_of(table, judges)
    table = table.with_columns(mean=pl.mean_horizontal(names))
    cases = [
        (pl.all_horizontal((pl.col(n) > 0).fill_null(False) for n in names), "keep", "agree", 1.0),
        (pl.all_horizontal((pl.col(n) < 0).fill_null(False) for n in names), "flip", "agree", 1.0),
    ]
    return decisions(table, cases, ("drop", "inconsistent", None), "scir", VERSION)


def dual_model(frame: Frame, *, judges: Sequence[str] | None = None) -> pa.Table:
    """Dual-model agreement: keep what two models both side with, drop the rest; nothing is flipped.

    Two models that review each other's data are the idea of collaborative reward modelling (Zhang
    et al. 2025, arXiv 2505.10597), which ranks by the other's margin instead. The first two
    judges, or those named.
    """
    table = read(frame)
    names = judges_of(table, judges, at_least=2)[:2]
    table = table.with_columns(mean=pl.mean_horizontal(names))
    both = pl.all_horizontal((pl.col(n) > 0).fill_null(False) for n in names)
    cases = [(both, "keep", "both_agree", 1.0)]
    return decisions(table, cases, ("drop", "not_both_agree", None), "dual_model", VERSION)


def skywork(frame: Frame, *, gold: str | None = None, best: str | None = None) -> pa.Table:
    """Skywork-Reward-V2, second stage (Liu et al. 2025, arXiv 2507.01352): consistency with gold.

    Kept: the model trained on human-verified pairs (`gold`, the first judge) sides with the label,
    and so does the best model so far (`best`, the second) or the mean of the other judges. Flipped,
    the recycling: all that voted, gold among them, are against it. Else dropped. Its first stage is
    `retrieved`.
    """
    table = read(frame)
    names = judges_of(table, at_least=2)
    first, second = gold or names[0], best or names[1]
    judges_of(table, [first, second])
    others = [n for n in names if n not in (first, second)]
    rest = pl.mean_horizontal(others) if others else pl.lit(None, pl.Float64)
    table = table.with_columns(mean=pl.mean_horizontal(names), rest=rest)
    backed = (pl.col(second) > 0).fill_null(False) | (pl.col("rest") > 0).fill_null(False)
    opposed = (pl.col(second) < 0).fill_null(True) & (pl.col("rest") < 0).fill_null(True)
    someone = pl.col(second).is_not_null() | pl.col("rest").is_not_null()
    cases = [
        (pl.col(first).is_null(), "drop", "no_gold_vote", None),
        ((pl.col(first) > 0) & backed, "keep", "gold_and_another_agree", 1.0),
        ((pl.col(first) < 0) & opposed & someone, "flip", "recycled", 1.0),
    ]
    return decisions(table, cases, ("drop", "inconsistent", None), "skywork2", VERSION)


def neighbours_wanted(p: float, most: int = 8) -> int:
    """Neighbours to retrieve of a verified pair whose label the model gives probability p.

    Skywork-Reward-V2's first stage: all of `most` where the model errs (p <= 1/2), else
    ceil(most (1 - p)).
    """
    return most if p <= 0.5 else math.ceil(round(most * (1 - p), 9))


def retrieved(
    verified: npt.NDArray[np.float32],
    probabilities: Sequence[float],
    pool: npt.NDArray[np.float32],
    *,
    most: int = 8,
) -> list[list[int]]:
    """Rows of `pool` [m, d] to label next for each verified pair [n, d], the nearest first.

    Error-adaptive retrieval: `neighbours_wanted` of each, by cosine; ties to the lower row.
    """
    if not len(pool):
        return [[] for _ in probabilities]
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (verified, pool)
    ]
    found = []
    for row, p in zip(unit[0], probabilities, strict=True):
        wanted = min(neighbours_wanted(p, most), len(pool))
        likeness = unit[1] @ row
        least = np.partition(likeness, -wanted)[-wanted] if wanted else np.inf
        near = np.flatnonzero(likeness >= least)
        near = near[np.argsort(-likeness[near], kind="stable")][:wanted]
        found.append([int(i) for i in near])
    return found


def fifa(
    frame: Frame,
    *,
    embeddings: npt.NDArray[np.float32] | None = None,
    share: float = 0.5,
    quality_weight: float = 0.5,
    diversity_weight: float = 0.5,
    neighbour: int = 5,
) -> pa.Table:
    """FiFA (Yang et al. 2024, arXiv 2410.10166): margin, text quality and diversity together.

    Importance = margin (mean vote for the label) + weighted quality (column `quality`, an LLM's
    score of the prompt) + weighted log distance to the k-th nearest prompt embedding [n, d], the
    k-nearest-neighbour estimate of entropy; the `share` of most importance is kept. Each part is
    brought to a mean of 0 and a deviation of 1 first, as judges' scales differ; the weights are
    ours. Parts not given count 0.
    """
    table = read(frame)
    table = table.with_columns(mean=pl.mean_horizontal(judges_of(table)))
    importance = _standard(table["mean"].to_numpy().astype(float))
    if "quality" in table.columns:
        quality = table["quality"].to_numpy().astype(float)
        importance = importance + quality_weight * _standard(quality)
    if embeddings is not None:
        importance = importance + diversity_weight * _standard(_rarity(embeddings, neighbour))
    table = table.with_columns(importance=pl.Series(importance, strict=False).fill_nan(None))
    place = pl.col("importance").rank("max", descending=True) / pl.col("importance").count()
    cases = [
        (pl.col("importance").is_null(), "drop", "no_votes", None),
        (place <= share, "keep", "important", 1.0),
    ]
    return decisions(table, cases, ("drop", "less_important", None), "fifa", VERSION)


def _standard(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if np.isnan(values).all():
        return values
    deviation = np.nanstd(values)
    return (values - np.nanmean(values)) / (deviation if deviation > 0 else 1.0)


def _rarity(embeddings: npt.NDArray[np.float32], neighbour: int) -> npt.NDArray[np.float64]:
    """Log distance of each row to its k-th nearest other row, in blocks of rows."""
    x = embeddings.astype(np.float64)
    k = min(neighbour, len(x) - 1)
    if k < 1:
        return np.zeros(len(x))
    squares = (x**2).sum(axis=1)
    far = []
    for low in range(0, len(x), 1024):
        rows = slice(low, low + 1024)
        distance = squares[rows, None] + squares[None] - 2 * x[rows] @ x.T
        far.append(np.partition(distance, k, axis=1)[:, k])  # the nearest is the row itself
    return np.asarray(0.5 * np.log(np.maximum(np.concatenate(far), 1e-12)))


def _by_side(table: pl.DataFrame, label: pl.Expr, other: pl.Expr, name: str) -> pa.Table:
    cases = [
        (pl.col("mean").is_null(), "drop", "no_votes", None),
        (label > 0, "keep", "surely_agree", 1.0),
        (other > 0, "flip", "surely_disagree", 1.0),
    ]
    return decisions(table, cases, ("drop", "unsure", None), name, VERSION)


PRESETS: dict[str, Callable[..., pa.Table]] = {
    "secrets2": secrets,
    "secrets2_flip": secrets_flip,
    "secrets2_smooth": secrets_smooth,
    "secrets2_margin": secrets_margin,
    "wco": worst_case,
    "uwo": uncertainty_weighted,
    "cream": cream,
    "scir": scir,
    "dual_model": dual_model,
    "skywork2": skywork,
    "fifa": fifa,
    "prof": prof,
    "pf_ppo": pf_ppo,
}
"""The filters by name. `prof` and `pf_ppo` take a row a response: see them."""
