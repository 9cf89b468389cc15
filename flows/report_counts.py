"""How many rows every stage of a run took, made and stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import polars as pl
import pyarrow as pa

from flows.frames import counted, frame
from flows.report_counts_people import answers_known, of_people, of_people_on_steps
from flows.report_flow import StageCount
from pipelines import humans
from pipelines.judge.cards import oriented, paired
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
    yield from _judging(made)
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
    if "route" in made:
        queue = frame(made["route"], "queue")
        yield StageCount(
            "route",
            "pairs",
            rows("pairs", "pairs"),
            len(queue),
            note=f"{queue['overlap'].sum():,} answers of people asked for",
            made="questions to people",
            each=None,
            after="pairs",
            outcomes=counted(queue["purpose"]),
            drawn=False,
        )
        if "known" in made["route"].manifest.tables:
            yield answers_known(made["route"])
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


def _judging(made: dict[str, Published]) -> Iterable[StageCount]:
    """The stages between pairs and decisions, beside the way of the rows."""
    for name, out in made.items():
        if name.startswith("probes."):
            yield _probes(name, out)
        elif name.startswith("panel.") or name == "rubric":
            pairs = made["pairs"].manifest.rows("pairs")
            yield _votes(name, out, pairs)
        elif name.startswith("round.") and name.endswith((".reward", ".relabel")):
            # Relabelling asks about some pairs only: it takes as many as it says.
            yield replace(_votes(name, out, out.manifest.facts["rows"]), after="")
        elif name.startswith("round.") and name.endswith(".decide"):
            actions = frame(out, "decisions")["action"]
            pairs = made["pairs"].manifest.rows("pairs")
            counts = counted(actions)
            yield StageCount(
                *(name, "pairs", pairs, len(actions)), after="pairs", outcomes=counts, drawn=False
            )
        elif name == "rubrics":
            kinds = frame(out, "criteria")["kind"]
            yield StageCount(
                name,
                "pairs",
                made["pairs"].manifest.rows("pairs"),
                len(kinds),
                counted(frame(out, "rejects")["code"]),
                f"{out.manifest.rows('rubrics'):,} rubrics; any number of criteria a pair",
                "criteria",
                None,
                "pairs",
                counted(kinds),
                drawn=False,
            )
        elif name == "verdicts":
            yield _criterion_verdicts(name, out)
        elif name == "rubric_value":
            yield _proof(name, out, made["rubrics"])
        elif name == "humans":
            yield of_people(name, out)
        elif name == humans.STEPS and (out.manifest.rows("votes") or out.manifest.rows("rejects")):
            yield of_people_on_steps(name, out)
        elif name == "calibrate" or (name.startswith("round.") and name.endswith(".calibrate")):
            beliefs = frame(out, "beliefs")
            pairs = made["pairs"].manifest.rows("pairs")
            sure = int(beliefs["calibrated"].sum())
            yield StageCount(
                name,
                "pairs",
                pairs,
                len(beliefs),
                {"no_belief": pairs - len(beliefs)} if pairs > len(beliefs) else {},
                after="pairs",
                outcomes=_some({"calibrated": sure, "by agreement": len(beliefs) - sure}),
                drawn=False,
            )


def _some(counts: dict[str, int]) -> dict[str, int]:
    """Those that are not 0; one below 0 is kept, to be refused."""
    return {name: n for name, n in counts.items() if n}


def _probes(name: str, out: Published) -> StageCount:
    cards = frame(out, "cards")
    asked = cards.filter(pl.col("measure") == "usable_share")["n"].sum()
    passed = cards["passed"]
    return StageCount(
        name,
        "votes on probes",
        int(asked),
        len(cards),
        counted(frame(out, "rejects")["code"]),
        made="figures",
        each=None,
        outcomes=_some(
            {
                "keep their limit": int(passed.sum()),
                "break their limit": int((~passed).sum()),
                "have no limit": passed.null_count(),
            }
        ),
        drawn=False,
    )


def _votes(name: str, out: Published, pairs: int) -> StageCount:
    """Each pair has a side that the judge takes, or none, or a reason why it could not judge."""
    sided = sides(out.table("votes"))
    lost = unjudged(out)
    failed = out.manifest.rows("rejects") if "rejects" in out.manifest.tables else 0
    return StageCount(
        name,
        "pairs",
        pairs,
        len(sided),
        counted(lost["code"]),
        f"{failed:,} requests without a usable answer" if failed else "",
        after="pairs",
        outcomes=counted(sided["side"]),
        drawn=False,
    )


def sides(votes: pa.Table) -> pl.DataFrame:
    """Columns judge, unit, side of every pair that a judge gave a value: which response it prefers.

    `position clash`: its votes in the two orders side with different responses.
    """
    found = paired(oriented(votes)).drop_nulls("value")
    value = pl.col("value")
    return found.sort("judge", "unit").select(
        "judge",
        "unit",
        side=pl.when("clash")
        .then(pl.lit("position clash"))
        .when(value > 0)
        .then(pl.lit("for A"))
        .when(value < 0)
        .then(pl.lit("for B"))
        .otherwise(pl.lit("no side")),
    )


def unjudged(out: Published) -> pl.DataFrame:
    """Columns unit, code, detail of the pairs that a judge voted on without any value."""
    votes = frame(out, "votes").filter(pl.col("unit_kind") == "pair")
    code = pl.col("reason").str.extract(r"^([a-z][a-z0-9_]{0,40})(?:$|:|;)").fill_null("no_value")
    return (
        votes.group_by("unit", maintain_order=True)
        .agg(pl.col("reason").first(), usable=pl.col("value").is_not_null().any())
        .filter(~pl.col("usable"))
        .select("unit", code=code, detail="reason")
    )


def _criterion_verdicts(name: str, out: Published) -> StageCount:
    """Each verdict says met or not, or that nobody can tell, or stopped with a reject."""
    value = frame(out, "votes")["value"]
    lost = counted(frame(out, "rejects")["code"])
    named = {
        "met": int((value == 1).sum()),
        "not met": int((value == 0).sum()),
        "in part": int(((value > 0) & (value < 1)).sum()),
        "cannot tell": value.null_count() - sum(lost.values()),
    }
    return StageCount(
        name,
        "verdicts",
        len(value),
        len(value) - sum(lost.values()),
        lost,
        "a response under a criterion",
        outcomes=_some(named),
        drawn=False,
    )


def _proof(name: str, out: Published, drafts: Published) -> StageCount:
    after = frame(out, "rubrics")
    fate = (
        after.select(
            pl.when(pl.col("status") == "retired")
            .then(pl.lit("retired"))
            .when(pl.col("id").is_in(frame(drafts, "rubrics")["id"].implode()))
            .then(pl.lit("as they were"))
            .otherwise(pl.lit("changed"))
            .alias("fate")
        )
    )["fate"]
    tested = frame(out, "values")["criterion_id"]
    return StageCount(
        name,
        "rubrics",
        drafts.manifest.rows("rubrics"),
        len(after),
        note=f"{len(tested) - tested.null_count():,} criteria tested on held-out pairs",
        outcomes=counted(fate),
        drawn=False,
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
