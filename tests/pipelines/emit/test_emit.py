"""What is emitted, to which side it is turned, and that every row that is not says why."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipelines.emit.emit import Config, emit
from pipelines.emit.split import split_of
from schemas.errors import SchemaError
from schemas.records import Pair, Preference, Prompt, Reject, StepExample
from schemas.table import validate

CONFIG = Config(name="n")


def rows(folder: Path, config: str) -> list[dict]:
    files = sorted((folder / config).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def rejects(folder: Path) -> set[tuple[str, str, str, str]]:
    table = pq.read_table(folder / "rejects.parquet")
    return {(r["unit"], r["stage"], r["code"], r["detail"]) for r in table.to_pylist()}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_chosen_follows_the_target_and_votes_follow_chosen(run, tmp_path: Path) -> None:
    emit(CONFIG, run.tables(), tmp_path)
    by_pair = {row["pair_id"]: row for row in rows(tmp_path, "preference")}
    kept, flipped = by_pair[run.pairs[0].id], by_pair[run.pairs[5].id]

    assert kept["prompt"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 0? é𝒳"},
    ]
    assert kept["chosen"] == [{"role": "assistant", "content": "a says 0\n\né𝒳 then\nend"}]
    assert kept["rejected"] == [{"role": "assistant", "content": "b says 0"}]
    assert (kept["chosen_id"], kept["rejected_id"]) == (run.responses[0].id, run.responses[1].id)
    assert kept["probability"] == 0.9
    assert kept["votes"] == [
        {"judge": "ann@example.org", "value": -0.25},
        {"judge": "llm-1", "value": 0.75},
        {"judge": "llm-2", "value": None},
    ]
    assert kept["source"] == "words.jsonl" and kept["licence"] is None
    assert kept["label_source"] == "given" and kept["rule"] == "agreement_v1"

    assert flipped["chosen"] == [{"role": "assistant", "content": "b says 5"}]
    assert (flipped["chosen_id"], flipped["rejected_id"]) == (
        run.responses[11].id,
        run.responses[10].id,
    )
    assert flipped["probability"] == 0.9
    assert [vote["value"] for vote in flipped["votes"]] == [0.25, -0.75, None]
    assert flipped["model"].startswith("other, |<script>")

    assert by_pair[run.pairs[6].id]["probability"] == 0.6
    assert set(by_pair) == {pair.id for pair in run.pairs[:7]}


@pytest.mark.parametrize(
    ("label", "action", "chosen"),
    [
        ("a", "keep", 0),
        ("b", "soften", 1),
        ("a", "flip", 1),
        ("b", "flip", 0),
        ("tie", "flip", 0),
        (None, "keep", 0),
    ],
)
def test_an_even_target_goes_by_the_label_after_the_action(
    run, make, tmp_path: Path, label: str | None, action: str, chosen: int
) -> None:
    both = run.responses[:2]
    pair = Pair(
        prompt_id=both[0].prompt_id, response_a=both[0].id, response_b=both[1].id, label=label
    )
    run.pairs[:] = [pair]
    run.decisions[:] = [make["decision"](pair, action, 0.5)]
    run.votes.clear()
    emit(CONFIG, run.tables(), tmp_path)
    (row,) = rows(tmp_path, "preference")
    assert row["chosen_id"] == both[chosen].id
    assert row["rejected_id"] == both[1 - chosen].id
    assert row["probability"] == 0.5
    assert row["votes"] == []


def test_orders_weigh_the_same_however_often_each_was_asked(run, make, tmp_path: Path) -> None:
    run.votes[:] = [
        make["vote"](run.pairs[0], "llm-1", order, value)
        for order, value in (("ab", 1.0), ("ab", 0.5), ("ab", 0.0), ("ba", -0.5))
    ]
    emit(CONFIG, run.tables(), tmp_path)
    (row,) = (r for r in rows(tmp_path, "preference") if r["pair_id"] == run.pairs[0].id)
    assert row["votes"] == [{"judge": "llm-1", "value": 0.0}]


def test_standard_rows_are_plain_text(run, tmp_path: Path) -> None:
    emit(CONFIG, run.tables(), tmp_path)
    by_pair = {row["pair_id"]: row for row in rows(tmp_path, "preference_standard")}
    first, second = by_pair[run.pairs[0].id], by_pair[run.pairs[1].id]
    assert first["prompt"] == "system: Be brief.\n\nuser: What is 0? é𝒳"
    assert second == {
        "prompt": "What is 1? é𝒳",
        "chosen": "a says 1\n\né𝒳 then\nend",
        "rejected": "b says 1",
        "probability": 0.9,
        "margin": 0.5,
        "pair_id": run.pairs[1].id,
        "prompt_id": run.prompts[1].id,
    }


def test_emitted_tables_are_what_their_records_say(run, tmp_path: Path) -> None:
    emit(CONFIG, run.tables(), tmp_path)
    for record, name in ((Preference, "preference"), (StepExample, "steps")):
        table = pq.read_table(tmp_path / name / "train.parquet")
        validate(record, table)
        assert [r.id for r in record.from_table(table)] == [
            type(r).model_validate(r.model_dump()).id for r in record.from_table(table)
        ]
    validate(Reject, pq.read_table(tmp_path / "rejects.parquet"))


def test_every_pair_that_is_not_emitted_says_why(run, make, tmp_path: Path) -> None:
    prompt, a, b = run.prompts[0], run.responses[0], run.responses[1]
    stranger = make["response"](prompt, 9, "not in the run")
    orphan = Pair(prompt_id=prompt.id, response_a=a.id, response_b=stranger.id)
    lost = Pair(prompt_id="0" * 32, response_a=a.id, response_b=b.id)
    early = Pair(prompt_id=prompt.id, response_a=b.id, response_b=a.id)
    elsewhere = Pair(prompt_id=prompt.id, response_a=stranger.id, response_b=b.id)
    run.pairs += [orphan, lost, early]
    run.decisions += [make["decision"](pair, "keep", 0.9) for pair in (orphan, lost, elsewhere)]
    run.rejects.append(Reject(unit=early.id, stage="dedup", code="duplicate", detail="d"))
    run.rejects.append(
        Reject(unit=run.pairs[7].id, stage="decide", code="judges_disagree", detail="own")
    )
    config = Config(name="n", min_probability=0.7)
    counts = emit(config, run.tables(), tmp_path)
    assert rejects(tmp_path) == {
        ("in.jsonl:7", "ingest", "not_json", "|"),
        (early.id, "dedup", "duplicate", "d"),
        (run.pairs[7].id, "decide", "judges_disagree", "own"),
        (run.pairs[8].id, "decide", "judges_disagree", "route by agreement_v1"),
        (run.pairs[9].id, "emit", "undecided", "no decision was made about this pair"),
        (run.pairs[6].id, "emit", "low_probability", "probability 0.6 is below 0.7"),
        (orphan.id, "emit", "missing_response", "a response of it is not in the run"),
        (lost.id, "emit", "missing_prompt", "its prompt is not in the run"),
        (
            run.decisions[-1].id,
            "emit",
            "missing_pair",
            f"decides about pair {elsewhere.id}, which is not in the run",
        ),
    }
    assert counts["pairs"] == {
        "drop": 1,
        "flip": 1,
        "keep": 5,
        "low_probability": 1,
        "missing_prompt": 1,
        "missing_response": 1,
        "rejected": 1,
        "route": 1,
        "undecided": 1,
    }
    assert sum(counts["pairs"].values()) == len(run.pairs)
    assert sum(counts["rows"]["preference"].values()) == 6
    assert sum(r["rows"] for r in counts["rejects"]) == 9


def test_a_prompts_rows_share_a_split_and_rows_stand_in_prompt_order(run, tmp_path: Path) -> None:
    config = Config(name="n", validation=0.2, test=0.5)
    counts = emit(config, run.tables(), tmp_path)
    order = [prompt.id for prompt in run.prompts]
    seen = set()
    for folder in ("preference", "preference_standard", "steps"):
        for file in (tmp_path / folder).glob("*.parquet"):
            prompts = [row["prompt_id"] for row in pq.read_table(file).to_pylist()]
            assert {split_of(p, 0.2, 0.5) for p in prompts} == {file.stem}
            assert prompts == sorted(prompts, key=order.index)
            assert counts["rows"][folder][file.stem] == len(prompts)
            seen.add(file.stem)
    assert seen == {"train", "validation", "test"}


def test_a_prompt_stays_where_it_is_when_rows_are_added(run, make, tmp_path: Path) -> None:
    config = Config(name="n", validation=0.2, test=0.5)
    emit(config, run.tables(), tmp_path / "before")
    for number in range(100, 140):
        prompt = make["prompt"](number)
        a, b = (make["response"](prompt, n, f"{n}") for n in range(2))
        pair = Pair(prompt_id=prompt.id, response_a=a.id, response_b=b.id, label="a")
        run.prompts.insert(0, prompt)
        run.responses += [a, b]
        run.pairs.append(pair)
        run.decisions.append(make["decision"](pair, "keep", 0.9))
    emit(config, run.tables(), tmp_path / "after")
    for split in ("train", "validation", "test"):
        before = pq.read_table(tmp_path / "before" / "preference" / f"{split}.parquet")
        after = pq.read_table(tmp_path / "after" / "preference" / f"{split}.parquet")
        assert set(before["id"].to_pylist()) <= set(after["id"].to_pylist())
        assert len(after) > len(before)


def test_train_is_never_empty_and_the_prompt_moved_there_is_nowhere_else(
    run, tmp_path: Path
) -> None:
    held = [p.id for p in run.prompts if split_of(p.id, 0.2, 0.5) != "train"]
    run.pairs[:] = [pair for pair in run.pairs[:7] if pair.prompt_id in held]
    run.decisions[:] = [d for d in run.decisions if d.pair_id in {p.id for p in run.pairs}]
    counts = emit(Config(name="n", validation=0.2, test=0.5), run.tables(), tmp_path)
    nearest = max(pair.prompt_id for pair in run.pairs)
    assert counts["promoted"] == 1
    assert counts["rows"]["preference"]["train"] == 1
    for folder in ("preference", "steps"):
        files = {
            file.stem: [row["prompt_id"] for row in pq.read_table(file).to_pylist()]
            for file in (tmp_path / folder).glob("*.parquet")
        }
        assert [name for name, prompts in files.items() if nearest in prompts] == ["train"]


def test_equal_rows_give_equal_bytes_whatever_their_votes_order(run, make, tmp_path: Path) -> None:
    emit(CONFIG, run.tables(), tmp_path / "one")
    shuffled = make["run"]()
    for part in (shuffled.votes, shuffled.decisions, shuffled.pairs, shuffled.responses):
        random.Random(0).shuffle(part)
    emit(CONFIG, shuffled.tables(), tmp_path / "two")
    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert one == two
    assert len(one) == 5


def test_row_groups_are_of_fixed_size_and_zstd(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.emit.emit.ROW_GROUP", 3)
    emit(CONFIG, run.tables(), tmp_path)
    meta = pq.ParquetFile(tmp_path / "preference" / "train.parquet").metadata
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [3, 3, 1]
    assert meta.row_group(0).column(0).compression == "ZSTD"
    examples = rows(tmp_path, "steps")
    texts = {response.id: response.text for response in run.responses}
    assert all("".join(r["completions"]) == texts[r["response_id"]] for r in examples)


def test_a_pair_decided_twice_is_refused(run, make, tmp_path: Path) -> None:
    run.decisions.append(make["decision"](run.pairs[0], "drop", 0.5))
    with pytest.raises(SchemaError, match=f"pair {run.pairs[0].id} was decided more than once"):
        emit(CONFIG, run.tables(), tmp_path)


def test_shares_that_leave_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(ValidationError, match="nothing is left to train on"):
        Config(name="n", validation=0.5, test=0.5)
    with pytest.raises(ValidationError):
        Config(name="n", formats=())
    assert Config(name="n", formats=["standard"]).formats == ("standard",)


def test_datasets_reads_every_configuration_offline(run, tmp_path: Path) -> None:
    emit(Config(name="n", validation=0.2, test=0.5), run.tables(), tmp_path / "out")
    script = """
