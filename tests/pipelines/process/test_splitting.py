"""Steps are slices of the response, together they are the response, and prefixes end where tokens do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engines.base import Tokens
from pipelines.process.splitting import SPAN, Splitter, completions, prefix_id, split
from schemas.record import digest
from schemas.records import Response, Trajectory
from tests.pipelines.rows import response as response_to

ROOT = Path(__file__).parents[3]
REAL = ROOT.parent / "shared" / "data"
SPLITTERS: tuple[Splitter, ...] = get_args(Splitter)


def response(text: str) -> Response:
    return response_to("p", 0, text)


def cut(text: str, splitter: Splitter, tokens: Tokens | None = None) -> Trajectory:
    trajectory = split(response(text), splitter, tokens)
    assert trajectory is not None
    return trajectory


PIECES = (
    'a B 1 2. 3.5 e.g. Mr. etc. X. U.S. $ $$ \\[ \\] \\( ``` ` . ! ?! ... 。 ” " ) ] * ** # ## ~~~ é 🙂'
    " \\begin{x} \\end{x} Step step: 1) (2)"
)
BLANK = (" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u2028", "\u00a0", "Step 1:", "\n2. ")
pieces = st.sampled_from([*PIECES.split(), *BLANK])
texts = st.lists(pieces, max_size=25).map("".join) | st.text(max_size=30)
splitters = st.sampled_from(SPLITTERS)


@st.composite
def tokenised(draw: st.DrawFn) -> tuple[str, Tokens]:
    """A text, cut anywhere; some tokens spell nothing yet."""
    text = draw(texts.filter(bool))
    places = draw(st.lists(st.integers(0, len(text)), max_size=2 * len(text)))
    ends = tuple(sorted([*places, len(text)]))
    return text, Tokens(tuple(range(len(ends))), ends)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(text=texts, splitter=splitters)
def test_the_steps_joined_are_the_response(text: str, splitter: Splitter) -> None:
    trajectory = split(response(text), splitter)
    if trajectory is None:
        assert not text.strip() and completions(text, splitter) == ()
        return
    assert text.strip()
    starts, ends = trajectory.starts, trajectory.ends
    assert "".join(text[a:b] for a, b in zip(starts, ends, strict=True)) == text
    assert (starts[0], ends[-1]) == (0, len(text))
    assert starts[1:] == ends[:-1]
    for step, a, b in zip(trajectory.steps, starts, ends, strict=True):
        assert step.strip() and text[a:b].startswith(step)
        assert not text[a + len(step) : b].strip()  # only white space lies between steps
    joined = completions(text, splitter)
    assert "".join(joined) == text and len(joined) == len(trajectory.steps)
    assert trajectory.prefixes == tuple(prefix_id("p", text[:end]) for end in (0, *ends))
    assert trajectory.token_ends == ()


@settings(derandomize=True, deadline=None, max_examples=400)
@given(given_text=tokenised(), splitter=splitters)
def test_with_tokens_every_prefix_ends_where_a_token_does(
    given_text: tuple[str, Tokens], splitter: Splitter
) -> None:
    text, tokens = given_text
    plain, trajectory = split(response(text), splitter), split(response(text), splitter, tokens)
    assert (trajectory is None) == (plain is None) == (not text.strip())
    if trajectory is None or plain is None:
        return
    steps, starts, ends = trajectory.steps, trajectory.starts, trajectory.ends
    before = (0, *ends[:-1])
    assert "".join(text[a:b] for a, b in zip(before, ends, strict=True)) == text
    assert (ends[-1], trajectory.token_ends[-1]) == (len(text), len(tokens.ids))
    assert list(trajectory.token_ends) == sorted(set(trajectory.token_ends))
    for end, count in zip(ends[:-1], trajectory.token_ends[:-1], strict=True):
        # The text so far is spelled by these tokens, and by no fewer.
        assert tokens.ends[count - 1] == end
        assert count == 1 or tokens.ends[count - 2] < end
    assert trajectory.prefixes == tuple(prefix_id("p", text[:end]) for end in (0, *ends))
    boundaries = {0, *tokens.ends}
    for t, (step, start) in enumerate(zip(steps, starts, strict=True)):
        assert step.strip() and text.startswith(step, start)
        assert text[before[t] : ends[t]].strip()
        assert start + len(step) <= ends[t]  # its own prefix holds it whole
        if t + 1 < len(steps):
            between = set(range(start + len(step), starts[t + 1] + 1))
            if found := between & boundaries:
                assert ends[t] == max(found)
            else:
                assert ends[t] == min(b for b in boundaries if b > starts[t + 1])
    if splitter != "tokens":  # that one has other steps where it knows the tokens
        assert set(starts) <= set(plain.starts)
        if len(tokens.ids) >= len(text) and len(boundaries) == len(text) + 1:
            assert (steps, starts, ends) == (plain.steps, plain.starts, plain.ends)


def test_prefix_ids_are_those_of_the_rollouts() -> None:
    assert prefix_id("p", "a\n") == digest("prefix", "p", "a\n")
    assert cut("a\nb", "lines").prefixes == tuple(
        digest("prefix", "p", text) for text in ("", "a\n", "a\nb")
    )


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
    trajectory = cut(text, "lines")
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
    trajectory = cut(text, "paragraphs")
    assert (trajectory.steps, trajectory.ends) == (steps, ends)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("Intro.\nStep 1: a\n1. b\n\nStep 2. c", ("Intro.", "Step 1: a\n1. b", "Step 2. c")),
        ("**Step 1**\na\n## Step 2\nb", ("**Step 1**\na", "## Step 2\nb")),
        ("### **Step 1: Foo**\na\n- step 2) b", ("### **Step 1: Foo**\na", "- step 2) b")),
        ("Step 1: a\nStep 2 shows b\nStep 3 - c", ("Step 1: a\nStep 2 shows b", "Step 3 - c")),
        ("Step 1\r\na\r\nStep 2\r\nb", ("Step 1\r\na", "Step 2\r\nb")),
        ("so:\n\n1. a\n 2) b\n(3) c", ("so:", "1. a", " 2) b", "(3) c")),
        ("1. a\n3.5 b\n2024. c\n**2.** d", ("1. a\n3.5 b\n2024. c", "**2.** d")),
        ("1. a\n```\n2. b\n```\n3. c", ("1. a\n```\n2. b\n```", "3. c")),
        ("no\nmarker", ("no\nmarker",)),
    ],
)
def test_markers(text: str, steps: tuple[str, ...]) -> None:
    assert cut(text, "markers").steps == steps


def test_spans_of_words_and_of_tokens() -> None:
    text = "".join(f"w{i} " for i in range(2 * SPAN + 3))
    words = cut(text, "tokens")
    assert [len(step.split()) for step in words.steps] == [SPAN, SPAN, 3]
    assert words.ends[0] == text.index(f"w{SPAN}")
    each = Tokens(tuple(range(len(text))), tuple(range(1, len(text) + 1)))
    trajectory = cut(text, "tokens", each)
    assert trajectory.token_ends == (*range(SPAN, len(text), SPAN), len(text))
    assert trajectory.steps[1] == text[SPAN : 2 * SPAN]
    # The character at the first cut takes three tokens: the cut waits for the last of them.
    half = Tokens(
        tuple(range(len(text) + 2)),
        (*each.ends[: SPAN - 2], *[SPAN - 2] * 2, *each.ends[SPAN - 2 :]),
    )
    assert cut(text, "tokens", half).token_ends[:2] == (SPAN + 1, 2 * SPAN + 1)


@pytest.mark.parametrize("splitter", SPLITTERS)
@pytest.mark.parametrize("text", ["", " ", "\n\n", "\r\n \t"])
def test_nothing_but_white_space_has_no_steps(text: str, splitter: Splitter) -> None:
    assert split(response(text), splitter) is None


HOSTILE = [
    "x" + "\n" + " " * 200_000 + "y" + "\n \n" * 50_000,
    "\n " * 100_000 + "x",
    " " * 200_000 + "x",
    "." * 200_000 + "x" + ".)" * 50_000,
    "\\[" * 50_000 + "\\(" * 50_000 + "$$ " * 50_001,
    "\\begin{a}" * 50_000,
    "$a " * 50_000 + "`b" * 50_001,
    "```" + "\n~~~" * 50_000,
    "#" * 200_000 + "step " * 50_000,
    "a. " * 70_000,
]


@pytest.mark.parametrize("splitter", SPLITTERS)
def test_hostile_text_is_split_in_linear_time(splitter: Splitter) -> None:
    """In quadratic time this would take hours."""
    for text in HOSTILE:
        assert "".join(completions(text, splitter)) == text
    assert len(completions(HOSTILE[0], "paragraphs")) == 1


# --- tokens ----------------------------------------------------------------------------------------


def by_words(*tokens: str) -> tuple[str, Tokens]:
    ends = tuple(len("".join(tokens[: i + 1])) for i in range(len(tokens)))
    return "".join(tokens), Tokens(tuple(range(10, 10 + len(tokens))), ends)


@pytest.mark.parametrize(
    ("splitter", "tokens", "steps", "starts", "ends", "token_ends"),
    [
        # The separator is a token: it belongs to the step before it.
        ("lines", ("a", "\n", "b"), ("a", "b"), (0, 2), (2, 3), (2, 3)),
        # The space belongs to the token of the next word, which the policy is to write.
        ("sentences", ("Go", ".", " On", "."), ("Go.", "On."), (0, 4), (3, 7), (2, 4)),
        ("sentences", ("Go", ". ", " On."), ("Go.", "On."), (0, 5), (4, 8), (2, 3)),
        # A token over both steps stays whole.
        ("lines", ("a", ".\nS", "o"), ("a.", "So"), (0, 3), (4, 5), (2, 3)),
        # A token that begins with the separator is the policy's to write.
        ("lines", ("a", "\nb\n", "c"), ("a", "b", "c"), (0, 2, 4), (1, 4, 5), (1, 2, 3)),
        # It holds a whole step: that is one with the step before.
        ("lines", ("a\nb\n", "c"), ("a\nb", "c"), (0, 4), (4, 5), (1, 2)),
        ("lines", ("a\nb", "\n", "c"), ("a\nb", "c"), (0, 4), (4, 5), (2, 3)),
        ("lines", ("a\nb\nc",), ("a\nb\nc",), (0,), (5,), (1,)),
    ],
)
def test_where_prefixes_end(
    splitter: Splitter,
    tokens: tuple[str, ...],
    steps: tuple[str, ...],
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    token_ends: tuple[int, ...],
) -> None:
    trajectory = cut(*(by_words(*tokens)[0], splitter), by_words(*tokens)[1])
    assert (trajectory.steps, trajectory.starts) == (steps, starts)
    assert (trajectory.ends, trajectory.token_ends) == (ends, token_ends)


def test_tokens_of_another_text_are_refused() -> None:
    for ids, ends in (((1, 2), (1, 2)), ((1,), (1, 3)), ((), ())):
        with pytest.raises(ValueError, match="not the tokens of this response"):
            split(response("abc"), "lines", Tokens(ids, ends))


def test_a_byte_level_tokenizer_and_the_bundled_policys() -> None:
    pytest.importorskip("tokenizers")
    from pipelines.engines.spelling import Speller, file_speller
    from tests.pipelines.engines.tiny_tokenizers import byte_level

    backend = byte_level()
    text = "First step. Second step: 🙂\n\nStep 2: the eggs Ω.\nJanet sells é 9."
    tokens = Speller(backend).tokens(text)
    assert tokens is not None and len(set(tokens.ends)) < len(tokens.ends)
    for splitter in SPLITTERS:
        trajectory = cut(text, splitter, tokens)
        for end, count in zip(trajectory.ends, trajectory.token_ends, strict=True):
            assert backend.decode(tokens.ids[:count]) == text[:end]
    assert cut(text, "sentences", tokens).ends[0] == len("First step.")  # " Second" is one token
    policy = file_speller(ROOT / "data" / "policy")
    assert policy is not None
    solution = "3+4=7\n7-2=5\n#5"
    trajectory = cut(solution, "lines", policy.tokens(solution))
    assert trajectory.token_ends == trajectory.ends == (6, 12, 14)


# --- real text -------------------------------------------------------------------------------------

real = pytest.mark.skipif(not REAL.is_dir(), reason="the shared data is not there")


def rows(name: str) -> list[dict[str, Any]]:
    import polars as pl

    return pl.read_parquet(REAL / f"{name}.parquet").to_dicts()


@real
def test_lines_are_the_steps_of_a_benchmark_of_first_errors() -> None:
    """BIG-Bench Mistake states its solutions as lists of steps; none of them holds a line break."""
    found = rows("bigbench_mistake")
    assert not any("\n" in step for row in found for step in row["steps"])
    unlike = [
        row for row in found if list(cut("\n".join(row["steps"]), "lines").steps) != row["steps"]
    ]
    # The one that differs states an empty step, which nothing could be said about.
    assert (len(found), [(row["task"], row["item"]) for row in unlike]) == (
        2186,
        [("dyck_languages", 538)],
    )
    [row] = unlike
    assert list(cut("\n".join(row["steps"]), "lines").steps) == [s for s in row["steps"] if s]


@real
def test_solutions_of_real_models_are_split_without_loss() -> None:
    texts = [row["solution"] for row in rows("gsm8k_model_solutions")]
    counts = {splitter: Counter[int]() for splitter in SPLITTERS}
    for text in texts:
        for splitter in SPLITTERS:
            joined = completions(text, splitter)
            assert "".join(joined) == text
            counts[splitter][len(joined)] += 1
        # All line breaks end sentences here: there are no formulas over several lines.
        lines, sentences = cut(text, "lines"), cut(text, "sentences")
        assert set(lines.ends) <= set(sentences.ends)
    assert sum(counts["lines"].values()) == 5276
    # A solution's last line is its answer, so one line alone is rare.
    assert counts["lines"][1] < 0.01 * len(texts)
    assert max(counts["lines"], key=counts["lines"].__getitem__) in (3, 4, 5)
