"""The models of a calibration: fits by hand, mirrors, and the last correction."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.consistency.calibration_models import (
    Boosting,
    Design,
    Isotonic,
    Logistic,
    Model,
    candidates,
    fit_correction,
    fit_logistic,
    sigmoid,
)


def design(n: int = 400, labelled: float = 0.0, seed: int = 0) -> tuple[Design, np.ndarray]:
    rng = np.random.default_rng(seed)
    score, votes = rng.normal(0, 2, n), rng.normal(0, 1, (n, 3))
    y = (rng.random(n) < sigmoid(score + votes[:, 0])).astype(float)
    still = rng.random((n, 1))
    whole = Design(score[:, None], votes, still, np.full(n, labelled), np.arange(n) % 2, trusted=1)
    return whole, y


def test_the_fit_is_at_the_minimum() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (60, 3)), (rng.random(60) < 0.5).astype(float)
    ridge, prior = np.array([0.5, 2.0, 5.0]), np.array([1.0, 0.0, -1.0])
    coef = fit_logistic(x, y, ridge, prior=prior)
    gradient = x.T @ (sigmoid(x @ coef) - y) + ridge * (coef - prior)
    assert gradient == pytest.approx(np.zeros(3), abs=1e-5)


def test_separable_labels_and_no_labels_are_no_trouble() -> None:
    x = np.array([[-1.0], [1.0]]) * 1e3
    assert np.isfinite(fit_logistic(x, np.array([0.0, 1.0]), np.array([0.1]))).all()
    assert fit_logistic(np.zeros((0, 2)), np.zeros(0), np.ones(2)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "model",
    [Logistic(3.0, True), Logistic(3.0, True, 2), Isotonic(Logistic(3.0, False)), Boosting()],
)
def test_the_mirror_of_a_bare_pair_has_the_opposite_log_odds(model: Model) -> None:
    seen, y = design()
    model.fit(seen, y, 0)
    turned = Design(-seen.compact, -seen.votes, seen.symmetric, seen.labelled, seen.slices, 1)
    assert model.log_odds(turned) == pytest.approx(-model.log_odds(seen), abs=1e-6)


def test_a_label_is_evidence_a_missing_one_is_none() -> None:
    seen, _ = design(labelled=1.0)
    y = np.ones(400)
    nothing = Design(
        seen.compact * 0, seen.votes * 0, seen.symmetric, seen.labelled, seen.slices, 1
    )
    model = Logistic(3.0, True)
    model.fit(nothing, y, 0)
    assert (model.log_odds(nothing) > 3).all()
    bare = Design(*(getattr(nothing, n) for n in ("compact", "votes", "symmetric")),
                  np.zeros(400), seen.slices, 1)  # fmt: skip
    assert model.log_odds(bare) == pytest.approx(np.zeros(400))


def test_weights_of_a_slice_differ_where_its_labels_do() -> None:
    seen, _ = design(2000)
    side = np.where(seen.slices == 0, 1.0, -1.0)
    y = (np.random.default_rng(3).random(2000) < sigmoid(2 * side * seen.votes[:, 0])).astype(float)
    pooled, apart = Logistic(3.0, True), Logistic(3.0, True, 2)
    for model in (pooled, apart):
        model.fit(seen, y, 0)
    right = [((model.log_odds(seen) > 0) == (y > 0.5)).mean() for model in (pooled, apart)]
    assert right[0] < 0.6 < 0.7 < right[1]


def test_trees_wait_for_labels_and_slices_for_a_second_one() -> None:
    names = [m.name for m in candidates(149, 1)]
    assert not any("boosting" in n or "isotonic" in n or "slice" in n for n in names)
    more = [m.name for m in candidates(150, 2)]
    assert {"boosting", "isotonic of logistic scores ridge 30"} <= set(more)
    assert "logistic all votes by slice ridge 3" in more


def test_the_correction_cools_what_is_too_sure() -> None:
    rng = np.random.default_rng(4)
    log_odds = rng.normal(0, 2, 5000)
    y = (rng.random(5000) < sigmoid(log_odds / 2 + 1)).astype(float)
    one = np.ones(5000)
    found = fit_correction(log_odds, one, y, np.full(5000, "all"))
    assert found.common == pytest.approx([1.0, 0.5], abs=0.1) and not found.slices
    # Bare pairs have no intercept: their mirror image must be their opposite.
    bare = found.apply(np.array([2.0, -2.0]), np.zeros(2), np.array(["all", "all"]))
    assert bare[0] == -bare[1] > 0


def test_a_slice_of_few_labels_keeps_the_common_correction() -> None:
    rng = np.random.default_rng(6)
    log_odds = rng.normal(0, 2, 3010)
    names = np.array(["many"] * 2000 + ["other"] * 1000 + ["few"] * 10)
    shift = np.select([names == "other", names == "few"], [-2.0, -2.0], 0.0)
    y = (rng.random(3010) < sigmoid(log_odds + shift)).astype(float)
    found = fit_correction(log_odds, np.ones(3010), y, names)
    whole = {name: found.common[0] + part[0] for name, part in found.slices.items()}
    assert whole["many"] == pytest.approx(0.0, abs=0.2)
    assert whole["other"] == pytest.approx(-2.0, abs=0.3)
    assert abs(found.slices["few"][0]) < abs(found.slices["other"][0])
