"""P(label is right) of every pair, from its judges, its texts and the pairs beside it.

Three layers. The crowd: all pairs that came with a label, right or wrong, teach what the votes say of
a label (a regression of given labels on votes survives random flips), and a one-coin model adds what
the judges say of each other. The neighbourhood: pairs of a prompt share responses, so what the others
say of a pair's two responses is evidence too, its own label and votes left out. The people: few human
labels choose and fit a model over those scores, the features and the votes, and a last correction, by
slice. The models that make a pair's probability were fitted without its prompt; a handful of figures
(scales, the share of wrong labels, the correction) are common to all.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from pipelines.config import Config
from pipelines.consistency import calibration_inputs as inputs
from pipelines.consistency import latent
from pipelines.consistency.calibration_inputs import Parts
from pipelines.consistency.calibration_models import (
    SURE,
    Correction,
    Design,
    Model,
    candidates,
    fit_correction,
    fit_logistic,
    log_loss,
    sigmoid,
)
from pipelines.consistency.features import BARE, SYMMETRIC
from pipelines.consistency.matrix import KEY
from pipelines.consistency.transitivity import others
from schemas.records import Belief
from schemas.table import with_ids

NAME = "calibrate"
VERSION = 1
SLICE_LABELS = 8
"""Human-labelled pairs from which on a slice may have weights of its own."""
MOST_SLICES = 8
"""Slices that may: each adds as many weights as there are votes and features."""


class CalibrateConfig(Config):
    """Settings of the calibration."""

    folds: Annotated[int, Field(ge=2)] = 5
    """Parts of the prompts in cross-fitting."""
    min_given: Annotated[int, Field(ge=1)] = 200
    """Pairs that came with a label from which on those labels teach what votes mean."""
    min_labels: Annotated[int, Field(ge=2)] = 30
    """Human-labelled pairs from which on probabilities are fitted to them."""
    fit_pairs: Annotated[int, Field(ge=100)] = 200_000
    """Pairs that the crowd's layer is fitted on at most: whole prompts, chosen by their hash."""
    shared_responses: bool = True
    """Use what the other pairs of a prompt say of a pair's responses."""
    ridge: Annotated[float, Field(gt=0)] = 10.0
    """Penalty on the crowd's weights of the votes, which are scaled to a root mean square of 1."""


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration: arrays and small models, to be applied to any number of pairs."""

    config: CalibrateConfig
    seed: int
    judges: tuple[str, ...]
    scale: np.ndarray
    """Root mean square of each judge's votes, shape [judges]."""
    names: tuple[str, ...]
    """Names of the features that turn with the pair."""
    feature_scale: np.ndarray
    crowd: np.ndarray
    """Weights of the scaled votes by fold, shape [folds, judges]."""
    consensus: np.ndarray
    """Weights of the votes' signs in the one-coin model, shape [judges]."""
    mixing: np.ndarray
    """Weights of the crowd's score and of what the other pairs say, shape [2]."""
    error: float
    """Estimated share of the given labels that are wrong."""
    worth: float
    """What the crowd's score is worth as log-odds of the truth."""
    whole_worth: float
    """What the mixed score is worth."""
    chosen: Model | None
    """The model over all human labels; none: there were too few."""
    by_fold: tuple[Model, ...]
    correction: Correction | None
    own_slices: tuple[str, ...]
    """Slices with labels enough for weights of their own, the most labelled first."""
    labelled_prompts: dict[str, int]
    """Fold of each prompt with human labels: its pairs are judged by the model that did not see it."""

    def arrays(self, matrix: pa.Table, features: pa.Table) -> Parts:
        """The tables as arrays, on this calibration's scales and folds."""
        return inputs.parts(
            matrix,
            features,
            self.judges,
            self.scale,
            self.names,
            self.feature_scale,
            self.config.folds,
            self.seed,
        )


