import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.training.collate import collate_spans, encode_steps
from pipelines.training.model import load_tokenizer
from pipelines.training.step_model import (
    FEATURES,
    HEAD_CONFIG,
    RIDGE,
    StepScorer,
    fit_likelihood,
    load_step_model,
    new_step_model,
    save_step_model,
)
from schemas.errors import UserError


@pytest.fixture(scope="module")
def scorer(base: Path) -> StepScorer:
    return new_step_model(base, load_tokenizer(base), 3).eval()


def batch(base: Path, *answers: tuple[str, ...], pad: int = 0) -> dict[str, torch.Tensor]:
    tokenizer = load_tokenizer(base)
    prompt = [{"role": "user", "content": "1+1?"}]
    ids, spans = zip(*(encode_steps(tokenizer, prompt, steps) for steps in answers), strict=True)
    return collate_spans(ids, spans, pad)


def test_features_are_the_hidden_state_and_these_log_probabilities(base: Path, scorer: StepScorer):
    inputs = batch(base, ("1+1\n", "#2"))
    with torch.no_grad():
        found = scorer.features(**inputs)
        ids = inputs["input_ids"]
        out = scorer.backbone(input_ids=ids, output_hidden_states=True)
        logprobs = out.logits.log_softmax(-1)
    # token t is predicted at t - 1
    each = [logprobs[0, t - 1, ids[0, t]].item() for t in range(1, ids.shape[1])]
    at = len("Q: 1+1?\nA: ")
    first, second = each[at - 1 : at + 3], each[at + 3 : at + 5]
    both = first + second
    expected = [
        [sum(first), min(first), sum(first), min(first)],
        [sum(second), min(second), sum(both), min(both)],
    ]
    assert found.shape == (2, 32 + FEATURES)
    assert torch.allclose(found[:, -FEATURES:], torch.tensor(expected), atol=1e-5)
    hidden = out.hidden_states[-1][0, [at + 3, at + 5]]
    assert torch.allclose(found[:, :-FEATURES], hidden, atol=1e-5)


def test_what_stands_in_the_padding_or_comes_later_changes_nothing(base, scorer: StepScorer):
    short, long = ("1+1\n", "#2"), ("1+1=2, and so on\n", "#2")
    with torch.no_grad():
        alone = scorer(**batch(base, short))
        for pad in (0, 50):
            together = scorer(**batch(base, short, long, pad=pad))
            assert torch.allclose(together[:2], alone, atol=1e-5)
        assert torch.allclose(scorer(**batch(base, short[:1])), alone[:1], atol=1e-5)


def test_the_head_starts_from_the_likelihoods_alone_at_their_optimum(base: Path):
    scorer = new_step_model(base, load_tokenizer(base), 3)
    answers = [("1+1\n", "#2"), ("2+1\n", "#3"), ("9\n", "#4"), ("7+7\n", "#5")]
    target = torch.tensor([1.0, 0.8, 0.9, 0.1, 0.3, 0.0, 0.6, 0.2])
    before = scorer.head.weight[:, :-FEATURES].clone()
    parts = [batch(base, *answers[:2]), batch(base, *answers[2:])]
    halves = [{**part, "target": target[4 * k : 4 * k + 4]} for k, part in enumerate(parts)]
    assert scorer.head.weight[:, -FEATURES:].eq(0).all()
    fit_likelihood(scorer, halves)
    assert torch.equal(scorer.head.weight[:, :-FEATURES], before)
    with torch.no_grad():
        found = torch.cat([scorer.features(**part)[:, -FEATURES:] for part in parts]).double()
    weights = torch.cat([scorer.head.weight[0, -FEATURES:], scorer.head.bias]).double().detach()
    columns = torch.cat([found, torch.ones(8, 1)], 1)
    slope = columns.T @ (torch.sigmoid(columns @ weights) - target) / 8 + 2 * RIDGE * weights
    assert slope.abs().max().item() < 1e-4


def test_a_step_model_is_read_back_bit_by_bit(scorer: StepScorer, tmp_path: Path):
    save_step_model(scorer, tmp_path)
    again = load_step_model(tmp_path)
    for (name, ours), (other, theirs) in zip(
        scorer.named_parameters(), again.named_parameters(), strict=True
    ):
        assert name == other and torch.equal(ours, theirs), name
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}
    (tmp_path / HEAD_CONFIG).write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match="step head format 99, this Prefinery reads"):
        load_step_model(tmp_path)


def test_a_folder_without_a_head_is_one_clear_line(base: Path):
    with pytest.raises(UserError, match="no step model here"):
        load_step_model(base)


def test_an_answer_without_steps_has_no_features(base: Path, scorer: StepScorer):
    with torch.no_grad():
        assert scorer(**batch(base, (), ("1",))).shape == (1,)
        assert np.isfinite(scorer(**batch(base, ("1",))).item())
