"""A card shows what was counted and stays inert whatever the data is called."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from pipelines.emit.card import PlanFacts, escape, public_name
from pipelines.emit.emit import Config, emit
from schemas.records import Pair, Response


def cells(markdown: str) -> list[list[str]]:
    """Table rows of a Markdown text as a reader sees them."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and token.level >= 4:
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special", "code_inline"}, kinds
            rows[-1].append("".join(child.content for child in token.children))
    return rows


@pytest.mark.parametrize(
    "text",
    [
        "|<script>alert(1)</script>",
        "[click](javascript:alert(1)) ![x](http://e/x.png)",
        "**b** _i_ `c` ~~s~~ $x^2$ # h @user &lt; \\| http://e.org www.e.org",
        "<!-- --> <img src=x onerror=alert(1)>",
    ],
)
def test_escaped_text_reads_as_itself_and_holds_no_markup(text: str) -> None:
    assert cells(f"| a | b |\n| --- | --- |\n| {escape(text)} | 7 |") == [["a", "b"], [text, "7"]]


def test_line_breaks_and_invisible_characters_become_spaces_and_long_text_is_cut() -> None:
    assert escape("a\n\n## b\u202e\u2028c\x00d") == "a \\#\\# b c d"
    assert escape("x" * 300) == "x" * 199 + "…"


def test_absolute_paths_keep_their_last_part_and_names_stay() -> None:
    assert public_name("/home/me/models/tiny") == "tiny"
    assert public_name("C:\\data\\in.jsonl") == "in.jsonl"
    assert public_name("file:///srv/x/in.jsonl") == "in.jsonl"
    assert public_name("~/in.jsonl") == "in.jsonl"
    assert public_name("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"
    assert public_name("/") == "local"


def test_hostile_names_break_neither_header_nor_tables(run, tmp_path: Path) -> None:
    name = 'x"\nlicense: mit\n---\n# é😀 <b>'
    emit(Config(name=name), run.tables(), tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("\n---\n")[0])
    assert header["pretty_name"] == 'x" license: mit --- # é😀 <b>'
    assert "license" not in header
    assert "<script" not in text
    assert "/home/" not in text and "/srv/" not in text
    body = text.split("\n---\n", 1)[1]
    hostile = '|<script>alert("x")</script>| # [a](http://b)'
    rows = cells(body)
    assert [hostile, "mit", "5", "3", "5"] in rows
    assert ["words.jsonl", "not stated", "5", "4", "5"] in rows
    assert [hostile, "", "", "e" * 12, "15"] in rows
    tags = {token.type for token in MarkdownIt("commonmark").enable("table").parse(body)}
    assert not tags & {"html_block"}


def test_counts_of_the_card_add_up(run, tmp_path: Path) -> None:
    emit(Config(name="n", validation=0.2, test=0.5), run.tables(), tmp_path)
    rows = cells((tmp_path / "README.md").read_text(encoding="utf-8").split("\n---\n", 1)[1])
    start = rows.index(["pairs", "rows"]) + 1
    end = rows.index(["all pairs", "10"])
    assert sum(int(number) for _, number in rows[start:end]) == 10
    emitted = sum(int(n) for kind, n in rows[start:end] if kind.startswith("emitted"))
    shown = next(row for row in rows if row[0] == "preference")
    assert int(shown[-1]) == emitted == 7
    assert sum(int(cell) for cell in shown[2:5]) == 7
    assert ["decide", "judges_disagree", "2"] in rows
    assert ["all", "", "4"] in rows


def test_header_lists_only_files_that_exist_and_what_is_known_of_the_run(
    run, tmp_path: Path
) -> None:
    facts = PlanFacts(
        engines={"e" * 32: {"kind": "openai", "revision": "abc"}},
        probability="Calibrated by isotonic regression on 500 gold pairs.",
    )
    config = Config(name="n", formats=("standard",), test=0.3, licence="apache-2.0")
    emit(config, run.tables(), tmp_path, facts)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(text.split("\n---\n")[0])
    assert header["license"] == "apache-2.0"
    assert header["size_categories"] == ["n<1K"]
    names = [config["config_name"] for config in header["configs"]]
    assert names == ["preference_standard", "steps"]
    assert header["configs"][0]["default"] is True
    named = {f["path"] for config in header["configs"] for f in config["data_files"]}
    found = {str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*.parquet")}
    assert named == found - {"rejects.parquet"}
    assert "Calibrated by isotonic regression on 500 gold pairs." in text
    assert "smoothed agreement" not in text
    assert "| openai | abc |" in text


def test_without_plan_facts_probability_is_said_to_be_uncalibrated(run, tmp_path: Path) -> None:
    emit(Config(name="n"), run.tables(), tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "smoothed agreement" in text
    assert "not been calibrated" in text


def test_long_tables_are_cut_and_say_so(run, make, tmp_path: Path) -> None:
    prompt = run.prompts[0]
    more = [make["response"](prompt, n + 2, "x", f"model-{n:03}") for n in range(80)]
    run.responses += more
    emit(Config(name="n"), run.tables(), tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "32 rows of this table are left out." in text  # 82 models, 50 shown


def test_a_run_that_emits_nothing_says_where_the_reasons_are(run, make, tmp_path: Path) -> None:
    a, b = run.responses[:2]
    assert isinstance(a, Response)
    run.pairs[:] = [Pair(prompt_id=a.prompt_id, response_a=a.id, response_b=b.id)]
    run.decisions[:] = [make["decision"](run.pairs[0], "drop", 0.5)]
    run.step_labels.clear()
    counts = emit(Config(name="n"), run.tables(), tmp_path)
    assert counts["pairs"] == {"drop": 1}
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "No row was emitted: `rejects.parquet` says why." in text
    assert "configs:" not in text
    assert [f.name for f in tmp_path.iterdir() if f.suffix == ".parquet"] == ["rejects.parquet"]
