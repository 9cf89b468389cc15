"""The pages of a run's step labels: which are written, what the index counts, what links to them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from flows import report_data, runs, steps_data, steps_page
from flows.report import render as render_report
from flows.report_counts import GROWN
from flows.steps_data import QuestionSteps
from flows.steps_page import Index, render_index, write_pages
from pipelines.store import Store
from schemas.records import Message, Reject
from tests.flows.sample_steps import joined, pens, plain, publish
from tests.flows.test_report import ATTACKS, Page, assert_safe
from tests.flows.test_steps_page import HERE, words


@pytest.fixture
def run(tmp_path: Path) -> tuple[Store, runs.RunRecord]:
    parts = [
        pens(),
        plain(5, ["RR", "RR"]),
        plain(9, ["RWWWWR", "W" * 8]),
        plain(11, ["RR", "WWTTUU"], stopped="cap", resolved=False),
    ]
    return publish(tmp_path / "store", joined(parts))


def test_the_pages_of_a_run(run: tuple[Store, runs.RunRecord]) -> None:
    store, record = run
    index = write_pages(store, record)
    assert index == runs.folder(store, record.id) / "steps" / "index.html"
    page = index.read_text("utf-8")
    links = re.findall(r'href="([0-9a-f]{32}\.html)"', page)
    assert_safe(page, [*HERE, *links])
    assert len(links) == 4
    assert sorted(path.name for path in index.parent.iterdir()) == sorted([*links, "index.html"])
    for link in links:
        one = (index.parent / link).read_text("utf-8")
        assert '<a href="index.html">All questions</a>' in one
        assert_safe(one, HERE)
    said = words(page)
    for tile in (
        "questions 4 4 of them are shown here",
        "solutions 8 6 given, 2 grown",
        "resolved 62.5% 5 solutions; 3 unresolved",
        "with a first error 5 3 with no step labelled wrong",
        "in 110 rollouts, each counted once",
    ):
        assert tile in said, tile
    assert "unresolved 5 2 grown 3 3 18 of 21" in said
    assert "confident one first error, or none, had become probable enough 3 37.5%" in said
    assert "cap the most rollouts that one solution may take were drawn 1 12.5%" in said
    before = {path.name: path.read_bytes() for path in index.parent.iterdir()}
    write_pages(store, record)
    assert {path.name: path.read_bytes() for path in index.parent.iterdir()} == before


def test_few_questions_are_chosen_and_old_pages_go(run: tuple[Store, runs.RunRecord]) -> None:
    store, record = run
    write_pages(store, record)
    index = write_pages(store, record, most=2)
    assert index is not None
    page = index.read_text("utf-8")
    assert len(list(index.parent.iterdir())) == 3
    assert "questions 4 2 of them are shown here" in words(page)
    assert f"prefinery steps {record.id} ID" in words(page)
    assert "solutions 8 6 given, 2 grown" in words(page)
    del record.stages["process"]
    assert write_pages(store, record) is None
    assert not index.parent.exists()
    assert [p.name for p in index.parent.parent.iterdir()] == ["run.json"]


def test_a_broken_question_leaves_the_old_pages(
    run: tuple[Store, runs.RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, record = run
    index = write_pages(store, record)
    assert index is not None
    before = sorted(path.name for path in index.parent.iterdir())

    def refuse(question: QuestionSteps) -> None:
        raise ValueError("does not add up")

    monkeypatch.setattr(steps_page, "check", refuse)
    with pytest.raises(ValueError, match="does not add up"):
        write_pages(store, record)
    assert sorted(path.name for path in index.parent.iterdir()) == before
    assert sorted(p.name for p in index.parent.parent.iterdir()) == ["run.json", "steps"]


def index_of(run: tuple[Store, runs.RunRecord]) -> Index:
    made = dict(run[1].outputs(run[0]))
    rows = steps_data.overview(made)
    total = steps_data.total(rows)
    [first] = steps_data.questions(made, [rows[0].prompt_id])
    stopped = steps_data.stopped(made)
    return Index("plan", "run", len(rows), total, 0, stopped, ((rows[0], first.prompt),))


def test_an_index_that_does_not_add_up_is_refused(run: tuple[Store, runs.RunRecord]) -> None:
    index = index_of(run)
    assert_safe(render_index(index), [*HERE, f"{index.written[0][0].prompt_id}.html"])
    for bad, message in (
        (replace(index, stopped={"cap": 3}), "3 solutions stopped, not 8"),
        (replace(index, other_rollouts=-2), "2 rollouts more than there are"),
        (replace(index, written=index.written * 9), "solutions: "),
        (replace(index, questions=0), "than there is"),
    ):
        with pytest.raises(ValueError, match=message):
            render_index(bad)
    row, of = index.written[0]
    for name in ("../../x", "0" * 31 + '"'):
        bad_row = replace(row, prompt_id=name)
        with pytest.raises(ValueError, match="is no id"):
            render_index(replace(index, written=((bad_row, of),)))


def test_hostile_names_in_the_index(run: tuple[Store, runs.RunRecord]) -> None:
    text = "".join(ATTACKS)
    index = index_of(run)
    row, of = index.written[0]
    of = of.model_copy(update={"messages": (Message(role="user", content=text[:110]),)})
    index = replace(
        index,
        plan_name=text,
        run_id=text,
        stopped={text: 8},
        written=((replace(row, prompt_id=of.id), of),),
    )
    page = render_index(index)
    assert_safe(page, [*HERE, f"{of.id}.html"])
    assert ATTACKS[0] in Page(page).words


def test_the_report_counts_grown_solutions_apart_and_links(tmp_path: Path) -> None:
    rows = pens()
    rows.rejects.append(
        Reject(unit="f" * 32, stage="process", code="refused", detail="a grown path")
    )
    store, record = publish(tmp_path / "store", rows)
    data = report_data.collect(store, record)
    assert not data.step_pages
    counts = {count.stage: count for count in data.stages}
    process, grown = counts["process"], counts[GROWN]
    assert (process.rows_in, process.rows_out, dict(process.rejects)) == (4, 3, {"same_text": 1})
    assert (grown.rows_out, dict(grown.rejects)) == (2, {"refused": 1})
    assert {(r.stage, r.code) for r in data.rejects} == {
        ("process", "same_text"),
        (GROWN, "refused"),
    }
    assert data.positions is not None and data.positions.trajectories == 5
    assert set(data.label_sources["steps"]) == {"rollouts", "answer", "inferred", "none"}
    assert data.interval_widths is not None
    assert "steps/index.html" not in render_report(data)
    write_pages(store, record)
    page = render_report(report_data.collect(store, record))
    assert '<a href="steps/index.html">Read step labels</a>' in page