def calibrate(
    matrix: pa.Table,
    features: pa.Table,
    labels: pa.Table | None,
    slices: pa.Table | None,
    config: CalibrateConfig,
    seed: int,
) -> tuple[pa.Table, dict[str, Any]]:
    """Belief of every pair of the matrix, in its order, and a report.

    Args:
        matrix: As `votes_matrix` gives it.
        features: As `features` gives it, of the same pairs in the same order.
        labels: People's votes: `pair_id`, `value` (above 0: a is better), `annotator`, and `people`
            where a row is what several came to. None: no one was asked: beliefs then rest on agreement alone and say so (`calibrated` is false).
        slices: `pair_id` and `slice`; none: one slice.
        config: Settings.
        seed: Of the folds and the models.

    Returns:
        The `Belief` table, and a report of plain values: the candidates and their cross-validated
        log loss, the judges' weights and redundancy, the estimated error rate of the given labels,
        how many labels and prompts stand behind it.
    """
    calibration, report = fit(matrix, features, labels, slices, config, seed)
    return apply(calibration, matrix, features, labels, slices), report


def fit(
    matrix: pa.Table,
    features: pa.Table,
    labels: pa.Table | None,
    slices: pa.Table | None,
    config: CalibrateConfig,
    seed: int,
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration alone, to be applied shard by shard (a prompt's pairs in one shard)."""
    judges = tuple(name for name in matrix.column_names if name != KEY)
    names = tuple(n for n in features.column_names if n not in (*BARE, *SYMMETRIC))
    empty = Calibration(
        config=config,
        seed=seed,
        judges=judges,
        scale=np.ones(len(judges)),
        names=names,
        feature_scale=np.ones(len(names)),
        crowd=np.zeros((config.folds, len(judges))),
        consensus=np.zeros(len(judges)),
        mixing=np.array([1.0, 0.0]),
        error=0.25,
        worth=1.0,
        whole_worth=1.0,
        chosen=None,
        by_fold=(),
        correction=None,
        own_slices=(),
        labelled_prompts={},
    )
    people = inputs.people(features, labels)
    keep = inputs.sample(features, people, config.fit_pairs)
    part = empty.arrays(matrix.filter(keep), features.filter(keep))
    scaled = replace(
        empty,
        scale=inputs.root_mean_square(part.raw),
        feature_scale=inputs.root_mean_square(part.turning),
    )
    part = scaled.arrays(matrix.filter(keep), features.filter(keep))
    crowd = _fit_crowd(scaled, part)
    report: dict[str, Any] = {
        "pairs": len(matrix),
        "given": int((part.given > 0).sum()),
        "estimated_label_error": crowd.error if (part.given > 0).any() else None,
        "judges": _judges(crowd, part),
    }
    score = people["score"].to_numpy()[np.asarray(keep)]
    known = np.flatnonzero(np.isfinite(score))
    report["labels"] = len(known)
    report["label_prompts"] = int(part.prompt_ids[known].n_unique())
    report["calibrated"] = len(known) >= config.min_labels and report["label_prompts"] >= 2
    if not report["calibrated"]:
        report["model"] = "agreement"
        report["warning"] = (
            f"{len(known)} human-labelled pairs of {report['label_prompts']} prompts "
            f"(at least {config.min_labels} of 2 are needed): probabilities rest on agreement alone "
            "and are not calibrated"
        )
        return crowd, report
    found, told = _fit_people(
        crowd, part, (1 + score) / 2, known, inputs.slice_names(features, slices, keep)
    )
    return found, report | told


def apply(
    calibration: Calibration,
    matrix: pa.Table,
    features: pa.Table,
    labels: pa.Table | None = None,
    slices: pa.Table | None = None,
) -> pa.Table:
    """The `Belief` table of these pairs, in the matrix's order; arguments as of `calibrate`."""
    part = calibration.arrays(matrix, features)
    names = inputs.slice_names(features, slices)
    design, agreed = _design(calibration, part, names)
    log_odds = agreed
    if calibration.chosen is not None and calibration.correction is not None:
        log_odds = calibration.chosen.log_odds(design)
        seen = inputs.folds_of(calibration.labelled_prompts, part.prompt_ids)
        for fold, model in enumerate(calibration.by_fold):
            rows = np.flatnonzero(seen == fold)
            if len(rows):
                log_odds[rows] = model.log_odds(design.at(rows))
        log_odds = calibration.correction.apply(log_odds, part.given, names)
    people = inputs.people(features, labels)
    label = features["label"].to_numpy(zero_copy_only=False)
    proposed = ~np.isin(label, ["a", "b", "tie"])
    turned = proposed & (log_odds < 0)
    sides = np.sign(np.nan_to_num(part.raw))
    count = np.maximum(np.isfinite(part.raw).sum(axis=1), 1)
    human = np.where(turned, -1.0, 1.0) * people["score"].to_numpy()
    table = pa.table(
        {
            "pair_id": features[KEY],
            "label": pa.array(np.where(proposed, np.where(turned, "b", "a"), label), pa.string()),
            # How probable a tie is, votes on sides do not tell.
            "probability": np.where(
                label == "tie", 0.5, sigmoid(np.where(turned, -log_odds, log_odds))
            ),
            "strength": np.where(turned, -1.0, 1.0)
            * np.clip(np.nan_to_num(part.raw), -1, 1).sum(axis=1)
            / count
            + 0.0,
            "judges": np.abs(sides).sum(axis=1).astype(np.int64),
            "slice": pa.array(names, pa.string()),
            "calibrated": np.full(len(label), calibration.chosen is not None),
            "human": pa.array(human + 0.0, mask=~np.isfinite(human)),
            "humans": people["people"].to_numpy(),
        }
    )
    return with_ids(Belief, table)


def _fit_crowd(calibration: Calibration, part: Parts) -> Calibration:
    """What the given labels and the judges' agreement tell, without a human label."""
    config = calibration.config
    coin = latent.one_coin(part.raw)
    found = replace(calibration, consensus=coin.weight)
    given = np.flatnonzero(part.given > 0)
    if len(given) < config.min_given:
        by_fold = np.zeros((config.folds, len(calibration.judges)))
        found = replace(found, crowd=by_fold)
    else:
        # Oriented to the label, every y is 1: without an intercept that is the regression of the
        # label on the votes of either orientation.
        y = np.ones(len(given))
        ridge = np.full(part.votes.shape[1], config.ridge)
        coefs = []
        for fold in range(config.folds):
            rows = part.fold[given] != fold
            coefs.append(fit_logistic(part.votes[given[rows]], y[rows], ridge))
        found = replace(found, crowd=np.stack(coefs))
    score = _score(found, part)[given]
    if len(given) >= 30:
        error, worth = latent.noisy_agreement(score)
        found = replace(found, error=error, worth=worth, whole_worth=worth)
    if not config.shared_responses:
        return found
    around = _around(found, part)[given]
    if len(given) >= config.min_given and around.any():
        pair = np.c_[_score(found, part)[given] * found.worth, around]
        mixing = fit_logistic(pair, np.ones(len(pair)), np.full(2, 1.0))
        _, worth = latent.noisy_agreement(pair @ mixing, found.error)
        found = replace(found, mixing=mixing, whole_worth=worth)
    return found


def _score(calibration: Calibration, part: Parts) -> np.ndarray:
    """The crowd's score, by the fold's own weights; the consensus where no labels were given."""
    if not calibration.crowd.any():
        return np.asarray(latent.sides(part.raw) @ calibration.consensus)
    return np.asarray((part.votes * calibration.crowd[part.fold]).sum(axis=1))


def _around(calibration: Calibration, part: Parts) -> np.ndarray:
    """What the prompt's other pairs say, oriented to the pair's label; shape [n]."""
    if not calibration.config.shared_responses:
        return np.zeros(len(part.given))
    prior = np.log((1 - calibration.error) / calibration.error) * part.given
    own = np.tanh((calibration.worth * _score(calibration, part) + prior) / 2)
    return others(part.prompts, part.first, part.second, own, 1.0)


def _design(calibration: Calibration, part: Parts, names: np.ndarray) -> tuple[Design, np.ndarray]:
    """What the models see, and the log-odds that need no human label."""
    score = np.clip(calibration.worth * _score(calibration, part), -SURE, SURE)
    around = _around(calibration, part)
    consensus = np.clip(latent.sides(part.raw) @ calibration.consensus, -SURE, SURE) / 4
    prior = np.log((1 - calibration.error) / calibration.error)
    mixed = np.c_[score, around] @ calibration.mixing
    agreed = np.clip(calibration.whole_worth * mixed + prior * part.given, -SURE, SURE)
    compact = np.hstack([np.c_[score, around * 4, consensus], part.turning])
    # Judges' agreement alone may well be agreement on something else than the truth.
    trusted = 3 if calibration.crowd.any() else 0
    code = np.full(len(names), -1)
    for at, name in enumerate(calibration.own_slices):
        code[names == name] = at
    return Design(compact, part.votes, part.still, part.given, code, trusted), agreed


def _fit_people(
    calibration: Calibration, part: Parts, y: np.ndarray, known: np.ndarray, slices: np.ndarray
) -> tuple[Calibration, dict[str, Any]]:
    """Choose a model by cross-validation over prompts, fit it, and correct its probabilities."""
    counts = pl.Series(slices[known].astype(str)).value_counts(sort=False)
    counts = counts.filter(pl.col("count") >= SLICE_LABELS).sort(
        "count", counts.columns[0], descending=[True, False]
    )
    own = tuple(counts[counts.columns[0]].to_list()[:MOST_SLICES])
    calibration = replace(calibration, own_slices=own)
    design = _design(calibration, part, slices)[0].at(known)
    target = y[known]
    labelled = inputs.deal(part.prompt_ids[known], calibration.config.folds, calibration.seed)
    folds = inputs.folds_of(labelled, part.prompt_ids[known])
    trials = candidates(len(known), len(own))
    losses, guesses, fitted = [], [], []
    for model in trials:
        guess, models = _cross_fit(model, design, target, folds, calibration)
        losses.append(float(log_loss(guess, target).mean()))
        guesses.append(guess)
        fitted.append(models)
    best = int(np.argmin(losses))
    chosen = trials[best]
    chosen.fit(design, target, calibration.seed)
    correction = fit_correction(guesses[best], design.labelled, target, slices[known])
    corrected = correction.apply(guesses[best], design.labelled, slices[known])
    told = {
        "model": chosen.name,
        "candidates": {m.name: loss for m, loss in zip(trials, losses, strict=True)},
        "log_loss": float(log_loss(corrected, target).mean()),
        "correction": correction.common.tolist(),
        "slices": {name: part.tolist() for name, part in correction.slices.items()},
    }
    return replace(
        calibration,
        chosen=chosen,
        by_fold=tuple(fitted[best]),
        correction=correction,
        labelled_prompts=labelled,
    ), told


def _cross_fit(
    model: Model, design: Design, y: np.ndarray, folds: np.ndarray, calibration: Calibration
) -> tuple[np.ndarray, list[Model]]:
    """Out-of-fold log-odds, shape [n], and the model of each fold."""
    guess = np.zeros(len(y))
    models = []
    for fold in range(calibration.config.folds):
        mine = copy.deepcopy(model)
        inside = np.flatnonzero(folds == fold)
        rest = np.flatnonzero(folds != fold)
        mine.fit(design.at(rest), y[rest], calibration.seed)
        if len(inside):
            guess[inside] = mine.log_odds(design.at(inside))
        models.append(mine)
    return guess, models


def _judges(calibration: Calibration, part: Parts) -> list[dict[str, Any]]:
    """Each judge's weight and redundancy."""
    copies = latent.redundancy(part.raw)
    weights = calibration.crowd.mean(axis=0)
    return [
        {
            "judge": name,
            "votes": int(np.isfinite(part.raw[:, at]).sum()),
            "weight": float(weights[at]),
            "agreement_weight": float(calibration.consensus[at]),
            "redundancy": float(copies[at]),
        }
        for at, name in enumerate(calibration.judges)
    ]
