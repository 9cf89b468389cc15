"""The learning half of a run: train on the emitted dataset, test on fresh prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from flows.jobs import generate_responses, ingest_prompts, verify_responses
from flows.runner import Run, Step, digests, settings, stage, whole
from pipelines.config import Advance, silent
from pipelines.durable import explained
from pipelines.engines.folder import folder_digest
from pipelines.evaluation.evaluate import EvaluateConfig, Evaluation, GoldSteps, evaluate
from pipelines.evaluation.scores import Samples
from pipelines.process.splitting import Splitter, completions
from pipelines.store import Draft, Output, Published
from pipelines.training.config import RewardConfig, StepsConfig, model_folder
from schemas.errors import UserError
from schemas.record import Record, digest
from schemas.records import (
    CurvePoint,
    Figure,
    Preference,
    Prompt,
    Reject,
    ReliabilityBin,
    Response,
    StepExample,
)
from schemas.table import adapt

TRAIN_VERSION = 2
EVALUATE_VERSION = 1


def read_split(folder: Path, record: type[Record], split: str) -> pa.Table:
    """One split of an emitted dataset; a split that was left out has no rows."""
    name = "preference" if record is Preference else "steps"
    path = folder / name / f"{split}.parquet"
    if not (folder / "README.md").exists():
        raise UserError(f"{folder}: not an emitted dataset (no README.md); name its folder")
    if not path.exists():
        return record.arrow_schema().empty_table()
    with explained(path):
        return adapt(record, pq.read_table(path), str(path))


def train_models(run: Run, dataset: Published) -> dict[str, Published]:
    """Train what the plan asks; `reward` and `steps` by name."""
    assert run.plan.train is not None
    models = {}
    for kind in ("reward", "steps"):
        config: RewardConfig | StepsConfig | None = getattr(run.plan.train, kind)
        if config is not None:
            models[kind] = _train(run, kind, config, dataset)
    return models


def _train(
    run: Run, kind: str, config: RewardConfig | StepsConfig, dataset: Published
) -> Published:
    base = folder_digest(model_folder(config.base))
    step = Step(
        f"train.{kind}",
        f"train_{kind}",
        TRAIN_VERSION,
        settings(config, "base", "threads"),
        digests(dataset=dataset) | {"base": base},
    )
    rows = dataset.manifest.facts["rows"].get("preference" if kind == "reward" else "steps", {})

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        facts, rejects = _fit(config, dataset.path / "files", draft.files(), run.plan.seed, advance)
        return {"rejects": (Reject, Reject.to_table(rejects))}, facts

    return stage(run, step, whole(run, step, work), lambda: rows.get("train", 0) * config.epochs)


def _fit(
    config: RewardConfig | StepsConfig, dataset: Path, out: Path, seed: int, advance: Advance
) -> tuple[dict[str, Any], Sequence[Reject]]:
    if isinstance(config, RewardConfig):
        from pipelines.training.reward import train_reward

        parts = [read_split(dataset, Preference, name) for name in ("train", "validation")]
        done = train_reward(config, parts[0], parts[1], out, seed, advance)
    else:
        from pipelines.training.steps import train_steps

        parts = [read_split(dataset, StepExample, name) for name in ("train", "validation")]
        done = train_steps(config, parts[0], parts[1], out, seed, advance)
    return dict(done.figures), done.rejects


def train_on_folder(
    dataset: Path, base: str, out: Path, kind: Literal["reward", "steps"], seed: int
) -> dict[str, Any]:
    """Train on any emitted dataset with the default settings; figures as training gives them."""
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: not empty; name a new folder for the model")
    config = RewardConfig(base=base) if kind == "reward" else StepsConfig(base=base)
    out.mkdir(parents=True, exist_ok=True)
    facts, rejects = _fit(config, dataset, out, seed, silent)
    return {"model": str(out), **facts, "rejects": len(rejects)}


def evaluate_on_folder(dataset: Path, reward: Path, split: str) -> dict[str, Any]:
    """Pair accuracy and calibration of a scalar reward model on one split of a dataset."""
    pairs = read_split(dataset, Preference, split)
    if not len(pairs):
        raise UserError(f"{dataset}: its split {split!r} holds no preferences")
    done = evaluate(EvaluateConfig(), reward, None, pairs, [], [], 0)
    return {"figures": done.figures, "intervals": done.intervals}


def evaluate_models(run: Run, dataset: Published, models: dict[str, Published]) -> Published:
    """Let the policy answer fresh prompts, several times, and test the models on its answers."""
    plan = run.plan.evaluate
    assert plan is not None
    prompts = ingest_prompts(run, "eval.ingest", plan.prompts)
    answered = []
    for sampling in range(plan.seeds):
        seed = int(digest("evaluate", run.plan.seed, sampling)[:7], 16)
        responses = generate_responses(
            run, f"eval.generate.{sampling}", plan.generate, prompts, seed
        )
        verdicts = verify_responses(run, f"eval.verify.{sampling}", prompts, responses)
        answered.append((responses, verdicts))
    step = Step(
        "evaluate",
        "evaluate",
        EVALUATE_VERSION,
        {**settings(plan.metrics), "step_checker": plan.step_checker, "samplings": plan.seeds},
        digests(
            dataset=dataset,
            prompts=prompts,
            trained_on=run.published["ingest"],
            **models,
            **{f"responses_{i}": responses for i, (responses, _) in enumerate(answered)},
            **{f"verdicts_{i}": verdicts for i, (_, verdicts) in enumerate(answered)},
        ),
    )

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        fresh, rejects = _fresh(prompts, run.published["ingest"])
        folders = {name: output.path / "files" for name, output in models.items()}
        test, validation = (
            read_split(dataset.path / "files", Preference, name) for name in ("test", "validation")
        )
        done = []
        for sampling, (responses, verdicts) in enumerate(answered):
            samples = _samples(fresh, responses, verdicts)
            done.append(
                evaluate(
                    plan.metrics,
                    folders.get("reward"),
                    folders.get("steps"),
                    test,
                    samples,
                    _gold(plan.step_checker, samples, plan.metrics.splitter),
                    run.plan.seed + sampling,
                    validation,
                )
            )
            advance(1, 0)
        output: Output = {
            "figures": (Figure, Figure.to_table(_figures(done))),
            "curve": (CurvePoint, CurvePoint.to_table(_curve(done))),
            "reliability": (ReliabilityBin, ReliabilityBin.to_table(_reliability(done[0]))),
            "rejects": (Reject, Reject.to_table(rejects)),
        }
        return output, {"rows": len(fresh)}

    return stage(run, step, whole(run, step, work), lambda: plan.seeds)


def _fresh(prompts: Published, trained_on: Published) -> tuple[list[Prompt], list[Reject]]:
    """Evaluation prompts whose words are not among the plan's own; the others are rejects."""

    def words(prompt: Prompt) -> str:
        return digest([[m.role, m.content] for m in prompt.messages])

    seen = {words(prompt) for prompt in Prompt.from_table(trained_on.table("prompts"))}
    fresh: list[Prompt] = []
    rejects: list[Reject] = []
    for prompt in Prompt.from_table(prompts.table("prompts")):
        if words(prompt) in seen:
            rejects.append(
                Reject(
                    unit=prompt.id,
                    stage="evaluate",
                    code="seen_in_training",
                    detail=f"{prompt.source_id or prompt.source}: the plan's own prompts hold it",
                )
            )
        else:
            fresh.append(prompt)
    if not fresh:
        raise UserError("evaluate.prompts: every one of them is among the plan's own prompts")
    return fresh, rejects


