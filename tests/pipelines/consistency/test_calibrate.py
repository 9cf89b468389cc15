"""Calibration on synthetic votes whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.consistency import calibration_inputs as inputs
from pipelines.consistency.calibrate import CalibrateConfig, apply, calibrate, fit
from schemas.records import Belief
from schemas.table import validate
from tests.pipelines.consistency.synthetic import Synthetic, calibration_error, make, ranking

ROWS = np.arange(0, 2000, 7)


def run(
    world: Synthetic,
    rows: np.ndarray | None = ROWS,
    *,
    matrix: pa.Table | None = None,
    slices: pa.Table | None = None,
    **config: Any,
) -> tuple[pa.Table, dict[str, Any]]:
    labels = None if rows is None else world.labels(rows)
    beliefs, report = calibrate(
        matrix or world.matrix, world.features, labels, slices, CalibrateConfig(**config), 3
    )
    validate(Belief, beliefs)
    return beliefs, report


def probabilities(beliefs: pa.Table) -> np.ndarray:
    return np.asarray(beliefs["probability"].to_numpy())


def test_probabilities_are_what_they_say() -> None:
    world = make()
    beliefs, report = run(world)
    p = probabilities(beliefs)
    assert calibration_error(p, world.right) < 0.03
    # The judges' own likelihood ratio, with the rate of flips known, is the best there is.
    votes = np.stack([world.matrix[f"judge {j}"].to_numpy() for j in range(4)], axis=1)
    best = 2 * np.nansum(votes / np.array([0.8, 1.0, 1.5, 3.0]) ** 2, axis=1)
    assert ranking(p, world.right) > ranking(best, world.right) - 0.005
    assert report["calibrated"] and report["labels"] == report["label_prompts"] == len(ROWS)
    assert report["estimated_label_error"] == pytest.approx(0.2, abs=0.04)
    weights = [judge["weight"] for judge in report["judges"]]
    assert weights == sorted(weights, reverse=True) and weights[-1] > 0


def test_without_people_it_rests_on_agreement_and_says_so() -> None:
    world = make()
    beliefs, report = run(world, None)
    assert not any(beliefs["calibrated"].to_pylist()) and not report["calibrated"]
    assert "not calibrated" in report["warning"] and report["model"] == "agreement"
    assert ranking(probabilities(beliefs), world.right) > 0.95


@pytest.mark.parametrize("rows", [np.arange(29), np.arange(1)])
def test_too_few_labels_are_not_fitted(rows: np.ndarray) -> None:
    _, report = run(make(), rows)
    assert not report["calibrated"] and report["labels"] == len(rows)


def test_labels_of_one_prompt_are_one_piece_of_evidence() -> None:
    world = make(n=400, per_prompt=40)
    _, report = run(world, np.arange(40))
    assert report["label_prompts"] == 1 and not report["calibrated"]
    assert "1 prompts" in report["warning"]
    _, report = run(world, np.arange(80))
    assert report["calibrated"]


def test_copies_of_a_judge_add_no_evidence() -> None:
    world = make(noise=(1.0, 1.0, 1.5), missing=0.0)
    copied = world.matrix
    for copy in range(8):
        copied = copied.append_column(f"judge 2 copy {copy}", world.matrix["judge 2"])
    for rows in (ROWS, None):
        plain, _ = run(world, rows)
        more, report = run(world, rows, matrix=copied)
        p, q = probabilities(plain), probabilities(more)
        assert np.abs(p - q).mean() < 0.01
        assert calibration_error(q, world.right) < calibration_error(p, world.right) + 0.01
        assert report["judges"][-1]["redundancy"] == pytest.approx(9.0, rel=0.1)


def test_the_judges_order_changes_nothing() -> None:
    world = make()
    names = world.matrix.column_names
    turned = world.matrix.select([names[0], *reversed(names[1:])])
    p, q = (probabilities(run(world, matrix=m)[0]) for m in (None, turned))
    assert p == pytest.approx(q, abs=1e-6)


def test_the_same_input_gives_the_same_bytes() -> None:
    world = make()
    assert run(world)[0].equals(run(world)[0])


def test_what_a_pair_was_labelled_is_not_in_its_probability() -> None:
    world = make(n=600)
    rows = np.arange(0, 600, 3)
    lied = world.labels(rows)
    turned = np.array(lied["value"].to_pylist())
    turned[0] *= -1
    lied = lied.set_column(1, "value", pa.array(turned))
    told, _ = calibrate(
        world.matrix, world.features, world.labels(rows), None, CalibrateConfig(), 3
    )
    false, _ = calibrate(world.matrix, world.features, lied, None, CalibrateConfig(), 3)
    p, q = probabilities(told), probabilities(false)
    # The correction alone has seen all labels: two figures from 200.
    assert abs(p[0] - q[0]) < 0.02
    assert false["human"][0].as_py() == -told["human"][0].as_py()
    assert told["humans"].to_pylist() == [int(i % 3 == 0) for i in range(600)]


def test_pairs_without_a_label_get_the_likelier_side() -> None:
    world = make(labelled=False)
    beliefs, report = run(world)
    p = probabilities(beliefs)
    side = np.array(beliefs["label"].to_pylist()) == "a"
    assert (p >= 0.5).all() and (side == world.truth).mean() > 0.9
    assert calibration_error(p, side == world.truth) < 0.03
    assert report["given"] == 0 and report["estimated_label_error"] is None
    # Strength and people are oriented to the side that was proposed.
    assert np.corrcoef(np.array(beliefs["strength"].to_pylist()), p)[0, 1] > 0.5
    human = np.array(beliefs["human"].to_pylist(), dtype=float)
    assert ((human > 0) == (side == world.truth))[ROWS].all()


def test_turning_a_bare_pair_around_turns_its_side_alone() -> None:
    world = make(n=400, labelled=False)
    rows = np.arange(0, 400, 2)
    flipped = [-1.0 if i % 5 == 1 else 1.0 for i in range(400)]
    names = world.matrix.column_names[1:]
    matrix = pa.table(
        {"pair_id": world.matrix["pair_id"]}
        | {n: pa.array(world.matrix[n].to_numpy() * flipped, from_pandas=True) for n in names}
    )
    swap = np.array(flipped) < 0
    a, b = (np.array(world.features[f"response_{s}"].to_pylist()) for s in "ab")
    features = world.features
    for name, values in {
        "response_a": np.where(swap, b, a),
        "response_b": np.where(swap, a, b),
        "length": features["length"].to_numpy() * flipped,
    }.items():
        features = features.set_column(features.column_names.index(name), name, pa.array(values))
    labels = world.labels(rows)  # none of the rows is turned that are odd
    turned_labels = labels.set_column(
        1, "value", pa.array(labels["value"].to_numpy() * np.array(flipped)[rows])
    )
    first, _ = calibrate(world.matrix, world.features, labels, None, CalibrateConfig(), 3)
    second, _ = calibrate(matrix, features, turned_labels, None, CalibrateConfig(), 3)
    assert probabilities(first) == pytest.approx(probabilities(second), abs=1e-6)
    same = np.array(first["label"].to_pylist()) == np.array(second["label"].to_pylist())
    assert (same != swap).all()


def test_pairs_that_share_a_response_tell_of_each_other() -> None:
    world = make(per_prompt=5, noise=(1.5, 2.0))
    shared, _ = run(world)
    alone, _ = run(world, shared_responses=False)
    gain = ranking(probabilities(shared), world.right) - ranking(probabilities(alone), world.right)
    assert gain > 0.05
    assert calibration_error(probabilities(shared), world.right) < 0.03


def test_labels_that_favour_length_are_seen_through_with_people() -> None:
    world = make(noise=(1.5, 2.0), error=0.0)
    rng = np.random.default_rng(5)
    longer = rng.normal(0, 1, 2000)
    # Wrong labels where the response that the label prefers is the longer one.
    wrong = rng.random(2000) < 1 / (1 + np.exp(2.5 - 2.5 * longer))
    names = world.matrix.column_names[1:]
    turn = np.where(wrong, -1.0, 1.0)
    matrix = pa.table(
        {"pair_id": world.matrix["pair_id"]}
        | {n: pa.array(world.matrix[n].to_numpy() * turn, from_pandas=True) for n in names}
    )
    label = np.where(world.truth ^ wrong, "a", "b")
    features = world.features.set_column(4, "label", pa.array(label)).set_column(
        6, "length", pa.array(longer)
    )
    biased = Synthetic(matrix, features, world.truth, ~wrong)
    asked, _ = run(biased)
    free, _ = run(biased, None)
    p, q = probabilities(asked), probabilities(free)
    assert ranking(p, ~wrong) > ranking(q, ~wrong) + 0.02
    assert calibration_error(p, ~wrong) < 0.04


def test_slices_pull_apart_with_labels_and_stay_together_without() -> None:
    world = make()
    # In slice `odd` the label is wrong as often as not: the truth there is a coin's.
    odd = np.arange(2000) % 2 == 1
    rng = np.random.default_rng(8)
    coin = rng.random(2000) < 0.5
    truth = np.where(odd, coin, world.truth)
    label = np.array(world.features["label"].to_pylist()) == "a"
    mixed = Synthetic(world.matrix, world.features, truth, label == truth)
    names = np.where(odd, "odd", "even")
    slices = pa.table({"pair_id": world.matrix["pair_id"], "slice": names})
    few = np.r_[np.flatnonzero(~odd)[:200], np.flatnonzero(odd)[:1]]
    many = np.r_[np.flatnonzero(~odd)[:200], np.flatnonzero(odd)[:200]]
    spread = {}
    for name, rows in (("few", few), ("many", many)):
        beliefs, report = run(mixed, rows, slices=slices)
        p = probabilities(beliefs)
        spread[name] = np.abs(p[odd] - 0.5).mean()
        assert set(report["slices"]) == {"even", "odd"}
    assert set(beliefs["slice"].to_pylist()) == {"even", "odd"}
    assert spread["many"] < 0.15 < 0.3 < spread["few"]
    assert calibration_error(p[~odd], mixed.right[~odd]) < 0.04
    assert calibration_error(p[odd], mixed.right[odd]) < 0.06


def test_a_tie_has_no_probability_of_its_own() -> None:
    world = make(n=300)
    labels = world.features["label"].to_pylist()
    labels[0] = "tie"
    world.features = world.features.set_column(4, "label", pa.array(labels))
    beliefs, _ = run(world, np.arange(1, 300, 2))
    assert beliefs["label"][0].as_py() == "tie" and beliefs["probability"][0].as_py() == 0.5


def test_pairs_without_any_vote_fall_back_on_the_labels_own_worth() -> None:
    world = make()
    table = world.matrix.to_pydict()
    for name in world.matrix.column_names[1:]:
        table[name][:200] = [None] * 200
    matrix = pa.table(table, schema=world.matrix.schema)
    beliefs, _ = run(world, np.arange(200, 2000, 7), matrix=matrix)
    assert probabilities(beliefs)[:200].mean() == pytest.approx(0.8, abs=0.06)
    assert set(beliefs["judges"].to_pylist()[:200]) == {0}


def test_no_judges_at_all() -> None:
    world = make(n=400)
    bare = world.matrix.select(["pair_id"])
    beliefs, _ = run(world, np.arange(0, 400, 2), matrix=bare)
    assert probabilities(beliefs).mean() == pytest.approx(0.8, abs=0.06)


def test_a_calibration_is_applied_shard_by_shard() -> None:
    world = make(per_prompt=4)
    calibration, _ = fit(
        world.matrix, world.features, world.labels(ROWS), None, CalibrateConfig(), 3
    )
    whole = apply(calibration, world.matrix, world.features, world.labels(ROWS))
    parts = [
        apply(
            calibration, world.matrix.slice(at, 400), world.features.slice(at, 400),
            world.labels(ROWS),
        )
        for at in range(0, 2000, 400)
    ]  # fmt: skip
    joined = pa.concat_tables(parts)
    assert probabilities(joined) == pytest.approx(probabilities(whole), abs=1e-12)
    assert joined["pair_id"].equals(whole["pair_id"])


def test_large_data_is_fitted_on_whole_prompts() -> None:
    world = make(per_prompt=4)
    sampled, report = run(world, fit_pairs=1000)
    assert report["labels"] == len(ROWS)
    assert calibration_error(probabilities(sampled), world.right) < 0.03


def test_what_several_people_came_to_counts_as_all_of_them() -> None:
    world = make(n=3)
    pairs = world.matrix["pair_id"].to_pylist()
    labels = pa.table(
        {
            "pair_id": [pairs[0], pairs[0], pairs[2]],
            "value": [0.5, -0.1, -0.25],
            "annotator": ["all", "one more", "all"],
            "people": [3, 1, 2],
        }
    )
    found = inputs.people(world.features, labels)
    assert found["people"].to_list() == [4, 0, 2]
    sign = [-1.0 if label == "b" else 1.0 for label in world.features["label"].to_pylist()]
    assert found["score"][0] == pytest.approx(sign[0] * 0.2)
    assert found["score"][2] == pytest.approx(sign[2] * -0.25)
    alone = inputs.people(world.features, labels.drop_columns(["people"]))
    assert alone["people"].to_list() == [2, 0, 1]
    assert alone["score"].to_list()[::2] == found["score"].to_list()[::2]
