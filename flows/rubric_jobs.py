"""The jobs of rubrics: made, judged by, tested on held-out pairs, and then a judge themselves.

Where a pair came with no label, the side that the judges before take stands in for it, and the proof
is one of agreement with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from flows.material import Material, Votes
from flows.panel import criteria_by_prompt
from flows.plan import RubricsPlan
from flows.runner import Run, Step, ask, check_failures, digests, settings, stage, units, whole
from pipelines import humans
from pipelines.config import Advance
from pipelines.embedding import Embedder
from pipelines.journal import Journaled
from pipelines.readers import sha256
from pipelines.rubrics import mining, proof, scoring, synthesis, value, verdicts, weights
from pipelines.rubrics.config import is_held_out
from pipelines.rubrics.rubric_file import rubric_paths
from pipelines.store import Draft, Output, Published
from schemas.records import (
    Criterion,
    Pair,
    Prompt,
    Reject,
    Response,
    Rubric,
    RubricValue,
    Vote,
)

_ELSEWHERE = ("engine", "judge", "verdicts", "scoring", "value", "embed", "paths", "weights")
"""Settings of other stages, and what is an input by its content."""
JUDGE = "rubric"
"""The rubrics' name as a judge, and of the output that holds their votes."""


def judge_by_rubrics(run: Run, made: Material, votes: Votes) -> tuple[Published, Published]:
    """Rubrics that were proven, and their votes on the pairs."""
    config = run.plan.rubrics
    assert config is not None
    drafts = _make(run, config, made, votes)
    judged = _verdicts(run, config, made, drafts)
    proven = _prove(run, config, made, votes, drafts, judged)
    return proven, _vote(run, config, made, proven, judged)


def labelled(pairs: pa.Table, votes: pa.Table) -> pa.Table:
    """The pairs, those without a label under the side that most judges take (orders averaged)."""
    sides = (
        pl.DataFrame(pl.from_arrow(votes))
        .filter(pl.col("unit_kind") == "pair")
        .group_by("unit", "judge")
        .agg(pl.col("value").sort_by("id"))
        .with_columns(side=pl.col("value").list.mean().sign())
        .group_by("unit")
        .agg(side=pl.col("side").sum())
    )
    frame = pl.DataFrame(pl.from_arrow(pairs)).join(
        sides, left_on="id", right_on="unit", how="left", maintain_order="left"
    )
    judged = (
        pl.when(pl.col("side") > 0).then(pl.lit("a")).when(pl.col("side") < 0).then(pl.lit("b"))
    )
    found = frame.with_columns(label=pl.coalesce("label", judged))["label"]
    at = pairs.schema.get_field_index("label")
    return pairs.set_column(at, pairs.schema.field(at), found.to_arrow().cast(pa.string()))


def _make(run: Run, config: RubricsPlan, made: Material, votes: Votes) -> Published:
    """Synthesize rubrics from the pairs that are not held out."""
    names = [config.engine] if config.engine is not None else []
    used = {name: run.engines[name] for name in names}
    embed = Embedder(config.embed) if config.embed is not None else None
    asked = list(used.values())
    people = run.plan.humans if "feedback" in config.methods else None
    step = Step(
        "rubrics",
        synthesis.NAME,
        synthesis.VERSION,
        {
            **settings(config, *_ELSEWHERE),
            "embed": embed.identity if embed else None,
            "templates": synthesis.templates_digest(),
            "paths": [sha256(path) for path in rubric_paths(config.paths)],
        },
        {
            **made.digests(),
            **votes.digests(),
            **(humans.inputs_digest(people) if people is not None else {}),
        },
        asked[0] if asked else None,
    )

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        pairs = Pair.from_table(labelled(made.paired.table("pairs"), votes.table()))
        responses = made.responses.table("responses")
        remarks = {}
        if people is not None:
            ids = set(responses["id"].to_pylist())
            remarks = humans.read_remarks(people, ids, people.without)
        done = ask(
            asked,
            lambda: synthesis.synthesize(
                list(Prompt.from_table(made.prompts.table("prompts"))),
                list(Response.from_table(responses)),
                list(pairs),
                config,
                used,
                run.plan.seed,
                advance,
                embed,
                remarks,
            ),
        )
        requests = len(done.rubrics) + len(done.rejects)
        check_failures(run, asked, step.name, done.rejects, requests)
        return _rows(done.criteria, done.rubrics, done.rejects), {"rows": len(done.rubrics)}

    return stage(run, step, whole(run, step, work), lambda: 0)


