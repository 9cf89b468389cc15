import math

import pytest
import torch

from pipelines.training.trainer import LengthBuckets, Progress, pair_loss, reproducible, step_loss


def batch(probability: float, margin: float = 0.0) -> dict[str, torch.Tensor]:
    return {"probability": torch.tensor([probability]), "margin": torch.tensor([margin])}


def test_pair_loss_is_this_number():
    # d = 1, p = .8: -(.8 log s(1) + .2 log s(-1)) = .8*.3132617 + .2*1.3132617
    scores = torch.tensor([1.5, 0.5])
    plain = pair_loss(scores, batch(0.8), center=0.0, margin=False)
    assert plain.item() == pytest.approx(0.5132617, abs=1e-6)
    # and .1 * (1.5 + .5)^2 on top
    centered = pair_loss(scores, batch(0.8), center=0.1, margin=False)
    assert centered.item() == pytest.approx(0.9132617, abs=1e-6)


def test_a_margin_shifts_the_difference_and_a_negative_one_does_not():
    scores = torch.tensor([1.5, 0.5])
    shifted = pair_loss(scores, batch(1.0, 0.6), center=0.0, margin=True)
    assert shifted.item() == pytest.approx(math.log(1 + math.exp(-0.4)), abs=1e-6)
    ignored = pair_loss(scores, batch(1.0, -0.6), center=0.0, margin=True)
    assert ignored.item() == pytest.approx(math.log(1 + math.exp(-1.0)), abs=1e-6)


def test_the_optimum_of_a_soft_target_is_its_log_odds():
    for p in (0.5, 0.8, 0.2):
        scores = torch.tensor([math.log(p / (1 - p)), 0.0], requires_grad=True)
        pair_loss(scores, batch(p), center=0.0, margin=False).backward()
        assert scores.grad is not None and scores.grad.abs().max().item() < 1e-7


def test_a_batch_is_split_into_chosen_then_rejected():
    two = {"probability": torch.tensor([1.0, 0.0]), "margin": torch.zeros(2)}
    scores = torch.tensor([2.0, -1.0, 0.0, 1.0])
    # differences 2 (wanted up) and -2 (wanted down)
    loss = pair_loss(scores, two, center=0.0, margin=False)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2.0)), abs=1e-6)


def test_step_loss_is_this_number():
    loss = step_loss(torch.tensor([0.0, 2.0]), {"target": torch.tensor([0.3, 1.0])})
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(-2))) / 2, abs=1e-6)


def test_buckets_hold_every_row_once_in_batches_of_like_length():
    lengths = [i * 7 % 97 for i in range(103)]
    sampler = LengthBuckets(lengths, 4, seed=5)
    order = list(sampler)
    assert sorted(order) == list(range(103)) and len(sampler) == 103
    batches = [[lengths[i] for i in order[k : k + 4]] for k in range(0, 100, 4)]
    assert max(max(b) - min(b) for b in batches) <= 6
    assert order == list(LengthBuckets(lengths, 4, seed=5))
    assert order != list(LengthBuckets(lengths, 4, seed=6))
    sampler.set_epoch(1)
    assert list(sampler) != order


def test_progress_tells_what_came_since_the_last_step():
    told = []
    progress = Progress(lambda rows, tokens: told.append((rows, tokens)))
    progress.count(2, 30)
    progress.count(1, 5)
    progress.on_step_end()
    progress.on_step_end()
    assert told == [(3, 35), (0, 0)] and progress.tokens == 35


def test_settings_and_generators_are_as_before_afterwards():
    torch.manual_seed(11)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with reproducible(0, 1):
        assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
        first = torch.rand(3)
    with reproducible(0, None):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads
