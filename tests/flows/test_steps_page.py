"""The pages of step labels: the numbers are right, the texts are shown and do nothing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import steps_charts, steps_page
from flows.steps_data import SHOWN_ROLLOUTS, Drawn, Outcomes, QuestionSteps
from flows.steps_page import STOPPED, page_for, render
from schemas.errors import UserError
from schemas.records import Asked, Message, Reject
from tests.flows.sample_steps import (
    PENS,
    draw,
    empty,
    pens,
    plain,
    prompt,
    publish,
    question,
    solve,
)
from tests.flows.test_report import ATTACKS, CHROMIUM, FLAGS, assert_safe

HERE = ["index.html", "../report.html"]


def section(page: str, anchor: str) -> str:
    """A section of the page."""
    start = page.index(f'<section class="solution" id="{anchor}">')
    return page[start : page.index("</section>", start) + len("</section>")]


def words(markup: str) -> str:
    return " ".join(re.sub(r"<title>.*?</title>|<[^>]+>", " ", markup).split())


def row(part: str, anchor: str) -> str:
    start = part.index(f'<tr id="{anchor}"')
    return words(part[start : part.index("</tr>", start)])


def test_a_solution_step_by_step() -> None:
    page = render(question(pens()), "word-problems · run 1")
    assert_safe(page)
    part = section(page, "s2")
    assert "Solution 2 resolved first error: step 3" in words(part)
    assert row(part, "s2-2") == (
        "2 After giving 7 to Ben she has 36 − 7 = 29 pens. 0.88 [0.72, 0.97] 11 of 12 right 0.96 "
        "0.03 +0.07 ✓ right 80% hold it right ✓ right rests on rollouts after it"
    )
    assert row(part, "s2-3") == (
        "3 Twice as many as she has left is 2 × 36 = 72 pens. 0.04 [0.00, 0.18] 0 of 12 right, "
        "1 truncated, 1 unparsed 0.04 0.93 −0.84 ✗ wrong 20% hold it right ✗ wrong rests on "
        "rollouts after it first error"
    )
    assert row(part, "s2-4").endswith("✗ wrong rests on other steps")
    assert row(part, "s2-5") == (
        "5 #101 0.00 its answer was checked 0.01 0.02 – no verdict ✗ wrong rests on the final answer"
    )
    assert 'class="step first-error"' in part and part.count("first-error") == 1
    assert "Probability that no step is wrong: 0.010" in words(part)
    assert "<title>0.04, interval 0.00 to 0.18</title>" in part
    assert "<title>this is the first error 0.925</title>" in part


def test_what_was_asked_in_which_order_and_why_it_stopped() -> None:
    part = section(render(question(pens()), ""), "s2")
    assert words(part[part.index('<table class="asks">') :]).split(" response ")[0] == (
        "In the order asked ask after count of why "
        "1 the question alone 4 policy pilot "
        "2 step 3 4 policy 0.93 bits over 1..5 "
        "3 step 1 4 policy 0.41 bits over 1..3 "
        "4 step 2 4 policy 0.38 bits over 2..3 "
        "5 step 3 8 policy 0.22 bits over 2..3 "
        "6 step 2 4 prover advantage "
        "7 step 3 1 judge verdict on step 3 "
        "8 step 2 8 policy 0.15 bits over 2..3 "
        "9 step 4 4 policy 0.05 bits over 3..4"
    )
    assert "36 rollouts of the policy 4 rollouts of the prover 1 verdict of the judge" in words(
        part
    )
    assert re.findall(r"<title>(\d\. [^:<]*):", part)[:2] == [
        "1. 4 of the policy after the question alone",
        "2. 4 of the policy after step 3",
    ]
    assert (
        "Resolved ( confident ): one first error, or none, had become probable enough. "
        "The method reached its own goal." in words(part)
    )
    unresolved = words(section(render(question(pens()), ""), "s3"))
    assert "first labelled wrong: step 4" in unresolved
    assert (
        "Unresolved ( budget ): the token budget was spent. The method says what it knows and no "
        "more: a step that is not labelled is not thereby right or wrong." in unresolved
    )
    assert "Nothing was asked for this solution." in section(render(question(pens()), ""), "s5")


@pytest.mark.parametrize("code", [*STOPPED, "some_new_code"])
def test_every_stop_code_is_shown(code: str) -> None:
    part = words(section(render(question(plain(5, ["RR"], stopped=code)), ""), "s1"))
    said = f"Resolved ( {code} ): {STOPPED[code]}." if code in STOPPED else f"Resolved ( {code} )."
    assert said in part


def test_columns_that_a_method_does_not_fill_are_left_out() -> None:
    part = section(render(question(plain(5, ["RRW", "W"])), ""), "s1")
    heads = [words(head) for head in re.findall(r'<th scope="col".*?</th>', part)]
    assert heads[:4] == ["step", "text", "value", "label"]
    assert not {"P(sound so far)", "P(first error)", "advantage", "judge"} & set(heads)


def test_rollouts_are_folded_under_their_position_and_listed_once() -> None:
    page = render(question(pens()), "")
    part = section(page, "s1")
    folded = re.findall(r'<details id="(r1-\dp?)"><summary>(.*?)</summary>', part, re.S)
    assert [(anchor, words(summary)) for anchor, summary in folded] == [
        ("r1-0", "8 rollouts from here: 5 right, 2 wrong, 1 truncated · 188 tokens"),
        ("r1-1", "8 rollouts from here: 7 right, 1 wrong · 188 tokens"),
        ("r1-2", "12 rollouts from here: 11 right, 1 wrong · 306 tokens"),
        ("r1-2p", "4 rollouts of the prover from here: 3 right, 1 wrong · 86 tokens"),
        ("r1-3", "4 rollouts from here: 4 right · 86 tokens"),
        ("r1-4", "8 rollouts from here: 8 right · 188 tokens"),
    ]
    listed = part[part.index('<details id="r1-0">') :]
    listed = words(listed[: listed.index("</details>")])
    assert "2 wrong 31 22 Then she has 31 pens. #31" in listed
    assert "6 truncated none 26 Then, let us see, she" in listed
    shared = section(page, "s2")
    assert "12 rollouts from the same beginning: 11 right, 1 wrong · 306 tokens" in words(shared)
    assert '<a href="#r1-2">listed under solution 1</a>' in shared
    assert '<details id="r2-3">' in shared and '<details id="r2-2">' not in shared
    # No text of a rollout stands outside of a fold.
    unfolded = re.sub(r"<details id=.*?</details>", "", page, flags=re.S)
    assert "Then she has" in page and "Then she has" not in unfolded
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page, target


def test_rollouts_beyond_the_cap_are_counted() -> None:
    part = section(render(question(plain(5, ["R" * 40])), ""), "s1")
    assert part.count('<span class="out right">') == SHOWN_ROLLOUTS
    assert "8 more are not shown here; the store has them." in part
    assert "40 rollouts from here: 40 right" in words(part)


def test_rollouts_that_a_label_does_not_rest_on_are_told_apart() -> None:
    rows = plain(5, ["RRRR"])
    labels = rows.labels[0].model_copy(update={"n": (2, 0), "successes": (2, 0)})
    rows.labels[0] = labels
    assert "4 rollouts from here: 4 right · 86 tokens · the label rests on 2" in words(
        section(render(question(rows), ""), "s1")
    )


def test_the_tree_on_top() -> None:
    page = render(question(pens()), "")
    tree = page[page.index('<section id="tree">') : page.index('<section id="solutions">')]
    said = words(tree)
    assert "17 prefixes" in said
    assert "0 the question alone 5 of 8" in said
    assert "1 Ana starts with 3 × 12 = 36 pens. 0.81 [0.60, 0.94] 7 of 8 ✓ right" in said
    assert "3 Twice as many as she has left is 2 × 36 = 72 pens. 0.04 [0.00, 0.18] 0 of 12" in said
    for number in range(1, 6):
        assert f'<a href="#s{number}">solution {number}</a>' in tree
    assert tree.count('<li class="node err">') == 3
    assert tree.count("1 preference between the next steps") == 3
    assert "0.914" in said
    astray = page[page.index('<section id="preferences">') :]
    assert "one way 0.88 8 rollouts another 0.13 8 rollouts 0.750" in words(astray)
    assert "<section id=" not in tree[10:]


def test_a_single_solution_has_no_tree() -> None:
    page = render(question(plain(5, ["RR"])), "")
    assert 'id="tree"' not in page and 'href="#tree"' not in page


def test_the_head_counts() -> None:
    page = render(question(pens()), "word-problems · run 1")
    said = words(page[: page.index("<main>")])
    for tile in (
        "solutions 5 3 given, 2 grown",
        "resolved 3 2 unresolved",
        "with an error 3 2 with no step labelled wrong",
        "rollouts 84 47 right, 33 wrong, 3 truncated, 1 unparsed",
    ):
        assert tile in said, tile
    assert PENS in said
    assert "1 left out, with the reason" in words(page)
    assert "same_text another sample says the same" in words(page)


def test_the_solution_asked_for_comes_first(tmp_path: Path) -> None:
    rows = pens()
    store, record = publish(tmp_path / "store", rows)
    page = page_for(store, record, rows.labels[3].id)
    assert_safe(page)
    order = re.findall(r'<section class="solution" id="s(\d)">', page)
    assert order == ["4", "1", "2", "3", "5"]
    assert page_for(store, record, rows.trajectories[3].id[:12]) == page
    of_prompt = page_for(store, record, rows.prompts[0].id)
    assert re.findall(r'<section class="solution" id="s(\d)">', of_prompt) == list("12345")
    with pytest.raises(UserError, match="begin so"):
        page_for(store, record, "0" * 32)


def test_many_solutions_are_cut_with_a_count() -> None:
    rows = pens()
    for n in range(60):
        solve(rows, rows.prompts[0], [f"way {n}\n", "#1"], grown=True, resolved=n != 59)
    page = render(question(rows), "", rows.trajectories[50].id)
    assert_safe(page)
    shown = re.findall(r'<section class="solution" id="s(\d+)">', page)
    assert len(shown) == steps_page.SOLUTIONS
    assert shown[0] == "51"
    # Unresolved ones are kept before resolved ones.
    assert {"3", "5", "65"} <= set(shown)
    assert "33 more solutions are in the counts and the tree" in page
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page, target


def hostile(size: int = 0) -> QuestionSteps:
    """A question with attacks in every text that a page shows."""
    text = "".join(ATTACKS) + "A" * size
    rows, of = empty(), prompt(text, text)
    of = of.model_copy(update={"source": text, "source_id": text, "licence": text})
    of = of.model_copy(update={"messages": (*of.messages, Message(role="user", content=text))})
    rows.prompts.append(of)
    for n in range(2):
        steps = [text + f"{n}\n", f"#{n}" + text]
        draw(rows, of, [], "R" if n == 0 else "")
        draw(rows, of, steps[:1], "WRTU")
        solve(rows, of, steps, method=text, stopped=text, resolved=bool(n))
    rows.rollouts[:] = [r.model_copy(update={"text": text, "answer": text}) for r in rows.rollouts]
    pair = pens().pairs[0].model_copy(update={"prompt_id": of.id, "method": text})
    pair = pair.model_copy(update={"chosen": text, "rejected": text})
    rows.pairs.extend([pair, pair.model_copy(update={"prefix": text + "no prefix"})])
    rows.rejects.append(Reject(unit=text, stage=text, code=text, detail=text))
    found = question(rows)
    ask = Asked(position=1, count=2, of="judge", why=text)
    first, second = found.solutions
    assert first.response is not None
    first = replace(
        first,
        labels=first.labels.model_copy(update={"asked": (ask,) * 3}),
        response=first.response.model_copy(update={"model": text}),
    )
    return replace(found, solutions=(first, second))


def test_hostile_texts_are_shown_and_never_run() -> None:
    page = render(hostile(), "".join(ATTACKS), index=True)
    read = assert_safe(page, HERE)
    for attack in ATTACKS[:-1]:
        assert read.words.count(attack) > 10, attack
    assert "U+202E" in read.words and "U+200B" in read.words
    for char in "\u202e\u202c\u200b\x00\x1b\ud800":
        assert char not in page
    assert "\u0301" * 5 not in page
    assert "49 49" not in read.words
    assert "default-src 'none'" in page


def test_a_megabyte_of_text_does_not_blow_up_the_page() -> None:
    page = render(hostile(1_000_000), "")
    assert_safe(page)
    assert len(page) < 1_000_000
    assert re.search(r"99\d,\d{3} more characters are not shown here", page)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_nothing_runs_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    of = hostile()
    kept = of.prompt.model_copy(update={"messages": (Message(role="user", content="kept"),)})
    labels = [
        replace(s, labels=s.labels.model_copy(update={"prompt_id": kept.id})) for s in of.solutions
    ]
    page = render(replace(of, prompt=kept, solutions=tuple(labels)), "")
    path.write_text(page.replace("<details", "<details open"), encoding="utf-8")
    flags = [flag.replace("\t", " ") for flag in FLAGS.split(" ")]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'user'}", path.as_uri()]
    seen = subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()
    assert "<title>kept · Prefinery step labels</title>" in seen
    assert "&lt;script&gt;document.title='ran'&lt;/script&gt;" in seen
    assert "<script" not in seen
    assert seen.rstrip().endswith("</html>")


def test_pictures_are_named() -> None:
    page = render(question(pens()), "")
    for picture in re.findall(r"<svg.*?</svg>", page, re.S):
        assert re.match(r'<svg [^>]*role="img"[^>]*><title>[^<]+</title>', picture)
    for table in re.findall(r"<table(?:(?!<table).)*?<tbody", page, re.S):
        assert "<caption>" in table and 'scope="col"' in table
    assert (
        "<title>5 steps: 2 right, 3 wrong, 0 not labelled, the first wrong one is 3</title>" in page
    )


@pytest.mark.parametrize(
    "draw_it", [lambda: steps_charts.meter(1.2, "s0", ""), lambda: steps_charts.signed(-1.2, "")]
)
def test_a_number_out_of_range_is_not_drawn(draw_it: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="is outside"):
        draw_it()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": (1, 0, 0)}, "step 1 has 1 rollouts, not 2"),
        ({"value": (0.5,)}, "1 of value, 3 steps"),
        ({"steps": ("a", "b", "c")}, "its steps are not those of its trajectory"),
        ({"first_error": 1}, "its first step labelled wrong is not its first error"),
        ({"label": ("right", "wrong", None)}, "its first step labelled wrong is not"),
        ({"trajectory_id": "x"}, "of another prompt or trajectory"),
    ],
)
def test_labels_that_contradict_themselves_are_not_shown(
    change: dict[str, Any], message: str
) -> None:
    found = question(plain(5, ["RR", "RR"]))
    [solved] = found.solutions
    bad = replace(solved, labels=solved.labels.model_copy(update=change))
    with pytest.raises(ValueError, match=re.escape(message)):
        render(replace(found, solutions=(bad,)), "")


def test_prefixes_and_rollouts_are_checked() -> None:
    found = question(plain(5, ["RR", "RR"]))
    [solved] = found.solutions
    prefixes = solved.trajectory.prefixes
    bad = solved.trajectory.model_copy(update={"prefixes": (prefixes[0],) * 4})
    labels = solved.labels.model_copy(update={"trajectory_id": bad.id})
    with pytest.raises(ValueError, match="3 steps need 4 prefixes, no two alike"):
        render(replace(found, solutions=(replace(solved, trajectory=bad, labels=labels),)), "")
    key = (prefixes[1], False)
    few = Drawn(Outcomes(right=1), found.rollouts[key].shown)
    with pytest.raises(ValueError, match="more rollouts shown than counted"):
        render(replace(found, rollouts={key: few}), "")
