"""What the page of a real run shows: its counts add up, whatever the run came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import report_data, runs
from flows.report import ReportData, StageCount, check, render
from flows.session import Summary
from pipelines import ingest
from pipelines.store import Store
from schemas.errors import UserError
from tests.flows.plans import REPLIES, STAGES, call, prompt, run, scripted, write_plan


def collected(root: Path) -> tuple[ReportData, dict[str, StageCount]]:
    """The data of a store's latest run, checked and rendered."""
    store = Store.open(root, create=False)
    data = report_data.collect(store, runs.load(store, "latest"))
    check(data)
    page = render(data)
    assert data.run_id in page
    return data, {count.stage: count for count in data.stages}


def made(folder: Path, plan: dict[str, Any] | None = None, rows: Any = 5) -> Summary:
    return run(write_plan(folder, plan, rows), folder / "store")


def test_a_run_with_rejects_everywhere(tmp_path: Path) -> None:
    plan = scripted(
        failure_limit=0.9, engines={"policy": {"fail_share": 0.2}}, decide={"route": False}
    )
    rows = [*(prompt(n) for n in range(8)), prompt(8, reference=None), "{", prompt(9, prompt="")]
    summary = made(tmp_path, plan, rows)
    data, stages = collected(tmp_path / "store")
    assert list(stages) == [s for s in STAGES if s != "judge"]
    ingested, generated = stages["ingest"], stages["generate"]
    assert (ingested.rows_in, ingested.rows_out) == (11, 9)
    assert ingested.rejects == {"not_json": 1, "empty_prompt": 1}
    assert (generated.rows_in, generated.each) == (9, 4)
    assert generated.rows_out + generated.rejects["refused"] == 36
    assert stages["verify"].rejects == {}
    assert set(stages["verify"].outcomes) <= {"right", "wrong", "unparsed", "no_reference"}
    assert stages["verify"].outcomes["no_reference"] > 0
    processed = stages["process"]
    assert processed.rows_out + sum(processed.rejects.values()) == generated.rows_out
    assert {"same_text", "refused", "no_reference"} <= set(processed.rejects)
    assert processed.note == f"{summary.rows['process']['rollouts']:,} rollouts"
    assert stages["pairs"].rows_out == stages["decide"].rows_in == stages["emit"].rows_in
    facts = call("show", "--root", tmp_path / "store", "--json").json["manifests"]["emit"]["facts"]
    assert stages["emit"].rows_out == sum(facts["rows"]["preference"].values())
    assert stages["emit"].outcomes == facts["rows"]["preference"]
    # Every stage's rejects have examples, at most three of a code, of the counted ones.
    shown = Counter((reject.stage, reject.code) for reject in data.rejects)
    counted = {
        (stage, code): n
        for stage, count in stages.items()
        for code, n in count.rejects.items()
        if stage not in ("decide", "emit")
    }
    assert shown == Counter({key: min(n, report_data.EXAMPLES) for key, n in counted.items()})
    assert data.positions is not None and data.positions.trajectories == processed.rows_out
    assert [d.digest for d in data.digests] == list(_digests(tmp_path / "store").values())
    [engine] = data.engines
    assert (engine.role, engine.kind) == ("generate, process", "scripted")


def _digests(root: Path) -> dict[str, str]:
    record = runs.load(Store.open(root), "latest")
    return {name: place["digest"] for name, place in record.stages.items()}


def test_rows_to_read_are_of_the_run(tmp_path: Path) -> None:
    made(tmp_path, scripted(), 8)
    data, _ = collected(tmp_path / "store")
    assert data.rows and max(Counter(row.group for row in data.rows).values()) <= 3
    for row in data.rows:
        assert row.decision is not None and row.decision.pair_id == row.pair.id
        assert {row.a.id, row.b.id} == {row.pair.response_a, row.pair.response_b}
        assert row.a.prompt_id == row.b.prompt_id == row.prompt.id == row.pair.prompt_id
        assert row.votes and all(vote.unit == row.pair.id for vote in row.votes)
        assert row.steps_a is None or row.steps_a.response_id == row.a.id
        assert row.a.text in REPLIES


def test_without_a_process_stage(tmp_path: Path) -> None:
    made(tmp_path, scripted(process=None))
    data, stages = collected(tmp_path / "store")
    assert "process" not in stages
    assert (data.step_values, data.interval_widths, data.positions) == (None, None, None)
    assert set(data.label_sources) == {"pairs"}
    assert all(row.steps_a is None for row in data.rows)


