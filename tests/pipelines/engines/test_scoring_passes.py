"""Scores of tokens against plain forward passes, over kinds of attention and of positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.engines import scoring
from pipelines.engines.scoring import ScoredRow

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TINY = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 48}


def model_of(kind: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    if kind == "position_table":  # a position beyond the table would be an error
        small = GPT2Config(vocab_size=12, n_embd=32, n_layer=2, n_head=4, n_positions=48)
        return GPT2LMHeadModel(small).double().eval()
    sliding = 6 if kind == "sliding" else None
    config = MistralConfig(
        vocab_size=12,
        hidden_size=32,
        intermediate_size=48,
        num_key_value_heads=2,
        sliding_window=sliding,
        **TINY,
    )
    return MistralForCausalLM(config).double().eval()


@pytest.mark.parametrize("most", [1, 2**24])
@pytest.mark.parametrize("kind", ["full", "sliding", "position_table"])
def test_scores_are_those_of_a_plain_pass(
    kind: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.engines.prefix_cache import PrefixCache

    monkeypatch.setattr(scoring, "SCORED", most)
    model = model_of(kind)
    rng = np.random.default_rng(1)
    starts = [tuple(rng.integers(0, 12, n).tolist()) for n in (1, 1, 5, 17, 30)]
    rows = []
    for number in range(40):
        prompt = starts[int(rng.integers(len(starts)))]
        room = 48 - len(prompt)
        size = room if number % 8 == 0 else int(rng.integers(1, room))
        rows.append(ScoredRow(prompt, tuple(rng.integers(0, 12, size).tolist()), number))
    with torch.inference_mode():
        found = list(scoring.score(model, PrefixCache(model, 40_000), rows))
        assert sorted(row.owner for row, _ in found) == list(range(40))
        for row, logprob in found:
            whole = torch.tensor([[*row.prompt, *row.text]])
            logits = model(whole).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
            wanted = float(logits[range(len(row.text)), list(row.text)].sum())
            assert logprob == pytest.approx(wanted, rel=1e-6, abs=1e-6)  # norms round to float32
