"""The page of runs with a panel, rubrics, people and calibration: real runs, and their counts add up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flows import report_counts, report_data, report_decisions, report_judges, report_rubrics, runs
from flows.report import render
from pipelines.store import Published, Store
from tests.flows.plans import merged, prompt, scripted
from tests.flows.test_report_data import collected, made
from tests.flows.test_report_judging import section

JUDGES: dict[str, Any] = {
    "engines": {
        "judge": {
            "kind": "scripted",
            "replies": [
                '{"winner": "A", "strength": 2}',
                '{"winner": "B", "strength": 1}',
                "<b>neither</b>",
            ],
        }
    },
    "failure_limit": 1.0,
    "shard_rows": 50,
    "judge": {
        "panel": {
            "asked": {"kind": "pairwise", "engine": "judge"},
            "overlap": {"kind": "code", "measure": "chrf"},
        }
    },
}
RUBRICS = {"methods": ["mined"], "held_out": 0.4}


def outputs(folder: Path) -> dict[str, Published]:
    store = Store.open(folder / "store", create=False)
    return dict(runs.load(store, "latest").outputs(store))


def frame(output: Published, table: str) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(output.table(table)))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything between pairs and decisions; people are right but for each ninth time."""
    folder = tmp_path_factory.mktemp("full")
    plan = merged(scripted(process=None, rubrics=RUBRICS, calibrate={}), JUDGES)
    rows = [prompt(n) for n in range(120)]
    made(folder, plan, rows)
    pairs = frame(outputs(folder)["pairs"], "pairs")
    with (folder / "people.jsonl").open("w") as file:
        for i, row in enumerate(pairs.iter_rows(named=True)):
            if i % 3 == 2:
                continue
            side = 1.0 if row["label"] == "a" else -1.0
            told = {
                "pair_id": row["id"],
                "value": 0.0 if i % 40 == 0 else side * (-1) ** (i % 9 == 0),
            }
            told |= {"annotator": f"p{i % 2}", "purpose": "value" if i % 3 else "audit"}
            file.write(json.dumps({**told, "propensity": 1.0 if i % 3 else 0.33}) + "\n")
        file.write("{\n")
    more = {
        "humans": {"paths": ["people.jsonl"]},
        "risk": {"alpha": 0.15},
        "route": {"answers": 12, "error_cost": 50.0},
    }
    made(folder, merged(plan, more), rows)
    return folder


def test_every_stage_between_pairs_and_decisions_is_counted(full: Path) -> None:
    data, stages = collected(full / "store")
    done = outputs(full)
    pairs = done["pairs"].manifest.rows("pairs")
    assert pairs > 100
    for name in ("panel.asked", "panel.overlap", "rubric", "calibrate"):
        assert (stages[name].rows_in, stages[name].after) == (pairs, "pairs")
        assert stages[name].rows_out + stages[name].rejected == pairs
        assert not stages[name].drawn
    assert {"position clash", "for A", "for B"} <= set(stages["panel.asked"].outcomes)
    verdicts = frame(done["verdicts"], "votes")
    assert stages["verdicts"].rows_in == len(verdicts)
    assert stages["verdicts"].outcomes["met"] == (verdicts["value"] == 1).sum()
    assert stages["rubrics"].outcomes == {"hard_rule": done["rubrics"].manifest.rows("criteria")}
    assert stages["rubric_value"].rows_in == done["rubrics"].manifest.rows("rubrics")
    people = done["humans"].manifest.rows("votes")
    assert (stages["humans"].rows_out, stages["humans"].rejects) == (people, {"not_json": 1})
    assert stages["calibrate"].outcomes == {"calibrated": pairs}
    queue = frame(done["route"], "queue")
    assert stages["route"].rows_out == len(queue) > 0
    assert stages["route"].outcomes == dict(Counter(queue["purpose"]).most_common())
    # The way of the rows is drawn as before: beside it, nothing branches off.
    page = render(data)
    assert page.count('class="chart flow"') == 3
    assert page.index("Where the pairs went") < page.index("decide: ")


