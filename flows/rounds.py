"""The closed loop: train on what is decided, let the model judge, relabel around its errors, decide anew.

The model of a round never judges a pair that it was trained on: the prompts are dealt into folds by
a hash, and each fold's pairs are judged by a model trained on the others'. Around the pairs that it
gets wrong, neighbours are retrieved by embedding (error-adaptive, as Skywork-Reward-V2 does) and put
to a judge that is too dear to be asked about all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from flows import panel
from flows.calibrating import Deciding, of_pairs
from flows.learning import TRAIN_VERSION, read_split
from flows.material import Material, Votes
from flows.plan import RoundsPlan
from flows.runner import Run, Step, ask, check_failures, digests, settings, stage, whole
from pipelines.config import Advance, silent
from pipelines.consistency.presets import retrieved
from pipelines.emit.emit import Config as EmitConfig
from pipelines.emit.emit import Tables, emit
from pipelines.engines.folder import folder_digest
from pipelines.judge.cases import squashed
from pipelines.store import Draft, Output, Published
from pipelines.training.config import model_folder
from schemas.record import Record, digest
from schemas.records import (
    Decision,
    Message,
    Pair,
    Preference,
    Prompt,
    Reject,
    Response,
    StepLabels,
    StepPair,
    Trajectory,
    Vote,
)

VERSION = 1
_STEPS: dict[str, type[Record]] = {
    "step_labels": StepLabels,
    "trajectories": Trajectory,
    "step_pairs": StepPair,
}


def refine(
    run: Run, config: RoundsPlan, made: Material, votes: Votes, deciding: Deciding
) -> tuple[Votes, Published]:
    """Rounds of training, judging, relabelling and deciding; all votes, and the last decisions."""
    relabelled: dict[str, Published] = {}
    decisions = deciding.decide(votes, "round.0.")
    now = votes
    for number in range(1, config.count + 1):
        name = f"round.{number}"
        judged = _crossfit(run, config, made, now, decisions, number)
        if config.judge is not None:
            relabelled[f"{name}.relabel"] = _relabel(
                run, config, made, judged, decisions, deciding, list(relabelled.values()), number
            )
        # A newer model speaks for the older ones: their votes would count the same data twice.
        now = Votes({**votes.by_name, f"{name}.reward": judged, **relabelled})
        last = number == config.count
        decisions = deciding.decide(now, "" if last else f"{name}.")
    return now, decisions


def fold_of(prompt_id: str, folds: int, seed: int) -> int:
    """Which fold a prompt's pairs are in."""
    return int(digest("crossfit", seed, prompt_id)[:13], 16) % folds


def _crossfit(
    run: Run, config: RoundsPlan, made: Material, votes: Votes, decisions: Published, number: int
) -> Published:
    """Votes of reward models, each on pairs of prompts that it has not seen."""
    step = Step(
        f"round.{number}.reward",
        "crossfit",
        VERSION,
        {
            "folds": config.folds,
            "reward": settings(config.reward, "base", "threads"),
            "train_version": TRAIN_VERSION,
            "judge": f"reward-{number}",
        },
        {
            **made.digests(),
            **votes.digests(),
            **digests(decisions=decisions),
            "base": folder_digest(model_folder(config.reward.base)),
        },
    )
    total = made.paired.manifest.rows("pairs")

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        read = _Read.of(made, votes, decisions)
        pairs = read.tables.pairs
        folds = np.array(
            [fold_of(p, config.folds, run.plan.seed) for p in pairs["prompt_id"].to_pylist()]
        )
        values: dict[str, float | str] = {}
        for fold in range(config.folds):
            inside = pairs.filter(pa.array(folds == fold))
            outside = pairs.filter(pa.array(folds != fold))
            values |= _judged_by_others(run, config, read, inside, outside)
            advance(len(inside), 0)
        rows = [_vote(pair, values[pair], number) for pair in pairs["id"].to_pylist()]
        return {"votes": (Vote, Vote.to_table(rows))}, {"rows": len(rows)}

    return stage(run, step, whole(run, step, work), lambda: total)


@dataclass(frozen=True)
class _Read:
    """What the folds of a round share, read once."""

    tables: Tables
    """All of it, as it would be emitted."""
    texts: dict[str, tuple[tuple[Message, ...], str]]
    """By response id: what was asked, and the answer."""

    @classmethod
    def of(cls, made: Material, votes: Votes, decisions: Published) -> _Read:
        tables = Tables(
            prompts=made.prompts.table("prompts"),
            responses=made.responses.table("responses"),
            pairs=made.paired.table("pairs"),
            votes=votes.table(),
            decisions=decisions.table("decisions"),
            **{name: record.arrow_schema().empty_table() for name, record in _STEPS.items()},
            rejects=(),
        )
        asked = {p.id: p.messages for p in Prompt.from_table(tables.prompts)}
        answers = Response.from_table(tables.responses)
        return cls(tables, {r.id: (asked[r.prompt_id], r.text) for r in answers})


def _vote(pair: str, value: float | str, number: int) -> Vote:
    said = isinstance(value, str)
    return Vote(
        unit=pair,
        unit_kind="pair",
        judge=f"reward-{number}",
        judge_kind="reward_model",
        value=None if said else round(float(value), 9),
        reason=str(value) if said else f"trained on other prompts, round {number}",
    )


