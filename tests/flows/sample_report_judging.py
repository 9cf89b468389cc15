"""Judges, rubrics and decisions of the sample run: made up, but every count adds up."""

from __future__ import annotations

from flows.charts import Bin, Histogram
from flows.report_charts import RiskPoint
from flows.report_decisions import Decisions, JudgeWeight, Queued
from flows.report_judges import JudgeFigure, JudgeShown
from flows.report_rubrics import CriterionShown, Fate, RubricShown, RubricsShown
from schemas.record import digest
from schemas.records import Criterion, ErrorBound, Rubric, RubricValue

PAIRS = 1640


def probes(accuracy: float, limit: float) -> tuple[JudgeFigure, ...]:
    return (
        JudgeFigure("usable_share", "votes with a value", 1.0, 0.991, 1.0, 408),
        JudgeFigure("swap_consistency", "does not change sides", 0.871, 0.82, 0.91, 204, 0.8, True),
        JudgeFigure("position_preference", "for what is first", -0.08, -0.15, 0.02, 50),
        JudgeFigure(
            "accuracy",
            "right answers preferred to wrong ones",
            accuracy,
            max(0.0, accuracy - 0.12),
            min(1.0, accuracy + 0.08),
            25,
            limit,
            accuracy >= limit,
        ),
        JudgeFigure("self_preference", "its own model's answers", None, None, None, 0, 0.2, None),
    )


def judges() -> tuple[JudgeShown, ...]:
    own = (
        JudgeFigure("usable_share", "votes with a value", 0.996, 0.99, 0.999, 3280),
        JudgeFigure("length_preference", "for the longer", 0.11, 0.07, 0.15, 1604),
        JudgeFigure("length_bias", "less the labels' share", 0.05, -0.01, 0.11, 1604),
    )
    return (
        JudgeShown(
            "reward-0", "reward model", 1640, 1640, {"for A": 851, "no side": 3, "for B": 786}, 0
        ),
        JudgeShown(
            "judge-strict",
            "pairwise",
            3280,
            3268,
            {"for A": 803, "no side": 22, "position clash": 122, "for B": 688},
            1633,
            probes=probes(0.92, 0.8),
            own=own,
        ),
        JudgeShown(
            "judge-fooled",
            "pointwise",
            0,
            0,
            {},
            0,
            "accuracy 0.480 of 25, at least 0.8",
            probes(0.48, 0.8),
        ),
    )


def value(
    rubric: Rubric, criterion: Criterion | None, gain: float | None, action: str, reason: str
) -> RubricValue:
    return RubricValue(
        rubric_id=rubric.id,
        criterion_id=criterion.id if criterion else None,
        judge="judge-strict",
        pairs=212,
        prompts=117,
        separates=0.61,
        agreement=None if gain is None else min(1.0, 0.5 + gain / 0.61),
        value=gain,
        low=None if gain is None else gain - 0.06,
        high=None if gain is None else gain + 0.06,
        action=action,
        reason=reason,
    )


def rubrics(text: str = "Shows every step that the answer rests on.") -> RubricsShown:
    worth = (
        (text, "principle", 2.0, "keep", 0.21, "keep", "helps"),
        ("Ends with its answer alone.", "hard_rule", 1.0, "keep", 0.09, "keep", "helps"),
        ("Is longer than the other.", "principle", 1.0, "flip", -0.18, "flip", "misleads"),
        ("Names its sources.", "nugget", 1.0, "retire", 0.01, "retire", "no_evidence"),
        ("Names no kangaroo.", "pitfall", 1.0, "retire", None, "retire", "never_separates"),
    )
    made = [
        Criterion(kind=kind, text=said, weight=weight, verifier="length {}" if i == 1 else None)
        for i, (said, kind, weight, *_) in enumerate(worth)
    ]
    rubric = Rubric(criteria=tuple(c.id for c in made), method="contrastive", name="Sums")
    out = Rubric(criteria=(made[4].id,), method="mined", prompt_id=digest("p"))
    shown = tuple(
        CriterionShown(c, fate, value(rubric, c, gain, action, why), 1.4 if i == 0 else None)
        for i, (c, (*_, fate, gain, action, why)) in enumerate(zip(made, worth, strict=True))
    )
    draft: Fate = "retire"
    return RubricsShown(
        rubrics=(
            RubricShown(rubric, shown, value(rubric, None, 0.24, "keep", "helps")),
            RubricShown(out, (CriterionShown(made[4], draft),), None, True),
        ),
        made=31,
        retired=12,
        criteria=240,
        judge="judge-strict",
        tested={"keep: helps": 90, "retire: no_evidence": 110, "flip: misleads": 40},
    )


def bound(reason: str = "holds") -> ErrorBound:
    holds = reason == "holds"
    return ErrorBound(
        slice="all",
        kind="conditional",
        alpha=0.02,
        confidence=0.9,
        threshold=0.93 if holds else None,
        accepted=1180 if holds else 0,
        pairs=PAIRS,
        bound=0.02 if holds else None,
        labels=260,
        prompts=241,
        reason=reason,
    )


def histogram(counts: dict[int, int]) -> Histogram:
    return Histogram(0, 1, tuple(counts.get(i, 0) for i in range(25)))


def decisions() -> Decisions:
    curve = ((0.05, 0, 13), (0.2, 0, 52), (0.4, 1, 104), (0.6, 2, 156), (0.72, 3, 187))
    curve += ((0.8, 7, 208), (0.9, 16, 234), (1.0, 31, 260))
    spans = (0.25, 0.068, 0.052, 0.046, 0.046, 0.068, 0.109, 0.165)
    lows = (0.0, 0.0, 0.0, 0.002, 0.003, 0.014, 0.04, 0.083)
    return Decisions(
        pairs=PAIRS,
        calibrated=PAIRS,
        labelled=260,
        audited=True,
        split=4,
        bins=(Bin(0.08, 1, 12), Bin(0.34, 5, 14), Bin(0.62, 14, 22), Bin(0.95, 203, 212)),
        risk=tuple(
            RiskPoint(x, k / n, low, high, n, 1 - x / 2)
            for (x, k, n), low, high in zip(curve, lows, spans, strict=True)
        ),
        bounds=(bound(),),
        accepted=1171,
        actions={
            "keep": histogram({19: 14, 20: 40, 21: 88, 22: 150, 23: 300, 24: 600}),
            "flip": histogram({0: 22, 1: 12, 2: 7}),
            "soften": histogram({12: 30, 13: 41, 14: 39, 15: 33, 16: 30}),
            "drop": histogram({11: 60, 12: 66}),
            "route": histogram({8: 20, 9: 40, 10: 48}),
        },
        actions_of="probability that the label it came with is right",
        reasons=(("keep", "likely_right", 1192), ("flip", "likely_wrong", 41)),
        judges=(
            JudgeWeight("judge-strict", 1635, 1.31, 1.92, 1.1),
            JudgeWeight("reward-0", 1640, 0.74, 1.2, 1.9),
            JudgeWeight("length", 1640, -0.12, None, None),
        ),
        facts=(("model", "logistic"), ("log loss", "0.1812"), ("candidates: isotonic", "0.1911")),
        queue=(
            Queued("audit", 40, 40, -6.67, 1200.0),
            Queued("value", 210, 260, 31.4, 7800.0),
        ),
        worth_another_round=True,
    )
