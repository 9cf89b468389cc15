"""The jobs of a run: which stages there are and what feeds what.

Shards stay aligned: shard i of responses, verdicts, step labels, pairs, votes and decisions is made
from shard i of the prompts, so a unit of work needs one shard of each in memory.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from flows.calibrating import decide_by_beliefs, stated
from flows.deciding import decide_pairs, gather_votes, pair_up
from flows.material import Material, Votes
from flows.plan import HumansPlan
from flows.runner import Run, Step, ask, check_failures, digests, settings, stage, units, whole
from pipelines import generate, humans, ingest, verify
from pipelines.config import Advance
from pipelines.emit import emit
from pipelines.emit.card import PlanFacts
from pipelines.process import label, people
from pipelines.store import Draft, Output, Published
from schemas.errors import UserError
from schemas.record import Record
from schemas.records import (
    Prompt,
    Reject,
    Response,
    Rollout,
    StepLabels,
    StepPair,
    Trajectory,
    Vote,
)

Job = Literal["curate", "train", "all"]
STEPS_BY_PEOPLE_VERSION = 1


def run_job(run: Run, job: Job) -> None:
    """Do a job's stages in order; what is published already is passed over."""
    dataset = curate(run)
    if job == "curate":
        return
    if run.plan.train is None:
        if job == "train":
            raise UserError("the plan trains nothing; add [train.reward] or [train.steps]")
        return
    # torch is loaded for these alone
    from flows.learning import evaluate_models, train_models

    models = train_models(run, dataset)
    if run.plan.evaluate is not None:
        evaluate_models(run, dataset, models)


def curate(run: Run) -> Published:
    """Prompts to an emitted dataset."""
    plan = run.plan
    prompts = ingest_prompts(run, "ingest", plan.prompts)
    _require_prompts(prompts)
    responses = generate_responses(run, "generate", plan.generate, prompts, plan.seed)
    verdicts = verify_responses(run, "verify", prompts, responses)
    labels = _process(run, prompts, responses) if plan.process is not None else None
    paired = pair_up(run, prompts, responses, verdicts, labels)
    made = Material(prompts, responses, verdicts, labels, paired)
    votes = gather_votes(run, made)
    if plan.calibrate is None:
        decisions = decide_pairs(run, made, votes)
    else:
        votes, decisions = decide_by_beliefs(run, plan.calibrate, made, votes)
    return _emit(run, made, votes, decisions)


def _require_prompts(prompts: Published) -> None:
    """Raise UserError where not one row could be used."""
    if prompts.manifest.rows("prompts"):
        return
    codes = Counter(prompts.table("rejects")["code"].to_pylist())
    code, count = codes.most_common(1)[0]
    example = next(r for r in prompts.table("rejects").to_pylist() if r["code"] == code)
    raise UserError(
        f"ingest: none of {codes.total()} rows can be used, {count} times {code} "
        f"({example['unit']}: {example['detail'][:120]}); mend the prompts or `columns`"
    )


def ingest_prompts(run: Run, name: str, config: ingest.Config) -> Published:
    """Read prompt files into shards of `shard_rows` prompts."""
    step = Step(
        name,
        ingest.NAME,
        ingest.VERSION,
        {**settings(config, "paths"), "shard_rows": run.plan.shard_rows},
        ingest.inputs_digest(config),
    )

    def work(draft: Draft, advance: Advance) -> int:
        count = 0
        for good, bad in ingest.ingest(config, run.plan.shard_rows):
            output: Output = {
                "prompts": (Prompt, Prompt.to_table(good)),
                "rejects": (Reject, Reject.to_table(bad)),
            }

            def one(unit: int = count, output: Output = output, size: int = len(good)) -> None:
                draft.write(unit, output, {"rows": size})

            run.call(f"{name}-{count:05d}", one)
            advance(len(good) + len(bad), 0)
            count += 1
        return count

    # No randomness: another seed reads the same prompts.
    return stage(run, step, work, lambda: 0, seed=0)


def generate_responses(
    run: Run,
    name: str,
    config: generate.GenerateConfig,
    prompts: Published,
    seed: int,
) -> Published:
    """Sample responses to every prompt."""
    engine = run.engines[config.engine]
    step = Step(
        name,
        generate.NAME,
        generate.VERSION,
        settings(config, "engine"),
        digests(prompts=prompts),
        engine,
    )

    def work(unit: int, advance: Advance) -> tuple[Output, dict[str, Any]]:
        asked = list(Prompt.from_table(prompts.shard("prompts", unit)))
        good, bad = ask([engine], lambda: generate.generate(asked, engine, config, seed, advance))
        check_failures(run, [engine], name, bad, len(asked) * config.samples)
        output: Output = {
            "responses": (Response, Response.to_table(good)),
            "rejects": (Reject, Reject.to_table(bad)),
        }
        tokens = sum(response.completion_tokens for response in good)
        return output, {
            "rows": len(good) + len(bad),
            "prompt_tokens": sum(response.prompt_tokens for response in good),
            "completion_tokens": tokens,
        }

    total = prompts.manifest.rows("prompts") * config.samples
    return stage(run, step, units(run, step, prompts.shards(), work), lambda: total, seed)


