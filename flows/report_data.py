"""Collect what a run's report shows from its published outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from flows import charts, runs
from flows.frames import frame
from flows.report import (
    Band,
    EngineUsed,
    Evaluation,
    Figure,
    Group,
    PairRow,
    Place,
    Reliability,
    ReportData,
    StageDigest,
    StepPositions,
)
from flows.report_counts import (
    GROWN,
    reject_rows,
    split_rejects,
    stage_counts,
    unjudged,
)
from flows.report_counts_people import KNOWN
from flows.report_decisions import BANDS, decisions
from flows.report_judges import judges, pair_votes, voters
from flows.report_people import hourly_rate, people
from flows.report_rounds import rounds
from flows.report_rubrics import rubrics
from flows.steps_page import FOLDER
from pipelines.store import Published, Store
from schemas.record import Record
from schemas.records import Decision, Pair, Prompt, Reject, Response, StepLabels, Vote

R = TypeVar("R", bound=Record)

READ_EACH = 3
"""Pairs shown of every group."""
EXAMPLES = 3
"""Rejects shown of every stage and code."""
READ_BAND = 2
"""Pairs shown of every band of probability, beside those."""
BINS = 20

MEANING = {
    "policy_accuracy": "share of the policy's answers that are right",
    "best_of_8_accuracy": "share right when both models pick the best of 8",
    "best_of_8_reward": "the same, picked by the reward model alone",
    "best_of_8_steps": "the same, picked by the step model alone",
    "best_of_8_likelihood": "the same, picked by the policy's own log-probability",
    "oracle_best_of_8": "the same, picked by someone who knows the truth",
    "pair_accuracy": "test pairs whose chosen response the reward model scores higher",
    "first_error_f1": "finds the first wrong step: harmonic mean over wrong and right solutions",
    "first_error_f1_chance": "the same by naming a step, or none, at random",
    "first_error_f1_last_step": "the same by always naming the last step of a wrong solution",
    "ece": "calibration error of the step model's probabilities",
    "brier": "squared error of the step model's probabilities",
    "ece_pairs": "calibration error of the reward model on pairs",
}


def figures(evaluation: Published | None) -> dict[str, float]:
    """The means over all samplings of an evaluation's figures, the named ones first."""
    if evaluation is None:
        return {}
    rows = evaluation.table("figures").to_pylist()
    found = {row["name"]: row["value"] for row in rows if row["sampling"] is None}
    return {name: found[name] for name in MEANING if name in found}


def collect(store: Store, record: runs.RunRecord) -> ReportData:
    """Everything that the page shows, of one run."""
    made = dict(record.outputs(store))
    plan_file = runs.folder(store, record.id) / "plan.toml"
    labels = made.get("process")
    decided = frame(made["decide"], "decisions") if "decide" in made else None
    rows, bands = _to_read(made) if decided is not None else ((), ())
    return ReportData(
        plan_name=record.plan,
        run_id=record.id,
        plan_digest=record.id.rpartition("-")[2],
        # Reading prompts is the same under every seed, and says 0.
        seed=made["generate" if "generate" in made else "ingest"].manifest.seed,
        engines=_engines(made),
        places=_places(made),
        next_steps=(
            ("See every stage", f"prefinery show {record.id}"),
            (
                "Ask the tables",
                f'prefinery query --run {record.id} "select * from decisions limit 5"',
            ),
            (
                "Share the dataset",
                f"prefinery push store/runs/{record.id}/dataset --repo ORG/NAME",
            ),
        ),
        stages=tuple(stage_counts(made)),
        step_values=_histogram(labels, "value"),
        interval_widths=_widths(labels),
        decision_probabilities=(
            charts.Histogram.of(decided["probability"].to_list(), 0.0, 1.0, BINS)
            if decided is not None and len(decided)
            else None
        ),
        label_sources=_label_sources(made),
        positions=_positions(labels),
        step_pages=(runs.folder(store, record.id) / FOLDER / "index.html").exists(),
        evaluation=_evaluation(made.get("evaluate")),
        judges=judges(made),
        people=people(made, hourly_rate(plan_file)),
        rubrics=rubrics(made),
        decisions=decisions(made),
        rounds=rounds(made),
        rows=rows,
        bands=bands,
        rejects=tuple(_examples(made)),
        plan_text=plan_file.read_text("utf-8") if plan_file.exists() else "",
        digests=tuple(
            StageDigest(
                stage=name,
                version=str(out.manifest.version),
                record=", ".join(sorted(set(out.manifest.records.values()) - {"Reject"})),
                rows=sum(out.manifest.rows(t) for t in out.manifest.tables if t != "rejects"),
                digest=out.manifest.digest,
            )
            for name, out in made.items()
        ),
    )


