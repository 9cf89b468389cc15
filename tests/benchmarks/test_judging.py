"""The judging benchmark in small: every vote is made, kept and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import judging


def test_every_pair_gets_two_votes_through_the_journal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(judging.PAIRS, "quick", 40)
    found = judging.main(["--quick"])
    assert [run["votes"] for run in found["tables"]["runs"]] == [80]
    assert found["figures"].keys() == {
        "votes_per_s",
        "votes_per_cpu_s",
        "peak_mib",
        "judging_bytes_per_vote",
    }
    assert found["figures"]["votes_per_s"] > 0
    assert '"benchmark": "judging"' in capsys.readouterr().out


def test_no_two_requests_are_the_same() -> None:
    cases = judging.made(9)
    shown = {(case.prompt.id, case.a.text, case.b.text) for case in cases}
    assert len(shown) == 9
    assert len({case.prompt.id for case in cases}) == 3


def test_a_journal_that_lacks_replies_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.journal.Journal.count", lambda journal: 7)
    with pytest.raises(RuntimeError, match="6 votes asked for, 6 made, 7 kept"):
        judging.measure(str(tmp_path), 3)
