import json
import shutil
import tracemalloc
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import ingest as stage
from pipelines import readers
from pipelines.ingest import Columns, Config, ingest, inputs_digest
from schemas.errors import UserError
from schemas.records import Constraint, Message, Prompt, Reject
from schemas.table import validate

SAMPLE = Path(__file__).parents[2] / "data" / "prompts.jsonl"


def read(*paths, batch_rows=10_000, **settings):
    config = Config(paths=tuple(map(str, paths)), **settings)
    prompts, rejects = [], []
    for some, refused in ingest(config, batch_rows):
        assert 0 < len(some) + len(refused) <= batch_rows
        prompts += some
        rejects += refused
    validate(Prompt, Prompt.to_table(prompts))
    validate(Reject, Reject.to_table(rejects))
    return prompts, rejects


def write(path, *rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def codes(rejects):
    return [(reject.unit, reject.code) for reject in rejects]


def fails(*paths, **settings):
    with pytest.raises(UserError) as caught:
        read(*paths, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def user(text):
    return (Message(role="user", content=text),)


# --- what a row becomes ---


def test_the_sample_prompts():
    prompts, rejects = read(SAMPLE)
    assert (len(prompts), rejects) == (400, [])
    first = json.loads(SAMPLE.read_text().splitlines()[0])
    assert prompts[0] == Prompt(
        messages=user(first["prompt"]),
        reference=first["reference"],
        task="math",
        verifier="numeric",
        source="prefinery/word_problems",
        source_id="wp-000001",
        licence="Apache-2.0",
    )


def test_messages_numbers_and_constraints(tmp_path):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "2+2?", "name": "ana"},
    ]
    path = write(
        tmp_path / "p.jsonl",
        {"prompt": turns, "reference": 4, "id": 7, "unknown": [1]},
        {
            "messages": turns[1:2],
            "reference": "",
            "constraints": [{"kind": "max_words", "value": 5}, {"kind": "json"}],
        },
    )
    prompts, rejects = read(path)
    assert rejects == []
    assert [m.role for m in prompts[0].messages] == ["system", "user", "assistant", "user"]
    assert (prompts[0].reference, prompts[0].source_id, prompts[0].source) == ("4", "7", "p.jsonl")
    assert (prompts[1].messages, prompts[1].reference) == (user("Hi"), None)
    assert prompts[1].constraints == (
        Constraint(kind="max_words", value="5"),
        Constraint(kind="json"),
    )


def test_defaults_fill_what_rows_leave_out(tmp_path):
    path = write(
        tmp_path / "p.jsonl",
        {"q": "a", "reference": "1"},
        {"q": "b", "task": "qa", "verifier": "exact", "source": "s", "licence": "MIT"},
    )
    prompts, _ = read(
        path,
        columns=Columns(prompt="q"),
        task="math",
        verifier="numeric",
        source="mine",
        licence="CC0",
    )
    assert [(p.task, p.verifier, p.source, p.licence) for p in prompts] == [
        ("math", "numeric", "mine", "CC0"),
        ("qa", "exact", "s", "MIT"),
    ]


