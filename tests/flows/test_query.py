"""SQL over a run: every stage is there to be read, and nothing else is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flows.session import Summary
from tests.flows.plans import STAGES, call, prefinery, run, scripted, write_plan

secret_table = [{"kept": "from SQL"}]
"""What DuckDB would find by its name in Python, were it let."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    folder = tmp_path_factory.mktemp("query")
    rows: list[Any] = [{"prompt": f"3 and 4? {n}", "reference": "7"} for n in range(5)]
    rows = [{**row, "verifier": "numeric"} for row in rows] + [{"prompt": ""}]
    plan = write_plan(folder, scripted(), rows)
    return folder / "store", run(plan, folder / "store")


def lines(made: tuple[Path, Summary], sql: str) -> list[dict[str, Any]]:
    done = call("query", "--root", made[0], "--json", sql)
    assert (done.code, done.err) == (0, ""), done.err
    return [json.loads(line) for line in done.out.splitlines()]


def one(made: tuple[Path, Summary], sql: str) -> Any:
    [row] = lines(made, sql)
    [value] = row.values()
    return value


def refused(made: tuple[Path, Summary], sql: str) -> str:
    said = call("query", "--root", made[0], "--json", sql).refused()
    assert said.startswith("query: ")
    return said.removeprefix("query: ")


def test_every_table_of_every_stage_is_a_view(made: tuple[Path, Summary]) -> None:
    for stage in STAGES[:-1]:
        for table, count in made[1].rows[stage].items():
            assert one(made, f"select count(*) from {stage}.{table}") == count, (stage, table)
    views = {
        (row["table_schema"], row["table_name"])
        for row in lines(made, "select * from information_schema.tables")
    }
    assert {schema for schema, _ in views} == {*STAGES, "main"}
    assert {("emit", "preference_train"), ("emit", "steps_train"), ("emit", "rejects")} <= views
    emitted = json.loads(call("show", "--root", made[0], "--json").out)["manifests"]["emit"]
    train = emitted["facts"]["rows"]["preference"]["train"]
    assert one(made, "select count(*) from emit.preference_train") == train > 0


def test_a_table_that_stages_share_says_which_stage(made: tuple[Path, Summary]) -> None:
    found = lines(made, "select stage_name, count(*) as n from votes group by all")
    counts = {row["stage_name"]: row["n"] for row in found}
    assert counts == {stage: made[1].rows[stage]["votes"] for stage in ("verify", "judge")}
    rejects = lines(made, "select stage_name, stage, unit, code from rejects")
    assert all(row["stage_name"] == row["stage"] for row in rejects)
    assert {"stage_name": "ingest", "stage": "ingest", "unit": "prompts.jsonl:6"}.items() <= {
        **rejects[0]
    }.items()
    assert Counter(row["stage"] for row in rejects)["process"] == made[1].rows["process"]["rejects"]
    # One that only one stage has is there under its name alone, too.
    assert one(made, "select count(*) from responses") == 20


def test_json_lines_hold_every_type(made: tuple[Path, Summary]) -> None:
    [row] = lines(
        made,
        "select 1 as i, 1.5::double as f, 'é\n\"<script>' as t, null as nothing, [1, 2] as list, "
        "{'a': true} as struct, date '2020-01-02' as day, 1.10::decimal(5,2) as exact",
    )
    assert row == {
        **{"i": 1, "f": 1.5, "t": 'é\n"<script>', "nothing": None, "list": [1, 2]},
        **{"struct": {"a": True}, "day": "2020-01-02", "exact": "1.10"},
    }
    values = lines(made, 'select "value" from step_labels')
    assert values and all(isinstance(row["value"], list) for row in values)


def test_a_person_gets_a_table(made: tuple[Path, Summary]) -> None:
    sql = "select code, count(*) as n from rejects group by code order by code"
    done = call("query", "--root", made[0], sql)
    assert (done.code, done.err) == (0, "")
    assert done.out.split() == ["code", "n", "empty_prompt", "1", "same_text", "5"]
    assert made[1].rows["process"]["rejects"] == 5
    many = call("query", "--root", made[0], "select * from range(1234)")
    assert len(many.out.splitlines()) == 52
    assert many.out.endswith("... and 1,184 more rows (--json prints all)\n")
    evil = call("query", "--root", made[0], "select 'a\x1b[2Jb[red]\u202ec' as x")
    assert "\x1b" not in evil.out and "\u202e" not in evil.out and "[red]" in evil.out


