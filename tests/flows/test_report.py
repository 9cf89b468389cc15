import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flows.charts import Bin, Histogram
from flows.report import (
    EngineUsed,
    Evaluation,
    Place,
    Reliability,
    ReportData,
    StageCount,
    StageDigest,
    StepPositions,
    render,
    write_report,
)
from schemas.records import Reject
from tests.flows.sample_report import pair_row, sample

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
VOID = {"meta", "br", "link", "img"}
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --virtual-time-budget=2000 "
    "--host-resolver-rules=MAP\t*\t~NOTFOUND --dump-dom"
)
ATTACKS = (
    "<script>document.title='ran'</script>",
    "<img src=x onerror=\"document.title='ran'\">",
    "<svg onload=\"document.title='ran'\"><animate onbegin=\"document.title='ran'\">",
    "</title></style></div></details></svg><script>document.title='ran'</script>",
    "<iframe srcdoc=\"<script>parent.document.title='ran'</script>\"></iframe>",
    "<a href=\"javascript:document.title='ran'\">x</a>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<base href='http://127.0.0.1:9/'><link rel=stylesheet href=//127.0.0.1:9/x>",
    '"\' autofocus onfocus="document.title=\'ran\'" x="',
    "{{ 7*7 }} {% raw %} ${7*7}",
    "<style>@import 'http://127.0.0.1:9/x';body{background:url(http://127.0.0.1:9/y)}</style>",
    "5\u202e7=3+4\u202c \u200b\x00\x1b[2J\ud800 e" + "\u0301" * 60,
)