@pytest.mark.parametrize("process", [{"k": 2}, None])
def test_without_a_single_pair(process: dict[str, Any] | None, tmp_path: Path) -> None:
    plan = scripted(engines={"policy": {"replies": ["3+4=7\n#7"]}}, process=process)
    made(tmp_path, plan)
    data, stages = collected(tmp_path / "store")
    assert stages["pairs"].rows_out == stages["decide"].rows_in == stages["emit"].rows_out == 0
    assert stages["pairs"].rejects == {"no_contrast": 5}
    assert data.rows == () and data.decision_probabilities is None


def test_where_nothing_was_answered(tmp_path: Path) -> None:
    made(tmp_path, scripted(failure_limit=1.0, engines={"policy": {"fail_share": 1.0}}))
    data, stages = collected(tmp_path / "store")
    assert stages["generate"].rejects == {"refused": 20}
    assert stages["pairs"].rejects == {"no_response": 5}
    assert (stages["verify"].rows_in, stages["process"].rows_in) == (0, 0)
    assert data.step_values is None


def test_where_no_rollout_was_answered(tmp_path: Path) -> None:
    """Every reply is one line: its only step is its answer, and nothing is sampled."""
    made(tmp_path, scripted(engines={"policy": {"replies": ["#7", "#8"]}}))
    data, stages = collected(tmp_path / "store")
    assert stages["process"].note == "0 rollouts"
    assert data.interval_widths is None
    assert set(data.label_sources["steps"]) == {"answer"}


def test_one_prompt_of_many(tmp_path: Path) -> None:
    made(tmp_path, scripted(), [prompt(1), *("{}" for _ in range(20)), prompt(2, prompt="")])
    data, stages = collected(tmp_path / "store")
    assert (stages["ingest"].rows_out, stages["ingest"].rejected) == (1, 21)
    assert len([reject for reject in data.rejects if reject.code == "missing_prompt"]) == 3


def test_no_prompt_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of 2 rows can be used"):
        made(tmp_path, scripted(), ["{}", "{"])
    data, stages = collected(tmp_path / "store")
    assert list(stages) == ["ingest"]
    assert stages["ingest"].rejects == {"missing_prompt": 1, "not_json": 1}
    assert data.rows == ()


CONSTRAINTS = [
    {"kind": "matches", "value": "[0-9]"},
    {"kind": "matches", "value": "(unclosed"},
    {"kind": "max_words", "value": "3"},
    {"kind": "max_words", "value": "many"},
]


def test_constraints_that_cannot_be_checked_stop_at_ingest(tmp_path: Path) -> None:
    bad = [prompt(n, constraints=[CONSTRAINTS[0], CONSTRAINTS[c]]) for n, c in ((1, 1), (2, 3))]
    made(tmp_path, scripted(), [prompt(3, constraints=[CONSTRAINTS[0]]), prompt(4), *bad])
    data, stages = collected(tmp_path / "store")
    assert stages["ingest"].rejects == {"bad_constraint": 2}
    assert {r.unit for r in data.rejects if r.code == "bad_constraint"} == {
        "prompts.jsonl:3",
        "prompts.jsonl:4",
    }
    assert stages["verify"].rejects == {}


def test_a_response_with_a_verdict_and_two_bad_constraints_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a response has a verifier's vote and two rejects; ingest lets none through today."""
    monkeypatch.setattr(ingest.constraints, "validate", lambda constraint: None)
    bad = prompt(1, constraints=[CONSTRAINTS[1], CONSTRAINTS[3]])
    summary = made(tmp_path, scripted(), [bad, prompt(2), prompt(3)])
    assert summary.rows["verify"] == {"votes": 12, "rejects": 8}
    data, stages = collected(tmp_path / "store")
    verified = stages["verify"]
    assert (verified.rows_in, verified.rows_out) == (12, 8)
    assert verified.rejects == {"bad_constraint": 4}
    assert sum(verified.outcomes.values()) == 8
    examples = [reject for reject in data.rejects if reject.stage == "verify"]
    assert len(examples) == len({reject.unit for reject in examples}) == 3


def test_counts_that_do_not_add_up_are_not_shown(tmp_path: Path) -> None:
    made(tmp_path)
    data, _ = collected(tmp_path / "store")
    first, *rest = data.stages
    with pytest.raises(ValueError, match=r"^ingest: 6 rows in, 1 each, are not 5 out"):
        render(replace(data, stages=(replace(first, rows_in=6), *rest)))


def test_a_run_that_stopped_after_any_stage_has_a_page(tmp_path: Path) -> None:
    made(tmp_path)
    store = Store.open(tmp_path / "store")
    record = runs.load(store, "latest")
    every = list(record.stages.items())
    assert [name for name, _ in every] == STAGES
    for count in range(1, len(every) + 1):
        record.stages = dict(every[:count])
        data = report_data.collect(store, record)
        assert [d.stage for d in data.digests] == STAGES[:count]
        assert render(data)
