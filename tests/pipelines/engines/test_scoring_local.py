"""Log-probabilities of given texts, against plain forward passes of the same model."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.engines.base import Reply, Request, Sampling
from pipelines.engines.local import LocalConfig, LocalEngine
from pipelines.journal import Journal, Journaled
from schemas.errors import BadReply
from schemas.records import Message

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

POLICY = Path(__file__).parents[3] / "data" / "policy"
FIXED = Sampling(temperature=0.0, max_tokens=1)


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine(LocalConfig(model=str(POLICY), device="cpu", threads=1, batch=16))


@pytest.fixture(scope="module")
def plain() -> Any:
    """Model and tokenizer as anyone would load them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float64)
    return model.eval(), AutoTokenizer.from_pretrained(POLICY)


def ask(question: str, text: str, prefix: str = "", **fields: Any) -> Request:
    message = Message(role="user", content=question)
    return Request((message,), FIXED, prefix=prefix, scored=text, **fields)


def answers(engine: Any, requests: Sequence[Request]) -> list[Reply | BaseException]:
    async def main() -> list[Reply | BaseException]:
        async with engine:
            asked = (engine.complete(r) for r in requests)
            found: list[Reply | BaseException]
            found = await asyncio.gather(*asked, return_exceptions=True)
            return found

    return asyncio.run(main())


def by_hand(plain: Any, request: Request) -> tuple[int, int, float]:
    """Tokens before, tokens of the text, and its log-probability."""
    model, tokenizer = plain
    before = f"Q: {request.messages[0].content}\nA: {request.prefix}"
    start = tokenizer(before, add_special_tokens=False)["input_ids"]
    text = tokenizer(request.scored, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([[*start, *text]])).logits[0, len(start) - 1 : -1]
    return len(start), len(text), float(logits.log_softmax(-1)[range(len(text)), text].sum())


QUESTIONS = [
    json.loads(line)["prompt"] for line in (POLICY.parent / "prompts.jsonl").open().readlines()[:6]
]
TEXTS = ["3+4=7", "#5", "7-2=5\n#5", "9", "1+1=2\n" * 6, "3+4=8"]


def test_it_is_the_sum_over_the_texts_tokens_alone(engine: LocalEngine, plain: Any) -> None:
    asked = [ask(q, t, prefix) for q in QUESTIONS for t in TEXTS for prefix in ("", "2+2=4\n")]
    for request, reply in zip(asked, answers(engine, asked), strict=True):
        before, count, logprob = by_hand(plain, request)
        assert isinstance(reply, Reply)
        assert (reply.text, reply.finish_reason) == ("", "stop")
        assert (reply.prompt_tokens, reply.completion_tokens) == (before, count)
        assert reply.logprob == pytest.approx(
            logprob, rel=1e-6, abs=1e-5
        )  # its norms round to float32


def test_a_written_answer_scores_what_it_was_written_with(engine: LocalEngine) -> None:
    """All but the end token, whose log-probability is what the two differ by."""
    whole = [replace(ask(q, ""), sampling=Sampling(temperature=0.0)) for q in QUESTIONS]
    written = [r for r in answers(engine, whole) if isinstance(r, Reply)]
    scored = answers(engine, [ask(q, w.text) for q, w in zip(QUESTIONS, written, strict=True)])
    for one, again in zip(written, scored, strict=True):
        assert isinstance(again, Reply) and one.logprob is not None and again.logprob is not None
        assert again.completion_tokens == one.completion_tokens - 1
        assert -0.5 < one.logprob - again.logprob < 0  # greedy: the end is likely, not certain


def test_company_changes_nothing(engine: LocalEngine) -> None:
    asked = [ask(q, t) for q in QUESTIONS for t in TEXTS]
    alone = [reply for request in asked[::5] for reply in answers(engine, [request])]
    sampled = [replace(r, scored="", sampling=Sampling(seed=i)) for i, r in enumerate(asked)]
    mixed = answers(engine, [r for pair in zip(asked, sampled, strict=True) for r in pair])
    assert mixed[::2][::5] == alone
    assert mixed[1::2] == answers(engine, sampled)  # nor do scores change what is drawn


@settings(max_examples=25, deadline=None)
@given(st.text("0123456789+-=\n#", min_size=2, max_size=30), st.data())
def test_a_text_scores_what_its_parts_do(engine: LocalEngine, text: str, data: Any) -> None:
    """The chain rule, over the bundled policy's tokens of one character each."""
    cut = data.draw(st.integers(1, len(text) - 1))
    whole, first, second = answers(
        engine, [ask("q", text), ask("q", text[:cut]), ask("q", text[cut:], text[:cut])]
    )
    assert isinstance(whole, Reply) and isinstance(first, Reply) and isinstance(second, Reply)
    assert whole.logprob is not None and first.logprob is not None and second.logprob is not None
    assert whole.logprob == pytest.approx(first.logprob + second.logprob, abs=3e-6)


def test_sums_over_several_passes_are_those_of_one(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.engines import scoring

    asked = [ask(q, t) for q in QUESTIONS for t in TEXTS]
    once = answers(engine, asked)
    monkeypatch.setattr(scoring, "SCORED", 1)  # a column at a time
    assert answers(engine, asked) == once


def test_sampling_and_schema_do_not_matter(engine: LocalEngine) -> None:
    plain = ask("q", "3")
    odd = replace(plain, sampling=Sampling(stop=("", "3"), max_tokens=9), schema="{}")
    first, second = answers(engine, [plain, odd])
    assert isinstance(first, Reply) and first == second


def test_prefix_tokens_are_kept_and_the_context_counts_all(engine: LocalEngine) -> None:
    tokens = engine.tokens("3+4=")
    assert tokens is not None
    by_text, by_tokens = answers(
        engine, [ask("q", "7", "3+4="), ask("q", "7", "3+4=", prefix_ids=tokens.ids)]
    )
    assert isinstance(by_text, Reply) and by_text == by_tokens
    [fits] = answers(engine, [ask("q", "1" * (512 - 8))])
    [long] = answers(engine, [ask("q", "1" * (512 - 7))])
    assert isinstance(fits, Reply) and fits.prompt_tokens == 8
    assert isinstance(long, BadReply) and long.code == "too_long"
    assert "a text of 505 to score" in long.detail


def test_the_journal_keeps_scores(engine: LocalEngine, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    asked = [ask(q, t) for q in QUESTIONS[:2] for t in TEXTS[:2]]
    first, again = Journaled(engine, journal), Journaled(engine, journal)
    assert answers(first, asked) == answers(again, asked)
    assert (first.asked, first.replayed, again.asked, again.replayed) == (4, 0, 0, 4)
    journal.close()
    rows = sqlite3.connect(tmp_path / "journal.sqlite").execute("select reply from replies")
    assert all(json.loads(row)[:2] == ["", "stop"] for (row,) in rows)
