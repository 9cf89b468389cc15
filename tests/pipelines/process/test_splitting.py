"""Steps are slices of the response, and together they are the response."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.process.splitting import Splitter, completions, split
from schemas.records import Response


def response(text: str) -> Response:
    return Response(
        prompt_id="p",
        engine="e",
        model="m",
        sample_index=0,
        text=text,
        prompt_tokens=1,
        completion_tokens=1,
        finish_reason="stop",
    )


words = st.text(st.sampled_from("ab \n\r\t\u2028\u00a0é#"), max_size=30)


@settings(derandomize=True, deadline=None)
@given(text=words | st.text(max_size=30), splitter=st.sampled_from(["lines", "paragraphs"]))
def test_the_steps_joined_are_the_response(text: str, splitter: Splitter) -> None:
    trajectory = split(response(text), splitter)
    if trajectory is None:
        assert not text.strip()
        return
    assert text.strip()
    starts, ends = trajectory.starts, trajectory.ends
    assert "".join(text[a:b] for a, b in zip(starts, ends, strict=True)) == text
    assert (starts[0], ends[-1]) == (0, len(text))
    assert starts[1:] == ends[:-1]
    for step, a, b in zip(trajectory.steps, starts, ends, strict=True):
        assert step.strip() and text[a:b].startswith(step)
        assert not text[a + len(step) : b].strip()  # only white space lies between steps
    pieces = completions(text, splitter)
    assert "".join(pieces) == text and len(pieces) == len(trajectory.steps)


@pytest.mark.parametrize(
    ("text", "steps", "ends"),
    [
        ("3+4=7\n7-2=5\n#5", ("3+4=7", "7-2=5", "#5"), (6, 12, 14)),
        ("a\nb\n", ("a", "b"), (2, 4)),
        ("a\n\n\nb", ("a", "b"), (4, 5)),
        ("\n\na\nb", ("\n\na", "b"), (4, 5)),
        ("a\r\nb", ("a\r", "b"), (3, 4)),
        ("a\r\n\r\nb", ("a\r", "\r\nb"), (3, 6)),
        ("a\n  \nb", ("a", "  \nb"), (2, 6)),
        ("one line", ("one line",), (8,)),
        ("a\n   ", ("a",), (5,)),
    ],
)
def test_lines(text: str, steps: tuple[str, ...], ends: tuple[int, ...]) -> None:
    trajectory = split(response(text), "lines")
    assert trajectory is not None
    assert (trajectory.steps, trajectory.ends) == (steps, ends)
    assert (trajectory.prompt_id, trajectory.response_id) == ("p", response(text).id)


@pytest.mark.parametrize(
    ("text", "steps", "ends"),
    [
        ("a\nb\n\nc", ("a\nb", "c"), (5, 6)),
        ("a\n \t\nb", ("a", "b"), (5, 6)),
        ("a\r\n\r\nb", ("a\r", "b"), (5, 6)),
        ("\n\na\n\n", ("\n\na",), (5,)),
        ("a\nb", ("a\nb",), (3,)),
    ],
)
def test_paragraphs(text: str, steps: tuple[str, ...], ends: tuple[int, ...]) -> None:
    trajectory = split(response(text), "paragraphs")
    assert trajectory is not None
    assert (trajectory.steps, trajectory.ends) == (steps, ends)


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\r\n \t"])
def test_nothing_but_white_space_has_no_steps(text: str) -> None:
    assert split(response(text), "lines") is None
    assert split(response(text), "paragraphs") is None


def test_hostile_white_space_is_split_in_linear_time() -> None:
    text = "x" + "\n" + " " * 200_000 + "y" + "\n \n" * 50_000
    trajectory = split(response(text), "paragraphs")
    assert trajectory is not None and len(trajectory.steps) == 1
