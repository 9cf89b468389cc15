"""Preference data in the forms people have: what is read of each, and what is refused and why."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.audit.config import AuditConfig
from pipelines.audit.read import Pairs, find, read
from pipelines.audit.texts import sides_of
from schemas.errors import UserError
from tests.pipelines.audit.made import write


def config(*datasets: Path, **more) -> AuditConfig:
    return AuditConfig(datasets=tuple(map(str, datasets)), model="none", **more)


def texts(pairs: Pairs) -> list[tuple[str, str, str, str]]:
    return [
        tuple(pairs.texts[code] for code in codes)
        for codes in zip(pairs.prompt, pairs.ask, pairs.chosen, pairs.rejected, strict=True)
    ]


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def says(text: str) -> dict:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, ("q", "q", "a", "b")),
        ({"question": "q", "chosen": "a", "rejected": ""}, ("q", "q", "a", "")),
        (
            {"prompt": [user("q")], "chosen": [says("a")], "rejected": [says("b")]},
            ("q", "q", "a", "b"),
        ),
        (
            {"chosen": [user("q"), says("a")], "rejected": [user("q"), says("b")]},
            ("q", "q", "a", "b"),
        ),
        (
            {
                "prompt": "q",
                "chosen": [user("q"), says("x"), user("r"), says("a")],
                "rejected": [user("q"), says("x"), user("r"), says("b")],
            },
            ("user: q\n\nassistant: x\n\nuser: r", "r", "a", "b"),
        ),
        (
            {
                "chosen": "\n\nHuman: hi\n\nAssistant: yo\n\nHuman: how?\n\nAssistant: so",
                "rejected": "\n\nHuman: hi\n\nAssistant: yo\n\nHuman: how?\n\nAssistant: see",
            },
            ("\n\nHuman: hi\n\nAssistant: yo\n\nHuman: how?\n\nAssistant:", "how?", "so", "see"),
        ),
        ({"chosen": "a", "rejected": "b"}, ("", "", "a", "b")),
        ({"prompt": "q:", "chosen": "q: a", "rejected": "q: b"}, ("q:", "q:", "a", "b")),
    ],
)
def test_a_row_is_prompt_last_turn_and_two_sides(tmp_path, row, wanted) -> None:
    assert texts(read(config(write(tmp_path / "x.jsonl", [row])))) == [wanted]


@given(
    st.text(alphabet="ab\n :", max_size=20),
    st.text(alphabet="ab :", min_size=1, max_size=9).filter(str.strip),
    st.text(alphabet="ab :", min_size=1, max_size=9).filter(str.strip),
)
def test_what_both_sides_share_is_the_prompts_whatever_they_say(talk, good, bad) -> None:
    head = f"\n\nHuman: {talk}\n\nAssistant:"
    if good.strip() == bad.strip():
        return
    asked, last, a, b = sides_of(None, f"{head} {good}", f"{head} {bad}")
    assert (asked, a, b) == (head, good.strip(), bad.strip())
    assert last == talk.strip()


def test_bad_rows_are_rejects_with_their_line_and_the_rest_is_read(tmp_path) -> None:
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    path = tmp_path / "x.jsonl"
    bad = [
        "{nonsense",
        "[1]",
        json.dumps({"prompt": "q", "chosen": "a"}),
        json.dumps({"prompt": "q", "chosen": 3, "rejected": "b"}),
        json.dumps({"prompt": "q", "chosen": " a", "rejected": "a"}),
        json.dumps({"prompt": "q", "chosen": " ", "rejected": ""}),
        json.dumps({"prompt": "q", "chosen": "a", "rejected": "\ud800"}),
        json.dumps({"prompt": "q", "chosen": "a", "rejected": "b" * 200_001}),
        json.dumps({"prompt": "q", "response": "a"}),
    ]
    path.write_text("\n".join([json.dumps(good), *bad, json.dumps(good)]))
    pairs = read(config(path))
    assert [(r.unit, r.code) for r in pairs.rejects] == [
        ("x.jsonl:2", "not_json"),
        ("x.jsonl:3", "not_an_object"),
        ("x.jsonl:4", "missing_sides"),
        ("x.jsonl:5", "bad_type"),
        ("x.jsonl:6", "same_sides"),
        ("x.jsonl:7", "empty_side"),
        ("x.jsonl:8", "invalid_utf8"),
        ("x.jsonl:9", "too_long"),
        ("x.jsonl:10", "missing_sides"),
    ]
    assert [at[0] for at in pairs.at] == [1, 11] and pairs.rows == [11]


def test_rated_responses_become_pairs_the_widest_gap_first(tmp_path) -> None:
    rows = [
        {"prompt": "q", "responses": ["a", "b", "c"], "ratings": [1, 3, 3]},
        {"prompt": "q", "responses": ["a", "b"], "ratings": [2, 2]},
        {"prompt": "q", "responses": ["a", "b"], "ratings": [2]},
        {
            "instruction": "q",
            "completions": [{"response": "x", "score": 0.5}, {"response": "y", "score": 0.9}],
        },
    ]
    pairs = read(config(write(tmp_path / "x.jsonl", rows)))
    assert [t[2:] for t in texts(pairs)] == [("b", "a"), ("c", "a"), ("y", "x")]
    assert pairs.at == [(1, 1, 1, 0), (1, 2, 1, 0), (4, 1, 4, 0)] and pairs.rated
    assert [(r.unit, r.code) for r in pairs.rejects] == [
        ("x.jsonl:2", "no_contrast"),
        ("x.jsonl:3", "bad_rating"),
    ]


def test_one_rated_response_a_row_is_paired_within_its_prompt(tmp_path) -> None:
    table = pa.table(
        {"prompt": ["q", "p", "q"], "response": ["a", "b", "c"], "rating": [1.0, 2.0, 5.0]}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    pairs = read(config(tmp_path / "x.parquet"))
    assert texts(pairs) == [("q", "q", "c", "a")] and pairs.at == [(3, 0, 1, 0)]
    assert [(r.unit, r.code) for r in pairs.rejects] == [("x.parquet:2", "no_contrast")]


def test_judges_and_people_that_the_file_brings(tmp_path) -> None:
    rows = [
        {
            "prompt": "q",
            "chosen": "a",
            "rejected": "b",
            "m": 1.5,
            "c": 3,
            "r": 4,
            "who": "rejected",
        },
        {"prompt": "q", "chosen": "c", "rejected": "d", "m": None, "c": 3, "who": 1},
        {"prompt": "q", "chosen": "e", "rejected": "f", "m": "much"},
        {"prompt": "q", "chosen": "e", "rejected": "f", "who": "neither"},
    ]
    path = write(tmp_path / "x.jsonl", rows)
    pairs = read(config(path, judges=("m", "c:r"), human="who"))
    assert pairs.human == [-1, 1]
    assert pairs.judges["m"][0] == 1.5 and math.isnan(pairs.judges["m"][1])
    assert pairs.judges["c:r"][0] == -1 and math.isnan(pairs.judges["c:r"][1])
    assert [r.code for r in pairs.rejects] == ["bad_judge", "bad_judge"]


def test_a_named_column_that_is_not_there_is_one_line(tmp_path) -> None:
    pq.write_table(pa.table({"better": ["a"], "worse": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"no column 'bettr'; the nearest is 'better'"):
        read(config(tmp_path / "x.parquet", chosen="bettr", rejected="worse"))
    pairs = read(config(tmp_path / "x.parquet", chosen="better", rejected="worse"))
    assert texts(pairs) == [("", "", "a", "b")]


def test_data_without_preferences_is_one_line(tmp_path) -> None:
    path = write(tmp_path / "x.jsonl", [{"text": "hello"}])
    with pytest.raises(UserError, match=r"holds no preference: name the columns") as found:
        read(config(path))
    assert "\n" not in str(found.value)


def test_splits_of_files_and_folders(tmp_path) -> None:
    from datasets import Dataset, DatasetDict

    rows = {"prompt": ["q"], "chosen": ["a"], "rejected": ["b"]}
    DatasetDict(train=Dataset.from_dict(rows), test=Dataset.from_dict(rows)).save_to_disk(
        tmp_path / "saved"
    )
    assert find([str(tmp_path / "saved")])[1] == ["train", "test"]
    (tmp_path / "hub").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        pq.write_table(pa.table(rows), tmp_path / "hub" / f"{name}.parquet")
    assert sorted(find([str(tmp_path / "hub")])[1]) == ["test", "train", "train"]
    assert find([str(tmp_path / "hub" / "train*.parquet")])[1] == ["train", "train"]
