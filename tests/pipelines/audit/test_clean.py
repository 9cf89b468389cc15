"""The cleaned set: the same format and columns, and only what the action says is changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.audit import clean
from pipelines.audit.audit import audit
from pipelines.audit.config import AuditConfig
from schemas.errors import UserError
from tests.pipelines.audit.made import EMBED, preferences, write

ROWS, WRONG = preferences(100, 0.15, seed=4)
BAD = {"prompt": "no sides", "chosen": "x", "rejected": "x"}


def cleaned(tmp_path: Path, dataset: Path, action: str) -> list[Path]:
    config = AuditConfig.model_validate(
        {"datasets": (str(dataset),), "model": "none", "action": action}
    )
    return clean.write(audit(config, tmp_path / "work", embed=EMBED), config, tmp_path / "clean")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def jsonl(tmp_path) -> Path:
    path = write(tmp_path / "data.jsonl", [{**row, "own": [1, None]} for row in ROWS])
    path.write_text(json.dumps(BAD) + "\n{broken\n" + path.read_text())
    return path


def test_drop_leaves_out_wrong_and_unusable_rows_of_json_lines(tmp_path, jsonl) -> None:
    (path,) = cleaned(tmp_path, jsonl, "drop")
    assert path.name == "data.jsonl"
    wanted = [{**row, "own": [1, None]} for row, bad in zip(ROWS, WRONG, strict=True) if not bad]
    assert lines(path) == wanted


def test_flip_turns_wrong_rows_round_and_keeps_the_rest(tmp_path, jsonl) -> None:
    (path,) = cleaned(tmp_path, jsonl, "flip")
    found = lines(path)
    assert found[0] == BAD and len(found) == 101
    for row, new, wrong in zip(ROWS, found[1:], WRONG, strict=True):
        turned = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
        assert {k: new[k] for k in row} == (turned if wrong else row)


def test_soften_adds_the_probability_alone(tmp_path, jsonl) -> None:
    (path,) = cleaned(tmp_path, jsonl, "soften")
    found = lines(path)
    assert found[0] == {**BAD, "probability": None}
    assert [{k: new[k] for k in row} for row, new in zip(ROWS, found[1:], strict=True)] == ROWS
    assert [new["probability"] < 0.5 for new in found[1:]] == WRONG.tolist()


@pytest.mark.parametrize("action", ["drop", "flip", "soften"])
def test_parquet_keeps_its_schema_and_conversations(tmp_path, action) -> None:
    def talk(text: str) -> list[dict]:
        return [{"role": "assistant", "content": text}]

    rows = [
        {**row, "chosen": talk(row["chosen"]), "rejected": talk(row["rejected"]), "n": at}
        for at, row in enumerate(ROWS)
    ]
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"of": "mine"})
    pq.write_table(table, tmp_path / "data.parquet")
    (path,) = cleaned(tmp_path, tmp_path / "data.parquet", action)
    found = pq.read_table(path)
    if action == "soften":
        assert found.drop_columns(["probability"]).equals(table)
        assert (found["probability"].to_numpy() < 0.5).tolist() == WRONG.tolist()
        return
    source = pq.read_table(tmp_path / "data.parquet")
    assert found.schema.equals(source.schema, check_metadata=True)
    if action == "drop":
        assert found["n"].to_pylist() == np.flatnonzero(~WRONG).tolist()
        return
    for row, new, wrong in zip(rows, found.to_pylist(), WRONG, strict=True):
        assert new["chosen"] == row["rejected" if wrong else "chosen"]
        assert new["rejected"] == row["chosen" if wrong else "rejected"]


def test_a_data_set_folder_stays_one_with_its_splits_and_the_same_bytes(tmp_path) -> None:
    from datasets import Dataset, DatasetDict, load_from_disk

    both = DatasetDict(train=Dataset.from_list(ROWS[:70]), test=Dataset.from_list(ROWS[70:]))
    both.save_to_disk(tmp_path / "saved")
    written = cleaned(tmp_path, tmp_path / "saved", "drop")
    assert [path.name for path in written] == ["train", "test"]
    found = load_from_disk(tmp_path / "clean")
    assert found["train"].to_list() == [ROWS[at] for at in range(70) if not WRONG[at]]
    assert found["test"].to_list() == [ROWS[at] for at in range(70, 100) if not WRONG[at]]
    assert found["train"].features == both["train"].features
    first = {p.name: p.read_bytes() for p in (tmp_path / "clean" / "train").iterdir()}
    cleaned(tmp_path, tmp_path / "saved", "drop")
    assert {p.name: p.read_bytes() for p in (tmp_path / "clean" / "train").iterdir()} == first


def test_rated_responses_are_left_out_one_by_one(tmp_path) -> None:
    rows = []
    for at, row in enumerate(ROWS):
        polite, rude = (row["chosen"], row["rejected"])[:: -1 if WRONG[at] else 1]
        rows.append(
            {
                "prompt": row["prompt"],
                "responses": [polite, rude, f"{polite} Thank you."],
                "ratings": [4, 9 if at == 7 else 1, 4],
            }
        )
    (path,) = cleaned(tmp_path, write(tmp_path / "r.jsonl", rows), "drop")
    found = lines(path)
    assert [row["prompt"] for row in found] == [
        row["prompt"] for at, row in enumerate(rows) if at != 7
    ]
    assert found[0] == rows[0]
    (path,) = cleaned(tmp_path, tmp_path / "r.jsonl", "soften")
    soft = [row["probability"] for row in lines(path)]
    assert all(p is not None and p < 0.5 for p in soft[7])
    assert all(p > 0.5 for at, row in enumerate(soft) if at != 7 for p in row)


def test_a_column_of_that_name_is_one_line_and_the_old_set_stands(tmp_path) -> None:
    path = write(tmp_path / "x.jsonl", [{**row, "probability": 1} for row in ROWS[:20]])
    with pytest.raises(UserError, match="has a column 'probability' already; rename it"):
        cleaned(tmp_path, path, "soften")
    assert not (tmp_path / "clean").exists()
