"""A run that is killed again and again: the same bytes, and nothing asked twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.crash import Outcome, Part, crash, local_plan, scripted_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def check(outcome: Outcome, kills: int) -> None:
    assert outcome.kills == kills
    assert outcome.asked_twice == 0
    assert outcome.replies_changed == 0
    assert outcome.identical == 1.0


def test_twenty_kills_while_a_dataset_is_made(tmp_path: Path) -> None:
    outcome = crash(tmp_path / "run", Part(scripted_plan(60, 10.0), "curate", 20), seed=11)
    check(outcome, 20)
    assert {"ingest", "generate", "process"} <= set(outcome.killed_in)
    assert outcome.parquet_files > 20
    assert 0 < outcome.asked_again_in_flight < outcome.asked


def test_an_engine_that_answers_differently_every_time_is_asked_once(tmp_path: Path) -> None:
    part = Part(scripted_plan(30, 10.0), "curate", 6, varying=True)
    outcome = crash(tmp_path / "run", part, seed=12)
    check(outcome, 6)
    assert outcome.varied
    assert outcome.asked_when_repeated == 0


def test_kills_while_models_are_trained_and_tested(tmp_path: Path) -> None:
    outcome = crash(tmp_path / "run", Part(local_plan(30, 24), "all", 5), seed=13)
    check(outcome, 5)
    assert len(outcome.killed_in) >= 3
    assert outcome.files > outcome.parquet_files > 40
