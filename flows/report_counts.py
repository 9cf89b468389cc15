"""How many rows every stage of a run took, made and stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import polars as pl

from flows.report import StageCount
from pipelines.store import Published


def stage_counts(made: dict[str, Published]) -> Iterable[StageCount]:
    """The counts of every stage, in an order in which each follows what it took."""

    def rows(stage: str, table: str) -> int:
        return made[stage].manifest.rows(table)

    def rejects(stage: str) -> dict[str, int]:
        codes = made[stage].table("rejects")["code"].to_pylist()
        return dict(Counter(codes).most_common())

    if "ingest" in made:
        lost = rejects("ingest")
        prompts = rows("ingest", "prompts")
        yield StageCount(
            "ingest", "rows", prompts + sum(lost.values()), prompts, lost, made="prompts"
        )
    if "generate" in made:
        samples = made["generate"].manifest.config["samples"]
        yield StageCount(
            "generate",
            "prompts",
            rows("ingest", "prompts"),
            rows("generate", "responses"),
            rejects("generate"),
            made="responses",
            each=samples,
            after="ingest",
        )
    if "verify" in made:
        responses = rows("generate", "responses")
        # A response whose constraint cannot be checked has a verdict, and one reject a constraint:
        # it is counted once, as rejected.
        refused = reject_rows(made["verify"])
        yield StageCount(
            "verify",
            "responses",
            responses,
            responses - len(refused),
            dict(Counter(refused["code"].to_list()).most_common()),
            after="generate",
            outcomes=_verdicts(made["verify"], refused["unit"]),
        )
    if "process" in made:
        yield from _process(made["process"], made["generate"])
    if "pairs" in made:
        yield StageCount(
            "pairs",
            "prompts",
            rows("ingest", "prompts"),
            rows("pairs", "pairs"),
            rejects("pairs"),
            made="pairs",
            each=None,
            after="ingest",
        )
    if "decide" in made:
        actions = frame(made["decide"], "decisions")["action"].to_list()
        yield StageCount(
            "decide",
            "pairs",
            rows("pairs", "pairs"),
            len(actions),
            after="pairs",
            outcomes=dict(Counter(actions).most_common()),
        )
    if "emit" in made:
        facts = made["emit"].manifest.facts
        splits = next(iter(facts["rows"].values()))
        emitted = sum(splits.values())
        kept = {"keep", "flip", "soften"}
        stopped = {name: n for name, n in facts["pairs"].items() if name not in kept and n}
        yield StageCount(
            "emit",
            "pairs",
            rows("pairs", "pairs"),
            emitted,
            stopped,
            after="decide",
            outcomes=splits,
        )


GROWN = "process: grown"
"""Under which name solutions that a search grew, and their rejects, are counted."""


def _process(process: Published, generate: Published) -> Iterable[StageCount]:
    """Responses are labelled or rejected, one by one; what a search grew besides is counted apart."""
    of = frame(process, "step_labels")["response_id"]
    lost, grown_lost = split_rejects(process, generate)
    yield StageCount(
        "process",
        "responses",
        generate.manifest.rows("responses"),
        len(of) - of.null_count(),
        dict(Counter(lost["code"].to_list()).most_common()),
        made="labelled solutions",
        after="generate",
        note=f"{process.manifest.facts.get('rollouts', 0):,} rollouts",
    )
    if of.null_count() or len(grown_lost):
        yield StageCount(
            GROWN,
            "responses",
            generate.manifest.rows("responses"),
            of.null_count(),
            dict(Counter(grown_lost["code"].to_list()).most_common()),
            made="grown solutions",
            each=None,
            after="generate",
            note="paths that a search grew and labelled",
        )


def split_rejects(process: Published, generate: Published) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The process stage's rejects: those of responses, and those of what a search grew."""
    rejects = reject_rows(process)
    responses = frame(generate, "responses").select(unit="id")
    return rejects.join(responses, "unit", "semi", maintain_order="left"), rejects.join(
        responses, "unit", "anti", maintain_order="left"
    )


def reject_rows(output: Published) -> pl.DataFrame:
    """A stage's rejects, one a unit."""
    return frame(output, "rejects").unique("unit", keep="first", maintain_order=True)


def _verdicts(output: Published, refused: pl.Series) -> dict[str, int]:
    votes = frame(output, "votes").filter(
        pl.col("judge") == "verifier", ~pl.col("unit").is_in(refused.implode())
    )
    named = votes.select(
        pl.when(pl.col("value") == 1)
        .then(pl.lit("right"))
        .when(pl.col("value") == 0)
        .then(pl.lit("wrong"))
        .otherwise("reason")
        .alias("verdict")
    )
    return dict(Counter(named["verdict"].to_list()).most_common())


def frame(output: Published, table: str) -> pl.DataFrame:
    """A table of an output."""
    return pl.DataFrame(pl.from_arrow(output.table(table)))