def test_bad_rows_are_rejects_and_counts_add_up(tmp_path):
    good = {"prompt": "fine", "id": "g"}
    rows = [
        (good, None),
        (b"{'prompt': 1}", "not_json"),
        (b'["prompt"]', "not_an_object"),
        (b'{"prompt": "\xff"}', "invalid_utf8"),
        (b'{"prompt": "\\ud800"}', "invalid_utf8"),
        (b'{"prompt": "x", "id": "\\ud800"}', "invalid_utf8"),
        (b"[" * 100_000, "not_json"),
        (b'{"prompt": ' + b"9" * 5000 + b"}", "not_json"),
        ({"Prompt": "x"}, "missing_prompt"),
        ({"prompt": None}, "missing_prompt"),
        ({"prompt": "  "}, "empty_prompt"),
        ({"prompt": []}, "empty_prompt"),
        ({"prompt": 5}, "bad_type"),
        ({"prompt": ["hi"]}, "bad_type"),
        ({"prompt": [{"from": "human", "value": "hi"}]}, "bad_type"),
        ({"prompt": [{"role": "user", "content": ["hi"]}]}, "bad_type"),
        ({"prompt": [{"role": "human", "content": "hi"}]}, "bad_role"),
        ({"prompt": [{"role": "assistant", "content": "hi"}]}, "last_turn"),
        ({"prompt": "x", "verifier": "regex"}, "bad_verifier"),
        ({"prompt": "x", "verifier": "numeric", "reference": "many"}, "bad_reference"),
        ({"prompt": "x", "verifier": "set", "reference": "{1, 2"}, "bad_reference"),
        ({"prompt": "x", "verifier": "latex", "reference": "\\frac{1}{"}, "bad_reference"),
        ({"prompt": "x", "verifier": "code", "reference": "assert f(1) =="}, "bad_reference"),
        ({"prompt": "x", "verifier": "code", "reference": "def check(f): ..."}, "bad_reference"),
        ({"prompt": "x", "reference": [1]}, "bad_type"),
        ({"prompt": "x", "reference": True}, "bad_type"),
        (b'{"prompt": "x", "reference": NaN}', "bad_type"),
        ({"prompt": "x", "constraints": "short"}, "bad_constraint"),
        ({"prompt": "x", "constraints": ["short"]}, "bad_constraint"),
        ({"prompt": "x", "constraints": [{"kind": "rhymes"}]}, "bad_constraint"),
        ({"prompt": "x", "constraints": [{"kind": "matches", "value": "("}]}, "bad_constraint"),
        ({"prompt": "x", "constraints": [{"kind": "max_words"}]}, "bad_constraint"),
        ({"prompt": "x", "instruction_id_list": ["rhyme:royal"]}, "bad_instruction"),
        ({"prompt": "x", "instruction_id_list": "a,b"}, "bad_instruction"),
        ({"prompt": "x" * 100_001}, "too_long"),
        ({"prompt": "x", "reference": "1" * 100_001}, "too_long"),
        ({"prompt": "fine", "id": "g"}, "duplicate"),
        ({"prompt": "fine", "id": "h", "source": "elsewhere"}, "duplicate"),
        ({"prompt": "other", "id": "g"}, "duplicate_id"),
        ({"prompt": "other", "id": "g2"}, None),
        ({"prompt": "third", "id": "g", "source": "elsewhere"}, None),
    ]
    path = write(tmp_path / "p.jsonl", *(row for row, _ in rows))
    prompts, rejects = read(path)
    assert codes(rejects) == [(f"p.jsonl:{i}", c) for i, (_, c) in enumerate(rows, 1) if c]
    assert len(prompts) + len(rejects) == len(rows)
    assert {reject.stage for reject in rejects} == {"ingest"}
    assert max(len(reject.detail) for reject in rejects) <= 500
    details = {reject.unit: reject.detail for reject in rejects}
    assert details["p.jsonl:9"] == "no 'prompt' or 'messages'; the nearest is 'Prompt'"
    assert details["p.jsonl:17"] == "'human' is none of system, user, assistant"
    assert details["p.jsonl:35"] == "100001 characters, at most 100000 are taken"


def test_verifiable_instructions_are_read_as_ifeval_has_them(tmp_path):
    ids = ["punctuation:no_comma", "length_constraints:number_words"]
    given = [{}, {"relation": "at least", "num_words": 3, "keyword": None}]
    rows = [
        {"prompt": "a", "instruction_id_list": ids, "kwargs": json.dumps(given)},
        {"prompt": "b", "instruction_id_list": ids, "kwargs": given},
        {"prompt": "c", "instruction_id_list": ids[:1]},
        {"prompt": "d", "instruction_id_list": []},
    ]
    prompts, rejects = read(write(tmp_path / "p.jsonl", *rows))
    assert rejects == []
    both = [("punctuation:no_comma", "{}"), (ids[1], '{"num_words":3,"relation":"at least"}')]
    found = [[(i.id, i.arguments) for i in p.instructions] for p in prompts]
    assert found == [both, both, both[:1], []]


def test_lines_are_numbered_as_an_editor_shows_them(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"prompt": "a\\u2028b"}\r\n\r\n  \n{"prompt": "c"}\r\nno\r\n{"prompt": "d"}'
    )
    prompts, rejects = read(path)
    assert [p.messages[0].content for p in prompts] == ["a\u2028b", "c", "d"]
    assert codes(rejects) == [("p.jsonl:5", "not_json")]