OUTSIDE = [
    "copy (select 1) to '{there}'",
    "copy responses to '{there}' (format parquet)",
    "export database '{there}'",
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('{prompts}')",
    "select * from read_json('{prompts}')",
    "select * from read_parquet('{parquet}')",
    "select * from '/etc/passwd'",
    "select * from '{parquet}'",
    "select * from glob('/etc/*')",
    "select * from sniff_csv('/etc/passwd')",
    "select * from parquet_metadata('{parquet}')",
    "attach '{there}' as other",
    "attach 'http://127.0.0.1:9/x.db' as other",
    "install httpfs",
    "load httpfs",
    "install spatial from 'http://127.0.0.1:9'",
    "load '{there}'",
    "import database '{folder}'",
    "select * from secret_table",
    "select * from connection",
    "select * from store",
]


@pytest.mark.parametrize("sql", OUTSIDE)
def test_nothing_outside_the_run_is_read_or_written(
    sql: str, made: tuple[Path, Summary], tmp_path: Path
) -> None:
    root = made[0]
    parquet = next((root / "stages" / "generate").glob("*/*.parquet"))
    there = tmp_path / "made"
    prompts = root.parent / "prompts.jsonl"
    said = refused(
        made, sql.format(there=there, prompts=prompts, parquet=parquet, folder=root.parent)
    )
    assert said.startswith(("Permission Error: ", "Catalog Error: ")) or (
        "file system operations are disabled by configuration" in said
    ), said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sql",
    [
        "set enable_external_access = true",
        "set python_enable_replacements = true",
        "set lock_configuration = false",
        "set memory_limit = '900GB'",
        "set temp_directory = '/etc'",
        "set threads = 64",
        "reset memory_limit",
        "pragma memory_limit = '900GB'",
        "set allow_unsigned_extensions = true; load '/x'",
    ],
)
def test_settings_are_locked(sql: str, made: tuple[Path, Summary]) -> None:
    said = refused(made, sql)
    assert "configuration has been locked" in said or "Cannot change" in said, said


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("selec 1", "Parser Error: "),
        (
            "select * from votez",
            "Catalog Error: Table with name votez does not exist! Did you mean",
        ),
        ("select nothing from votes", "Binder Error: "),
        ("select cast(text as int) from responses", "Conversion Error: "),
        ("select error('late') from range(5000) where range = 4999", "Invalid Input Error: late"),
        ("", "nothing is asked; try: select * from decisions limit 5"),
        ("/* a comment */", "nothing is asked; "),
        ("select 1 as a, 2 as a", "two columns are named 'a'; tell them apart with `as`"),
    ],
)
def test_wrong_sql_is_one_line(sql: str, said: str, made: tuple[Path, Summary]) -> None:
    assert refused(made, sql).startswith(said)


def test_wrong_sql_is_one_line_in_a_process_of_its_own(made: tuple[Path, Summary]) -> None:
    assert prefinery("query", "--root", made[0], "selec 1").refused() == (
        'query: Parser Error: syntax error at or near "selec" LINE 1: selec 1 ^^^^^'
    )


def test_what_is_made_in_memory_is_gone_and_the_run_is_as_it_was(
    made: tuple[Path, Summary],
) -> None:
    before = {path: path.stat().st_mtime_ns for path in made[0].rglob("*.parquet")}
    assert lines(made, "create table t as select 5 as x; select * from t") == [{"x": 5}]
    assert refused(made, "select * from t").startswith("Catalog Error")
    for sql in ("delete from responses", "update votes set value = 1", "drop table responses"):
        assert refused(made, sql)
    lines(made, "drop view generate.responses")
    assert one(made, "select count(*) from generate.responses") == 20
    assert {path: path.stat().st_mtime_ns for path in made[0].rglob("*.parquet")} == before


def test_which_run_is_asked(made: tuple[Path, Summary]) -> None:
    for name in ("latest", made[1].run, made[1].run[:12]):
        done = call("query", "--root", made[0], "--run", name, "--json", "select 1 as x")
        assert done.out == '{"x": 1}\n'
    assert call("query", "--root", made[0], "--run", "zzz", "select 1").refused() == (
        "zzz: no run begins so; `prefinery runs` lists them"
    )