def _rows(
    criteria: Sequence[Criterion], rubrics: Sequence[Rubric], rejects: Sequence[Reject]
) -> Output:
    return {
        "criteria": (Criterion, Criterion.to_table(criteria)),
        "rubrics": (Rubric, Rubric.to_table(rubrics)),
        "rejects": (Reject, Reject.to_table(rejects)),
    }


def _verdicts(run: Run, config: RubricsPlan, made: Material, drafts: Published) -> Published:
    """Whether the responses of the pairs meet the criteria, shard by shard."""
    engine = run.engines[config.judge] if config.judge is not None else None
    step = Step(
        "verdicts",
        verdicts.NAME,
        verdicts.VERSION,
        {**settings(config.verdicts), "template": verdicts.templates_digest(config.verdicts)},
        digests(prompts=made.prompts, responses=made.responses, pairs=made.paired, rubrics=drafts),
        engine,
    )
    criteria = criteria_by_prompt(drafts)

    def work(unit: int, advance: Advance) -> tuple[Output, dict[str, Any]]:
        asked = {p.id: p for p in Prompt.from_table(made.prompts.shard("prompts", unit))}
        pairs = made.paired.shard("pairs", unit)
        sides = {*pairs["response_a"].to_pylist(), *pairs["response_b"].to_pylist()}
        items = []
        for response in Response.from_table(made.responses.shard("responses", unit)):
            if response.id in sides:
                own = [*criteria.get(None, ()), *criteria.get(response.prompt_id, ())]
                # Without a judge, what code can check is all that is judged.
                own = [c for c in own if engine is not None or c.verifier is not None]
                items.append((asked[response.prompt_id], response, own))
        done, rejects = ask(
            [engine] if engine else [],
            lambda: verdicts.verdicts(
                config.judge or "code",
                config.verdicts,
                items,
                engine or _nobody(run),
                mining.verify,
                run.plan.seed,
                advance,
            ),
        )
        if engine is not None:
            check_failures(run, [engine], step.name, rejects, len(done))
        output: Output = {
            "votes": (Vote, Vote.to_table(done)),
            "rejects": (Reject, Reject.to_table(rejects)),
        }
        return output, {"rows": len(done)}

    return stage(run, step, units(run, step, made.paired.shards(), work), lambda: 0)


def _nobody(run: Run) -> Journaled:
    """An engine that is not asked: code alone gives the verdicts."""
    return next(iter(run.engines.values()))


