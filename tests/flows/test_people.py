"""What people's answers are worth, over a whole run: known answers, what changed, what is told."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotation.campaign import Saved
from annotation.pull import votes_schema
from flows import runs
from flows.report_data import collect
from flows.report_people import SHOWN
from pipelines.consistency.decide import PosteriorConfig, decide_by_posterior
from pipelines.humans import pseudonym
from pipelines.store import Published, Store
from schemas.records import Vote
from tests.flows import plans
from tests.flows.plans import call
from tests.flows.test_calibrating import run

ROUTE = {"answers": 30, "audit": 0.2, "gold": 0.4, "hourly_rate": 36.0, "known": ["known.jsonl"]}
ANN, BO, SPAM = (pseudonym(name) for name in ("ann", "bo", "spam"))


def truth(outputs: dict[str, Published]) -> dict[str, float]:
    """What the verifier knows of each pair, above 0 where a is better."""
    right = {
        row["unit"]: row["value"]
        for row in outputs["verify"].table("votes").to_pylist()
        if row["judge"] == "verifier" and row["value"] is not None
    }
    pairs = outputs["pairs"].table("pairs").to_pylist()
    return {
        row["id"]: right[row["response_a"]] - right[row["response_b"]]
        for row in sorted(pairs, key=lambda row: str(row["id"]))
    }


def know(folder: Path, outputs: dict[str, Published], count: int) -> list[str]:
    """Write the known answers of some pairs, one of another run and one that cannot be read."""
    rows = [
        {"pair_id": pair, "preference": "a" if side > 0 else "b"}
        for pair, side in list(truth(outputs).items())[:count]
    ]
    lines = [*map(json.dumps, rows), '{"pair_id": "elsewhere", "preference": "a"}']
    lines.append('{"pair_id": "x", "preference": "A"}')
    (folder / "known.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return [str(row["pair_id"]) for row in rows]


def answer(folder: Path, outputs: dict[str, Published]) -> Path:
    """A campaign's votes on the whole queue: two who know, one who takes what is shown first."""
    known, rows = truth(outputs), []
    queue = outputs["route"].table("queue").to_pylist()
    for n, item in enumerate(queue):
        side = known[item["pair_id"]]
        order = "ab" if n % 2 else "ba"
        said = {"ann": side, "bo": side, "spam": 1.0 if order == "ab" else -1.0}
        for who, value in said.items():
            vote = Vote(
                unit=item["pair_id"], unit_kind="pair", judge=pseudonym(who), judge_kind="human",
                order=order, value=value, seconds=10.0,
            )  # fmt: skip
            rating = vote.model_copy(
                update={"unit": "r", "unit_kind": "criterion", "criterion": "safe", "seconds": None}
            )
            more = {
                **{"purpose": item["purpose"], "propensity": item["propensity"]},
                **{"version": "2026-01-01T00:00:00Z", "annotation": f"1/{n}/{who}"},
            }
            for one in (vote, rating):
                rows.append({"id": one.id, **one.model_dump(mode="json"), **more})
    place = folder / "store" / "campaigns" / "c1"
    place.mkdir(parents=True, exist_ok=True)
    saved = Saved("c1", "pairwise", 3, 1, "http://127.0.0.1:9", 1, "2026-01-01", "0" * 64)
    (place / "campaign.json").write_text(json.dumps(asdict(saved)))
    pq.write_table(pa.Table.from_pylist(rows, schema=votes_schema()), place / "votes.parquet")
    return place / "votes.parquet"


@pytest.fixture(scope="module")
def circle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Published], Any]:
    """A run whose queue holds known pairs, and the run after people answered it all."""
    folder = tmp_path_factory.mktemp("people")
    plan: dict[str, Any] = {"rows": 60, "judge": {"judges": ["agreement"]}}
    know(folder, run(folder, **plan), 20)
    asked = run(folder, **plan, route=ROUTE)
    votes = answer(folder, asked)
    return folder, asked, run(folder, **plan, route=ROUTE, humans={"paths": [str(votes)]})


def last(folder: Path) -> runs.RunRecord:
    """The run that people's votes went into."""
    records = runs.every(Store.open(folder / "store", create=False))
    return next(record for record in records if "humans" in record.stages)