def test_the_place_of_a_row_is_no_part_of_it(tmp_path):
    one = write(tmp_path / "one.jsonl", {"prompt": "a", "source": "s"})
    two = write(tmp_path / "two.jsonl", b"", b"junk", {"prompt": "a", "source": "s"})
    assert read(one)[0][0].id == read(two)[0][0].id


def test_a_huge_prompt_and_a_huge_line_are_rejects(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_LINE", 2**24)
    path = write(
        tmp_path / "p.jsonl",
        {"prompt": "x" * 10_000_000},
        b'{"prompt": "' + b"y" * 2**25 + b'"}',
        {"prompt": "fine"},
    )
    prompts, rejects = read(path)
    assert codes(rejects) == [("p.jsonl:1", "too_long"), ("p.jsonl:2", "too_long")]
    assert [p.messages for p in prompts] == [user("fine")]


def test_batches_and_limit(tmp_path):
    rows = [{"prompt": str(i)} if i % 3 else {"p": i} for i in range(10)]
    path = write(tmp_path / "p.jsonl", *rows)
    sizes = [(len(p), len(r)) for p, r in ingest(Config(paths=(str(path),)), batch_rows=4)]
    assert sizes == [(2, 2), (3, 1), (1, 1)]
    prompts, rejects = read(path, limit=4)
    assert (len(prompts), len(rejects)) == (2, 2)


def test_long_prompts_are_handed_on_before_the_batch_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "HELD_CHARS", 250)
    path = write(tmp_path / "p.jsonl", *({"prompt": f"{i}" * 100} for i in range(5)))
    assert [len(p) for p, _ in ingest(Config(paths=(str(path),)))] == [3, 2]


def test_memory_does_not_grow_with_the_rows_content(tmp_path):
    path = tmp_path / "p.jsonl"
    with path.open("w") as file:
        for i in range(2000):
            file.write(json.dumps({"prompt": f"{i} " + "x" * 10_000}) + "\n")
    tracemalloc.start()
    total = sum(len(prompts) for prompts, _ in ingest(Config(paths=(str(path),)), batch_rows=50))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 2000
    assert peak < path.stat().st_size / 4


# --- files ---


def test_csv_with_lines_inside_cells(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,prompt,reference,constraints\r\n"
        b'1,"two\nlines, one cell",4,"[{""kind"": ""json""}]"\r\n'
        b"\r\n"
        b"2,short\r\n"
        b"3,caf\xe9,1,\r\n"
        b'4,"ends" badly,1,\r\n'
        b"5,last,,\r\n"
    )
    prompts, rejects = read(path)
    assert [(p.messages[0].content, p.reference, p.source_id) for p in prompts] == [
        ("two\nlines, one cell", "4", "1"),
        ("last", None, "5"),
    ]
    assert prompts[0].constraints == (Constraint(kind="json"),)
    assert codes(rejects) == [
        ("p.csv:5", "bad_csv"),
        ("p.csv:6", "invalid_utf8"),
        ("p.csv:7", "bad_csv"),
    ]
    assert rejects[0].detail == "2 fields, the header has 4"


def test_a_csv_cell_may_be_long(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt\n" + "x" * 200_000 + "\nfine\n")
    prompts, rejects = read(path)
    assert codes(rejects) == [("p.csv:2", "too_long")]
    assert len(prompts) == 1


def test_parquet_rows(tmp_path):
    path = tmp_path / "p.parquet"
    turns = [[{"role": "user", "content": f"q{i}"}] for i in range(600)]
    table = pa.table({"messages": turns, "reference": [float(i) for i in range(600)]})
    pq.write_table(table, path)
    prompts, rejects = read(path, verifier="numeric")
    assert (len(prompts), rejects) == (600, [])
    assert (prompts[599].messages, prompts[599].reference) == (user("q599"), "599.0")


def test_a_parquet_cell_that_is_not_utf8_is_one_reject(tmp_path):
    raw = pa.array([b"one", b"\xff\xfe", b"three"])
    column = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"prompt": column}), tmp_path / "p.parquet")
    prompts, rejects = read(tmp_path / "p.parquet")
    assert [p.messages[0].content for p in prompts] == ["one", "three"]
    assert codes(rejects) == [("p.parquet:2", "invalid_utf8")]