def _engines(made: dict[str, Published]) -> tuple[EngineUsed, ...]:
    roles: dict[str, list[str]] = {}
    known: dict[str, dict[str, str]] = {}
    for name, out in made.items():
        who = out.manifest.engine
        if who is not None:
            key = f"{who['kind']}|{who['model']}|{who['revision']}"
            known[key] = who
            role = name.split(".")[0]
            if role in ("panel", "probes", "round"):
                role = f"judge {out.manifest.config['judge']}"
            if role not in roles.setdefault(key, []):
                roles[key].append(role)
    return tuple(
        EngineUsed(", ".join(roles[key]), who["kind"], who["model"], who["revision"][:12])
        for key, who in known.items()
    )


def _places(made: dict[str, Published]) -> tuple[Place, ...]:
    known = (
        ("emit", "Dataset", "dataset", "Parquet for TRL, datasets, DuckDB, with its card"),
        ("train.reward", "Reward model", "models/reward", "AutoModelForSequenceClassification"),
        ("train.steps", "Step model", "models/steps", "a probability for every step"),
    )
    places = [Place(name, path, what) for stage, name, path, what in known if stage in made]
    return (*places, Place("Store", "../..", "every stage's output, and the journal"))


def _histogram(labels: Published | None, column: str) -> charts.Histogram | None:
    if labels is None:
        return None
    values = frame(labels, "step_labels")[column].explode().drop_nulls().to_list()
    return charts.Histogram.of(values, 0.0, 1.0, BINS) if values else None


def _widths(labels: Published | None) -> charts.Histogram | None:
    if labels is None:
        return None
    # A checked final answer is known, not estimated: its interval says nothing of the rollouts.
    sampled = (
        frame(labels, "step_labels")
        .select(pl.col("low", "high", "source"))
        .explode("low", "high", "source")
        .filter(pl.col("source") != "answer", pl.col("low").is_not_null())
    )
    widths = (sampled["high"] - sampled["low"]).to_list()
    return charts.Histogram.of(widths, 0.0, 1.0, BINS) if widths else None


def _label_sources(made: dict[str, Published]) -> dict[str, dict[str, int]]:
    sources = {}
    if "pairs" in made:
        column = frame(made["pairs"], "pairs")["label_source"].fill_null("none").to_list()
        sources["pairs"] = dict(Counter(column).most_common())
    if "process" in made:
        steps = frame(made["process"], "step_labels")["source"].explode().to_list()
        sources["steps"] = dict(Counter(steps).most_common())
    return sources


def _positions(labels: Published | None) -> StepPositions | None:
    if labels is None:
        return None
    steps_of = frame(labels, "step_labels")
    if not len(steps_of):
        return None
    most = max(steps_of["label"].list.len().to_list())
    steps = steps_of.select("label", position=pl.int_ranges(pl.col("label").list.len())).explode(
        "label", "position"
    )
    first = Counter(steps_of["first_error"].to_list())
    labelled = Counter(steps.drop_nulls("label")["position"].to_list())
    wrong = Counter(steps.filter(pl.col("label") == "wrong")["position"].to_list())
    return StepPositions(
        trajectories=len(steps_of),
        no_error=first[None],
        labelled=tuple(labelled[t] for t in range(most)),
        wrong=tuple(wrong[t] for t in range(most)),
        first_error=tuple(first[t] for t in range(most)),
    )


