"""Hard rules mined by code: do they tell right solutions from wrong ones on questions not seen?

GSM8K's published solutions (1,319 questions, four models): a pair is a right and a wrong solution of
one question. Questions are split in halves by the seed; rules are mined and weighted (logistic
regression without intercept over the differences of their verdicts) on one half, and all is measured
on the other. Length alone takes its direction from the first half, too. A tie counts one half.

Two settings: `plain`, the solutions as published; `padded`, as from policies that have learned that
graders like steps: each solution, right or wrong alike, gets none to six lines that say again what
was said. In both, the rule "more steps is better" is planted as a criterion, at the least number of
lines that half of the first half's solutions reach, and judged by its agreement with the held-out
pairs that it separates: kept if the whole 95% interval (bootstrap over questions) is above .5,
flipped if below, else retired.

Figures, by setting: `SETTING_accuracy_rules`, `SETTING_accuracy_length`, `SETTING_rules_less_length`,
`SETTING_agreement_more_steps` and `SETTING_share_more_steps_kept`; chance is .5. Intervals: Student's
t over seeds, whose halves overlap. Tables: each seed's figures with intervals over its held-out
questions, and the first seed's rules with their held-out agreement. The data is not part of the
project; without it nothing is measured.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness import REPO, Result, mean_interval, options, report, say
from pipelines.rubrics.mining import mine_pairs, verify
from schemas.errors import UserError
from schemas.records import Criterion, Message, Pair, Prompt, Response

DATA = REPO.parent / "shared" / "data" / "gsm8k_model_solutions.parquet"
QUICK = 300
"""Questions of a first look."""
MAX_PADDING = 6
DRAWS = 1000
"""Bootstrap samples."""
LEARNING_STRENGTH = 0.1
"""Inverse of the ridge penalty (scikit-learn's C)."""


class Contrast(NamedTuple):
    """A right and a wrong solution of one question."""

    question: int
    prompt: Prompt
    right: Response
    wrong: Response


def load(limit: int | None) -> list[Contrast]:
    """All pairs of a right and a wrong solution. Raises UserError where the data is not there."""
    if not DATA.exists():
        raise UserError("gsm8k_model_solutions.parquet is not in the shared data of this checkout")
    by_question: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in pq.read_table(DATA).to_pylist():
        by_question[row["question_id"]].append(row)
    contrasts = []
    for question in sorted(by_question)[:limit]:
        rows = by_question[question]
        text = rows[0]["question"]
        messages = (Message(role="user", content=text),)
        prompt = Prompt(messages=messages, task="math", source="gsm8k_model_solutions")
        made = [(_response(prompt, i, row), row["is_correct"]) for i, row in enumerate(rows)]
        right, wrong = ([r for r, fine in made if fine is side] for side in (True, False))
        contrasts += [Contrast(question, prompt, a, b) for a, b in product(right, wrong)]
    return contrasts


def _response(prompt: Prompt, index: int, row: dict[str, Any]) -> Response:
    return Response(
        prompt_id=prompt.id,
        engine="published",
        model=row["model"],
        sample_index=index,
        text=row["solution"],
        prompt_tokens=0,
        completion_tokens=0,
        finish_reason="stop",
    )


def padded(contrasts: Sequence[Contrast], seed: int) -> list[Contrast]:
    """The same pairs; each solution says again, before its answer, some lines that it has said."""
    changed: dict[str, Response] = {}
    for contrast in contrasts:
        for response in (contrast.right, contrast.wrong):
            if response.id not in changed:
                draw = random.Random(f"{seed} {response.id}")
                *steps, answer = response.text.strip().split("\n")
                said = [f"So, as we saw, {s}" for s in steps] or ["So we go on."]
                more = [draw.choice(said) for _ in range(draw.randint(0, MAX_PADDING))]
                text = "\n".join([*steps, *more, answer])
                changed[response.id] = response.model_copy(update={"text": text})
    return [c._replace(right=changed[c.right.id], wrong=changed[c.wrong.id]) for c in contrasts]


def verdicts(rules: Sequence[Criterion], contrasts: Sequence[Contrast]) -> np.ndarray:
    """Verdict on the right less that on the wrong solution, -1, 0 or 1; pairs x rules."""
    known: dict[str, np.ndarray] = {}

    def of(prompt: Prompt, response: Response) -> np.ndarray:
        if response.id not in known:
            said = [verify(rule.verifier or "", prompt, response.text) for rule in rules]
            known[response.id] = np.array([np.nan if v is None else float(v) for v in said])
        return known[response.id]

    gaps = [of(c.prompt, c.right) - of(c.prompt, c.wrong) for c in contrasts]
    return np.asarray(np.nan_to_num(np.array(gaps)))


def weights(gaps: np.ndarray) -> np.ndarray:
    """Logistic regression without intercept: each pair is seen from both of its sides."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=LEARNING_STRENGTH, fit_intercept=False, max_iter=1000)
    model.fit(np.concatenate([gaps, -gaps]), np.repeat([1, 0], len(gaps)))
    return np.asarray(model.coef_[0])


def wins(scores: np.ndarray) -> np.ndarray:
    """1 where the right solution scores higher, 0 where lower, one half for a tie."""
    # What differs by rounding alone is a tie.
    return (np.sign(np.round(scores, 9)) + 1) / 2


def interval(values: np.ndarray, questions: np.ndarray, seed: int) -> tuple[float, float] | None:
    """95% interval of the mean by a bootstrap over questions."""
    if not len(values):
        return None
    _, group = np.unique(questions, return_inverse=True)
    sums, counts = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (DRAWS, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def agreement(gaps: np.ndarray, questions: np.ndarray, seed: int) -> dict[str, Any]:
    """A rule's worth on held-out pairs: of those that it separates, the share that it gets right."""
    apart = gaps != 0
    share = (gaps[apart] > 0).astype(float)
    inside = interval(share, questions[apart], seed)
    action = "retire"
    if inside is not None and (inside[0] > 0.5 or inside[1] < 0.5):
        action = "keep" if inside[0] > 0.5 else "flip"
    return {
        "separates": int(apart.sum()),
        "agreement": float(share.mean()) if len(share) else None,
        "interval": inside,
        "action": action,
    }


def more_steps(contrasts: Sequence[Contrast]) -> Criterion:
    """The planted rule: as many lines as half of the solutions have."""
    texts = {r.id: r.text for c in contrasts for r in (c.right, c.wrong)}
    least = int(np.median([text.count("\n") + 1 for text in texts.values()]))
    return Criterion(
        kind="hard_rule",
        text="More steps is better.",
        verifier=f'feature {{"least": {least}, "name": "lines"}}',
    )


def run(contrasts: Sequence[Contrast], seed: int) -> dict[str, Any]:
    """One split: mine and weigh on a half of the questions, measure on the other."""
    questions = sorted({c.question for c in contrasts})
    random.Random(f"split {seed}").shuffle(questions)
    seen = set(questions[: len(questions) // 2])
    train = [c for c in contrasts if c.question in seen]
    held = [c for c in contrasts if c.question not in seen]
    pairs = [
        Pair(prompt_id=c.prompt.id, response_a=c.right.id, response_b=c.wrong.id, label="a")
        for c in train
    ]
    responses = {r.id: r for c in train for r in (c.right, c.wrong)}
    prompts = {c.prompt.id: c.prompt for c in train}
    rules = mine_pairs(prompts.values(), responses.values(), pairs, seed)
    fitted = weights(verdicts(rules, train))
    gaps = verdicts(rules, held)
    groups = np.array([c.question for c in held])
    told = wins(gaps @ fitted)
    longer = _length_gaps(train)
    direction = 1.0 if longer.mean() > 0 else -1.0
    by_length = wins(_length_gaps(held) * direction)
    planted = agreement(verdicts([more_steps(train)], held)[:, 0], groups, seed)
    found: dict[str, Any] = {
        "train_pairs": len(train),
        "held_pairs": len(held),
        "held_questions": len(set(groups.tolist())),
        "rules": len(rules),
        "accuracy_rules": float(told.mean()),
        "accuracy_length": float(by_length.mean()),
        "rules_less_length": float((told - by_length).mean()),
        "more_steps": planted,
        "intervals": {
            "accuracy_rules": interval(told, groups, seed),
            "accuracy_length": interval(by_length, groups, seed),
            "rules_less_length": interval(told - by_length, groups, seed),
        },
        "by_rule": [
            {
                "text": rule.text,
                "verifier": rule.verifier,
                "weight": float(fitted[i]),
                **agreement(gaps[:, i], groups, seed),
            }
            for i, rule in enumerate(rules)
        ],
    }
    return found


def _length_gaps(contrasts: Sequence[Contrast]) -> np.ndarray:
    gaps = [len(c.right.text) - len(c.wrong.text) for c in contrasts]
    return np.asarray(np.sign(np.array(gaps, float)))


MEASURES = ("accuracy_rules", "accuracy_length", "rules_less_length")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and print."""
    chosen = options(__doc__ or "", seeds=5, argv=argv)
    seeds = list(range(chosen.seeds))
    result = Result("mined_rules", seeds)
    try:
        plain = load(QUICK if chosen.quick else None)
    except UserError as error:
        raise SystemExit(str(error)) from None
    for setting in ("plain", "padded"):
        runs = []
        for seed in seeds:
            runs.append(run(plain if setting == "plain" else padded(plain, seed), seed))
            say(f"{setting}, seed {seed}: " + ", ".join(f"{m} {runs[-1][m]:.3f}" for m in MEASURES))
        values = {measure: [r[measure] for r in runs] for measure in MEASURES}
        steps = [r["more_steps"] for r in runs]
        # A rule that separates no pair says as much as chance.
        values["agreement_more_steps"] = [
            0.5 if s["agreement"] is None else s["agreement"] for s in steps
        ]
        for measure, of_seeds in values.items():
            mean, around = mean_interval(of_seeds)
            result.figures[f"{setting}_{measure}"] = mean
            if around is not None:
                result.intervals[f"{setting}_{measure}"] = around
        kept = sum(s["action"] == "keep" for s in steps) / len(steps)
        result.figures[f"{setting}_share_more_steps_kept"] = kept
        result.tables[setting] = [
            {key: value for key, value in r.items() if key != "by_rule"} for r in runs
        ]
        result.tables[f"{setting}_rules"] = runs[0]["by_rule"]
    return report(result, chosen)


if __name__ == "__main__":
    main()
