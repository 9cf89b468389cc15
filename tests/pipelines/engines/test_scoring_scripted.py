"""The key of a request that scores, the scripted engine's scores, and a text's own tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engines.base import Reply, Request, Sampling, request_key
from pipelines.engines.scoring import beyond, scored_ids
from pipelines.engines.scripted import ScriptedConfig, ScriptedEngine
from pipelines.engines.spelling import Speller
from schemas.errors import BadReply
from schemas.records import Message
from tests.pipelines.engines.tiny_tokenizers import byte_level, metaspace

ASK = Request((Message(role="user", content="a b"),), Sampling(seed=3), prefix="c")


def answers(requests: Sequence[Request], **settings: Any) -> list[Reply | BaseException]:
    async def main() -> list[Reply | BaseException]:
        async with ScriptedEngine(ScriptedConfig(replies=("x",), **settings)) as engine:
            asked = (engine.complete(r) for r in requests)
            return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(main())


def test_a_text_to_score_is_another_request_and_no_prefix_token() -> None:
    requests = [
        ASK,
        replace(ASK, scored="7"),
        replace(ASK, scored="8"),
        replace(ASK, prefix_ids=(7,)),
        replace(ASK, prefix_ids=(7,), scored="7"),
        replace(ASK, scored="7", sampling=Sampling(seed=4)),
        replace(ASK, scored="7", schema="{}"),
    ]
    assert len({request_key("identity", r) for r in requests}) == len(requests)


@given(st.text(min_size=1, max_size=40))
def test_scripted_scores_are_in_range_and_depend_on_the_request_alone(text: str) -> None:
    request = replace(ASK, scored=text)
    [first], [again] = answers([request]), answers([request])
    assert isinstance(first, Reply) and first == again
    words = max(1, len(text.split()))
    assert (first.text, first.finish_reason, first.prompt_tokens) == ("", "stop", 3)
    assert first.completion_tokens == words
    assert first.logprob is not None and -5 * words <= first.logprob < 0


def test_scripted_scores_spread_and_a_share_fails() -> None:
    many = [replace(ASK, scored=f"one{i} two") for i in range(400)]
    found = [r.logprob for r in answers(many) if isinstance(r, Reply) and r.logprob is not None]
    assert len(set(found)) == 400
    assert sum(found) / 400 == pytest.approx(-5.0, abs=0.5)  # uniform: half of 5, two words
    failed = [r for r in answers(many, fail_share=0.3) if isinstance(r, BadReply)]
    assert 90 < len(failed) < 150 and {r.code for r in failed} == {"refused"}


@pytest.mark.parametrize("made", [byte_level, metaspace])
@pytest.mark.parametrize("text", ["Step", " step", "\n\nStep 2", "eggs 🙂", "é"])
def test_a_text_is_scored_as_its_own_tokens(made, text) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("tokenizers")
    speller = Speller(made())
    before = "the eg"
    spelled = speller.tokens(text)
    ids = scored_ids(spelled, speller.prompt, before, text)
    assert spelled is not None and ids == spelled.ids
    assert spelled.ends[-1] == len(text)


def test_where_the_tokenizer_cannot_spell_a_text_the_rest_of_the_whole_is_it() -> None:
    cut = {"ab": [1, 2], "abc": [1, 2, 3], "abd": [1, 9]}
    assert scored_ids(None, cut.__getitem__, "ab", "c") == (3,)
    with pytest.raises(BadReply, match=r"bad_request: .* no tokens of its own"):
        scored_ids(None, cut.__getitem__, "ab", "d")
    with pytest.raises(BadReply):
        beyond([1, 2], [1, 2])