def test_what_a_judge_could_not_judge_has_its_reason(full: Path, tmp_path: Path) -> None:
    plan = merged(
        scripted(process=None),
        merged(JUDGES, {"engines": {"judge": {"replies": ["<b>neither</b>"]}}}),
    )
    made(tmp_path, plan, 8)
    data, stages = collected(tmp_path / "store")
    asked = stages["panel.asked"]
    assert asked.rejects == {"not_json": asked.rows_in}
    assert (asked.rows_out, asked.outcomes) == (0, {})
    assert asked.note == f"{2 * asked.rows_in} requests without a usable answer"
    examples = [r for r in data.rejects if r.stage == "panel.asked"]
    pairs = set(frame(outputs(tmp_path)["pairs"], "pairs")["id"])
    assert len(examples) == min(3, asked.rows_in)
    assert all(r.unit in pairs and len(r.detail) > len("not_json") for r in examples)
    assert section(render(data), "judges").count("0.0%") >= 1
    _, judged = collected(full / "store")
    assert judged["panel.asked"].note.endswith("requests without a usable answer")


def test_cards_of_judges_count_their_own_votes(full: Path) -> None:
    done = outputs(full)
    shown = {judge.name: judge for judge in report_judges.judges(done)}
    assert list(shown)[-1] == "rubric"
    assert {"verifier", "asked", "overlap", "rubric"} <= set(shown)
    votes = frame(done["panel.asked"], "votes")
    asked = shown["asked"]
    assert (asked.votes, asked.usable) == (len(votes), votes["value"].count())
    by_pair = votes.drop_nulls("value").group_by("unit").agg(pl.col("value"), pl.len())
    assert asked.both == (by_pair["len"] == 2).sum()
    clashes = by_pair.filter(
        pl.col("len") == 2, pl.col("value").list.min() < 0, pl.col("value").list.max() > 0
    )
    assert asked.clashes == len(clashes) > 0
    assert sum(asked.sides.values()) == len(by_pair)
    figures = {figure.measure: figure for figure in asked.own}
    assert figures["swap_consistency"].value == pytest.approx(1 - len(clashes) / asked.both)
    first = votes.drop_nulls("value").select(
        pl.when(pl.col("order") == "ab").then(pl.col("value")).otherwise(-pl.col("value"))
    )["value"]
    assert figures["position_preference"].value == pytest.approx((first > 0).mean() - 0.5)
    assert "human_agreement" in figures
    assert "position_preference" not in {f.measure for f in shown["overlap"].own}
    # Right answers are told by the verifier, whose labels these pairs have.
    told = {figure.measure: figure.value for figure in shown["verifier"].own}
    assert told["agreement"] == 1.0
    people = frame(done["humans"], "labels").filter(pl.col("value") != 0)
    given = people.join(frame(done["pairs"], "pairs"), left_on="pair_id", right_on="id")
    same = (given["value"] > 0) == (given["label"] == "a")
    assert told["human_agreement"] == pytest.approx(same.mean())


def test_length_preference_is_over_all_pairs(full: Path) -> None:
    done = outputs(full)
    sizes = dict(
        frame(done["generate"], "responses")
        .select("id", pl.col("text").str.len_chars())
        .iter_rows()
    )
    shown = {judge.name: judge for judge in report_judges.judges(done)}["verifier"]
    taken = []
    votes = {
        row["unit"]: row["value"]
        for row in frame(done["judge"], "votes").iter_rows(named=True)
        if row["judge"] == "verifier"
    }
    for row in frame(done["pairs"], "pairs").iter_rows(named=True):
        gap = sizes[row["response_a"]] - sizes[row["response_b"]]
        if gap:
            side = votes[row["id"]] * gap
            taken.append(0.5 if side == 0 else float(side > 0))
    figure = next(f for f in shown.own if f.measure == "length_preference")
    assert (figure.value, figure.n) == (pytest.approx(sum(taken) / len(taken) - 0.5), len(taken))


