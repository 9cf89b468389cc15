"""Tests reward models: on pairs, as pickers of the best of n, on first errors, on calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pyarrow as pa
from annotated_types import Ge, Gt, Lt, MinLen

from pipelines.config import Advance, Config, silent
from pipelines.evaluation import metrics
from pipelines.evaluation.metrics import Floats, ReliabilityBin
from pipelines.evaluation.scores import Samples, both_sides, combination, sample_scores, scorable
from pipelines.process.splitting import Splitter
from schemas.errors import UserError
from schemas.record import digest
from schemas.records import Message, Preference

if TYPE_CHECKING:
    from pipelines.training.scoring import RewardModel, StepModel, Stepped

HEADLINE_N = 8


class EvaluateConfig(Config):
    """What is computed."""

    n: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (1, 2, 4, 8, 16)
    """Best of how many; those that a prompt has too few samples for are left out."""
    step_aggregate: Literal["min", "last", "product"] = "min"
    """A response's score from its steps' probabilities: the least, the last, or their product."""
    splitter: Splitter = "lines"
    """How sampled responses are split into steps; take the one the step labels were made with."""
    bootstrap: Annotated[int, Ge(1)] = 1000
    """Bootstrap draws behind each interval; prompts are drawn, with all their rows."""
    level: Annotated[float, Gt(0), Lt(1)] = 0.95
    """Coverage of the intervals."""


@dataclass(frozen=True)
class GoldSteps:
    """A response whose true first error is known."""

    messages: tuple[Message, ...]
    """Messages of the prompt."""
    completions: tuple[str, ...]
    """The steps, each with the separator that follows it: joined they are the response."""
    first_error: int | None
    """Index of the first unsound step; none: every step is sound."""


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy of the best of n by one model."""

    n: int
    """How many samples are picked from."""
    model: str
    """`reward`, `steps`, `combined` or `oracle`."""
    accuracy: float
    """Expected share of right picks."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""


@dataclass(frozen=True)
class Evaluation:
    """Figures by name, their bootstrap intervals, and the rows of two charts."""

    figures: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()


def evaluate(
    config: EvaluateConfig,
    reward: Path | None,
    steps: Path | None,
    preferences_test: pa.Table,
    samples: Samples,
    gold_steps: Sequence[GoldSteps],
    seed: int,
    validation: pa.Table | None = None,
    advance: Advance = silent,
) -> Evaluation:
    """Test a reward model, a step model, or both (folders as training wrote them).

    Pairs (with `reward`): `pair_accuracy`, ties half; `ece_pairs` and `brier_pairs`, of the
    confidence s(|r_chosen - r_rejected|) that the higher one is better.

    Best of n: `policy_accuracy` is the mean truth of a sample, `best_of_8_reward`, `best_of_8_steps`
    the two models', `best_of_8_accuracy` that of both together (weighed by a logistic regression with
    weights of 0 or more on the `validation` preferences; without those the mean of z-scores within
    the prompt; one model alone if one is given), `best_of_8_likelihood` that of the policy's own
    log-probability, where the samples have one, `oracle_best_of_8` that of perfect choice; missing
    where a prompt has fewer than 8 samples. A sample whose truth is None counts as not right; there are
    `samples_unverified` of them. A sample that the splitter finds no step in has step score 0.

    Steps (with `steps`): `first_error_f1` (ProcessBench). Prompts fall into two halves by hash; the
    threshold for each half is chosen on the other, so no solution is judged by a threshold that saw
    it; `first_error_threshold` is the one chosen on all, for use. Baselines: `first_error_f1_chance`
    names one of the steps or "no error" at random; `first_error_f1_last_step` is told whether there
    is an error and always names the last step. `ece`, `brier`: the steps' probabilities against
    soundness (no error up to here).

    What a model cannot score (too long above all) is left out and counted: `pairs_unscored`,
    `prompts_unscored` (the prompt with all its samples), `solutions_unscored`. Counts: `pairs`, `prompts`,
    `prompts_without_samples`, `samples`,
    `solutions`, `steps`. Raises UserError where nothing can be computed for a part asked for.
    """
    if reward is None and steps is None:
        raise UserError("nothing to evaluate: give a reward model, a step model, or both")
    from pipelines.training.scoring import RewardModel, StepModel

    test = _Test(config, seed, advance)
    reward_model = RewardModel.load(reward) if reward is not None else None
    step_model = StepModel.load(steps) if steps is not None else None
    if reward_model is not None and len(preferences_test):
        test.pairs(reward_model, preferences_test)
    if samples:
        weights = None
        if reward_model is not None and step_model is not None and validation is not None:
            weights = combination(config, reward_model, step_model, validation)
            test.figures |= {f"weight_{name}": w for name, w in (weights or {}).items()}
        test.best_of_n(reward_model, step_model, samples, weights)
    if step_model is not None and gold_steps:
        test.steps(step_model, gold_steps)
    return Evaluation(test.figures, test.intervals, tuple(test.curve), test.reliability)


class _Test:
    """Figures as they come together."""

    def __init__(self, config: EvaluateConfig, seed: int, advance: Advance) -> None:
        self.config = config
        self.seed = seed
        self.advance = advance
        self.figures: dict[str, float] = {}
        self.intervals: dict[str, tuple[float, float]] = {}
        self.curve: list[CurvePoint] = []
        self.reliability: tuple[ReliabilityBin, ...] = ()

    def interval(
        self, statistic: metrics.Statistic, clusters: Sequence[str]
    ) -> tuple[float, float]:
        draws, level = self.config.bootstrap, self.config.level
        return metrics.interval(statistic, clusters, draws, self.seed, level)

    def figure(self, name: str, statistic: metrics.Statistic, clusters: Sequence[str]) -> None:
        self.figures[name] = statistic(np.ones(len(clusters)))
        self.intervals[name] = self.interval(statistic, clusters)

    def pairs(self, model: RewardModel, table: pa.Table) -> None:
        rows = list(Preference.from_table(table))
        chosen, rejected = both_sides(rows)
        fits = scorable(model, chosen) & scorable(model, rejected)
        kept = np.flatnonzero(fits)
        self.figures |= {"pairs": float(len(kept)), "pairs_unscored": float(len(rows) - len(kept))}
        if not len(kept):
            raise UserError("the reward model can score no test pair; see its context length")
        better = model.score([chosen[i] for i in kept])
        worse = model.score([rejected[i] for i in kept])
        self.advance(len(kept), 0)
        clusters = [rows[i].prompt_id for i in kept]
        hits = metrics.pair_hits(better, worse)
        confidence = 1.0 / (1.0 + np.exp(-np.abs(better - worse)))
        bins = metrics.mass_bins(confidence)
        self.figure("pair_accuracy", lambda w: metrics.mean(hits, w), clusters)
        self.figure("brier_pairs", lambda w: metrics.brier(confidence, hits, w), clusters)
        self.figure(
            "ece_pairs", lambda w: metrics.calibration_error(confidence, hits, bins, w), clusters
        )

    def best_of_n(
        self,
        reward: RewardModel | None,
        steps: StepModel | None,
        samples: Samples,
        weights: Mapping[str, float] | None,
    ) -> None:
        scores = sample_scores(self.config, reward, steps, samples, weights)
        kept = [i for i, s in enumerate(scores) if s is not None and samples[i][1]]
        found = [s for i, s in enumerate(scores) if s is not None and samples[i][1]]
        if not found:
            raise UserError("the models can score no prompt's samples; see their context length")
        truths = [[float(right is True) for _, right in samples[i][1]] for i in kept]
        unverified = sum(right is None for i in kept for _, right in samples[i][1])
        self.figures |= {
            "prompts": float(len(kept)),
            "prompts_unscored": float(sum(s is None for s in scores)),
            "prompts_without_samples": float(sum(not rows for _, rows in samples)),
            "samples": float(sum(map(len, truths))),
            "samples_unverified": float(unverified),
        }
        self.advance(sum(map(len, truths)), 0)
        clusters = [samples[i][0].id for i in kept]
        policy = np.asarray([np.mean(t) for t in truths])
        self.figure("policy_accuracy", lambda w: metrics.mean(policy, w), clusters)
        both = reward is not None and steps is not None
        fewest = min(map(len, truths))
        for n in sorted({*self.config.n, HEADLINE_N}):
            if n > fewest:
                continue
            picks = {
                model: [
                    metrics.best_of_n(s[model], t, n) for s, t in zip(found, truths, strict=True)
                ]
                for model in found[0]
            }
            picks["oracle"] = [metrics.oracle_best_of_n(t, n) for t in truths]
            for model, accuracies in picks.items():
                self._point(n, model, np.asarray(accuracies), clusters, both)

    def _point(
        self, n: int, model: str, values: Floats, clusters: Sequence[str], both: bool
    ) -> None:
        accuracy = metrics.mean(values)
        low, high = self.interval(lambda w: metrics.mean(values, w), clusters)
        # With one model alone, the combination is that model again.
        if n in self.config.n and (model != "combined" or both):
            self.curve.append(CurvePoint(n, model, accuracy, low, high))
        if n == HEADLINE_N:
            names = {"combined": "best_of_8_accuracy", "oracle": "oracle_best_of_8"}
            name = names.get(model, f"best_of_8_{model}")
            self.figures[name], self.intervals[name] = accuracy, (low, high)

    def steps(self, model: StepModel, gold: Sequence[GoldSteps]) -> None:
        items: list[Stepped] = [(g.messages, g.completions) for g in gold]
        kept = np.flatnonzero(scorable(model, items))
        self.figures["solutions"] = float(len(kept))
        self.figures["solutions_unscored"] = float(len(gold) - len(kept))
        gold = [gold[int(i)] for i in kept]
        scores = model.score([items[i] for i in kept])
        self.advance(len(kept), 0)
        firsts = [g.first_error for g in gold]
        clusters = [digest([m.model_dump() for m in g.messages]) for g in gold]
        half = np.asarray([int(digest("threshold", self.seed, c)[0], 16) % 2 for c in clusters])
        erroneous = np.asarray([f is not None for f in firsts], bool)
        for side in (0, 1):
            if not (erroneous & (half == side)).any() or not (~erroneous & (half == side)).any():
                raise UserError(
                    "first-error F1 needs solutions with and without an error in both halves of "
                    f"the prompts; there are {len(set(clusters))} prompts, give more"
                )
        hits = np.zeros(len(gold))
        for side in (0, 1):
            other = np.flatnonzero(half != side)
            threshold = metrics.best_threshold(
                [scores[i] for i in other], [firsts[i] for i in other]
            )
            for i in np.flatnonzero(half == side):
                hits[i] = metrics.first_below(scores[i], threshold) == firsts[i]
        self.figures["first_error_threshold"] = metrics.best_threshold(scores, firsts)
        chance = np.asarray([1.0 / (len(g.completions) + 1) for g in gold])
        last = np.asarray(
            [f is None or f == len(g.completions) - 1 for f, g in zip(firsts, gold, strict=True)]
        )
        for name, values in (
            ("first_error_f1", hits),
            ("first_error_f1_chance", chance),
            ("first_error_f1_last_step", last.astype(np.float64)),
        ):
            self.figure(name, partial(metrics.first_error_f1, values, erroneous), clusters)
        self._calibration(scores, firsts, clusters)

    def _calibration(
        self, scores: list[list[float]], firsts: list[int | None], clusters: list[str]
    ) -> None:
        confidence = np.asarray([p for row in scores for p in row])
        sound = np.asarray(
            [
                f is None or t < f
                for row, f in zip(scores, firsts, strict=True)
                for t in range(len(row))
            ],
            np.float64,
        )
        by_step = [c for row, c in zip(scores, clusters, strict=True) for _ in row]
        bins = metrics.mass_bins(confidence)
        self.figures["steps"] = float(len(confidence))
        self.figure("brier", lambda w: metrics.brier(confidence, sound, w), by_step)
        self.figure("ece", lambda w: metrics.calibration_error(confidence, sound, bins, w), by_step)
        self.reliability = metrics.reliability(confidence, sound, bins)
