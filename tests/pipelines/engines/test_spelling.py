"""Tokens of a text are those that spell it where it follows a prompt, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tokenizers")

from pipelines.engines.base import Tokens
from pipelines.engines.spelling import Speller, file_speller, model_speller
from schemas.errors import EngineError
from tests.pipelines.engines.tiny_tokenizers import END, byte_level, metaspace

POLICY = Path(__file__).parents[3] / "data" / "policy"
BACKENDS = {"byte_level": byte_level(), "metaspace": metaspace()}
SPELLERS = {name: Speller(backend) for name, backend in BACKENDS.items()}


def told(kind: str, text: str) -> list[tuple[str, int]] | None:
    """Tokens as the vocabulary writes them, and their ends."""
    tokens = SPELLERS[kind].tokens(text)
    if tokens is None:
        return None
    names = [BACKENDS[kind].id_to_token(i) for i in tokens.ids]
    return list(zip(names, tokens.ends, strict=True))


texts = st.text(st.sampled_from("Step 2:\n é🙂Ω你<|end|>$."), max_size=25)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    text=texts, kind=st.sampled_from(list(SPELLERS)), prompt=st.sampled_from(["Q.", "A:\n", "x"])
)
def test_after_a_prompt_the_tokens_are_the_text(text: str, kind: str, prompt: str) -> None:
    backend, tokens = BACKENDS[kind], SPELLERS[kind].tokens(text)
    assert tokens is not None
    before = SPELLERS[kind].prompt(prompt)

    def decoded(count: int) -> str:
        both = [*before, *tokens.ids[:count]]
        return str(backend.decode(both, skip_special_tokens=False))[len(prompt) :]

    assert decoded(len(tokens.ids)) == text
    assert list(tokens.ends) == sorted(tokens.ends)
    for count, (last, end) in enumerate(zip((0, *tokens.ends), tokens.ends, strict=False), 1):
        if end > last:
            assert decoded(count) == text[:end]


def test_a_character_of_several_tokens_ends_with_the_last_of_them() -> None:
    assert told("byte_level", "Ω eggs") == [("Î", 0), ("©", 1), ("Ġeggs", 6)]
    assert told("metaspace", "Ω eggs") == [("<0xCE>", 0), ("<0xA9>", 1), ("▁eggs", 6)]


def test_white_space_belongs_to_the_token_that_spells_it() -> None:
    """The offsets that this tokenizer states leave it out."""
    assert told("byte_level", "First step. \n") == [
        ("First", 5),
        ("Ġstep", 10),
        (".", 11),
        ("Ġ", 12),
        ("Ċ", 13),
    ]


def test_no_space_is_put_before_the_text() -> None:
    alone = BACKENDS["metaspace"].encode("eggs", add_special_tokens=False).tokens
    assert alone == ["▁eggs"]
    found = told("metaspace", "eggs")
    assert found is not None and "".join(name for name, _ in found) == "eggs"
    assert told("metaspace", " eggs") == [("▁eggs", 5)]


def test_special_tokens_are_read_in_prompts_and_not_in_texts() -> None:
    for kind, speller in SPELLERS.items():
        end = BACKENDS[kind].token_to_id(END)
        assert end in speller.prompt(f"a{END}")
        tokens = speller.tokens(f"a{END}")
        assert tokens is not None and end not in tokens.ids


def test_what_is_not_spelled_to_the_letter_has_no_tokens() -> None:
    from tokenizers import normalizers

    lower = byte_level()
    lower.normalizer = normalizers.Lowercase()
    assert Speller(lower).tokens("step") is not None
    assert Speller(lower).tokens("Step") is None
    policy = file_speller(POLICY)
    assert policy is not None
    assert policy.tokens("3+4=7") == Tokens((23, 15, 24, 33, 27), (1, 2, 3, 4, 5))
    assert policy.tokens("3+é") is None  # it knows no é
    assert policy.tokens("") == Tokens((), ())


def test_a_models_folder(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    assert file_speller(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EngineError, match=r"tokenizer\.json: is no tokenizer"):
        file_speller(tmp_path)
    with pytest.raises(EngineError, match="cannot load the tokenizer"):
        model_speller(tmp_path)
    text = "7-2=5\n<|end|>#5"
    found: list[Any] = [file_speller(POLICY), model_speller(POLICY)]
    assert found[0].tokens(text) == found[1].tokens(text)
    shutil.copytree(POLICY, tmp_path, dirs_exist_ok=True)
    limited = tmp_path / "tokenizer.json"
    limited.write_text(
        limited.read_text().replace(
            '"truncation": null',
            '"truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst",'
            ' "stride": 0}',
        )
    )
    cutting = file_speller(tmp_path)
    assert cutting is not None and cutting.tokens(text) == found[0].tokens(text)