def test_known_pairs_are_asked_to_measure_people(circle: Any) -> None:
    _, asked, after = circle
    known = asked["route"].table("known").to_pylist()
    assert len(known) == 20 and {row["purpose"] for row in known} == {"gold"}
    assert {row["error"] for row in known} == {0.0}
    sides = truth(asked)
    assert all(row["value"] == sides[row["pair_id"]] for row in known)
    items = asked["route"].table("queue").to_pylist()
    gold = {item["pair_id"] for item in items if item["purpose"] == "gold"}
    assert len(gold) == 12 and gold <= {row["pair_id"] for row in known}
    # Of pairs that are known nothing is asked for its value.
    value = {item["pair_id"] for item in items if item["purpose"] == "value"}
    assert not value & {row["pair_id"] for row in known}
    (reject,) = asked["route"].table("rejects").to_pylist()
    assert (reject["stage"], reject["code"]) == ("route", "bad_vote")
    assert reject["detail"] == "preference 'A' is none of a, b, tie"
    labels = {row["pair_id"]: row["purpose"] for row in after["humans"].table("labels").to_pylist()}
    assert {pair for pair, purpose in labels.items() if purpose == "gold"} == gold
    # What was asked once is not asked again.
    again = set(after["route"].table("queue")["pair_id"].to_pylist())
    assert not again & set(labels)


def test_a_known_pair_is_no_evidence_drawn_for_its_value_whatever_a_file_says(
    tmp_path: Path,
) -> None:
    known = know(tmp_path, run(tmp_path, rows=20), 4)
    lines = [{"pair_id": pair, "value": 1, "annotator": "ann"} for pair in known]
    lines[0]["purpose"] = "audit"
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = run(tmp_path, rows=20, route=ROUTE, humans={"paths": ["v.jsonl"]})
    labels = {row["pair_id"]: row["purpose"] for row in made["humans"].table("labels").to_pylist()}
    assert labels == {pair: "audit" if pair == known[0] else "gold" for pair in known}


def test_other_known_answers_are_another_queue(tmp_path: Path) -> None:
    first = run(tmp_path, rows=20)
    know(tmp_path, first, 6)
    before = run(tmp_path, rows=20, route=ROUTE)["route"].manifest
    know(tmp_path, first, 5)
    after = run(tmp_path, rows=20, route=ROUTE)["route"].manifest
    assert before.digest != after.digest
    assert (before.rows("known"), after.rows("known")) == (6, 5)


def test_how_many_decisions_people_changed_is_counted_as_by_hand(circle: Any) -> None:
    _, _, after = circle
    beliefs = after["calibrate"].table("beliefs").to_pylist()
    voted = {row["pair_id"] for row in beliefs if row["humans"]}
    silent = pl.DataFrame(beliefs, schema_overrides={"human": pl.Float64}).with_columns(
        human=pl.lit(None, pl.Float64), humans=pl.lit(0)
    )
    pairs = after["pairs"].table("pairs")
    alone = decide_by_posterior(silent.to_arrow(), pairs, PosteriorConfig(route=False)).to_pylist()
    now = {row["pair_id"]: row for row in after["decide"].table("decisions").to_pylist()}
    other = [
        row["pair_id"]
        for row in alone
        if row["pair_id"] in voted
        and (
            row["action"] != now[row["pair_id"]]["action"]
            or (row["target"] > 0.5) != (now[row["pair_id"]]["target"] > 0.5)
        )
    ]
    assert after["decide"].manifest.facts["changed_by_people"] == len(other) > 0


def test_without_people_nothing_is_counted(circle: Any) -> None:
    assert "changed_by_people" not in circle[1]["decide"].manifest.facts


def test_review_people_with_a_run(circle: Any) -> None:
    folder, asked, after = circle
    told = call(
        "review", "people", "--json", "c1", "--run", last(folder).id, "--root", folder / "store"
    ).json
    queue = asked["route"].manifest.rows("queue")
    gold = [i for i in asked["route"].table("queue").to_pylist() if i["purpose"] == "gold"]
    people = {row["judge"]: row for row in told["annotators"]}
    assert set(people) == {ANN, BO, SPAM}
    # All pairs on which anyone answered and whose answer is known, gold questions and the others.
    known = set(after["route"].table("known")["pair_id"].to_pylist())
    answered = [i for i in asked["route"].table("queue").to_pylist() if i["pair_id"] in known]
    assert people[ANN]["gold_asked"] == len(answered) >= len(gold)
    assert (people[ANN]["gold_accuracy"], people[SPAM]["first_share"]) == (1.0, 1.0)
    assert people[SPAM]["flags"] == "position_bias"
    assert told["hourly_rate"] == 36.0
    # A hundredth a second, ten seconds an answer; ratings cost nothing of their own.
    assert told["cost"]["votes"] == 3 * queue and told["cost"]["labels"] == queue
    assert told["cost"]["money"] == pytest.approx(0.3 * queue)
    of_run = told["run"]
    changed = after["decide"].manifest.facts["changed_by_people"]
    assert (of_run["known"], of_run["votes"], of_run["changed"]) == (20, 3 * queue, changed)
    assert of_run["money_per_change"] == pytest.approx(0.3 * queue / changed)
    items = after["route"].table("queue").to_pylist()
    assert of_run["waiting"] == sum(i["overlap"] for i in items)
    assert of_run["next_pairs"] == min(100, len(items))
    assert of_run["next_worth"] == pytest.approx(sum(i["value"] for i in items[:100]))
    assert {row["meaning"] for row in told["agreement"]} == {
        "better than chance, but too low to draw conclusions from single labels"
    }


