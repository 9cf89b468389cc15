"""The whole circle of one plan: route, push, people, pull, calibrate, decide, emit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from annotation.server import Server
from flows import review_command, runs, session
from pipelines.store import Published, Store
from tests.flows.plans import prompt, scripted, write_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PLAN: dict[str, Any] = {
    "shard_rows": 50,
    "process": None,
    "pairs": {"best_worst": False},
    "judge": {"judges": ["agreement"], "panel": {"alike": {"kind": "code", "measure": "chrf"}}},
    "calibrate": {"min_labels": 20},
    # All are drawn at random.
    "route": {"answers": 60, "audit": 1.0},
}


def tried(path: Path) -> tuple[session.Summary, dict[str, Published]]:
    summary = session.start(path, path.parent / "store")
    store = Store.open(path.parent / "store", create=False)
    return summary, dict(runs.load(store, summary.run).outputs(store))


def test_the_circle(
    server: Server,
    owner: httpx.Client,
    people: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", server.account.token)
    review = {
        **{"campaign": "circle", "url": server.url, "instruction": "Right beats <b>short</b>."},
        "question": {"ratings": "none"},
    }
    path = write_plan(tmp_path, scripted(**PLAN, review=review), [prompt(n) for n in range(80)])
    first, before = tried(path)
    queue = before["route"].table("queue").to_pylist()
    assert len(queue) == 60
    assert "review circle: 60 new questions, 0 were there" in capsys.readouterr().err
    # Run again before anyone answers: the same run, and nothing is asked twice.
    again, _ = tried(path)
    assert again.run == first.run
    assert "review circle: 0 new questions, 60 were there" in capsys.readouterr().err

    store = Store.open(tmp_path / "store", create=False)
    # People are asked as the plan says, and the guide tells them so.
    guide = (store.root / "campaigns" / "circle" / "guide.html").read_text("utf-8")
    assert "Right beats &lt;b&gt;short&lt;/b&gt;." in guide
    assert "Say, where you can, why" in guide and "Verbosity" not in guide
    project = review_command.stand(store.root, "circle")["url"].split("/")[-2]
    page = {"project": project, "page_size": 1000, "fields": "all"}
    tasks = owner.get("/api/tasks", params=page).raise_for_status().json()["tasks"]
    assert len(tasks) == 60
    asked = owner.get(f"/api/projects/{project}").json()
    assert "first_helpfulness" not in asked["label_config"]
    assert asked["expert_instruction"] == "Right beats &lt;b&gt;short&lt;/b&gt;."
    for number, task in enumerate(tasks[:40]):
        # They know that 7 is the answer; shown first it is the left one.
        text = task["data"]
        left = "#7" in text["first"]
        people[number % 3].answer(int(task["id"]), "-3" if left else "3", 2.0)

    second, after = tried(path)
    assert second.run != first.run and "generate" not in second.computed
    assert second.asked == 0
    assert "review circle: 40 votes" in capsys.readouterr().err
    votes = after["humans"].table("votes").to_pylist()
    assert len(votes) == 40 and {v["judge_kind"] for v in votes} == {"human"}
    assert not any("example.org" in v["judge"] for v in votes)
    right = {
        row["unit"]: row["value"]
        for row in after["verify"].table("votes").to_pylist()
        if row["judge"] == "verifier"
    }
    pairs = {row["id"]: row for row in after["pairs"].table("pairs").to_pylist()}
    for vote in votes:
        pair = pairs[vote["unit"]]
        assert (vote["value"] > 0) == (right[pair["response_a"]] > right[pair["response_b"]])
    beliefs = after["calibrate"].table("beliefs").to_pylist()
    assert all(row["calibrated"] for row in beliefs)
    assert sum(row["humans"] for row in beliefs) == 40
    emitted = {
        vote["judge"]
        for split in ("train", "validation", "test")
        for row in _emitted(after, split)
        for vote in row["votes"]
    }
    assert any(name.startswith("human-") for name in emitted)
    asked = {row["pair_id"] for row in after["route"].table("queue").to_pylist()}
    assert not asked & {v["unit"] for v in votes}


def _emitted(outputs: dict[str, Published], split: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    path = outputs["emit"].path / "files" / "preference" / f"{split}.parquet"
    return list(pq.read_table(path).to_pylist()) if path.exists() else []


def test_a_server_that_is_away_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("label_studio_sdk", reason="the review extra is not installed")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    review = {"campaign": "away", "url": "http://127.0.0.1:9"}
    path = write_plan(tmp_path, scripted(**PLAN, review=review), [prompt(n) for n in range(12)])
    summary, outputs = tried(path)
    assert summary.status == "complete" and "route" in outputs
    assert "review away: the queue stays here for now" in capsys.readouterr().err
