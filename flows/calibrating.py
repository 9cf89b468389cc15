"""The jobs from votes to decisions with stated probabilities: people, beliefs, decisions, bounds, review.

Calibration sees all pairs at once, so these outputs are one shard each.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from annotation import aggregate
from flows.material import Material, Votes
from flows.plan import CalibratePlan
from flows.runner import Run, Step, digests, settings, stage, whole
from pipelines import humans, routing
from pipelines.config import Advance
from pipelines.consistency import calibrate, decide, risk
from pipelines.consistency.features import features
from pipelines.consistency.matrix import votes_matrix
from pipelines.embedding import Embedder
from pipelines.judge.hostile import master_keys
from pipelines.store import Draft, Output, Published
from schemas.records import Belief, Decision, ErrorBound, HumanLabel, Reject, ReviewItem, Vote

EMBED_VERSION = 1
DECIDE_VERSION = 2
VECTORS = "vectors.npy"


@dataclass(frozen=True)
class Deciding:
    """How one run turns votes into decisions, with what people said and what texts are alike."""

    run: Run
    config: CalibratePlan
    made: Material
    people: Published | None
    vectors: Published | None

    def decide(self, votes: Votes, prefix: str = "") -> Published:
        """Decisions from votes, as `PREFIXcalibrate` and `PREFIXdecide`."""
        beliefs = _calibrate(self, votes, prefix)
        return _decide(self.run, self.made, beliefs, self.people, prefix)


def decide_by_beliefs(
    run: Run, config: CalibratePlan, made: Material, votes: Votes
) -> tuple[Votes, Published]:
    """All votes, people's among them, and what is decided; the review queue where one is wanted."""
    people = _people(run, made) if run.plan.humans is not None else None
    vectors = _embed(run, made) if run.plan.embed is not None else None
    deciding = Deciding(run, config, made, people, vectors)
    if run.plan.rounds is None:
        decisions = deciding.decide(votes)
    else:
        # torch is loaded for these alone
        from flows.rounds import refine

        votes, decisions = refine(run, run.plan.rounds, made, votes, deciding)
    if run.plan.route is not None:
        _route(run, made, run.published["calibrate"], decisions, people, vectors)
    if people is not None:
        votes = Votes({**votes.by_name, "humans": people})
    return votes, decisions


def _people(run: Run, made: Material) -> Published:
    """People's votes on this run's pairs."""
    config = run.plan.humans
    assert config is not None
    files = humans.inputs_digest(config)
    version = {"aggregate_version": aggregate.VERSION} if config.aggregate is not None else {}
    step = Step(
        "humans",
        humans.NAME,
        humans.VERSION,
        {**settings(config, "paths"), **version},
        {**files, **_known_digests(run), **digests(pairs=made.paired)},
    )

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        pairs = set(made.paired.table("pairs")["id"].to_pylist())
        known = {label.pair_id for label in _known(run, pairs)[0]}
        votes, labels, rejects = humans.read_votes(config, pairs, config.without, known)
        advance(len(votes), 0)
        said, agreed = Vote.to_table(votes), HumanLabel.to_table(labels)
        if config.aggregate is not None:
            agreed = aggregate.aggregate(
                said, config.aggregate, pairs=made.paired.table("pairs"), asked=agreed
            )
        output: Output = {
            "votes": (Vote, said),
            "labels": (HumanLabel, agreed),
            "rejects": (Reject, Reject.to_table(rejects)),
        }
        return output, {"rows": len(votes)}

    return stage(run, step, whole(run, step, work), lambda: 0, seed=0)


def _known(run: Run, pairs: Collection[str]) -> tuple[list[HumanLabel], list[Reject]]:
    """Answers that are known beforehand, of the pairs, and rows that could not be read."""
    if run.plan.route is None or not run.plan.route.known:
        return [], []
    labels, rejects = humans.read_known(run.plan.route.known, pairs)
    return labels, [reject.model_copy(update={"stage": "route"}) for reject in rejects]


def _known_digests(run: Run) -> dict[str, str]:
    """The files of known answers, as inputs."""
    if run.plan.route is None or not run.plan.route.known:
        return {}
    files = humans.files_digest(run.plan.route.known)
    return {f"known: {name}": found for name, found in files.items()}