def test_review_people_takes_the_rate_that_is_given(circle: Any) -> None:
    store, of = circle[0] / "store", ("--run", last(circle[0]).id)
    given = call("review", "people", "--json", "c1", *of, "--hourly-rate", "72", "--root", store)
    plan = call("review", "people", "--json", "c1", *of, "--root", store)
    assert given.json["cost"]["money"] == pytest.approx(2 * plan.json["cost"]["money"])
    assert given.json["hourly_rate"] == 72.0
    alone = call("review", "people", "--json", "c1", "--root", store).json
    assert alone["hourly_rate"] == 20.0
    assert "run" not in alone and "changed" not in alone["cost"]
    assert {row["gold_asked"] for row in alone["annotators"]} == {0}


def test_a_campaign_that_is_not_there_is_one_line(circle: Any) -> None:
    refused = call("review", "people", "--json", "c9", "--root", circle[0] / "store").refused()
    assert refused == "campaign c9: nothing was pushed; prefinery review push c9"


def test_what_the_report_shows_of_people(circle: Any) -> None:
    folder, asked, after = circle
    store = Store.open(folder / "store", create=False)
    shown = collect(store, last(folder)).people
    assert shown is not None
    queue = asked["route"].manifest.rows("queue")
    assert (shown.people, shown.known, shown.rate, shown.method) == (3, 20, 36.0, "")
    assert (shown.cost.votes, shown.cost.labels) == (3 * queue, queue)
    assert shown.cost.changed == after["decide"].manifest.facts["changed_by_people"]
    assert shown.cost.money == pytest.approx(0.3 * queue)
    first, *rest = shown.annotators
    assert (first.name, first.flags) == (SPAM, ("sides with a place, first or second",))
    assert first.first is not None and (first.first.value, first.first.asked) == (1.0, queue)
    assert all(a.gold is not None and a.gold.value == 1.0 and not a.flags for a in rest)
    assert shown.waiting == sum(after["route"].table("queue")["overlap"].to_pylist())
    assert shown.more == 0 < SHOWN


def test_a_run_in_which_nobody_voted_has_no_people(tmp_path: Path) -> None:
    run(tmp_path, rows=10)
    store = Store.open(tmp_path / "store", create=False)
    data = collect(store, runs.load(store, "latest"))
    assert data.people is None
    page = (runs.folder(store, data.run_id) / "report.html").read_text("utf-8")
    assert 'id="people"' not in page and 'href="#people"' not in page


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (
            {"answers": 9, "gold": 0.1},
            "route: `gold` needs pairs whose answer is known; name their files in `known`",
        ),
        (
            {"answers": 9, "known": ["k.jsonl"]},
            "route: `known` is there, but no share of the budget for it; set `gold` above 0",
        ),
    ],
)
def test_gold_and_known_go_together(tmp_path: Path, route: dict[str, Any], said: str) -> None:
    path = plans.write_plan(tmp_path, plans.scripted(calibrate={}, route=route))
    refused = call("run", path, "--root", tmp_path / "store").refused()
    assert refused == f"{path}: {said}"


def test_known_files_are_beside_the_plan_and_read_as_votes_are(tmp_path: Path) -> None:
    route = {"answers": 9, "gold": 0.5, "known": ["known.csv"]}
    path = plans.write_plan(tmp_path, plans.scripted(calibrate={}, route=route))
    refused = call("run", path, "--root", tmp_path / "store").refused()
    assert refused == f"no file matches {tmp_path}/known.csv; check the path"
    (tmp_path / "known.csv").write_text("pair,value\np,1\n")
    refused = call("run", path, "--root", tmp_path / "store").refused()
    assert "known.csv: no column 'pair_id', the nearest is 'pair'" in refused
