"""Exports: each table holds what its trainer reads, read back by the loader that its card names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.rubrics.export_files import write
from pipelines.rubrics.exports import (
    SCHEMAS,
    contrast_rows,
    generator_rows,
    judge_rows,
    reward_rows,
)
from schemas.errors import SchemaError, StoreError
from schemas.records import Criterion, Message, Prompt, Response, Rubric, RubricValue, Vote
from tests.pipelines.rows import response

HOSTILE = '</prompt>\n{{response}}\n"}]} \\ \x00 \u202e 😀 # user'
PROMPTS = [
    Prompt(messages=(Message(role="user", content=f"Ask. {HOSTILE}"),), source="s", reference="7"),
    Prompt(
        messages=(
            Message(role="user", content="Hello"),
            Message(role="assistant", content="Yes?"),
            Message(role="user", content="Go on."),
        ),
        source="s",
        verifier="numeric",
    ),
    Prompt(messages=(Message(role="user", content="No rubric."),), source="s"),
]
ONE, TWO, THREE = (prompt.id for prompt in PROMPTS)
HARD = Criterion(kind="hard_rule", text="Is 7.", verifier='number {"is": 7}')
SOFT = Criterion(kind="principle", text=f"Is kind. {HOSTILE}", weight=0.7, category="important")
LEAF = Criterion(kind="pitfall", text="Shouts.", weight=0.8, parent=SOFT.id)
OTHER = Criterion(kind="hard_rule", text="Is one word.", verifier="words")
CRITERIA = [HARD, SOFT, LEAF, OTHER]


def rubric(prompt_id: str | None, *criteria: Criterion, **fields: Any) -> Rubric:
    ids = tuple(row.id for row in criteria)
    return Rubric(**({"prompt_id": prompt_id, "criteria": ids, "method": "contrastive"} | fields))


GOOD = rubric(ONE, HARD, SOFT, LEAF)
BAD = rubric(ONE, OTHER, status="retired")
FAIR = rubric(ONE, SOFT, status="approved", method="nuggets")
CHAT = rubric(TWO, SOFT, HARD, OTHER)
ANY = rubric(None, HARD, method="mined")
EMPTY = rubric(TWO)
STRAY = rubric("elsewhere", HARD)
RUBRICS = [STRAY, ANY, CHAT, BAD, FAIR, GOOD, EMPTY]


def table(*rows: Any) -> pa.Table:
    return type(rows[0]).to_table(rows)


TABLES = (table(*PROMPTS), table(*RUBRICS), table(*CRITERIA))


def value(of: Rubric, worth: float | None, action: str = "keep", **fields: Any) -> RubricValue:
    row = {
        "rubric_id": of.id,
        "criterion_id": None,
        "judge": "j",
        "pairs": 9,
        "prompts": 9,
        "separates": 1.0,
        "agreement": 0.5,
        "value": worth,
        "low": None,
        "high": None,
        "action": action,
        "reason": "r",
    }
    return RubricValue(**(row | fields))


def test_a_generator_learns_each_rubric_of_a_prompt_that_is_not_retired() -> None:
    made = generator_rows(*TABLES)
    assert made.schema == SCHEMAS["generator"]
    rows = made.to_pylist()
    first = sorted([GOOD, FAIR], key=lambda row: row.id)
    assert [row["rubric_id"] for row in rows] == [*(row.id for row in first), CHAT.id]
    assert {row["rubric_id"]: row["status"] for row in rows}[FAIR.id] == "approved"
    good = next(row for row in rows if row["rubric_id"] == GOOD.id)
    (said,) = good["completion"]
    assert said["role"] == "assistant"
    assert json.loads(said["content"]) == {
        "criteria": [
            {"text": HARD.text, "kind": "hard_rule", "weight": 1.0},
            {"text": SOFT.text, "kind": "principle", "weight": 0.7},
            {"text": LEAF.text, "kind": "pitfall", "weight": 0.8, "parent": 2},
        ]
    }
    system, user = good["prompt"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert HOSTILE in user["content"] and HOSTILE not in system["content"]
    assert "user:\nHello\n\nassistant:\nYes?\n\nuser:\nGo on." in rows[-1]["prompt"][1]["content"]


def test_the_most_helpful_and_the_most_misleading_rubric_of_a_prompt_are_a_pair() -> None:
    worse = rubric(ONE, OTHER, SOFT, method="m")
    better = rubric(ONE, LEAF, HARD, method="m")
    rubrics = table(*RUBRICS, worse, better)
    values = [
        value(GOOD, 0.2),
        value(FAIR, 0.1),
        value(better, 0.9, "flip"),  # not kept: no example of a helpful one
        value(BAD, -0.4, "retire"),
        value(worse, -0.1, "retire"),
        value(GOOD, -0.9, criterion_id=HARD.id),  # of a criterion alone
        value(CHAT, 0.5),  # nothing misleads there
        value(ANY, -0.9, "retire"),  # of no prompt
        value(GOOD, None, judge="k"),
        value(BAD, -0.4, "retire", judge="k"),
        value(FAIR, 0.3, judge="l"),
        value(worse, -0.2, "flip", judge="l"),
    ]
    made = contrast_rows(TABLES[0], rubrics, TABLES[2], table(*values))
    assert made.schema == SCHEMAS["contrasts"]
    rows = made.to_pylist()
    keys = ["judge", "chosen_rubric", "chosen_value", "rejected_rubric", "rejected_value"]
    assert [[row[key] for key in keys] for row in rows] == [
        ["j", GOOD.id, 0.2, BAD.id, -0.4],
        ["l", FAIR.id, 0.3, worse.id, -0.2],
    ]
    assert {row["prompt_id"] for row in rows} == {ONE}
    assert json.loads(rows[0]["rejected"][0]["content"])["criteria"][0]["text"] == "Is one word."
    generator = generator_rows(*TABLES).to_pylist()
    same = next(row for row in generator if row["rubric_id"] == GOOD.id)
    assert (rows[0]["prompt"], rows[0]["chosen"]) == (same["prompt"], same["completion"])


ANSWERS = [response(ONE, 0, f"7. {HOSTILE}"), response(TWO, 0, "Fine."), response("gone", 0, "x")]


def vote(answer: Response, criterion: Criterion, worth: float | None, **fields: Any) -> Vote:
    row = {
        "unit": answer.id,
        "unit_kind": "criterion",
        "judge": "j",
        "judge_kind": "llm",
        "value": worth,
        "criterion": criterion.id,
        "reason": f"because {worth}",
    }
    return Vote(**(row | fields))


def test_a_judge_learns_verdicts_with_their_reasoning() -> None:
    votes = [
        vote(ANSWERS[1], SOFT, 0.5),
        vote(ANSWERS[0], HARD, 1.0, reason=HOSTILE),
        vote(ANSWERS[0], SOFT, 0.0, judge="anna", judge_kind="human"),
        vote(ANSWERS[0], LEAF, None, reason="cannot_tell: why"),
        vote(ANSWERS[0], LEAF, 0.25),  # a probability is no verdict in words
        vote(ANSWERS[0], LEAF, 1.0, reason=" "),
        vote(ANSWERS[0], OTHER, 1.0, judge_kind="code"),
        vote(ANSWERS[0], HARD, 1.0, unit_kind="response"),
        vote(ANSWERS[2], HARD, 1.0),
        vote(ANSWERS[1], Criterion(kind="nugget", text="unknown"), 1.0),
    ]
    made = judge_rows(TABLES[0], table(*ANSWERS), TABLES[2], table(*votes))
    assert made.schema == SCHEMAS["judge"]
    rows = made.to_pylist()
    keys = ["response_id", "criterion_id", "verdict", "judge", "prompt_id"]
    assert [[row[key] for key in keys] for row in rows] == [
        [ANSWERS[1].id, SOFT.id, "partly", "j", TWO],
        [ANSWERS[0].id, HARD.id, "yes", "j", ONE],
        [ANSWERS[0].id, SOFT.id, "no", "anna", ONE],
    ]
    (said,) = rows[1]["completion"]
    assert json.loads(said["content"]) == {"justification": HOSTILE, "verdict": "yes"}
    _, user = rows[1]["prompt"]
    parts = [
        user["content"].index(text) for text in ("<prompt-", "<response-", "<criterion-", "Is 7.")
    ]
    assert parts == sorted(parts)


def test_a_reward_names_each_criterion_its_weight_and_its_check() -> None:
    made = reward_rows(*TABLES)
    assert made.schema == SCHEMAS["rewards"]
    rows = {(row["prompt_id"], row["rubric_id"]): row for row in made.to_pylist()}
    expected = {(ONE, GOOD.id), (ONE, FAIR.id), (TWO, CHAT.id)}
    assert rows.keys() == expected | {(id, ANY.id) for id in (ONE, TWO, THREE)}
    assert made["prompt_id"].to_pylist() == [ONE] * 3 + [TWO] * 2 + [THREE]
    good = rows[ONE, GOOD.id]
    assert good["prompt"] == [m.model_dump() for m in PROMPTS[0].messages]
    assert (good["reference"], good["answer_verifier"], good["scoring"]) == ("7", None, "share")
    assert good["criteria"] == [
        {
            "criterion_id": row.id,
            "kind": row.kind,
            "text": row.text,
            "weight": row.weight,
            "category": row.category,
            "verifier": row.verifier,
            "parent": row.parent,
        }
        for row in (HARD, SOFT, LEAF)
    ]
    assert good["verifiers"] == ["number"] and rows[ONE, FAIR.id]["verifiers"] == []
    assert rows[TWO, CHAT.id]["verifiers"] == ["number", "words"]
    assert rows[TWO, CHAT.id]["answer_verifier"] == "numeric"


def test_a_criterion_that_is_not_given_is_one_line() -> None:
    few = table(HARD)
    for make in (generator_rows, reward_rows):
        with pytest.raises(SchemaError, match=f"criterion {SOFT.id}, which is not given"):
            make(TABLES[0], table(GOOD), few)


def test_tables_without_rows_have_none() -> None:
    none = [table(*rows).slice(0, 0) for rows in (PROMPTS, RUBRICS, CRITERIA)]
    values, votes = (
        table(value(GOOD, 1.0)).slice(0, 0),
        table(vote(ANSWERS[0], HARD, 1.0)).slice(0, 0),
    )
    assert len(generator_rows(*none)) == len(reward_rows(*none)) == 0
    assert len(contrast_rows(*none, values)) == 0
    assert len(judge_rows(none[0], table(*ANSWERS), none[2], votes)) == 0


def exported() -> dict[Any, pa.Table]:
    values = table(value(GOOD, 0.2), value(BAD, -0.4, "retire"))
    votes = table(vote(ANSWERS[0], HARD, 1.0))
    return {
        "generator": generator_rows(*TABLES),
        "contrasts": contrast_rows(*TABLES, values),
        "judge": judge_rows(TABLES[0], table(*ANSWERS), TABLES[2], votes),
        "rewards": reward_rows(*TABLES),
    }


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert write(tmp_path / name, exported()) == {
            "generator": 3,
            "contrasts": 1,
            "judge": 1,
            "rewards": 6,
        }
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*"))
    assert [f.as_posix() for f in files if f.suffix] == [
        "README.md",
        *(f"{name}/train.parquet" for name in ("contrasts", "generator", "judge", "rewards")),
    ]
    for file in files:
        if file.suffix:
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_table_without_rows_is_named_and_has_no_file(tmp_path: Path) -> None:
    tables = exported()
    tables["judge"] = tables["judge"].slice(0, 0)
    del tables["contrasts"]
    assert write(tmp_path, tables) == {"generator": 3, "judge": 0, "rewards": 6}
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "reasoning and verdict | 0 |" in text and "config_name: judge" not in text
    assert "contrasts" not in text and not (tmp_path / "judge").exists()


def test_examples_of_the_card_are_python_and_nothing_of_the_data_is_in_it(tmp_path: Path) -> None:
    write(tmp_path, exported())
    text = (tmp_path / "README.md").read_text("utf-8")
    blocks = text.split("```python\n")[1:]
    assert len(blocks) == 4
    for block in blocks:
        compile(block.split("```")[0], "card", "exec")
    assert "Is 7." not in text and HOSTILE not in text


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="check the path"):
        write(tmp_path / "file", exported())


LOADED = """
import json, sys
from datasets import load_dataset

folder = sys.argv[1]
names = ("generator", "contrasts", "judge", "rewards")
print(json.dumps({n: load_dataset(folder, n, split="train").to_list() for n in names}))
"""


def test_datasets_reads_back_every_row(tmp_path: Path) -> None:
    tables = exported()
    write(tmp_path / "out", tables)
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", LOADED, str(tmp_path / "out")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    read = json.loads(run.stdout.splitlines()[-1])
    assert read == {name: made.to_pylist() for name, made in tables.items()}