def test_a_saved_data_set_and_its_splits(tmp_path):
    data = datasets.Dataset.from_list([{"prompt": f"q{i}", "id": i} for i in range(5)])
    data.shuffle(seed=1).save_to_disk(tmp_path / "one")
    parts = {"train": data.select([0, 1, 2]), "test": data.select([3, 4])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "two")
    prompts, _ = read(tmp_path / "one")
    assert [p.source_id for p in prompts] == [str(i) for i in data.shuffle(seed=1)["id"]]
    assert {p.source for p in prompts} == {"one"}
    prompts, _ = read(tmp_path / "two", split="test", format="datasets")
    assert [p.messages for p in prompts] == [user("q3"), user("q4")]
    assert "holds the splits test, train; name one in `split`" in fails(tmp_path / "two")
    assert "holds no split 'dev'; it holds test, train" in fails(tmp_path / "two", split="dev")


def test_a_folder_of_files_with_a_card(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nHello")
    for split, texts in {"train": ["a", "b"], "test": ["c"]}.items():
        name = f"data/{split}-00000-of-00001.parquet"
        pq.write_table(pa.table({"prompt": texts}), tmp_path / name)
    prompts, _ = read(tmp_path, split="train")
    assert [p.messages for p in prompts] == [user("a"), user("b")]
    assert {p.source for p in prompts} == {tmp_path.name}
    assert list(inputs_digest(Config(paths=(str(tmp_path),), split="test"))) == [
        "data/test-00000-of-00001.parquet"
    ]
    assert "holds the splits train, test; name one" in fails(tmp_path)


def test_a_plain_folder_of_json_lines(tmp_path):
    write(tmp_path / "b.jsonl", {"prompt": "b"})
    write(tmp_path / "a.jsonl", {"prompt": "a"})
    assert [p.messages for p in read(tmp_path)[0]] == [user("a"), user("b")]


def test_globs_are_sorted_and_a_file_counts_once(tmp_path):
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.jsonl", {"prompt": name})
    prompts, rejects = read(tmp_path / "*.jsonl", tmp_path / "a.jsonl")
    assert [p.source for p in prompts] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert rejects == []


def test_files_of_one_name_are_told_apart(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "p.jsonl", b"junk")
    _, rejects = read(tmp_path / "*" / "p.jsonl")
    assert [reject.unit for reject in rejects] == ["x/p.jsonl:1", "y/p.jsonl:1"]


def test_duplicates_are_found_across_files(tmp_path):
    one = write(tmp_path / "one.jsonl", {"prompt": "same"}, {"prompt": "same", "reference": "1"})
    two = write(tmp_path / "two.jsonl", {"prompt": "same"})
    prompts, rejects = read(one, two)
    assert len(prompts) == 2
    assert codes(rejects) == [("two.jsonl:1", "duplicate")]


def test_the_inputs_digest_is_of_content_alone(tmp_path):
    first = write(tmp_path / "p.jsonl", {"prompt": "a"})
    (tmp_path / "copy").mkdir()
    second = shutil.copy(first, tmp_path / "copy" / "p.jsonl")
    before = inputs_digest(Config(paths=(str(first),)))
    assert before == inputs_digest(Config(paths=(str(second),)))
    assert list(before) == ["p.jsonl"] and len(before["p.jsonl"]) == 64
    write(first, {"prompt": "b"})
    assert inputs_digest(Config(paths=(str(first),))) != before


def test_every_verifier_takes_a_reference_it_can_use(tmp_path):
    references = {
        "numeric": "72",
        "choice": "(B)",
        "exact": "Bern",
        "set": "{1, 2}",
        "latex": "\\frac{\\pi}{2}",
        "code": "assert f(1) == 2",
    }
    assert set(references) == set(stage.VERIFIERS)
    rows = [{"prompt": v, "verifier": v, "reference": r} for v, r in references.items()]
    prompts, rejects = read(write(tmp_path / "p.jsonl", *rows))
    assert rejects == []
    assert {p.verifier: p.reference for p in prompts} == references


def test_a_bad_reference_says_why(tmp_path):
    row = {"prompt": "x", "verifier": "code", "reference": "import numpy\nassert f(1) == 2"}
    _, (reject,) = read(write(tmp_path / "p.jsonl", row))
    assert (reject.code, reject.detail) == (
        "bad_reference",
        "'import numpy\\nassert f(1) == 2' is no test code: it imports numpy; tests are asserts "
        "and use the standard library",
    )