def verify_responses(run: Run, name: str, prompts: Published, responses: Published) -> Published:
    """Check final answers and constraints."""
    config = run.plan.verify
    step = Step(
        name,
        verify.NAME,
        verify.VERSION,
        settings(config),
        digests(prompts=prompts, responses=responses),
    )

    def work(unit: int, advance: Advance) -> tuple[Output, dict[str, Any]]:
        asked = list(Prompt.from_table(prompts.shard("prompts", unit)))
        answered = list(Response.from_table(responses.shard("responses", unit)))
        votes, bad = verify.verify(asked, answered, config)
        advance(len(answered), 0)
        output: Output = {
            "votes": (Vote, Vote.to_table(votes)),
            "rejects": (Reject, Reject.to_table(bad)),
        }
        return output, {"rows": len(answered)}

    total = responses.manifest.rows("responses")
    return stage(run, step, units(run, step, prompts.shards(), work), lambda: total)


def _process(run: Run, prompts: Published, responses: Published) -> Published:
    config, system = run.plan.process, run.plan.generate.system
    assert config is not None
    names = {"prover": config.prover, "judge": config.judge}
    others = {role: run.engines[name] for role, name in names.items() if name is not None}
    engines = label.Engines(run.engines[config.engine], **others)
    used = list({id(e): e for e in (run.engines[config.engine], *others.values())}.values())
    step = Step(
        "process",
        label.NAME,
        label.VERSION,
        {
            **settings(config, "engine", "prover", "judge"),
            "system": system,
            "templates": label.templates_digest() if config.judge else None,
        },
        {
            **digests(prompts=prompts, responses=responses),
            **{role: engine.identity.digest for role, engine in others.items()},
        },
        used[0],
        tuple(used[1:]),
    )
    every = prompts.manifest.rows("prompts")

    def work(unit: int, advance: Advance) -> tuple[Output, dict[str, Any]]:
        asked = list(Prompt.from_table(prompts.shard("prompts", unit)))
        answered = list(Response.from_table(responses.shard("responses", unit)))
        done = ask(
            used,
            lambda: label.label_steps(
                *(asked, answered, engines, config, run.plan.seed, advance, system),
                share=len(asked) / max(1, every),
            ),
        )
        check_failures(run, used, "process", done.rejects, len(answered))
        output: Output = {
            "trajectories": (Trajectory, Trajectory.to_table(done.trajectories)),
            "rollouts": (Rollout, Rollout.to_table(done.rollouts)),
            "step_labels": (StepLabels, StepLabels.to_table(done.labels)),
            "step_pairs": (StepPair, StepPair.to_table(done.pairs)),
            "rejects": (Reject, Reject.to_table(done.rejects)),
        }
        return output, {
            "rows": len(answered),
            "rollouts": len(done.rollouts),
            "completion_tokens": sum(r.completion_tokens for r in done.rollouts),
        }

    total = responses.manifest.rows("responses")
    return stage(run, step, units(run, step, prompts.shards(), work), lambda: total)


def _judged_by_people(run: Run, labels: Published, config: HumansPlan) -> Published:
    """The step labels, after what people said of the steps."""
    step = Step(
        humans.STEPS,
        humans.STEPS,
        STEPS_BY_PEOPLE_VERSION,
        settings(config, "paths", "purpose", "propensity", "aggregate"),
        {**humans.inputs_digest(config), **digests(labels=labels)},
    )

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        rows = list(StepLabels.from_table(labels.table("step_labels")))
        steps = {row.trajectory_id: len(row.steps) for row in rows}
        votes, rejects = humans.read_step_votes(config, steps, config.without)
        said = people.verdicts(votes)
        judged = [
            people.with_people(row, said[row.trajectory_id], config.error)
            if row.trajectory_id in said
            else row
            for row in rows
        ]
        advance(len(votes), 0)
        output: Output = {
            "step_labels": (StepLabels, StepLabels.to_table(judged)),
            "votes": (Vote, Vote.to_table(votes)),
            "rejects": (Reject, Reject.to_table(rejects)),
        }
        return output, {"rows": len(votes), **people.agreement(rows, said)}

    return stage(run, step, whole(run, step, work), lambda: 0, seed=0)


def _emit(run: Run, made: Material, votes: Votes, decisions: Published) -> Published:
    config = run.plan.emit
    labels, judged = made.labels, None
    if labels is not None and run.plan.humans is not None:
        judged = _judged_by_people(run, labels, run.plan.humans)
    upstream = (
        made.prompts,
        made.responses,
        made.verdicts,
        made.labels,
        judged,
        made.paired,
        *votes.by_name.values(),
    )
    step = Step(
        "emit",
        emit.NAME,
        emit.VERSION,
        settings(config),
        {**made.digests(), **votes.digests(), **digests(decisions=decisions, people=judged)},
    )

    total = decisions.manifest.rows("decisions")
    names: dict[str, type[Record]] = {
        "step_labels": StepLabels,
        "trajectories": Trajectory,
        "step_pairs": StepPair,
    }

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        steps = {
            name: labels.table(name) if labels else record.arrow_schema().empty_table()
            for name, record in names.items()
        }
        if judged is not None:
            steps["step_labels"] = judged.table("step_labels")
        counts = emit.emit(
            config,
            emit.Tables(
                prompts=made.prompts.table("prompts"),
                responses=made.responses.table("responses"),
                pairs=made.paired.table("pairs"),
                votes=votes.table(),
                decisions=decisions.table("decisions"),
                **steps,
                rejects=tuple(
                    output.table("rejects")
                    for output in upstream
                    if output and "rejects" in output.manifest.tables
                ),
            ),
            draft.files(),
            PlanFacts(
                engines={e.identity.digest: e.identity.as_dict() for e in run.engines.values()},
                **stated(run, decisions),
            ),
        )
        advance(total, 0)
        return {}, counts

    return stage(run, step, whole(run, step, work), lambda: total)
