"""Rubric files: what is written comes back to the letter, and an edit makes a version that says so."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.rubrics.rubric_file import read_rubric, write_rubric
from schemas.errors import PlanError, StoreError
from schemas.records import Criterion, Rubric

texts = st.text(st.characters(codec="utf-8"), max_size=30)
odd = st.text(st.sampled_from("\\\"'\n\r\t \x00\x1b\x7f\x85\u2028\u202e\ufeff=#[]a😀"), max_size=12)
words = st.one_of(texts, odd)
some = st.none() | words


@st.composite
def rubrics(draw: Any) -> tuple[Rubric, list[Criterion]]:
    criteria: list[Criterion] = []
    for _ in range(draw(st.integers(1, 5))):
        parents = st.sampled_from([None, *(row.id for row in criteria)])
        row = Criterion(
            kind=draw(st.sampled_from(["hard_rule", "principle", "nugget", "pitfall"])),
            text=draw(words.filter(lambda text: text.strip())),
            weight=draw(st.floats(allow_nan=False, allow_infinity=False)),
            category=draw(some),
            verifier=draw(some),
            evidence=draw(some),
            parent=draw(parents),
        )
        if row.id not in {other.id for other in criteria}:
            criteria.append(row)
    criteria = draw(st.permutations(criteria))
    rubric = Rubric(
        prompt_id=draw(some),
        criteria=tuple(row.id for row in criteria),
        method=draw(words),
        pairs=tuple(draw(st.lists(words, max_size=3))),
        scoring=draw(st.sampled_from(["share", "points", "tree"])),
        name=draw(some),
        status=draw(st.sampled_from(["draft", "approved", "retired"])),
        replaces=draw(some),
    )
    return rubric, criteria


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rubrics())
def test_what_is_written_comes_back_exactly(tmp_path: Path, made: Any) -> None:
    rubric, criteria = made
    path = tmp_path / "rubric.toml"
    write_rubric(path, rubric, criteria)
    back, rows = read_rubric(path)
    assert (back, rows) == (rubric, criteria)
    assert back.id == rubric.id and [row.id for row in rows] == list(rubric.criteria)
    first = path.read_bytes()
    write_rubric(path, back, rows[::-1])
    assert path.read_bytes() == first


CRITERIA = [
    Criterion(kind="hard_rule", text="Ends with a number.", verifier='number {"at": "end"}'),
    Criterion(kind="principle", text="Shows each step.\nAll of them.", weight=0.7),
]
RUBRIC = Rubric(
    prompt_id="p",
    criteria=tuple(row.id for row in CRITERIA),
    method="contrastive",
    pairs=("x", "y"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rubric.toml"
    write_rubric(path, RUBRIC, CRITERIA)
    return path


def edit(path: Path, old: str, new: str) -> tuple[Rubric, list[Criterion]]:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    return read_rubric(path)


def test_a_person_reads_lines_keys_and_what_they_mean(path: Path) -> None:
    text = path.read_text("utf-8")
    assert 'text = """\nShows each step.\nAll of them."""\nweight = 0.7\n' in text
    assert (
        '# status     draft, approved or retired. To approve it, write: status = "approved"' in text
    )
    assert 'pairs = [\n    "x",\n    "y",\n]\n' in text
    for key in tomllib.loads(text).keys() - {"criteria"}:
        assert f"# {key} " in text


def test_approving_makes_a_version_that_replaces_the_one_it_was_made_from(path: Path) -> None:
    rubric, criteria = edit(path, '\nstatus = "draft"', '\nstatus = "approved"')
    assert (rubric.status, rubric.replaces) == ("approved", RUBRIC.id)
    assert criteria == CRITERIA and rubric.id != RUBRIC.id
    # The approved version, written and not changed, stays what it is.
    write_rubric(path, rubric, criteria)
    assert read_rubric(path) == (rubric, criteria)
    again, _ = edit(path, '\nstatus = "approved"', '\nstatus = "retired"')
    assert (again.status, again.replaces) == ("retired", rubric.id)


def test_an_edited_criterion_is_another_and_the_rest_are_not(path: Path) -> None:
    rubric, criteria = edit(path, "Ends with a number.", "Ends with a whole number.")
    assert [row.text for row in criteria] == [
        "Ends with a whole number.",
        "Shows each step.\nAll of them.",
    ]
    assert criteria[1].id == CRITERIA[1].id and criteria[0].id != CRITERIA[0].id
    assert rubric.criteria == tuple(row.id for row in criteria)
    assert rubric.replaces == RUBRIC.id


def test_comments_and_white_space_are_no_edit(path: Path) -> None:
    assert edit(path, "[[criteria]]", "# looks good to me\n\n[[ criteria ]]") == (RUBRIC, CRITERIA)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_rubric(path) == (RUBRIC, CRITERIA)


def test_children_follow_a_parent_that_is_edited(tmp_path: Path) -> None:
    top = Criterion(kind="principle", text="Is right.")
    leaf = Criterion(kind="principle", text="Has the right number.", parent=top.id)
    rubric = Rubric(criteria=(leaf.id, top.id), method="person", scoring="tree")
    path = tmp_path / "tree.toml"
    write_rubric(path, rubric, [top, leaf])
    edited, criteria = edit(path, "Is right.", "Is correct.")
    assert [row.text for row in criteria] == ["Has the right number.", "Is correct."]
    assert criteria[0].parent == criteria[1].id != top.id
    assert edited.criteria == (criteria[0].id, criteria[1].id)


def test_a_person_writes_no_more_than_needed(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[criteria]]\ntext = "Says please."\nid = "polite"\n'
        '[[criteria]]\ntext = "Shouts."\nkind = "pitfall"\nweight = 2\nparent = "polite"\n'
    )
    rubric, (please, shouts) = read_rubric(path)
    assert please == Criterion(kind="principle", text="Says please.")
    assert shouts == Criterion(kind="pitfall", text="Shouts.", weight=2.0, parent=please.id)
    assert rubric == Rubric(criteria=(please.id, shouts.id), method="person")
    assert rubric.replaces is None


def test_what_cannot_be_seen_is_shown(tmp_path: Path) -> None:
    row = Criterion(kind="principle", text="a\u202eb\u200bc \n d")
    path = tmp_path / "r.toml"
    write_rubric(path, Rubric(criteria=(row.id,), method="m"), [row])
    text = path.read_text("utf-8")
    assert 'text = """\na\\u202Eb\\u200Bc\\u0020\n d"""' in text
    assert read_rubric(path)[1] == [row]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "criteria: missing; add it"),
        ("criteria = []", "criteria: there is none; add a table [[criteria]] with a text"),
        ("text = oh", "not TOML: "),
        (
            '[[criteria]]\ntxt = "a"',
            "criteria[0].txt: unknown key; did you mean 'text'? (and 1 more)",
        ),
        ("[[criteria]]\ntext = 3", "criteria[0].text: input should be a valid string, not 3"),
        ('[[criteria]]\ntext = " "', "criteria[0].text: is empty; write it, or drop the table"),
        (
            '[[criteria]]\ntext = "a"\nweight = "1"',
            "criteria[0].weight: input should be a valid number",
        ),
        ('[[criteria]]\ntext = "a"\nweight = nan', "criteria[0].weight: input should be a "),
        ("[[criteria]]\ntext = 2026-01-01", "criteria[0].text: input should be a valid string"),
        ('statsu = "x"\n[[criteria]]\ntext = "a"', "statsu: unknown key; did you mean 'status'?"),
        (
            'status = "ok"\n[[criteria]]\ntext = "a"',
            "status: input should be 'draft', 'approved' or",
        ),
        (
            '[[criteria]]\ntext = "a"\nparent = "b"',
            'criteria[0].parent: no criterion has the id "b"; name the id of one in this file',
        ),
        (
            '[[criteria]]\ntext = "a"\nid = "a"\nparent = "b"\n'
            '[[criteria]]\ntext = "b"\nid = "b"\nparent = "a"',
            "].parent: goes round in a circle; drop the parent of the topmost criterion",
        ),
        (
            '[[criteria]]\ntext = "a"\nid = "a"\n[[criteria]]\ntext = "b"\nid = "a"',
            'criteria[1].id: "a" is criteria[0]\'s too; give each its own, or drop the line',
        ),
        (
            '[[criteria]]\ntext = "a"\n[[criteria]]\ntext = "a"',
            "criteria[1]: says the same as criteria[0]; drop one",
        ),
        ("a = " + "[" * 5000, "not TOML: "),
        (
            '"\\u001b[2J" = 1\n[[criteria]]\ntext = "a"',
            '"\\u001b[2J": unknown key; known: id, name',
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_key_and_what_to_do(tmp_path: Path, text, said) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(PlanError) as found:
        read_rubric(path)
    message = str(found.value)
    assert message.startswith(f"{path}: ") and said in message
    assert "\n" not in message and "\x1b" not in message


def test_files_that_cannot_be_read_or_written_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such rubric file; check the path"):
        read_rubric(tmp_path / "none.toml")
    with pytest.raises(PlanError, match="name a TOML file"):
        read_rubric(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(PlanError, match=r"not UTF-8 \(byte 8\); save it as UTF-8"):
        read_rubric(tmp_path / "latin.toml")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="check the path"):
        write_rubric(tmp_path / "file" / "r.toml", RUBRIC, CRITERIA)
    half = Criterion(kind="principle", text="\ud800")
    with pytest.raises(PlanError, match="half a surrogate pair"):
        write_rubric(tmp_path / "r.toml", Rubric(criteria=(half.id,), method="m"), [half])
    assert not (tmp_path / "r.toml").exists()


def test_rows_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    with pytest.raises(ValueError, match="is not given"):
        write_rubric(path, RUBRIC, CRITERIA[:1])
    child = Criterion(kind="principle", text="a", parent=CRITERIA[0].id)
    with pytest.raises(ValueError, match="its parent is not in the rubric"):
        write_rubric(path, Rubric(criteria=(child.id,), method="m"), [child, *CRITERIA])
    with pytest.raises(ValueError, match="twice"):
        write_rubric(path, Rubric(criteria=(CRITERIA[0].id,) * 2, method="m"), CRITERIA)
    assert not path.exists()
