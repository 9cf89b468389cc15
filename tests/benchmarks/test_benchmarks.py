"""The benchmarks' JSON, and that their checks can fail."""

from __future__ import annotations

import json
import socket
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness, loop, throughput
from benchmarks.crash import Attempt, Event, Outcome, compare, disturbed
from flows.plan import load
from pipelines.ingest import inputs_digest


def test_a_result_has_the_documented_shape_and_names_no_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "x.json"
    chosen = harness.options("Doc.", seeds=3, argv=["--quick", "--out", str(out)])
    assert (chosen.quick, chosen.seeds) == (True, 1)
    result = harness.Result("x", [0], {"f": 1.5}, {"f": (1.0, 2.0)}, {"t": [{"a": 1}]})
    harness.report(result, chosen)
    printed = capsys.readouterr().out
    found = json.loads(printed)
    assert json.loads(out.read_text("utf-8")) == found
    assert set(found) == {
        "benchmark",
        "commit",
        "machine",
        "quick",
        "seeds",
        "figures",
        "intervals",
        "tables",
    }
    assert (found["figures"], found["intervals"]) == ({"f": 1.5}, {"f": [1.0, 2.0]})
    assert found["machine"]["cores"] >= 1 and found["machine"]["memory_gib"] > 0
    for name in (socket.gethostname(), str(harness.REPO), str(tmp_path)):
        assert name not in printed


def test_a_full_run_takes_its_own_number_of_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.options("Doc.", seeds=3, argv=[]) == harness.Options(False, 3, None)
    assert harness.options("Doc.", seeds=3, argv=["--seeds", "5"]).seeds == 5
    with pytest.raises(SystemExit):
        harness.options("Doc.", seeds=3, argv=["--seeds", "0"])
    assert "--seeds: at least 1" in capsys.readouterr().err


def test_the_interval_over_seeds_is_students() -> None:
    assert harness.mean_interval([0.5]) == (0.5, None)
    mean, interval = harness.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert interval == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-4)  # t(2) = 4.3027, / sqrt(3)