import sys
from datasets import load_dataset
folder = sys.argv[1]
found = load_dataset(folder, "preference")
assert set(found) == {"train", "validation", "test"}, found
row = found["train"][0]
assert list(row["chosen"][0]) == ["role", "content"], row
assert row["chosen"][0]["role"] == "assistant"
assert isinstance(row["votes"], list)
print(sum(split.num_rows for split in found.values()))
steps = load_dataset(folder, "steps", split="train")
assert isinstance(steps[0]["completions"], list) and steps[0]["labels"] == [1, -100, 0]
assert load_dataset(folder, "preference_standard", split="test").column_names[:3] == [
    "prompt", "chosen", "rejected"]
assert load_dataset(folder, split="test").column_names[0] == "id"
"""
    env = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "7"


def test_duckdb_reads_the_folder(run, tmp_path: Path) -> None:
    emit(CONFIG, run.tables(), tmp_path)
    with duckdb.connect() as base:
        query = f"select count(*), min(chosen[1].role) from '{tmp_path}/preference/*.parquet'"
        assert base.sql(query).fetchall() == [(7, "assistant")]


def test_prompts_without_pairs_are_counted_and_nothing_else(run, make, tmp_path: Path) -> None:
    extra = make["prompt"](50)
    assert isinstance(extra, Prompt)
    run.prompts.append(extra)
    counts = emit(CONFIG, run.tables(), tmp_path)
    assert counts["prompts"] == 11
    assert sum(row["rows"] for row in counts["sources"]) == 11
    assert sum(row["preference"] for row in counts["sources"]) == 7