def _judged_by_others(
    run: Run,
    config: RoundsPlan,
    read: _Read,
    inside: pa.Table,
    outside: pa.Table,
) -> dict[str, float | str]:
    """By pair id of `inside`: the vote of a model trained on `outside`, or why there is none."""
    from pipelines.training.reward import train_reward
    from pipelines.training.scoring import RewardModel

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = _preferences(read.tables, outside, folder / "data")
        if len(rows) < config.min_pairs:
            why = f"too_few_pairs: {len(rows)} decided pairs, {config.min_pairs} are needed"
            return dict.fromkeys(inside["id"].to_pylist(), why)
        train_reward(config.reward, rows, None, folder / "model", run.plan.seed, silent)
        model = RewardModel.load(folder / "model")
        sides = sorted({*inside["response_a"].to_pylist(), *inside["response_b"].to_pylist()})
        items = [read.texts[side] for side in sides]
        refused = model.refusals(items)
        fine = [at for at, why in enumerate(refused) if why is None]
        scores: list[float] = list(model.score([items[at] for at in fine]))
        score = {sides[at]: float(s) for at, s in zip(fine, scores, strict=True)}
    found: dict[str, float | str] = {}
    for pair in Pair.from_table(inside):
        if pair.response_a in score and pair.response_b in score:
            found[pair.id] = squashed(score[pair.response_a] - score[pair.response_b])
        else:
            found[pair.id] = "too_long"
    return found


def _preferences(every: Tables, pairs: pa.Table, out: Path) -> pa.Table:
    """What is decided of these pairs, as it would be emitted."""
    ids = pl.Series(pairs["id"].to_pylist())
    decided = pl.DataFrame(pl.from_arrow(every.decisions))
    own = decided.filter(pl.col("pair_id").is_in(ids.implode())).to_arrow()
    tables = replace(every, pairs=pairs, decisions=own.cast(Decision.arrow_schema()))
    emit(EmitConfig(name="crossfit", validation=0.0, test=0.0), tables, out)
    return read_split(out, Preference, "train")


def _relabel(
    run: Run,
    config: RoundsPlan,
    made: Material,
    judged: Published,
    decisions: Published,
    deciding: Deciding,
    before: Sequence[Published],
    number: int,
) -> Published:
    """Votes of the dear judge on the neighbours of what the model gets wrong."""
    assert config.judge is not None
    judge = run.plan.judge.panel[config.judge]
    used = panel.engines(run, judge)
    vectors = deciding.vectors
    assert vectors is not None
    step = panel.step(
        run,
        f"round.{number}.relabel",
        "relabel",
        config.judge,
        judge,
        used,
        {
            **digests(reward=judged, decisions=decisions, embed=vectors, **made.by_name()),
            **{f"before.{at}": output.manifest.digest for at, output in enumerate(before)},
        },
        {"most": config.most, "neighbours": config.neighbours, "relabel_version": VERSION},
    )

    def work(draft: Draft, advance: Advance) -> tuple[Output, dict[str, Any]]:
        pairs = made.paired.table("pairs")
        known = {unit for output in before for unit in output.table("votes")["unit"].to_pylist()}
        chosen = _near_errors(config, pairs, judged, decisions, of_pairs(made, vectors), known)
        cases = panel.cases_of(
            made.prompts.table("prompts"),
            made.responses.table("responses"),
            pairs.take(pa.array(chosen, pa.int64())),
        )
        done = ask(
            list(used.values()),
            lambda: panel.judge(config.judge or "", judge, cases, used, run.plan.seed, advance),
        )
        check_failures(run, list(used.values()), step.name, done.rejects, len(done.votes))
        output: Output = {
            "votes": (Vote, Vote.to_table(done.votes)),
            "rejects": (Reject, Reject.to_table(done.rejects)),
        }
        return output, {"rows": len(cases)}

    return stage(run, step, whole(run, step, work), lambda: 0)


def _near_errors(
    config: RoundsPlan,
    pairs: pa.Table,
    judged: Published,
    decisions: Published,
    vectors: np.ndarray,
    known: set[str],
) -> list[int]:
    """Rows of the pairs to relabel: neighbours of decided pairs, the more the surer the model errs."""
    votes = pl.DataFrame(pl.from_arrow(judged.table("votes"))).select(unit="unit", vote="value")
    frame = (
        pl.DataFrame(pl.from_arrow(pairs))
        .select(pair_id="id")
        .with_row_index("row")
        .join(pl.DataFrame(pl.from_arrow(decisions.table("decisions"))), on="pair_id", how="left")
        .join(votes, left_on="pair_id", right_on="unit", how="left")
        .sort("row")
        .with_columns(
            # The model's probability of the decided side: the vote is 2 sigmoid(m) - 1.
            p=pl.when(pl.col("target") > 0.5)
            .then((1 + pl.col("vote")) / 2)
            .otherwise((1 - pl.col("vote")) / 2)
        )
    )
    settled = frame.filter(
        pl.col("action").is_in(["keep", "flip"]) & (pl.col("p") < config.error_below)
    ).sort("p", "pair_id")
    unsure = frame.filter(
        ~pl.col("pair_id").is_in(sorted(known))
        & (~pl.col("action").is_in(["keep", "flip"]) | (pl.col("probability") < config.sure))
    )
    if not len(settled) or not len(unsure):
        return []
    pool = unsure["row"].to_numpy()
    near = retrieved(
        vectors[settled["row"].to_numpy()],
        settled["p"].to_list(),
        vectors[pool],
        most=config.neighbours,
    )
    wanted = dict.fromkeys(int(pool[at]) for own in near for at in own)
    return list(wanted)[: config.most]