def _embed(run: Run, made: Material) -> Published:
    """Vectors of the responses, in their order: float32 [responses, d]."""
    assert run.plan.embed is not None
    embed = Embedder(run.plan.embed)
    step = Step(
        "embed",
        "embed",
        EMBED_VERSION,
        {"model": embed.identity},
        digests(responses=made.responses),
    )
    total = made.responses.manifest.rows("responses")

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        texts = made.responses.table("responses")["text"].to_pylist()
        np.save(draft.files() / VECTORS, embed(texts), allow_pickle=False)
        advance(len(texts), 0)
        return {}, {"rows": len(texts)}

    return stage(run, step, whole(run, step, work), lambda: total, seed=0)


def _vectors(output: Published) -> np.ndarray:
    found: np.ndarray = np.load(output.path / "files" / VECTORS, "r", allow_pickle=False)
    return found


def _calibrate(deciding: Deciding, votes: Votes, prefix: str) -> Published:
    """P(label is right) of every pair."""
    run, config, made = deciding.run, deciding.config, deciding.made
    people, vectors = deciding.people, deciding.vectors
    step = Step(
        f"{prefix}calibrate",
        calibrate.NAME,
        calibrate.VERSION,
        settings(config),
        {**made.digests(), **votes.digests(), **digests(humans=people, embed=vectors)},
    )
    total = made.paired.manifest.rows("pairs")

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        pairs, prompts = made.paired.table("pairs"), made.prompts.table("prompts")
        matrix = votes_matrix(pairs, votes.table())
        own = features(
            pairs,
            prompts,
            made.responses.table("responses"),
            matrix,
            _vectors(vectors) if vectors is not None else None,
        )
        beliefs, report = calibrate.calibrate(
            matrix,
            own,
            _answers(run, people) if people is not None else None,
            _slices(pairs, prompts, config),
            config,
            run.plan.seed,
        )
        advance(len(beliefs), 0)
        return {"beliefs": (Belief, beliefs)}, {"rows": len(beliefs), **report}

    return stage(run, step, whole(run, step, work), lambda: total)


def _answers(run: Run, people: Published) -> pa.Table:
    """What people said as calibration takes it: pair_id, value, annotator; put together, people."""
    if (labels := _put_together(run, people)) is not None:
        together = pa.array(["together"] * len(labels), pa.string())
        columns = labels.select(["pair_id", "value", "people"])
        return columns.append_column("annotator", together)
    votes = people.table("votes")
    votes = votes.filter(pc.is_valid(votes["value"]))
    return pa.table(
        {"pair_id": votes["unit"], "value": votes["value"], "annotator": votes["judge"]}
    )


def _put_together(run: Run, people: Published | None) -> pa.Table | None:
    """`HumanLabel` rows of the aggregation that the plan names; none: the mean of the votes counts."""
    config = run.plan.humans
    if people is None or config is None or config.aggregate is None:
        return None
    return people.table("labels")


def _slices(pairs: pa.Table, prompts: pa.Table, config: CalibratePlan) -> pa.Table | None:
    if config.slices == "none":
        return None
    column = pl.DataFrame(pl.from_arrow(prompts)).select(prompt_id="id", slice=config.slices)
    frame = pl.DataFrame(pl.from_arrow(pairs)).select("prompt_id", pair_id="id")
    found = frame.join(column, on="prompt_id", how="left", maintain_order="left")
    return found.select("pair_id", "slice").to_arrow()


def _decide(
    run: Run, made: Material, beliefs: Published, people: Published | None, prefix: str
) -> Published:
    """Actions by posterior and costs, and what of it lies within the stated bound."""
    costs, bounding = run.plan.decide.costs, run.plan.risk
    # People can be asked where there is a queue to put the pair in.
    costs = costs.model_copy(update={"route": costs.route and run.plan.route is not None})
    step = Step(
        f"{prefix}decide",
        "decide_by_posterior",
        DECIDE_VERSION,
        {
            **settings(costs),
            "risk": settings(bounding) if bounding else None,
            "risk_version": risk.VERSION,
        },
        digests(pairs=made.paired, beliefs=beliefs, humans=people),
    )
    total = made.paired.manifest.rows("pairs")

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        pairs, believed = made.paired.table("pairs"), beliefs.table("beliefs")
        together = _put_together(run, people)
        empty = master_keys(made.responses.table("responses"))
        decisions = decide.decide_by_posterior(believed, pairs, costs, empty, people=together)
        output: dict[str, Any] = {}
        facts: dict[str, Any] = {"rows": len(decisions)}
        if people is not None:
            changed = decide.changed_by_people(believed, pairs, costs, decisions, empty)
            facts["changed_by_people"] = changed
        if bounding is not None:
            labels = (
                people.table("labels")
                if people is not None
                else HumanLabel.arrow_schema().empty_table()
            )
            prompts = pa.table({"pair_id": pairs["id"], "prompt_id": pairs["prompt_id"]})
            accepted, bounds = risk.bound(
                risk.final(believed), risk.answers(believed, labels), prompts, bounding
            )
            decisions = risk.accept(decisions, believed, accepted)
            output["bounds"] = (ErrorBound, bounds)
        advance(len(decisions), 0)
        return {"decisions": (Decision, decisions), **output}, facts

    return stage(run, step, whole(run, step, work), lambda: total)