def _samples(prompts: list[Prompt], responses: Published, verdicts: Published) -> Samples:
    votes = verdicts.table("votes").select(["unit", "judge", "value"]).to_pylist()
    truth = {vote["unit"]: vote["value"] for vote in votes if vote["judge"] == "verifier"}
    rows: dict[str, list[tuple[Response, bool | None]]] = {prompt.id: [] for prompt in prompts}
    for response in Response.from_table(responses.table("responses")):
        if response.prompt_id in rows:
            value = truth.get(response.id)
            rows[response.prompt_id].append((response, None if value is None else value > 0))
    return [(prompt, rows[prompt.id]) for prompt in prompts]


def _gold(checker: str | None, samples: Samples, splitter: Splitter) -> list[GoldSteps]:
    """Different responses whose true first error the checker knows."""
    if checker is None:
        return []
    from data.word_problems import check

    gold = []
    for prompt, responses in samples:
        texts = {response.text: response for response, _ in responses}
        for response in texts.values():
            parts = completions(response.text, splitter)
            if not parts or response.finish_reason != "stop":
                continue
            error = check(prompt.messages[-1].content, response.text).first_error
            gold.append(GoldSteps(prompt.messages, parts, error))
    return gold


def _figures(done: list[Evaluation]) -> list[Figure]:
    """Every sampling's figures with their intervals, then the means with their range."""
    rows = []
    for sampling, one in enumerate(done):
        for name, value in one.figures.items():
            low, high = one.intervals.get(name, (None, None))
            rows.append(Figure(name=name, sampling=sampling, value=value, low=low, high=high))
    for name in done[0].figures:
        values = [one.figures[name] for one in done if name in one.figures]
        mean = fmean(values)
        rows.append(Figure(name=name, sampling=None, value=mean, low=min(values), high=max(values)))
    return rows


def _curve(done: list[Evaluation]) -> list[CurvePoint]:
    """Means over the samplings, of the accuracies and of the intervals' ends."""
    points: dict[tuple[str, int], list[Any]] = {}
    for one in done:
        for point in one.curve:
            points.setdefault((point.model, point.n), []).append(point)

    def mean(found: list[Any], get: Callable[[Any], float]) -> float:
        return min(1.0, fmean(get(point) for point in found))

    return [
        CurvePoint(
            scorer=scorer,
            n=n,
            accuracy=mean(found, lambda p: p.accuracy),
            low=mean(found, lambda p: p.low),
            high=mean(found, lambda p: p.high),
        )
        for (scorer, n), found in points.items()
    ]


def _reliability(one: Evaluation) -> list[ReliabilityBin]:
    return [
        ReliabilityBin(of="steps", confidence=b.confidence, share=b.right, count=b.count)
        for b in one.reliability
    ]
