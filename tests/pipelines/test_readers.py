"""Files that cannot be used: one clear line each, through the stage that reads them."""

import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.ingest import Columns, Config, ingest, inputs_digest
from schemas.errors import UserError

SAMPLE = Path(__file__).parents[2] / "data" / "prompts.jsonl"


def write(path, row):
    path.write_bytes((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n")
    return path


def fails(*paths, **settings):
    with pytest.raises(UserError) as caught:
        list(ingest(Config(paths=tuple(map(str, paths)), **settings)))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_paths_that_are_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "p.txt", b"x")
    (tmp_path / "zero.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n \n")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert fails(tmp_path / "no.jsonl").endswith("no.jsonl; check the path")
    assert fails(tmp_path / "*.csv").startswith("no file matches")
    assert fails(tmp_path / "**x").startswith("'")
    assert "holds no readable data" in fails(tmp_path / "empty")
    assert "unknown format '.txt'; set `format`" in fails(tmp_path / "p.txt")
    assert fails(tmp_path / "zero.jsonl").endswith("zero.jsonl holds no rows")
    assert fails(tmp_path / "blank.jsonl").endswith("blank.jsonl holds no rows")
    assert fails(tmp_path / "pipe.jsonl").endswith("is not a regular file")
    assert "is a folder; name its files" in fails(tmp_path / "empty", format="csv")
    assert "is a file; format `datasets`" in fails(tmp_path / "p.txt", format="datasets")
    assert "`split` is for folders" in fails(SAMPLE, split="train")
    assert "no input files" in fails()
    with pytest.raises(UserError, match="no file matches"):
        inputs_digest(Config(paths=(str(tmp_path / "no.jsonl"),)))


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "p.jsonl", {"prompt": "a"})

    # File modes do not hold back the superuser, who may be running this.
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert fails(path).endswith("cannot be read: Permission denied")


def test_tables_without_the_columns_that_are_needed(tmp_path):
    (tmp_path / "p.csv").write_text("Promt,answer\na,1\n")
    (tmp_path / "bare.csv").write_text("What is 2+2?,4\nWhat is 3+3?,6\n")
    (tmp_path / "twice.csv").write_text("prompt,prompt\na,b\n")
    (tmp_path / "header.csv").write_text("prompt,answer\n")
    pq.write_table(pa.table({"question": ["a"]}), tmp_path / "p.parquet")
    write(tmp_path / "p.jsonl", {"prompt": "a", "answer": "1"})
    assert "the nearest is 'Promt'; set `columns.prompt`" in fails(tmp_path / "p.csv")
    assert "there are 'What is 2+2?', '4'; set" in fails(tmp_path / "bare.csv")
    assert "two columns have the same name" in fails(tmp_path / "twice.csv")
    assert fails(tmp_path / "header.csv").endswith("holds no rows")
    assert "there are 'question'; set" in fails(tmp_path / "p.parquet")
    misspelt = Columns(prompt="Promt", reference="anser")
    assert "no column 'anser', the nearest is 'answer'" in fails(
        tmp_path / "p.csv", columns=misspelt
    )
    misspelt = Columns(reference="anser")
    assert "no row has 'anser', the nearest is 'answer'" in fails(
        tmp_path / "p.jsonl", columns=misspelt
    )


def test_damaged_files(tmp_path):
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"prompt": ["some text " * 50 + str(i) for i in range(2000)]}), whole)
    content = whole.read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[:-100])
    (tmp_path / "hole.parquet").write_bytes(content[:50] + bytes(3000) + content[3050:])
    (tmp_path / "junk.parquet").write_bytes(b"not a table")
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "none.parquet")
    (tmp_path / "utf16.jsonl").write_bytes('{"prompt": "a"}'.encode("utf-16"))
    (tmp_path / "array.json").write_text('[\n{"prompt": "a"}\n]')
    for name in ("cut", "hole", "junk"):
        assert "is not a readable Parquet file" in fails(tmp_path / f"{name}.parquet")
    assert fails(tmp_path / "none.parquet").endswith("holds no rows")
    assert fails(tmp_path / "utf16.jsonl").endswith("is UTF-16; save it as UTF-8")
    assert "write one object a line" in fails(tmp_path / "array.json")


def test_a_damaged_saved_data_set(tmp_path):
    folder = tmp_path / "d"
    datasets.Dataset.from_list([{"prompt": "a"}]).save_to_disk(folder)
    (folder / "data-00000-of-00001.arrow").write_bytes(b"junk junk junk")
    assert "is not a readable Arrow file" in fails(folder)
    (folder / "state.json").write_text("{")
    assert "state.json is damaged" in fails(folder)
