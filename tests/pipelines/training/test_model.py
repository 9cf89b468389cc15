from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from pipelines.training.model import load_reward_model, load_tokenizer, new_reward_model
from schemas.errors import UserError
from tests.pipelines.training.tiny import write_base


def test_the_head_starts_small_and_by_seed(base: Path):
    tokenizer = load_tokenizer(base)
    heads = [new_reward_model(base, tokenizer, seed)[1].head.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].std().item() == pytest.approx(1 / 33, rel=0.35)


def test_what_stands_in_the_padding_changes_nothing(base: Path):
    model, scorer = new_reward_model(base, load_tokenizer(base), 0)
    row = torch.tensor([[9, 8, 7, 1]])
    wide = torch.tensor([[9, 8, 7, 1, 0, 0], [5, 6, 7, 8, 9, 1], [9, 8, 7, 1, 44, 55]])
    alone = scorer(row, torch.tensor([0]), torch.tensor([3]))
    batched = scorer(wide, torch.arange(3), torch.tensor([3, 5, 3]))
    assert torch.allclose(batched[[0, 2]], alone.expand(2), atol=1e-6)
    mask = (wide[:2] != 0).long()
    theirs = model(input_ids=wide[:2], attention_mask=mask).logits.squeeze(-1)
    assert torch.allclose(batched[:2], theirs, atol=1e-6)


def test_a_pad_token_that_is_eos_is_replaced(tmp_path: Path):
    base = write_base(tmp_path / "base", pad="<|end|>")
    tokenizer = load_tokenizer(base)
    model, _ = new_reward_model(base, tokenizer, 0)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer)
    model.save_pretrained(tmp_path / "out")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert again.config.pad_token_id == tokenizer.pad_token_id


def test_bases_that_cannot_be_used_are_one_clear_line(tmp_path: Path):
    plain = write_base(tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="needs an EOS token and a chat template"):
        load_tokenizer(plain)
    pickled = write_base(tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="the model cannot be loaded"):
        load_reward_model(pickled)
