"""Prompts of every shape and fault through the command: what is used, what is refused, and why."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.flows.plans import POLICY, REPLIES, call, merged, prefinery, prompt, scripted, write_plan

SAMPLES = 4


def finished(plan: Path) -> dict[str, Any]:
    """Run a plan to its end and check that every count of `show --json` adds up."""
    root = plan.parent / "store"
    summary = call("run", plan, "--root", root, "--json").json
    assert summary["status"] == "complete"
    shown = call("show", "--root", root, "--json").json
    assert (shown["id"], shown["status"]) == (summary["run"], "complete")
    assert list(shown["manifests"]) == list(shown["stages"]) == summary["computed"]
    rows = {
        stage: {
            name: sum(shard["rows"] for shard in table)
            for name, table in manifest["tables"].items()
        }
        for stage, manifest in shown["manifests"].items()
    }
    assert rows == summary["rows"]
    prompts, responses = rows["ingest"]["prompts"], rows["generate"]["responses"]
    assert responses + rows["generate"]["rejects"] == prompts * SAMPLES
    if "process" in rows:
        assert rows["process"]["step_labels"] + rows["process"]["rejects"] == responses
    assert rows["decide"]["decisions"] == rows["pairs"]["pairs"]
    facts = shown["manifests"]["emit"]["facts"]
    assert sum(facts["pairs"].values()) == rows["pairs"]["pairs"]
    emitted = sum(facts["rows"].get("preference", {}).values())
    kept = sum(facts["pairs"].get(action, 0) for action in ("keep", "soften", "flip"))
    assert emitted == kept
    stopped = Counter(row["code"] for row in rejects(plan))
    assert stopped.total() == sum(table.get("rejects", 0) for table in rows.values())
    return summary


def rejects(plan: Path, stage: str = "") -> list[dict[str, str]]:
    sql = "select stage, code, unit, detail from rejects"
    found = call("query", "--root", plan.parent / "store", "--json", sql)
    rows = [json.loads(line) for line in found.out.splitlines()]
    return [row for row in rows if stage in ("", row["stage"])]


def test_rows_that_cannot_be_used_are_rejects_with_their_lines(tmp_path: Path) -> None:
    rows: list[Any] = [
        prompt(1),
        b'{"prompt": "caf\xe9"}',
        '{"prompt": "half',
        prompt(4, prompt=" \n"),
        prompt(5, prompt="y" * 10_000_000),
        prompt(1, id="again"),
        prompt(7, id="p1"),
        "[1, 2]",
        "",
        prompt(10, prompt=[{"role": "tool", "content": "x"}]),
        prompt(11, verifier="vibes"),
        prompt(12, reference="seven"),
        {"question": "3 and 4?"},
        prompt(14, constraints=[{"kind": "matches", "value": "(unclosed"}]),
        prompt(15, prompt='"; DROP TABLE prompts; -- $(touch /tmp/x) ../../etc/passwd'),
    ]
    plan = write_plan(tmp_path, scripted(), rows)
    summary = finished(plan)
    assert summary["rows"]["ingest"] == {"prompts": 2, "rejects": 12}
    found = {(row["unit"], row["code"]) for row in rejects(plan, "ingest")}
    assert found == {
        ("prompts.jsonl:2", "invalid_utf8"),
        ("prompts.jsonl:3", "not_json"),
        ("prompts.jsonl:4", "empty_prompt"),
        ("prompts.jsonl:5", "too_long"),
        ("prompts.jsonl:6", "duplicate"),
        ("prompts.jsonl:7", "duplicate_id"),
        ("prompts.jsonl:8", "not_an_object"),
        ("prompts.jsonl:10", "bad_role"),
        ("prompts.jsonl:11", "bad_verifier"),
        ("prompts.jsonl:12", "bad_reference"),
        ("prompts.jsonl:13", "missing_prompt"),
        ("prompts.jsonl:14", "bad_constraint"),
    }
    details = {row["code"]: row["detail"] for row in rejects(plan, "ingest")}
    assert details["too_long"] == "10000000 characters, at most 100000 are taken"
    assert all(len(detail) <= 500 for detail in details.values())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "{path} holds no rows"),
        (b"\n \n", "{path} holds no rows"),
        (b'\xff\xfe{\x00"\x00', "{path} is UTF-16; save it as UTF-8"),
        (
            b'{"prompt": ""}\n{"prompt": " "}\n{"x": 1}\n',
            "ingest: none of 3 rows can be used, 2 times empty_prompt (prompts.jsonl:1: the last "
            "message is blank); mend the prompts or `columns`",
        ),
    ],
)
def test_prompts_of_which_none_can_be_used(content: bytes, said: str, tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    root = tmp_path / "store"
    assert call("run", plan, "--root", root).refused() == said.format(path=path)


def test_an_empty_file_in_a_process_of_its_own(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, scripted(), [])
    done = prefinery("run", plan, "--root", tmp_path / "store", "--json")
    assert done.refused() == f"{tmp_path / 'prompts.jsonl'} holds no rows"
    assert done.err.count("\n") == 1


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, scripted(prompts={"columns": {"reference": "answer"}}))
    said = call("run", plan, "--root", tmp_path / "store").refused()
    assert said.startswith(f"{tmp_path / 'prompts.jsonl'}: no row has 'answer', ")


ROWS = [prompt(1), prompt(2), prompt(3, prompt=" "), prompt(4, id="p2"), prompt(5)]


def _csv(folder: Path) -> str:
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    return "rows.csv"


def _parquet(folder: Path) -> str:
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    return "rows.parquet"


def _dataset(folder: Path) -> str:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(folder / "rows")
    return "rows"


def _card(folder: Path) -> str:
    (folder / "rows").mkdir()
    (folder / "rows" / "README.md").write_text("# rows\n")
    (folder / "rows" / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return "rows"


@pytest.mark.parametrize("write", [_csv, _parquet, _dataset, _card])
def test_files_of_other_formats(write: Callable[[Path], str], tmp_path: Path) -> None:
    name = write(tmp_path)
    plan = write_plan(tmp_path, scripted(process=None, prompts={"paths": [name]}))
    assert finished(plan)["rows"]["ingest"] == {"prompts": 3, "rejects": 2}
    found = {(row["code"], row["unit"].rpartition(":")[2]) for row in rejects(plan, "ingest")}
    first = 2 if name.endswith(".csv") else 1  # a CSV file's first line is its header
    assert found == {("empty_prompt", str(2 + first)), ("duplicate_id", str(3 + first))}


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "rows"])
def test_files_that_are_not_what_they_are_called(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "rows":
        path.mkdir()
        (path / "state.json").write_text("{")
    else:
        path.write_bytes(b"PAR1\x00\x01\x02 not a table PAR1")
    plan = write_plan(tmp_path, scripted(prompts={"paths": [name]}))
    said = call("run", plan, "--root", tmp_path / "store").refused()
    assert str(path) in said


def test_one_prompt_is_enough(tmp_path: Path) -> None:
    summary = finished(write_plan(tmp_path, scripted(), [prompt(1), "{}", "{}"]))
    assert summary["rows"]["ingest"] == {"prompts": 1, "rejects": 2}


def test_failures_of_a_scripted_engine_are_rejects(tmp_path: Path) -> None:
    failing = scripted(failure_limit=0.9, engines={"policy": {"fail_share": 0.2}})
    plan = write_plan(tmp_path, failing, 12)
    summary = finished(plan)
    lost = summary["rows"]["generate"]["rejects"]
    assert 0 < lost < 12 * SAMPLES
    assert Counter(row["code"] for row in rejects(plan, "generate")) == {"refused": lost}
    plan.write_text(plan.read_text().replace('"failure_limit" = 0.9', '"failure_limit" = 0.0'))
    # Published already: a limit is for what is still to be made.
    assert call("run", plan, "--root", tmp_path / "store", "--json").json["computed"] == []


def test_numbers_of_any_size_are_no_trouble(tmp_path: Path) -> None:
    most = 2**63 - 1
    changes: dict[str, Any] = {
        "shard_rows": most,
        "prompts": {"max_chars": most, "limit": most},
        "engines": {"policy": {"concurrency": most}},
        "generate": {"sampling": {"top_k": most, "max_tokens": most}},
        "process": {"stop_at": most, "per_prompt": most},
        "pairs": {"per_prompt": most},
        "decide": {"min_votes": most},
    }
    summary = finished(write_plan(tmp_path, scripted(**changes)))
    assert summary["rows"]["ingest"] == {"prompts": 5, "rejects": 0}


def test_text_is_only_text(tmp_path: Path) -> None:
    """Hostile replies and prompts end up in Parquet and in the page as they are, and nowhere else."""
    evil = [
        *REPLIES,
        "<script>alert(1)</script>\n#7",
        "\x1b[2J\u202e\x00 \n#8",
        "=cmd|' /C calc'!A0",
    ]
    rows = [prompt(n, prompt=f"<img src=x onerror=alert({n})> {{{{ 7*7 }}}}") for n in range(6)]
    plan = write_plan(tmp_path, scripted(engines={"policy": {"replies": evil}}), rows)
    summary = finished(plan)
    page = Path(summary["paths"]["report"]).read_text("utf-8")
    assert "<img src=x" not in page and "<script>alert" not in page
    assert "&lt;img src=x" in page
    rows_back = call(
        *("query", "--root", tmp_path / "store", "--json"),
        "select distinct text from responses where text like '%script%'",
    )
    assert json.loads(rows_back.out.splitlines()[0])["text"] == evil[5]


def test_a_model_folder_that_is_none(tmp_path: Path) -> None:
    def say(model: str) -> str:
        local = {"kind": "local", "model": model}
        plan = write_plan(tmp_path, {**scripted(), "engines": {"policy": local}})
        return call("run", plan, "--root", tmp_path / "store").refused()

    assert say("./gone") == (
        f"model folder {tmp_path / 'gone'} does not exist; give a folder or a Hub id (org/name)"
    )
    (tmp_path / "empty").mkdir()
    assert say("empty") == (
        f"{tmp_path / 'empty'} holds no config.json; give a folder written by save_pretrained"
    )
    assert say("prompts.jsonl").startswith(f"model folder {tmp_path / 'prompts.jsonl'} does not")


def test_jobs_that_the_plan_does_not_have(tmp_path: Path) -> None:
    plan = write_plan(tmp_path)
    root = tmp_path / "store"
    assert call("train", plan, "--root", root).refused() == (
        "the plan trains nothing; add [train.reward] or [train.steps]"
    )
    assert call("show", "--root", root, "--json").json["status"] == "failed"
    assert call("curate", plan, "--root", root, "--json").json["computed"] == []


def test_training_stops_at_the_dataset_with_curate(tmp_path: Path) -> None:
    plan = merged(scripted(), {"train": {"reward": {"base": str(POLICY)}}})
    path = write_plan(tmp_path, plan)
    summary = call("curate", path, "--root", tmp_path / "store", "--json").json
    assert summary["computed"][-1] == "emit" and "train.reward" not in summary["rows"]


def test_the_plan_that_a_run_keeps_can_be_run_itself(tmp_path: Path) -> None:
    plan = scripted(prompts={"paths": [str(tmp_path / "prompts.jsonl")]})
    path = write_plan(tmp_path, plan)
    root = tmp_path / "store"
    first = call("run", path, "--root", root, "--json").json
    kept = root / "runs" / first["run"] / "plan.toml"
    again = call("run", kept, "--root", root, "--json").json
    assert (again["run"], again["computed"], again["asked"]) == (first["run"], [], 0)
    assert kept.read_text() == path.read_text()