class Page(HTMLParser):
    """Reads a page as a browser would find it; what is not closed is a mistake."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += data

    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}


def assert_safe(page: str, links: Collection[str] = ()) -> Page:
    """Nothing in the page runs, loads or leads away; `links` are the files it may name."""
    read = Page(page)
    assert read.open == []
    assert not read.names() & {
        "script",
        "img",
        "iframe",
        "link",
        "object",
        "embed",
        "base",
        "form",
    }
    for tag, attributes in read.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in {"src", "srcset", "srcdoc", "style", "action", "xlink:href"}
            if name == "href":
                assert (value or "").startswith("#") or value in links
            assert "javascript:" not in (value or "").lower()
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.S))
    assert page.count("<style") == 1
    assert "url(" not in styles
    assert "@import" not in styles
    return read


def hostile(size: int = 0) -> ReportData:
    """The sample with attacks in every text that a page shows."""
    data = sample()
    text = "".join(ATTACKS) + "A" * size
    row = pair_row("agreeing", text, text + "1", text + "2", why=text)
    prompt = row.prompt.model_copy(update={"source": text, "source_id": text, "licence": text})
    prompt = prompt.model_copy(update={"reference": text})
    votes = tuple(v.model_copy(update={"judge": text, "unit": text}) for v in row.votes)
    assert row.steps_a and row.decision
    steps = row.steps_a.model_copy(update={"method": text})
    decision = row.decision.model_copy(update={"reason": text, "rule": text})
    pair = row.pair.model_copy(update={"label_source": text})
    row = replace(
        row, prompt=prompt, pair=pair, votes=(*row.votes, *votes), decision=decision, steps_a=steps
    )
    stage = StageCount(text, text, 5, 4, {text: 1}, text, outcomes={text: 4})
    assert data.evaluation
    evaluation = replace(
        data.evaluation,
        about=text,
        command=text,
        interval=text,
        figures=tuple(replace(f, name=text, meaning=text) for f in data.evaluation.figures),
        best_of_n=tuple(replace(c, name=text) for c in data.evaluation.best_of_n),
        reliability=(Reliability(text, (Bin(0.5, 1, 2),)),),
    )
    return replace(
        data,
        plan_name=text,
        run_id=text,
        plan_digest=text,
        engines=(EngineUsed(text, text, text, text),),
        places=(Place(text, text, text),),
        next_steps=((text, text),),
        stages=(*data.stages, stage),
        label_sources={text: {text: 3}},
        evaluation=evaluation,
        rows=(row,),
        rejects=(Reject(unit=text, stage=text, code=text, detail=text),),
        plan_text=text,
        digests=(StageDigest(text, text, text, 1, text),),
    )


def test_the_sample_page_is_whole():
    page = render(sample())
    read = assert_safe(page)
    policy = next(
        a["content"] for t, a in read.tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy and policy.startswith(
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    )
    for target in (a["href"] for t, a in read.tags if t == "a"):
        assert f'id="{(target or "")[1:]}"' in page
    for words in (
        "word-problems-small",
        "Ana has 3 pens. Gets 4 more. Loses 2. How many pens?",
        "7-2=5",
        "1,192",
        "benchmark_overlap",
        "judges_outvote_label",
        "13 words shared with gsm8k test 214",
        "The second line of the other adds what should be taken away.",
        "Expected calibration error",
        "[0.894, 0.928]",
        "train-0117",
        'name = "word-problems-small"',
    ):
        assert words in read.words, words
    for row in sample().rows:
        for unit in (row.prompt.id, row.pair.id, row.a.id, row.b.id):
            assert unit in read.words


def test_the_pages_of_step_labels_are_linked_where_they_are():
    assert "Read step labels" not in Page(render(sample())).words
    page = render(replace(sample(), step_pages=True))
    read = assert_safe(page, ["steps/index.html"])
    assert ("a", {"href": "steps/index.html"}) in read.tags
    assert "Read step labels" in read.words


def test_what_a_label_rests_on_is_said():
    data = sample()
    row = data.rows[0]
    labels = row.steps_a
    assert labels and len(labels.steps) == 3
    labels = labels.model_copy(
        update={
            "n": (0, 4, 0),
            "successes": (0, 0, 0),
            "truncated": (0, 4, 0),
            "value": (0.9, None, None),
            "low": (0.8, None, None),
            "high": (0.95, None, None),
            "label": ("right", "wrong", None),
            "source": ("inferred", "judge", "none"),
            "response_id": None,
        }
    )
    page = render(replace(data, rows=(replace(row, steps_a=labels, steps_b=None),)))
    table = page[page.index("Steps of A:") :]
    _, first, second, third = (
        " ".join(Page(row).words.split()) for row in re.findall(r"<tr.*?</tr>", table, re.S)[:4]
    )
    assert "[0.80, 0.95]not sampled" in first
    assert first.endswith("✓ rightfrom other steps")
    assert "no rollout had an answer" in second
    assert second.endswith("✗ wrongby a judge")
    assert third.endswith("#5 not sampled none")


def test_tables_and_pictures_are_accessible():
    page = render(sample())
    for table in re.findall(r"<table.*?</table>", page, re.S):
        assert "<caption>" in table
        assert 'scope="col"' in table
        assert 'scope="row"' in table
    for picture in re.findall(r"<svg.*?</svg>", page, re.S):
        assert re.match(r'<svg [^>]*role="img"[^>]*><title>[^<]+</title>', picture)
        assert 'class="chart' not in picture or re.search(r"<desc>[^<]+</desc>", picture)


def test_the_flipped_pair_is_held_the_other_way():
    page = render(
        replace(sample(), rows=tuple(r for r in sample().rows if r.decision.action == "flip"))
    )
    a, b = page.index("Response A"), page.index("Response B")
    assert "came labelled better" in page[a:b]
    assert "held better" not in page[a:b]
    assert "held better" in page[b:]


def test_hostile_texts_are_shown_and_never_run():
    page = render(hostile())
    read = assert_safe(page)
    for attack in ATTACKS[:-1]:
        assert attack in read.words, attack
    assert "U+202E" in read.words
    for char in "\u202e\u202c\u200b\x00\x1b\ud800":
        assert char not in page
    assert "\u0301" * 5 not in page
    assert "49 49" not in read.words


def test_a_megabyte_of_text_does_not_blow_up_the_page():
    page = render(hostile(1_000_000))
    assert_safe(page)
    assert len(page) < 1_000_000
    assert re.search(r"99\d,\d{3} more characters are not shown here", page)


def test_floods_of_hidden_characters_stay_bounded():
    flood = "a\u200b" * 500_000
    page = render(
        replace(sample(), rows=(pair_row("narrow", flood, flood, flood + "1", why=flood),))
    )
    assert_safe(page)
    assert len(page) < 3_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_nothing_runs_in_a_browser(tmp_path: Path):
    def dom(page: Path) -> str:
        flags = [flag.replace("\t", " ") for flag in FLAGS.split(" ")]
        command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / page.stem}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True)
        return done.stdout.decode("utf-8")

    control = tmp_path / "control.html"
    control.write_text("<title>kept</title><script>document.title='ran'</script>", encoding="utf-8")
    assert "<title>ran</title>" in dom(control)

    write_report(replace(hostile(), plan_name="kept"), tmp_path / "report.html")
    seen = dom(tmp_path / "report.html")
    assert "<title>kept · Prefinery report</title>" in seen
    assert "&lt;script&gt;document.title='ran'&lt;/script&gt;" in seen
    assert "<script" not in seen
    assert seen.rstrip().endswith("</html>")


def test_an_empty_run_is_said_in_words():
    read = assert_safe(render(ReportData("empty", "run-0", "0" * 32, 0)))
    assert "svg" not in read.names()
    for words in (
        "No engine was used",
        "This run published nothing.",
        "No stage has run yet.",
        "no steps were labelled",
        "No labels were counted.",
        "No steps were labelled in this run.",
        "No model was evaluated in this run",
        "There are no pairs to read",
        "No row was rejected.",
    ):
        assert words in read.words, words


def test_parts_that_are_there_but_hold_nothing():
    data = ReportData(
        "p",
        "r",
        "0" * 32,
        0,
        stages=(StageCount("ingest", "prompts", 0, 0, {"duplicate": 0}, outcomes={"train": 0}),),
        step_values=Histogram(0, 1, (0, 0)),
        label_sources={"pairs": {"verifier": 0}},
        positions=StepPositions(0, 0, (), (), ()),
        evaluation=Evaluation("", "", "", (), reliability=(Reliability("x", ()),)),
    )
    read = assert_safe(render(data))
    assert read.words.count("Not measured in this run.") == 2
    assert "NaN" not in read.words
    assert "No steps were labelled in this run." in read.words


def test_undecided_pairs_without_votes_or_steps():
    row = replace(sample().rows[0], decision=None, votes=(), steps_a=None, steps_b=None)
    words = Page(render(replace(sample(), rows=(row,)))).words
    assert "Nothing was decided about this pair." in words
    assert "No judge voted on this pair." in words
    assert "No step labels for this response." in words
    assert "held better" not in words


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [StageCount("a", "rows", 10, 8, {"x": 1})],
            "a: 10 rows in, 1 each, are not 8 out and 1 rejected",
        ),
        ([StageCount("a", "rows", 3, 10, {"x": 1}, each=4)], "a: 3 rows in, 4 each"),
        (
            [StageCount("a", "rows", 5, 5, outcomes={"right": 4})],
            "a: its outcomes sum to 4, not to the 5",
        ),
        ([StageCount("a", "rows", 5, 6, {"x": -1})], "a: a count is below 0"),
        ([StageCount("b", "rows", 5, 5, after="a")], "b: follows a, which is no earlier stage"),
        (
            [StageCount("a", "rows", 5, 5), StageCount("b", "rows", 4, 4, after="a")],
            "b: takes 4 rows, but a gave 5 rows",
        ),
        (
            [
                StageCount("a", "prompts", 5, 5, made="responses"),
                StageCount("b", "prompts", 5, 5, after="a"),
            ],
            "b: takes 5 prompts, but a gave 5 responses",
        ),
    ],
)
def test_stages_that_do_not_add_up_are_refused(stages, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        render(ReportData("p", "r", "d", 0, stages=tuple(stages)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"positions": StepPositions(10, 4, (5,), (1,), (5,))},
            "5 with and 4 without one are not 10",
        ),
        ({"positions": StepPositions(1, 1, (5, 5), (1,), ())}, "as many counts"),
        ({"places": (Place("store", "/var/store", ""),)}, "must be relative"),
        ({"places": (Place("store", "C:\\store", ""),)}, "must be relative"),
        (
            {"rejects": (Reject(unit="u", stage="ingest", code="unheard_of", detail=""),)},
            "ingest: 1 examples of unheard_of, but 0 counted",
        ),
    ],
)
def test_other_sums_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        render(replace(sample(), **change))


def test_figures_are_checked():
    data = sample()
    assert data.evaluation
    figure = data.evaluation.figures[0]
    for bad, message in (
        (replace(figure, per_seed=(0.9,)), "1 values for 3 seeds"),
        (replace(figure, value=0.5), "outside its interval"),
    ):
        with pytest.raises(ValueError, match=message):
            render(replace(data, evaluation=replace(data.evaluation, figures=(bad,))))


def test_calibration_error_is_the_mean_gap():
    bins = (Bin(0.2, 30, 100), Bin(0.9, 240, 300))
    assert Reliability("x", bins).ece == pytest.approx(0.25 * 0.1 + 0.75 * 0.1)
    assert Reliability("x", ()).ece == 0.0


def test_late_positions_are_pooled():
    many = StepPositions(40, 0, (40,) * 40, (1,) * 40, (1,) * 40)
    words = Page(render(replace(sample(), positions=many))).words
    assert "25+" in words
    assert "640" in words


def test_up_to_three_examples_of_a_reason():
    stage = StageCount("ingest", "prompts", 9, 4, {"duplicate": 5})
    rejects = tuple(
        Reject(unit=f"u{i}", stage="ingest", code="duplicate", detail="d") for i in range(5)
    )
    words = Page(render(replace(sample(), stages=(stage,), rejects=rejects))).words
    assert "u2" in words
    assert "u3" not in words


def test_the_page_appears_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "reports" / "report.html"
    write_report(sample(), path)
    first = path.read_text(encoding="utf-8")
    assert first.endswith("</html>")
    broken = replace(sample(), stages=(StageCount("a", "rows", 2, 1),))
    with pytest.raises(ValueError, match="a: 2 rows in"):
        write_report(broken, path)
    assert path.read_text(encoding="utf-8") == first
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
