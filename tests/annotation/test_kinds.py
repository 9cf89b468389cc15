"""Campaigns on steps, errors and rubrics, on a real server: asked by command, answered, made use of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from annotation.server import Server
from flows import review_command, rubric_files, runs, session
from flows.people import judge_people
from pipelines.rubrics.rubric_file import read_rubric, write_rubric
from pipelines.store import Published, Store
from schemas.errors import UserError
from schemas.records import Criterion, Rubric, StepLabels
from tests.flows.plans import ROOT, prompt, scripted, write_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def token(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", server.account.token)


def made(folder: Path, **changes: Any) -> dict[str, Published]:
    """Run a plan; its outputs."""
    path = write_plan(folder, scripted(shard_rows=50, **changes), [prompt(n) for n in range(4)])
    summary = session.start(path, folder / "store")
    store = Store.open(folder / "store", create=False)
    return dict(runs.load(store, summary.run).outputs(store))


def push(folder: Path, server: Server, name: str, kind: Any, **more: Any) -> dict[str, Any]:
    return review_command.push_questions(
        folder / "store", "latest", name, kind, url=server.url, **more
    )


def pull(folder: Path, name: str) -> list[dict[str, Any]]:
    # The campaign knows its server.
    found = review_command.pull_votes(folder / "store", name, None, False, False)
    return list(pq.read_table(found["file"]).to_pylist())


def tasks(folder: Path, owner: httpx.Client, name: str) -> list[dict[str, Any]]:
    project = review_command.stand(folder / "store", name)["url"].split("/")[-2]
    page = {"project": project, "page_size": 1000, "fields": "all"}
    found = owner.get("/api/tasks", params=page).raise_for_status().json()["tasks"]
    return sorted(found, key=lambda task: int(task["id"]))


def chosen(name: str, to: str, what: str) -> dict[str, Any]:
    return {"from_name": name, "to_name": to, "type": "choices", "value": {"choices": [what]}}


def test_steps_are_judged_and_the_dataset_follows(
    server: Server, owner: httpx.Client, people: list[Any], tmp_path: Path
) -> None:
    before = made(tmp_path)
    rows = list(StepLabels.from_table(before["process"].table("step_labels")))
    asked = push(tmp_path, server, "steps", "steps", most=5, overlap=2)
    assert (asked["kind"], asked["new"], asked["already"]) == ("steps", 5, 0)
    assert push(tmp_path, server, "steps", "steps", most=5, overlap=2)["new"] == 0
    assert "Is each step of a solution right?" in Path(asked["guide"]).read_text("utf-8")
    for task in tasks(tmp_path, owner, "steps"):
        assert task["overlap"] == 2
        count = len(task["data"]["steps"])
        # Both say that the last step is wrong, and all before it right.
        verdicts = ["right"] * (count - 1) + ["wrong"]
        result = [chosen(f"verdict_{i}", f"step_{i}", v) for i, v in enumerate(verdicts)]
        for person in people[:2]:
            person.submit(int(task["id"]), result, 4.0)
    votes = pull(tmp_path, "steps")
    said = judge_people(tmp_path / "store", "steps", None, 36.0)
    assert [person["rest_accuracy"] for person in said["annotators"]] == [1.0, 1.0]
    assert said["agreement"][0]["alpha"] == 1.0
    assert said["cost"]["money"] == pytest.approx(5 * 2 * 4.0 / 100)
    units = {vote["unit"] for vote in votes}
    assert len(units) == 5 and units <= {row.trajectory_id for row in rows}
    assert {vote["unit_kind"] for vote in votes} == {"step"}
    assert sum(vote["seconds"] or 0 for vote in votes) == 5 * 2 * 4.0
    assert [v["purpose"] for v in votes].count("audit") > 0

    file = tmp_path / "store" / "campaigns" / "steps" / "votes.parquet"
    after = made(tmp_path, humans={"paths": [str(file)]})
    facts = after["people_on_steps"].manifest.facts
    assert facts["solutions"] == 5 and facts["rows"] == len(votes)
    judged = {r.trajectory_id: r for r in StepLabels.from_table(
        after["people_on_steps"].table("step_labels")
    )}  # fmt: skip
    for row in rows:
        now = judged[row.trajectory_id]
        if row.trajectory_id not in units:
            assert now == row
            continue
        last = len(row.steps) - 1
        assert now.first_error == last and set(now.source) == {"human"}
        assert now.error[last] is not None and now.error[last] > 0.5
    emitted = [
        row
        for path in (after["emit"].path / "files" / "steps").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    ]
    by_people = {row["trajectory_id"] for row in emitted if "human" in row["rests_on"]}
    assert by_people == units


def test_marked_errors_say_where_they_are(
    server: Server, owner: httpx.Client, people: list[Any], tmp_path: Path
) -> None:
    outputs = made(tmp_path)
    assert push(tmp_path, server, "spans", "spans", most=3)["new"] == 3
    texts = {r["id"]: r["text"] for r in outputs["generate"].table("responses").to_pylist()}
    for task in tasks(tmp_path, owner, "spans"):
        text = task["data"]["response"]
        label = {"start": 1, "end": 3, "text": text[1:3], "labels": ["Wrong reasoning"]}
        where = {"id": "r", "from_name": "errors", "to_name": "response", "type": "labels"}
        people[0].submit(
            int(task["id"]), [{**where, "value": label}, chosen("verdict", "response", "errors")]
        )
    marked = [v for v in pull(tmp_path, "spans") if v["criterion"] is not None]
    assert len(marked) == 3 and {v["unit"] for v in marked} <= set(texts)
    for vote in marked:
        assert (vote["span_start"], vote["span_end"], vote["value"]) == (1, 3, 0.0)
        assert vote["criterion"] == "Wrong reasoning" and vote["propensity"] == 3 / len(texts)


def test_rubrics_are_approved_and_come_back_into_a_plan(
    server: Server, owner: httpx.Client, people: list[Any], tmp_path: Path
) -> None:
    asked = made(tmp_path)["ingest"].table("prompts")["id"].to_pylist()[0]
    criteria = [
        Criterion(kind="principle", text=text) for text in ("Is right.", "Is kind.", "Is long.")
    ]
    rubric = Rubric(prompt_id=asked, criteria=tuple(c.id for c in criteria), method="contrastive")
    (tmp_path / "drafts").mkdir()
    write_rubric(tmp_path / "drafts" / "one.toml", rubric, criteria)
    rubrics = {"methods": ["person"], "paths": ["drafts/"]}
    judges = {"judges": ["agreement"]}
    made(tmp_path, rubrics=rubrics, judge=judges, process=None)
    assert push(tmp_path, server, "rubrics", "rubric")["new"] == 1
    with pytest.raises(UserError, match="nothing was pulled"):
        rubric_files.write_files(tmp_path / "store", "latest", tmp_path / "out", False, "rubrics")
    (task,) = tasks(tmp_path, owner, "rubrics")
    said = ("accept", "edit", "reject")
    result = [chosen(f"verdict_{i}", f"criterion_{i}", v) for i, v in enumerate(said)]
    words = {"from_name": "edit_1", "to_name": "criterion_1", "type": "textarea"}
    stars = {"from_name": "weight_0", "to_name": "criterion_0", "type": "rating"}
    result += [{**words, "value": {"text": ["Is polite."]}}, {**stars, "value": {"rating": 4}}]
    people[0].submit(int(task["id"]), result)
    pull(tmp_path, "rubrics")
    ((path, status),) = rubric_files.write_files(
        tmp_path / "store", "latest", tmp_path / "approved", False, "rubrics"
    )
    assert status == "approved"
    back, kept = read_rubric(path)
    assert back.status == "approved" and back.replaces == rubric.id
    assert [(c.text, c.weight) for c in kept] == [("Is right.", 0.8), ("Is polite.", 1.0)]
    rubrics["paths"] = ["approved/"]
    again = made(tmp_path, rubrics=rubrics, judge=judges, process=None)
    (proven,) = Rubric.from_table(again["rubric_value"].table("rubrics"))
    assert proven.status == "approved"
    with pytest.raises(UserError, match="no verdict there leaves a rubric of this run"):
        empty = tmp_path / "none"
        rubric_files.write_files(tmp_path / "store", "latest", empty, False, "rubrics")


def test_what_a_run_does_not_have_cannot_be_asked(server: Server, tmp_path: Path) -> None:
    made(tmp_path, process=None, judge={"judges": ["agreement"]})
    for kind, line in (
        ("pairwise", r"no review queue; add \[route\] to its plan and run it"),
        ("steps", r"no step labels; add \[process\] to its plan and run it"),
        ("rubric", r"no rubrics; add \[rubrics\] to its plan and run it"),
    ):
        with pytest.raises(UserError, match=line):
            push(tmp_path, server, "none", kind)


def test_a_plan_without_a_campaign_asks_nothing(tmp_path: Path) -> None:
    path = write_plan(tmp_path, scripted(), 1)
    assert review_command.review_of(None) is None
    with pytest.raises(UserError, match=r"has no \[review\]; add it, or leave --plan out"):
        review_command.review_of(path)


def test_a_watch_brings_votes_in_as_they_are_given_and_ends_at_once(
    server: Server, owner: httpx.Client, people: list[Any], tmp_path: Path
) -> None:
    made(tmp_path)
    push(tmp_path, server, "watched", "steps", most=2)
    first, second = tasks(tmp_path, owner, "watched")
    votes = tmp_path / "store" / "campaigns" / "watched" / "votes.parquet"
    # Polling alone would take ten minutes: the server's calls bring the votes in.
    command = [sys.executable, "-m", "flows.cli", "review", "watch", "watched", "--every", "600"]
    more = ["--root", str(tmp_path / "store"), "--url", server.url]
    watcher = subprocess.Popen(
        [*command, *more], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert watcher.stderr is not None
    try:
        assert "0 votes" in watcher.stderr.readline()
        for task in (first, second):
            count = len(task["data"]["steps"])
            done = [chosen(f"verdict_{i}", f"step_{i}", "right") for i in range(count)]
            _hooked(owner)
            people[0].submit(int(task["id"]), done)
            until = time.monotonic() + 60
            before = pq.read_metadata(votes).num_rows
            while pq.read_metadata(votes).num_rows == before:
                assert time.monotonic() < until, "no vote came in"
                time.sleep(0.1)
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 130
    finally:
        watcher.kill()
        watcher.wait()
    assert not [h for h in owner.get("/api/webhooks/").json() if "/changed" in h["url"]]


def _hooked(owner: httpx.Client) -> None:
    """Wait until the server knows whom to call."""
    until = time.monotonic() + 60
    while not [h for h in owner.get("/api/webhooks/").json() if "/changed" in h["url"]]:
        assert time.monotonic() < until, "the server calls nobody"
        time.sleep(0.1)
