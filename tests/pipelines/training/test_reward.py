import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines.training.config import RewardConfig
from pipelines.training.model import load_tokenizer, new_reward_model
from pipelines.training.reward import Trained, train_reward
from pipelines.training.scoring import RewardModel
from schemas.errors import UserError
from schemas.records import Preference
from tests.pipelines.training.tiny import ask, preference

SEED = 4


def config(base: Path, **changes: object) -> RewardConfig:
    settings = {"base": str(base), "epochs": 12, "batch_size": 6, "learning_rate": 5e-3}
    return RewardConfig.model_validate({**settings, "max_length": 64, "threads": 1, **changes})


@pytest.fixture(scope="module")
def trained(
    base: Path, pairs: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Trained, list[tuple[int, int]]]:
    out = tmp_path_factory.mktemp("reward") / "model"
    told: list[tuple[int, int]] = []
    done = train_reward(
        config(base), pairs, pairs, out, SEED, lambda rows, tokens: told.append((rows, tokens))
    )
    return out, done, told


def test_it_learns_and_counts(trained, pairs: pa.Table):
    _, done, told = trained
    assert done.rejects == ()
    assert done.figures["rows"] == done.figures["validation_rows"] == 30
    assert done.figures["optimizer_steps"] == 12 * 5
    assert done.figures["validation_accuracy"] >= 0.9
    # targets of .9: no loss can be below their entropy
    assert 0.3250 < done.figures["validation_loss"] < 0.6931
    assert sum(rows for rows, _ in told) == 12 * 30
    assert sum(tokens for _, tokens in told) == done.figures["tokens"]


def test_every_weight_moved(trained, base: Path):
    out, _, _ = trained
    before, _ = new_reward_model(base, load_tokenizer(base), SEED)
    after = load_file(out / "model.safetensors")
    assert set(after) == set(before.state_dict())
    for name, weight in before.named_parameters():
        assert not torch.equal(weight, after[name]), name


def test_the_folder_holds_a_model_a_card_and_nothing_pickled(trained):
    out, _, _ = trained
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    card = (out / "README.md").read_text()
    assert "- validation_accuracy: `" in card and "- rows: `30`" in card
    assert '- source: `["made <b>up</b>"]`' in card
    for path in out.iterdir():
        assert str(out.parent.parent).encode() not in path.read_bytes(), path.name


def test_transformers_alone_gives_our_scores_for_padded_batches(trained):
    out, _, _ = trained
    items = [(ask("2+3?"), "2+3=5"), (ask("11+40?"), "11+40=52"), (ask("4+7?"), "4+7=11")]
    ours = RewardModel.load(out).score(items)
    model = AutoModelForSequenceClassification.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    texts = [
        tokenizer.apply_chat_template(
            [m.model_dump() for m in messages] + [{"role": "assistant", "content": text}],
            tokenize=False,
        )
        for messages, text in items
    ]
    for side in ("right", "left"):
        tokenizer.padding_side = side
        encoded = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        with torch.no_grad():
            theirs = model(**encoded).logits.squeeze(-1).numpy()
        assert np.allclose(ours, theirs, atol=2e-5), side
    assert ours[0] > ours[1]


def test_the_same_seed_gives_the_same_bits(base: Path, pairs: pa.Table, tmp_path: Path):
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_reward(config(base, epochs=1), pairs, None, tmp_path / name, seed)
        weights = (tmp_path / name / "model.safetensors").read_bytes()
        digests.append(hashlib.sha256(weights).hexdigest())
    assert digests[0] == digests[1] != digests[2]


def test_soft_targets_change_the_optimum(base: Path, tmp_path: Path):
    def margin(probability: float) -> float:
        rows = [preference("p", "a", "b", probability)] * 1
        out = tmp_path / str(probability)
        train_reward(
            config(base, epochs=60, batch_size=1, center=0.0),
            Preference.to_table(rows),
            None,
            out,
            0,
        )
        good, bad = RewardModel.load(out).score([(ask("p"), "a"), (ask("p"), "b")])
        return float(good - bad)

    assert margin(0.8) == pytest.approx(np.log(4), abs=0.1)
    assert margin(0.3) == pytest.approx(np.log(3 / 7), abs=0.1)


def test_long_pairs_come_back_and_are_not_dropped_in_silence(base: Path, tmp_path: Path):
    rows = [preference("p", "a", "b"), preference("p", "a" * 60, "b")]
    table = Preference.to_table(rows)
    done = train_reward(config(base, epochs=1), table, table, tmp_path, 0)
    assert (done.figures["rows"], done.figures["rejected"]) == (1, 1)
    assert (done.figures["validation_rows"], done.figures["validation_rejected"]) == (1, 1)
    assert [(r.unit, r.code) for r in done.rejects] == [(rows[1].id, "too_long")] * 2


def test_what_cannot_be_trained_is_one_clear_line(base: Path, pairs: pa.Table, tmp_path: Path):
    with pytest.raises(UserError, match=r"max_length is 500, but the base reads 96 tokens"):
        train_reward(config(base, max_length=500), pairs, None, tmp_path, 0)
    with pytest.raises(UserError, match=r"30 rows given, all rejected \(too_long\)"):
        train_reward(config(base, max_length=4), pairs, None, tmp_path, 0)
    with pytest.raises(UserError, match="training diverged"):
        train_reward(config(base, learning_rate=1e30, epochs=2), pairs, None, tmp_path, 0)
