"""Audit preference data: how likely each label is right, and what else is wrong. No server, no GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.audit import cases as case_module
from pipelines.audit import duplicates, figures, findings, judges, vectors
from pipelines.audit.cases import Cases
from pipelines.audit.config import AuditConfig as AuditConfig
from pipelines.audit.read import Pairs, read
from pipelines.consistency.calibration_models import sigmoid
from pipelines.embedding import EmbedConfig, Embedder
from schemas.errors import UserError
from schemas.record import digest

NAME = "audit"
VERSION = 1

Stage = Callable[[str, int], AbstractContextManager[Callable[[int, int], None]]]
"""Shows a step of so many items; what it yields is called with items done."""
Embed = Callable[[list[str]], np.ndarray]
REASONS = {
    "contradiction": "another row says the opposite of the same pair",
    "near_contradiction": "another row says the opposite of nearly the same pair",
    "cycle": "its label is part of a cycle of preferences",
    "duplicate": "an earlier row of the split says the same of the same pair",
    "near_duplicate": "an earlier row of the split says the same of nearly the same pair",
    "leak": "another split holds the pair, or nearly",
    "prompt_leak": "another split holds the prompt, or nearly",
}
"""What a row's reasons mean."""
AGAINST = -0.3
"""Log-odds from which a judge is named as one against the label."""


@dataclass(frozen=True)
class Audit:
    """What was found."""

    pairs: Pairs
    cases: Cases
    judged: judges.Judged
    rows: findings.Rows
    biases: list[findings.Bias]
    """The first is of the length."""
    probability: np.ndarray
    """P(the row's label is right), shape [n]."""
    decisions: list[str]
    """keep, drop, flip or soften, for each pair."""
    reasons: list[list[str]]
    telling: list[list[str]]
    """Of each case: figures in words that speak most against its label."""
    folds_by_pair: bool
    """Whether there were too few prompts to keep apart."""


def no_stage(name: str, total: int) -> AbstractContextManager[Callable[[int, int], None]]:
    """A `Stage` that shows nothing."""
    return nullcontext(lambda rows, tokens: None)


def audit(
    config: AuditConfig, work: Path, stage: Stage = no_stage, embed: tuple[str, Embed] | None = None
) -> Audit:
    """Read, embed, judge and decide.

    Args:
        config: What is audited.
        work: Folder of the chunks that a stopped audit goes on from.
        stage: Shows how far it is.
        embed: Identity and function of another embedder; none: `config.model`.

    Raises UserError (one line) for data that cannot be used and MissingExtra without `embed`.
    """
    if embed is None:
        model = Embedder(EmbedConfig(model=config.model, batch=config.batch))
        embed = model.identity, model
    with stage("read", 0) as advance:
        pairs = read(config, lambda done: advance(done, 0))
    if config.action == "flip" and pairs.rated:
        raise UserError("ratings have no side to flip; use --action drop, soften or report")
    if pairs.rated and (config.judges or config.human):
        raise UserError("columns of judges and people are read beside pairs, not beside ratings")
    same = duplicates.exact(pairs.texts)
    with stage("near-duplicates", len(pairs.texts)) as advance:
        near = duplicates.near(pairs.texts, lambda done: advance(done, 0))
    found = case_module.cases(pairs, same)
    empty = np.array([not text.strip() for text in pairs.texts])
    group = case_module.groups(found, empty, near)
    material, sides = _material(config, pairs, found, group, work, stage, embed)
    with stage("judges", judges.STEPS) as advance:
        judged = judges.judge(found, material, config.seed, lambda done: advance(done, 0))
    rows = findings.rows(pairs, found, near, empty)
    probability = sigmoid(judged.log_odds[found.case] * found.sign)
    decisions = _decide(config, rows, found, probability)
    names = ("characters", *(n for n in figures.NAMES if n != "characters"))
    biases = []
    for name in names:
        at = figures.NAMES.index(name)
        biases.append(findings.bias(name, sides[0][:, at], sides[1][:, at], group, config.seed))
    return Audit(
        pairs=pairs,
        cases=found,
        judged=judged,
        rows=rows,
        biases=[biases[0], *(b for b in biases[1:] if b.differ)],
        probability=probability,
        decisions=decisions,
        reasons=_reasons(judged, rows, found, probability),
        telling=_telling(judged, sides),
        folds_by_pair=int(group.max()) + 1 < config.folds,
    )


def _material(
    config: AuditConfig,
    pairs: Pairs,
    found: Cases,
    group: np.ndarray,
    work: Path,
    stage: Stage,
    embed: tuple[str, Embed],
) -> tuple[judges.Material, tuple[np.ndarray, np.ndarray]]:
    """What the judges see, and the figures of chosen and rejected, [m, figures] each."""
    sides = np.stack([np.r_[found.prompt, found.prompt], np.r_[found.chosen, found.rejected]], 1)
    single, at = np.unique(sides, axis=0, return_inverse=True)
    left, right = at.ravel()[: len(found.prompt)], at.ravel()[len(found.prompt) :]
    texts = [pairs.texts[code] for code in single[:, 1]]
    asked = [pairs.texts[code] for code in single[:, 0]]
    needed = np.unique(np.r_[found.ask, found.chosen, found.rejected])
    identity, make = embed
    with stage("embed", len({pairs.texts[code][: vectors.READ] for code in needed})) as advance:
        embedded = vectors.embed(
            [pairs.texts[code] for code in needed],
            digest("vectors", identity),
            make,
            work,
            lambda done: advance(done, 0),
        )
    place = np.zeros(len(pairs.texts), np.int64)
    place[needed] = np.arange(len(needed))
    with stage("measure", len(texts)) as advance:
        joined = [f"{len(a)}\n{a}{t}" for a, t in zip(asked, texts, strict=True)]
        measured = vectors.chunked(
            joined,
            digest("figures", VERSION, list(figures.NAMES)),
            lambda part, start: figures.figures(
                asked[start : start + len(part)], texts[start : start + len(part)]
            ),
            work,
            lambda done: advance(done, 0),
        ).astype(np.float64)
    with stage("words", len(texts)) as advance:
        words = figures.words(texts, lambda done: advance(done, 0))
    v = [embedded[place[codes]] for codes in (found.ask, found.chosen, found.rejected)]
    views = {
        "meaning": figures.meanings(*v),
        "code": figures.differences(measured[left], measured[right]),
        "words": (words[left] - words[right]).tocsr(),
    }
    size = len(group)
    used = np.ones(size, bool)
    if size > config.fit_pairs:
        rank = np.random.default_rng([config.seed, 3]).random(int(group.max()) + 1)[group]
        used = rank <= np.quantile(rank, config.fit_pairs / size)
    fold = case_module.folds(group, config.folds, config.seed)
    material = judges.Material(views, v[1] - v[2], group, fold, used)
    return material, (measured[left], measured[right])


