from pathlib import Path

import numpy as np
import pytest

from pipelines.training import scoring
from pipelines.training.model import load_tokenizer, new_reward_model
from pipelines.training.scoring import RewardModel, StepModel
from pipelines.training.step_model import new_step_model
from schemas.errors import UserError
from schemas.records import Message
from tests.pipelines.training.tiny import ask

ITEMS = [(ask("p" * k), "x" * (12 - k)) for k in (3, 9, 1, 5, 11)]


def test_scores_keep_their_order_whatever_the_batches(base: Path, monkeypatch: pytest.MonkeyPatch):
    tokenizer = load_tokenizer(base)
    model = RewardModel(new_reward_model(base, tokenizer, 0)[1], tokenizer)
    together = model.score(ITEMS)
    alone = np.concatenate([model.score([item]) for item in ITEMS])
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 40)
    assert together.shape == (5,) and np.allclose(together, alone, atol=1e-5)
    assert np.allclose(model.score(ITEMS), together, atol=1e-5)
    assert model.score([]).shape == (0,)


def test_steps_get_one_probability_each(base: Path):
    tokenizer = load_tokenizer(base)
    model = StepModel(new_step_model(base, tokenizer, 0), tokenizer)
    items = [(ask("p"), ("1\n", "22\n", "3")), (ask("longer"), ("4",)), (ask("p"), ())]
    together = model.score(items)
    assert [len(row) for row in together] == [3, 1, 0]
    assert np.allclose(together[0], model.score([items[0]])[0], atol=1e-6)
    # a step's probability does not depend on what comes after it
    assert together[0][0] == pytest.approx(model.score([(ask("p"), ("1\n",))])[0][0], abs=1e-6)
    assert all(0 < p < 1 for row in together for p in row)


def test_batches_go_from_long_to_short_and_are_bounded():
    assert scoring._batches([3, 9_000, 5, 8_000]) == [[1], [3, 2], [0]]


def test_what_cannot_be_scored_is_told_by_code(base: Path):
    tokenizer = load_tokenizer(base)
    reward = RewardModel(new_reward_model(base, tokenizer, 0)[1], tokenizer)
    items = [
        (ask("p"), "x"),
        (ask("p"), "x" * 96),
        ((Message(role="system", content="s"),), "x"),
    ]
    assert reward.refusals(items) == [None, "too_long", "bad_template"]
    with pytest.raises(UserError, match=r"text 1 cannot be scored \(too_long; the model reads 96"):
        reward.score(items)
    steps = StepModel(new_step_model(base, tokenizer, 0), tokenizer)
    assert steps.refusals([(ask("p"), ("1", ""))]) == ["no_step_token"]