def _route(
    run: Run,
    made: Material,
    beliefs: Published,
    decisions: Published,
    people: Published | None,
    vectors: Published | None,
) -> Published:
    """The review queue: whom to ask about what, in which order."""
    config = run.plan.route
    assert config is not None
    step = Step(
        "route",
        routing.NAME,
        routing.VERSION,
        settings(config, "known"),
        {
            **digests(pairs=made.paired, beliefs=beliefs, decisions=decisions),
            **digests(humans=people, embed=vectors),
            **_known_digests(run),
        },
    )

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        believed = beliefs.table("beliefs")
        known, rejects = _known(run, set(believed["pair_id"].to_pylist()))
        queue = routing.route(
            believed,
            decisions.table("decisions"),
            config,
            seed=run.plan.seed,
            round=config.round,
            asked=_asked(people, config.round) if people is not None else None,
            embeddings=of_pairs(made, vectors) if vectors is not None else None,
            gold=[label.pair_id for label in known],
        )
        advance(len(queue), 0)
        output: dict[str, Any] = {"queue": (ReviewItem, queue)}
        if config.known:
            output["known"] = (HumanLabel, HumanLabel.to_table(known))
            output["rejects"] = (Reject, Reject.to_table(rejects))
        return output, {
            "rows": len(queue),
            "worth_another_round": routing.worth_another_round(queue),
        }

    return stage(run, step, whole(run, step, work), lambda: 0)


def _asked(people: Published, round: int) -> pa.Table:
    """The pairs that people have answered, as items of earlier rounds."""
    return ReviewItem.to_table(
        ReviewItem(
            pair_id=label.pair_id,
            round=max(0, round - 1),
            rank=rank,
            purpose=label.purpose,
            value=0.0,
            propensity=label.propensity,
            overlap=label.people,
            seconds=0.0,
            why="answered",
        )
        for rank, label in enumerate(HumanLabel.from_table(people.table("labels")))
    )


def of_pairs(made: Material, embedded: Published) -> np.ndarray:
    """A vector a pair: the middle of its responses', float32 [pairs, d]."""
    vectors = _vectors(embedded)
    ids = made.responses.table("responses")["id"].to_pylist()
    row = {response: at for at, response in enumerate(ids)}
    pairs = made.paired.table("pairs")
    sides = [
        vectors[[row[response] for response in pairs[name].to_pylist()]]
        for name in ("response_a", "response_b")
    ]
    return np.asarray((sides[0] + sides[1]) / 2, np.float32)


def stated(run: Run, decisions: Published) -> dict[str, Any]:
    """What a dataset's card says of its probabilities and of the error of what was accepted."""
    made = run.published.get("calibrate")
    if made is None:
        return {}
    report = made.manifest.facts
    if not report["calibrated"]:
        return {"probability": f"It is not calibrated: {report['warning']}."}
    found: dict[str, Any] = {
        "probability": (
            f"It is calibrated on {report['labels']:,} pairs of {report['label_prompts']:,} prompts "
            f"that people labelled (model: {report['model']}; log loss on prompts it was not fitted "
            f"to: {report['log_loss']:.3f} nats)."
        )
    }
    if "bounds" in decisions.manifest.tables:
        rows = ErrorBound.from_table(decisions.table("bounds"))
        found["bounds"] = [in_words(row) for row in rows]
    return found


def in_words(bound: ErrorBound) -> str:
    """An error bound as a sentence."""
    where = "all pairs" if bound.slice == "all" else f"the pairs of {bound.slice}"
    behind = f"{bound.labels:,} labels of {bound.prompts:,} prompts"
    if bound.bound is None:
        return f"Nothing is accepted of {where}: {bound.reason} ({behind})."
    if bound.kind == "joint":
        what = f"at most {bound.bound:.2%} of {where} are both accepted and wrong, in expectation"
    else:
        what = (
            f"at most {bound.bound:.2%} of what is accepted of {where} is wrong, "
            f"with {bound.confidence:.0%} confidence"
        )
    return f"Of {where}, {bound.accepted:,} of {bound.pairs:,} are accepted: {what}. Behind it: {behind}."