def _decide(
    config: AuditConfig, rows: findings.Rows, found: Cases, probability: np.ndarray
) -> list[str]:
    """What becomes of each pair: by its probability, never by its rank."""
    wrong = probability < 0.5
    if config.action == "soften":
        return ["soften"] * len(probability)
    if config.action == "flip":
        return np.where(wrong, "flip", "keep").tolist()  # type: ignore[no-any-return]
    # Of rows that say the opposite of each other one side at most is kept; of copies the first.
    even = (found.label[found.case] == 0) & (np.abs(probability - 0.5) < 1e-12)
    return np.where(wrong | rows.duplicate | even, "drop", "keep").tolist()  # type: ignore[no-any-return]


def _reasons(
    judged: judges.Judged, rows: findings.Rows, found: Cases, probability: np.ndarray
) -> list[list[str]]:
    reasons: list[list[str]] = [[] for _ in range(len(probability))]
    for name in REASONS:
        for at in np.flatnonzero(getattr(rows, name)):
            reasons[at].append(name)
    for name, part in judged.evidence.items():
        for at in np.flatnonzero(part[found.case] * found.sign < AGAINST):
            reasons[at].append(f"judge: {name}")
    for at in np.flatnonzero(found.human[found.case] * found.sign < 0):
        reasons[at].append("people")
    for at in np.flatnonzero(probability < 0.5):
        reasons[at].insert(0, "likely_wrong")
    return reasons


def _telling(judged: judges.Judged, sides: tuple[np.ndarray, np.ndarray]) -> list[list[str]]:
    """The two figures that speak most against each case's label, in words, with both sides' values."""
    half = len(figures.NAMES)
    part = judged.code[:, :half]
    order = np.argsort(part, axis=1, kind="stable")[:, :2]
    told = []
    for row, columns in enumerate(order):
        words = []
        for column in columns:
            name = figures.NAMES[column]
            values = [float(side[row, column]) for side in sides]
            if part[row, column] < -0.1:
                if name in figures.COUNTS:
                    values = [float(np.expm1(value)) for value in values]
                shown = " against ".join(f"{value:.2f}".rstrip("0").rstrip(".") for value in values)
                words.append(f"{figures.WORDING[name]}: {shown}")
        told.append(words)
    return told


def table(found: Audit) -> pa.Table:
    """One row a pair, in the order of the files: where it stands and what is believed of it."""
    pairs = found.pairs
    where = np.array(pairs.at, np.int64).reshape(-1, 4)
    columns: dict[str, Any] = {
        "file": [pairs.files[f].name for f in pairs.file],
        "split": [pairs.splits[f] for f in pairs.file],
        "row": where[:, 0],
        "rejected_row": where[:, 2],
        "chosen_place": where[:, 1],
        "rejected_place": where[:, 3],
        "probability": found.probability,
        "decision": found.decisions,
        "reasons": pa.array(found.reasons, pa.list_(pa.string())),
        "same_pair": found.cases.case,
    }
    for name, part in found.judged.evidence.items():
        columns[f"evidence {name}"] = part[found.cases.case] * found.cases.sign + 0.0
    return pa.table(columns)


def summary(found: Audit) -> dict[str, Any]:
    """All counts and figures, JSON-able."""
    n, rate, length = len(found.probability), found.judged.noise, found.biases[0]
    rejects = Counter(reject.code for reject in found.pairs.rejects)
    return {
        "rows": sum(found.pairs.rows),
        "pairs": n,
        "distinct_pairs": len(found.cases.label),
        "splits": dict(Counter(found.pairs.splits[f] for f in found.pairs.file)),
        "rejected_rows": len(found.pairs.rejects),
        "rejects": dict(sorted(rejects.items())),
        "noise": {"rate": rate.rate, "low": rate.low, "high": rate.high, "told": rate.told},
        "likely_wrong": int((found.probability < 0.5).sum()),
        "expected_wrong": float((1 - found.probability).sum()),
        "calibrated": found.judged.calibrated,
        "people": {"pairs": found.judged.people[0], "against": found.judged.people[1]},
        "judges": found.judged.weights,
        "findings": {name: int(getattr(found.rows, name).sum()) for name in REASONS},
        "decisions": dict(sorted(Counter(found.decisions).items())),
        "length": {
            "longer_chosen": length.share,
            "low": length.low,
            "high": length.high,
            "predicts": max(length.share, 1 - length.share),
            "differ": length.differ,
        },
        "folds_by_pair": found.folds_by_pair,
    }