def test_figures_are_of_a_sample_where_there_are_many_pairs(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = {judge.name: judge for judge in report_judges.judges(outputs(full))}["verifier"]
    monkeypatch.setattr(report_judges, "MEASURED", 20)
    few = {judge.name: judge for judge in report_judges.judges(outputs(full))}["verifier"]
    assert (few.votes, few.sides) == (every.votes, every.sides)
    assert next(f.n for f in few.own if f.measure == "usable_share") == 20


def test_a_judge_that_fails_its_probes_is_shown_with_the_reason(tmp_path: Path) -> None:
    limits = {"judge": {"probes": {"limits": {"usable_share": 0.99}}}}
    made(tmp_path, merged(merged(scripted(process=None), JUDGES), limits), 4)
    data, stages = collected(tmp_path / "store")
    out = next(judge for judge in data.judges if judge.left_out)
    assert (out.name, out.kind, out.votes) == ("asked", "pairwise", 0)
    assert out.left_out.startswith("usable_share 0.")
    assert "panel.asked" not in stages
    assert stages["probes.asked"].outcomes["break their limit"] == 1
    assert any(r.stage == "probes.asked" and r.code == "not_json" for r in data.rejects)
    assert f"left out {out.left_out}" in section(render(data), "judges")
    assert {engine.role for engine in data.engines} == {"generate", "judge asked"}


def test_rubrics_are_shown_with_their_fate(full: Path) -> None:
    done = outputs(full)
    shown = report_rubrics.rubrics(done)
    assert shown is not None
    assert (shown.made, shown.more, shown.judge) == (1, 0, "code")
    (rubric,) = shown.rubrics
    fates = [criterion.fate for criterion in rubric.criteria]
    assert fates == sorted(fates, key=["keep", "flip", "draft", "retire"].index)
    kept = set(frame(done["rubric_value"], "criteria")["id"])
    assert {c.criterion.id for c in rubric.criteria if c.fate == "keep"} == kept
    for criterion in rubric.criteria:
        assert criterion.value is not None
        assert criterion.value.criterion_id == criterion.criterion.id
        assert criterion.fate == criterion.value.action
    assert sum(shown.tested.values()) == len(rubric.criteria)
    # Before the proof there is nothing to say of any of them.
    drafts = report_rubrics.rubrics({"rubrics": done["rubrics"]})
    assert drafts is not None
    assert {c.fate for r in drafts.rubrics for c in r.criteria} == {"draft"}
    assert drafts.tested == {}


def test_long_lists_of_criteria_are_cut(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_rubrics, "SHOWN", 2)
    shown = report_rubrics.rubrics(outputs(full))
    assert shown is not None
    assert [len(r.criteria) for r in shown.rubrics] == [2]
    assert shown.more == shown.criteria - 2 > 0


def test_beliefs_are_held_against_people(full: Path) -> None:
    done = outputs(full)
    decided = report_decisions.decisions(done)
    assert decided is not None
    beliefs = frame(done["calibrate"], "beliefs")
    people = frame(done["humans"], "labels")
    audit = people.filter(pl.col("purpose") == "audit", pl.col("value") != 0)
    assert decided.audited
    assert decided.labelled == len(audit) == sum(b.count for b in decided.bins)
    joined = audit.join(beliefs, on="pair_id")
    right = (joined["value"] > 0) == (joined["label"] == "a")
    assert sum(b.right for b in decided.bins) == right.sum()
    split = people.filter(pl.col("purpose") == "audit", pl.col("value") == 0)
    assert decided.split == len(split) > 0
    assert decided.actions is not None
    assert sum(h.total for h in decided.actions.values()) == decided.pairs == len(beliefs)
    assert sum(n for _, _, n in decided.reasons) == decided.pairs
    assert {j.judge for j in decided.judges} == {j.name for j in report_judges.judges(done)} - {
        "step_values",
        "likelihood",
    }
    assert ("model", done["calibrate"].manifest.facts["model"]) in decided.facts


def test_risk_is_of_the_side_the_machine_takes(full: Path) -> None:
    done = outputs(full)
    decided = report_decisions.decisions(done)
    assert decided is not None
    points = decided.risk
    coverage = [p.coverage for p in points]
    assert coverage == sorted(coverage)
    audit = frame(done["humans"], "labels").filter(pl.col("purpose") == "audit")
    beliefs = frame(done["calibrate"], "beliefs")
    joined = audit.join(beliefs, on="pair_id").with_columns(
        sure=pl.max_horizontal("probability", 1 - pl.col("probability")),
        for_a=(pl.col("label") == "a") != (pl.col("probability") < 0.5),
    )
    wrong = pl.when("for_a").then(pl.col("value") <= 0).otherwise(pl.col("value") >= 0)
    joined = joined.with_columns(wrong=wrong)
    every = beliefs.select(pl.max_horizontal("probability", 1 - pl.col("probability")))
    for point in points:
        inside = joined.filter(pl.col("sure") >= point.threshold)
        assert point.labels == len(inside)
        assert point.error == pytest.approx(inside["wrong"].mean())
        assert point.coverage == pytest.approx((every.to_series() >= point.threshold).mean())
        assert point.low <= point.error <= point.high
    assert points[-1].labels == len(joined)


def test_pairs_of_every_band_are_others_than_those_above(full: Path) -> None:
    data, _ = collected(full / "store")
    above = {row.pair.id for row in data.rows}
    decided = frame(outputs(full)["decide"], "decisions")
    assert sum(band.pairs for band in data.bands) == len(decided)
    probability = dict(decided.select("pair_id", "probability").iter_rows())
    for i, band in enumerate(data.bands):
        last = i == len(data.bands) - 1
        inside = [p for p in probability.values() if band.low <= p < band.high or (last and p == 1)]
        assert band.pairs == len(inside)
        for row in band.rows:
            assert row.pair.id not in above
            assert band.low <= probability[row.pair.id] <= band.high
            assert row.decision is not None and row.votes
    people = {v.judge for row in data.rows for v in row.votes if v.judge_kind == "human"}
    assert people, "people's votes stand beside the judges'"


def test_without_the_judges_of_what_is_known(tmp_path: Path) -> None:
    plan = merged(scripted(process=None), JUDGES)
    plan["judge"]["judges"] = []
    made(tmp_path, plan, 8)
    data, stages = collected(tmp_path / "store")
    assert {judge.name for judge in data.judges} == {"asked", "overlap"}
    assert data.rows and all(row.votes for row in data.rows)
    assert data.decisions is not None and data.decisions.calibrated is None
    assert "These probabilities are not calibrated." in section(render(data), "decisions")
    assert "judge" not in stages


def test_rounds_are_counted_and_their_last_model_votes(full: Path) -> None:
    done = outputs(full)
    rounds = {f"round.{n}.reward": done["panel.overlap"] for n in (1, 2)}
    rounds |= {"round.1.relabel": done["panel.asked"], "round.1.calibrate": done["calibrate"]}
    rounds |= {"round.1.decide": done["decide"]}
    stages = {s.stage: s for s in report_counts.stage_counts({**done, **rounds})}
    assert stages["round.1.decide"].outcomes == stages["decide"].outcomes
    assert stages["round.1.calibrate"].outcomes == stages["calibrate"].outcomes
    assert stages["round.2.reward"].outcomes == stages["panel.overlap"].outcomes
    assert stages["round.1.relabel"].rows_in == stages["panel.asked"].rows_in
    assert not any(stage.drawn for name, stage in stages.items() if name.startswith("round."))
    only = {"judge": done["judge"], **rounds}
    assert report_judges.voters(only) == [
        *(done["judge"], rounds["round.2.reward"], rounds["round.1.relabel"])
    ]


def test_the_seed_is_that_of_the_run(full: Path) -> None:
    assert collected(full / "store")[0].seed == 3


def test_a_run_that_stopped_after_any_of_these_stages_has_a_page(full: Path) -> None:
    store = Store.open(full / "store")
    record = runs.load(store, "latest")
    every = list(record.stages.items())
    for count in range([name for name, _ in every].index("pairs"), len(every) + 1):
        record.stages = dict(every[:count])
        assert render(report_data.collect(store, record))


def test_a_report_of_another_shape_is_shown_as_far_as_it_goes() -> None:
    facts = {
        "judges": [{"judge": "x", "weight": "heavy", "votes": None}, {"no": 1}, "y"],
        "slices": {"math": [0.5, 1]},
        "calibrated": True,
        "model": "m",
        "nothing": None,
        "rows": 4,
        "nan": float("nan"),
    }
    (judge,) = report_decisions._judges(facts)
    assert (judge.judge, judge.weight, judge.votes, judge.redundancy) == ("x", None, None, None)
    assert report_decisions._facts(facts) == (
        ("slices: math", "0.5, 1"),
        ("calibrated", "yes"),
        ("model", "m"),
        ("nan", "nan"),
    )
    assert report_decisions._judges({"judges": 3}) == ()