def test_peak_memory_is_at_least_what_is_held() -> None:
    before = harness.peak_mib()
    held = bytearray(64 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert harness.peak_mib() > 64
    assert harness.peak_mib() >= before


def test_the_bundled_plan_can_be_written_elsewhere(tmp_path: Path) -> None:
    plan = harness.demo_plan()
    plan["generate"]["system"] = 'a "quoted" line\nand é \U0001f600'
    text = harness.toml(plan)
    assert tomllib.loads(text) == plan
    (tmp_path / "plan.toml").write_text(text, "utf-8")
    here, there = load(tmp_path / "plan.toml"), load(harness.REPO / "data" / "plans" / "demo.toml")
    assert (here.engines, here.train, here.process) == (there.engines, there.train, there.process)
    assert inputs_digest(here.prompts) == inputs_digest(there.prompts)
    assert here.evaluate is not None and there.evaluate is not None
    assert inputs_digest(here.evaluate.prompts) == inputs_digest(there.evaluate.prompts)


def test_throughput_measures_both_engines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(throughput.ROWS, "quick", (800, 400))
    found = throughput.main(["--quick"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found))
    figures = found["figures"]
    assert {"inprocess_rows_per_s", "http_rows_per_s", "peak_mib", "peak_growth_mib"} <= set(
        figures
    )
    assert figures["inprocess_rows_per_s"] == found["tables"]["inprocess"][0]["rows_per_s"] > 0
    assert [row["rows"] for row in found["tables"]["http"]] == [400]


# --- crash: what is counted ----------------------------------------------------------------------

ONE, TWO, THREE = ("aa", 0), ("aa", 1), ("bb", 0)
CALM = Attempt(events=[Event(0.0, "start", 0), Event(1.0, "generate", 1), Event(2.0, "emit", 0)])


class ToldRuns:
    """Processes that ask and leave what is written down for them."""

    def __init__(self, *told: tuple[list[tuple[str, int]], dict[tuple[str, int], str]]) -> None:
        self.told = list(told)
        self.asked: list[tuple[str, int]] = []
        self.left: dict[tuple[str, int], str] = {}

    def run(self, until: Any = None, after_s: float = 0.0) -> Attempt:
        asked, self.left = self.told.pop(0)
        self.asked += asked
        return Attempt(events=CALM.events[:2], killed=until is not None)

    def asks(self) -> list[tuple[str, int]]:
        return self.asked

    def kept(self) -> dict[tuple[str, int], str]:
        return self.left


def count(*told: tuple[list[tuple[str, int]], dict[tuple[str, int], str]]) -> Outcome:
    return disturbed(ToldRuns(*told), CALM, len(told) - 1, seed=0)[0]  # type: ignore[arg-type]


def test_a_reply_lost_in_flight_is_no_double_ask() -> None:
    outcome = count(([ONE, TWO], {ONE: "x"}), ([TWO, THREE], {ONE: "x", TWO: "y", THREE: "z"}))
    assert (outcome.kills, outcome.kills_missed, outcome.asked) == (1, 0, 4)
    assert (outcome.asked_twice, outcome.asked_again_in_flight) == (0, 1)
    assert outcome.replies_changed == 0
    assert outcome.killed_in == {"generate": 1}


def test_asking_for_a_kept_reply_is_a_double_ask() -> None:
    outcome = count(([ONE], {ONE: "x"}), ([ONE], {ONE: "x"}))
    assert (outcome.asked_twice, outcome.asked_again_in_flight) == (1, 0)


def test_asking_twice_in_one_process_is_a_double_ask() -> None:
    assert count(([ONE, ONE], {}), ([], {})).asked_twice == 1


@pytest.mark.parametrize("later", [{}, {ONE: "another"}])
def test_a_kept_reply_that_goes_or_changes_is_told(later: dict[tuple[str, int], str]) -> None:
    assert count(([ONE], {ONE: "x"}), ([], later)).replies_changed == 1


def test_a_process_that_was_done_before_the_kill_is_no_kill() -> None:
    class Done(ToldRuns):
        def run(self, until: Any = None, after_s: float = 0.0) -> Attempt:
            attempt = super().run(until, after_s)
            attempt.killed = False
            return attempt

    outcome, _ = disturbed(Done(([ONE], {ONE: "x"})), CALM, 3, seed=0)  # type: ignore[arg-type]
    assert (outcome.kills, outcome.kills_missed) == (0, 3)


def test_files_that_differ_or_lack_are_not_identical() -> None:
    outcome = Outcome()
    compare(outcome, {"a.parquet": "1", "b": "2", "c": "3"}, {"a.parquet": "1", "b": "x", "d": "4"})
    assert (outcome.files, outcome.parquet_files, outcome.identical) == (4, 1, 0.25)


# --- loop: means over seeds ----------------------------------------------------------------------


def run(seed: int, value: float) -> dict[str, Any]:
    rows = [
        {"name": "ece", "sampling": 0, "value": value, "low": value - 0.1, "high": value + 0.1},
        {"name": "ece", "sampling": None, "value": value, "low": value, "high": value},
    ]
    curve = [
        {"scorer": "oracle", "n": n, "accuracy": value, "low": value, "high": value} for n in (1, 2)
    ]
    return {"seed": seed, "figures": {"ece": value}, "samplings": rows, "curve": curve}


def test_figures_are_means_over_seeds() -> None:
    result = harness.Result("loop", [17, 18])
    loop.summarize(result, [run(17, 0.2), run(18, 0.4)])
    assert result.figures == {"ece": pytest.approx(0.3)}
    low, high = result.intervals["ece"]
    assert (low + high) / 2 == pytest.approx(0.3) and low < 0.2
    assert [row["seed"] for row in result.tables["runs"]] == [17, 18]


def test_one_seed_shows_the_runs_own_interval() -> None:
    result = harness.Result("loop", [17])
    loop.summarize(result, [run(17, 0.2)])
    assert result.intervals["ece"] == pytest.approx((0.1, 0.3))


def test_the_plot_lies_beside_the_result(tmp_path: Path) -> None:
    chosen = harness.Options(True, 1, tmp_path / "loop.json")
    harness.plot(loop.draw([run(17, 0.2), run(18, 0.4)]), chosen, "best-of-n")
    text = (tmp_path / "loop-best-of-n.svg").read_text("utf-8")
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert "oracle, n = 2: 0.300" in text