def _prove(
    run: Run,
    config: RubricsPlan,
    made: Material,
    votes: Votes,
    drafts: Published,
    judged: Published,
) -> Published:
    """Test the rubrics on held-out pairs; keep, flip or retire them and their criteria."""
    step = Step(
        "rubric_value",
        value.NAME,
        value.VERSION,
        {
            **settings(config.value),
            "scoring": settings(config.scoring),
            "weights": config.weights,
            "held_out": config.held_out,
        },
        {**digests(pairs=made.paired, rubrics=drafts, verdicts=judged), **votes.digests()},
    )

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        pairs = labelled(made.paired.table("pairs"), votes.table())
        held = [
            is_held_out(prompt, run.plan.seed, config.held_out)
            for prompt in pairs["prompt_id"].to_pylist()
        ]
        criteria, rubrics = drafts.table("criteria"), drafts.table("rubrics")
        verdict_votes = judged.table("votes")
        responses = made.responses.table("responses").select(["id", "prompt_id"])
        scores = scoring.score(criteria, rubrics, verdict_votes, responses, config.scoring)
        # Pairs that a rubric was made from are passed over by `value` itself; those of the other
        # prompts that are not held out have shaped the general rubrics.
        tested = pairs.filter(pa.array(held, pa.bool_()))
        values = value.value(criteria, rubrics, verdict_votes, scores, tested, config.value)
        consistent = scoring.consistent(rubrics, scores, pairs).to_pylist()
        done = proof.prove(
            list(Criterion.from_table(criteria)),
            list(Rubric.from_table(rubrics)),
            list(RubricValue.from_table(values)),
            {row["rubric_id"]: row["kept"] for row in consistent if row["pairs"]},
        )
        kept = _weighted(config, done, verdict_votes, pairs, held, run.plan.seed)
        output: Output = {
            **_rows(kept.criteria, kept.rubrics, []),
            "values": (RubricValue, values),
        }
        return output, {"rows": len(values), "renamed": kept.renamed}

    return stage(run, step, whole(run, step, work), lambda: 0)


def _weighted(
    config: RubricsPlan,
    done: proof.Proven,
    votes: pa.Table,
    pairs: pa.Table,
    held: Sequence[bool],
    seed: int,
) -> proof.Proven:
    """The proven criteria under the plan's weights."""
    if config.weights == "importance" or not done.criteria:
        return done
    criteria = Criterion.to_table(done.criteria)
    renamed = rename(votes, done.renamed)
    if config.weights == "policy":
        table = weights.policy_aware(criteria, renamed)
    else:
        # Held-out pairs have proven the criteria: they are not fitted to, too.
        own = pairs.filter(pa.array([not h for h in held], pa.bool_()))
        table, _ = weights.fitted(criteria, renamed, own, weights.FitConfig(), seed)
    by_id = {row["criterion_id"]: row["weight"] for row in table.to_pylist()}
    return proof.reweighted(done, by_id)


def rename(votes: pa.Table, renamed: dict[str, str]) -> pa.Table:
    """Verdicts under the ids that their criteria have now; `renamed`: old id by new one."""
    names = pl.DataFrame(
        {"criterion": list(renamed.values()), "now": list(renamed)},
        schema={"criterion": pl.String, "now": pl.String},
    )
    frame = pl.DataFrame(pl.from_arrow(votes)).join(names, on="criterion", maintain_order="left")
    return frame.with_columns(criterion="now").drop("now").to_arrow()


def _vote(
    run: Run, config: RubricsPlan, made: Material, proven: Published, judged: Published
) -> Published:
    """The proven rubrics' votes on the pairs: differences of the responses' scores."""
    step = Step(
        JUDGE,
        "rubric_votes",
        scoring.VERSION,
        settings(config.scoring),
        digests(responses=made.responses, pairs=made.paired, rubrics=proven, verdicts=judged),
    )
    criteria = proven.table("criteria")
    rubrics = proven.table("rubrics")
    rubrics = rubrics.filter(pl.Series(rubrics["status"].to_pylist()).ne("retired").to_arrow())
    renamed = proven.manifest.facts["renamed"]

    def work(unit: int, advance: Advance) -> tuple[Output, dict[str, Any]]:
        pairs = made.paired.shard("pairs", unit)
        responses = made.responses.shard("responses", unit).select(["id", "prompt_id"])
        verdict_votes = rename(judged.shard("votes", unit), renamed)
        scores = scoring.score(criteria, rubrics, verdict_votes, responses, config.scoring)
        advance(len(pairs), 0)
        votes = scoring.pair_votes(pairs, scores, JUDGE)
        return {"votes": (Vote, votes)}, {"rows": len(pairs)}

    return stage(run, step, units(run, step, made.paired.shards(), work), lambda: 0)