def _evaluation(output: Published | None) -> Evaluation | None:
    if output is None:
        return None
    rows = output.table("figures").to_pylist()
    samplings = sorted({row["sampling"] for row in rows if row["sampling"] is not None})
    shown = []
    for name, meaning in MEANING.items():
        found = {row["sampling"]: row for row in rows if row["name"] == name}
        if None not in found:
            continue
        # Where only one sampling was made its bootstrap interval says more than its range.
        row = found[None] if len(samplings) > 1 else found[samplings[0]]
        each = tuple(found[s]["value"] for s in samplings if s in found)
        shown.append(
            Figure(
                name,
                meaning,
                row["value"],
                row["low"],
                row["high"],
                each if len(each) == len(samplings) and len(samplings) > 1 else (),
            )
        )
    curves: dict[str, list[charts.Point]] = {}
    for row in output.table("curve").to_pylist():
        point = charts.Point(row["n"], row["accuracy"], row["low"], row["high"])
        curves.setdefault(row["scorer"], []).append(point)
    bins: dict[str, list[charts.Bin]] = {}
    for row in output.table("reliability").to_pylist():
        right = round(row["share"] * row["count"])
        bins.setdefault(row["of"], []).append(charts.Bin(row["confidence"], right, row["count"]))
    several = len(samplings) > 1
    return Evaluation(
        about=f"{output.manifest.facts['rows']:,} fresh prompts, answered {len(samplings)} times",
        command="prefinery show --json",
        interval="lowest to highest of the samplings" if several else "bootstrap over prompts",
        seeds=tuple(samplings),
        figures=tuple(shown),
        best_of_n=tuple(charts.Curve(name, tuple(points)) for name, points in curves.items()),
        reliability=tuple(Reliability(name, tuple(found)) for name, found in bins.items()),
    )


def _to_read(made: dict[str, Published]) -> tuple[tuple[PairRow, ...], tuple[Band, ...]]:
    """A few pairs of every group, in the decisions' order, and others of every probability."""
    decided = frame(made["decide"], "decisions").with_row_index("row")
    votes = pair_votes(voters(made))
    opposed = (
        pl.LazyFrame(pl.from_arrow(votes.select(["unit", "value"])))
        .group_by("unit")
        .agg(opposed=(pl.col("value").min() < 0) & (pl.col("value").max() > 0))
        .collect()
    )
    group = (
        pl.when(pl.col("action").is_in(["drop", "route"]))
        .then(pl.lit("dropped"))
        .when(pl.col("opposed").fill_null(False))
        .then(pl.lit("disagreeing"))
        .when(pl.col("action") == "soften")
        .then(pl.lit("narrow"))
        .otherwise(pl.lit("agreeing"))
    )
    decided = decided.join(opposed, left_on="pair_id", right_on="unit", how="left").with_columns(
        group=group,
        band=pl.sum_horizontal(pl.col("probability") >= high for _, high in BANDS[:-1]),
    )
    few = decided.sort("row").group_by("group", maintain_order=True).head(READ_EACH).sort("row")
    # Ids are hashes: the first by id are neither the best nor the worst.
    rest = decided.join(few, on="pair_id", how="anti").sort("pair_id")
    others = rest.group_by("band", maintain_order=True).head(READ_BAND)
    wanted = [*few["pair_id"], *others["pair_id"]]
    shown = _pair_rows(
        made, votes, dict(zip(wanted, [*few["group"], *others["group"]], strict=True))
    )
    bands = tuple(
        Band(
            *(low, high, int((decided["band"] == i).sum())),
            tuple(shown[p] for p in others.filter(pl.col("band") == i)["pair_id"] if p in shown),
        )
        for i, (low, high) in enumerate(BANDS)
    )
    return tuple(shown[p] for p in few["pair_id"] if p in shown), bands


