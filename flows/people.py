"""`prefinery review people`: how good a campaign's answers are, what they cost, what they changed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from annotation.campaign import Campaign
from annotation.cost import Cost, cost
from annotation.quality import QualityConfig, quality
from flows import runs
from flows.plan import RoutePlan
from flows.report_people import changed, hourly_rate, known_answers
from flows.review_command import campaign_of
from pipelines.store import Published, Store
from schemas.errors import UserError
from schemas.records import Vote

_OF_A_RUN = ("changed", "money_per_change", "next_pairs", "next_worth")


def judge_people(root: Path, name: str, run_id: str | None, rate: float | None) -> dict[str, Any]:
    """Quality, agreement and cost of what was pulled; with a run, what it changed and what is next.

    `rate`: money for an hour of a person's time; none: what the run's plan says, or what a plan says
    that does not name it. Gold accuracy is by the run's known answers: without a run there are none.
    """
    store = Store.open(root, create=False)
    campaign = campaign_of(store, name)
    votes, answers = _pulled(campaign)
    made: dict[str, Published] = {}
    record = None
    if run_id is not None:
        record = runs.load(store, run_id)
        made = dict(record.outputs(store))
        said = hourly_rate(runs.folder(store, record.id) / "plan.toml")
        rate = said if rate is None else rate
    if rate is None:
        rate = float(RoutePlan.model_fields["hourly_rate"].default)
    known = known_answers(made.get("route"))
    found = quality(_sided(votes, campaign.kind), QualityConfig(), gold=known)
    shown: dict[str, Any] = {
        "campaign": name,
        "hourly_rate": rate,
        "agreement": [
            {
                "level": a.level,
                "alpha": a.alpha,
                "low": a.low,
                "high": a.high,
                "units": a.units,
                "meaning": a.meaning,
            }
            for a in found.agreement
        ],
        "first_share": found.first_share,
        "annotators": found.annotators.to_pylist(),
        "outliers": len(found.outliers),
        "cost": _without_run(cost(answers, rate)),
    }
    if record is not None:
        shown["run"] = {
            "run": record.id,
            "known": 0 if known is None else len(known),
            **_of_run(made, answers, rate),
        }
    return shown


def _pulled(campaign: Campaign) -> tuple[pa.Table, pa.Table]:
    """A campaign's votes, and of each answer the first, which holds the seconds of them all."""
    if not campaign.votes.exists():
        raise UserError(
            f"campaign {campaign.name}: nothing was pulled; prefinery review pull {campaign.name}"
        )
    table = pq.read_table(campaign.votes)
    first = pl.DataFrame(pl.from_arrow(table)).unique(
        "annotation", keep="first", maintain_order=True
    )
    return table, first.to_arrow()


def _sided(votes: pa.Table, kind: str) -> pa.Table:
    """Votes as agreement and quality compare them, on one scale of two sides: of other kinds than pairs
    the verdicts, right or kept as 1, wrong or rejected as -1, each part of a task by itself."""
    if kind == "pairwise":
        return votes
    side = pl.when(pl.col("value") > 0).then(1.0).when(pl.col("value") == 0).then(-1.0)
    frame = pl.DataFrame(pl.from_arrow(votes)).filter(pl.col("criterion").is_null())
    part = pl.concat_str("unit", pl.lit("#"), pl.col("step").cast(pl.String).fill_null(""))
    return frame.with_columns(unit=part, unit_kind=pl.lit("pair"), value=side).to_arrow()


def _without_run(spent: Cost) -> dict[str, Any]:
    """What needs no run to be known."""
    return {key: value for key, value in asdict(spent).items() if key not in _OF_A_RUN}


def _of_run(made: dict[str, Published], answers: pa.Table, rate: float) -> dict[str, Any]:
    """What the votes that the run had have changed, and what its queue is worth now."""
    had = made["humans"].table("votes") if "humans" in made else Vote.to_table([])
    queue = _unanswered(made["route"], answers) if "route" in made else None
    spent = cost(had, rate, changed=changed(made.get("decide")), queue=queue)
    return {
        "votes": spent.votes,
        "waiting": None if queue is None else sum(queue["overlap"].to_pylist()),
        **{key: getattr(spent, key) for key in _OF_A_RUN},
    }


def _unanswered(made: Published, votes: pa.Table) -> pa.Table:
    answered = set(votes["unit"].to_pylist())
    queue = made.table("queue")
    return queue.filter(
        pa.array([p not in answered for p in queue["pair_id"].to_pylist()], pa.bool_())
    )