def _pair_rows(
    made: dict[str, Published], votes: pa.Table, groups: dict[str, Group]
) -> dict[str, PairRow]:
    """These pairs with all that belongs to them, by id."""
    pairs = _some(made["pairs"], "pairs", Pair, "id", set(groups))
    found = _some(made["decide"], "decisions", Decision, "pair_id", set(groups))
    cast: dict[str, list[Vote]] = {}
    for vote in Vote.from_table(
        votes.filter(pc.is_in(votes["unit"], pa.array(sorted(groups), pa.string())))
    ):
        cast.setdefault(vote.unit, []).append(vote)
    sides = {side for pair in pairs.values() for side in (pair.response_a, pair.response_b)}
    responses = _some(made["generate"], "responses", Response, "id", sides)
    prompts = _some(made["ingest"], "prompts", Prompt, "id", {p.prompt_id for p in pairs.values()})
    steps: dict[str, StepLabels] = {}
    if "process" in made:
        own = _some(made["process"], "step_labels", StepLabels, "response_id", sides)
        steps = {labels.response_id: labels for labels in own.values() if labels.response_id}
    return {
        pair.id: PairRow(
            group=groups[pair.id],
            prompt=prompts[pair.prompt_id],
            pair=pair,
            a=responses[pair.response_a],
            b=responses[pair.response_b],
            votes=tuple(cast.get(pair.id, ())),
            decision=decision,
            steps_a=steps.get(pair.response_a),
            steps_b=steps.get(pair.response_b),
        )
        for decision in found.values()
        if (pair := pairs.get(decision.pair_id)) is not None
    }


def _some(
    output: Published, table: str, record: type[R], column: str, wanted: set[str]
) -> dict[str, R]:
    """The wanted rows of a table, by id; the others are not read into Python."""
    rows = output.table(table)
    kept = rows.filter(pc.is_in(rows[column], pa.array(sorted(wanted), pa.string())))
    return {row.id: row for row in record.from_table(kept)}


def _examples(made: dict[str, Published]) -> Iterable[Reject]:
    for name, out in made.items():
        if name == "rubric" or name.startswith(("panel.", "round.")):
            if "votes" not in out.manifest.tables:
                continue
            yield from _unjudged(name, out, made["pairs"])
            continue
        if "rejects" not in out.manifest.tables or name.startswith(("eval", "train")):
            continue
        parts = [reject_rows(out)]
        if name == "process":
            lost, grown = split_rejects(out, made["generate"])
            parts = [lost, grown.with_columns(stage=pl.lit(GROWN))]
        elif name == "route":
            parts = [frame(out, "rejects").with_columns(stage=pl.lit(KNOWN))]
        elif name.startswith(("probes.", "rubrics", "verdicts", "humans")):
            # Several requests of these may be about one unit.
            parts = [frame(out, "rejects").with_columns(stage=pl.lit(name))]
        for every in parts:
            few = every.group_by("code", maintain_order=True).head(EXAMPLES)
            yield from Reject.from_table(few.select(every.columns).to_arrow().cast(_REJECT))


def _unjudged(name: str, out: Published, pairs: Published) -> Iterable[Reject]:
    """Pairs that a judge could not judge, with what is known of the request that failed."""
    few = unjudged(out).group_by("code", maintain_order=True).head(EXAMPLES)
    compared = _some(pairs, "pairs", Pair, "id", set(few["unit"]))
    sides = {side for pair in compared.values() for side in (pair.response_a, pair.response_b)}
    said: dict[str, str] = {}
    if "rejects" in out.manifest.tables:
        rejects = _some(out, "rejects", Reject, "unit", {*few["unit"], *sides})
        said = {reject.unit: reject.detail for reject in rejects.values()}
    for row in few.iter_rows(named=True):
        pair = compared.get(row["unit"])
        units = [row["unit"], *([pair.response_a, pair.response_b] if pair else [])]
        detail = next((said[unit] for unit in units if unit in said), row["detail"])
        yield Reject(unit=row["unit"], stage=name, code=row["code"], detail=detail)


_REJECT = Reject.arrow_schema()
