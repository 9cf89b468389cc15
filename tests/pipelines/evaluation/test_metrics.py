from itertools import combinations

import numpy as np
import pytest

from pipelines.evaluation import metrics


def array(*values: float) -> np.ndarray:
    return np.asarray(values, np.float64)


def test_pair_hits_count_ties_half():
    hits = metrics.pair_hits(array(1, 2, 3), array(0, 2, 5))
    assert hits.tolist() == [1.0, 0.5, 0.0]
    assert metrics.mean(hits) == 0.5
    assert metrics.mean(hits, array(3, 0, 1)) == 0.75
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.mean(hits, array(0, 0, 0))


def test_brier_is_this_number():
    assert metrics.brier(array(0.8, 0.4), array(1, 0)) == pytest.approx((0.04 + 0.16) / 2)
    assert metrics.brier(array(0.8, 0.4), array(1, 0), array(3, 1)) == pytest.approx(0.07)


def test_bins_have_equal_mass_and_keep_ties_together():
    assert metrics.mass_bins(array(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert metrics.mass_bins(array(0.5, 0.9, 0.5, 0.5), 2).tolist() == [0, 1, 0, 0]
    assert len(set(metrics.mass_bins(np.full(40, 0.3)).tolist())) == 1
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 30, 400) / 30
    order = rng.permutation(400)
    bins = metrics.mass_bins(confidence)
    assert (metrics.mass_bins(confidence[order]) == bins[order]).all()
    assert np.bincount(metrics.mass_bins(rng.random(300))).tolist() == [20] * 15


def test_calibration_error_and_reliability_are_these_numbers():
    confidence, outcome = array(0.9, 0.7, 0.2, 0.4), array(1, 0, 0, 1)
    bins = np.asarray([1, 1, 0, 0])
    # gaps |.8 - .5| and |.3 - .5|, half of the rows each
    assert metrics.calibration_error(confidence, outcome, bins) == pytest.approx(0.25)
    weighted = metrics.calibration_error(confidence, outcome, bins, array(2, 2, 0, 0))
    assert weighted == pytest.approx(0.3)
    low, high = metrics.reliability(confidence, outcome, bins)
    assert (low.bin, low.right, low.count) == (0, 0.5, 2)
    assert (low.confidence, high.confidence) == (pytest.approx(0.3), pytest.approx(0.8))


def by_enumeration(scores: list[float], truth: list[float], n: int) -> float:
    subsets = list(combinations(range(len(scores)), n))
    total = 0.0
    for subset in subsets:
        top = max(scores[i] for i in subset)
        best = [i for i in subset if scores[i] == top]
        total += sum(truth[i] for i in best) / len(best)
    return total / len(subsets)


def test_best_of_n_by_hand():
    # of the 6 pairs of 4 the top one (wrong) wins 3, the second (right) 2, the third (wrong) 1
    assert metrics.best_of_n([0.1, 0.5, 0.7, 0.9], [1, 0, 1, 0], 2) == pytest.approx(2 / 6)
    # the tied pair {right, wrong} shares its win
    assert metrics.best_of_n([0.5, 0.5, 0.1], [1, 0, 0], 2) == pytest.approx((0.5 + 1 + 0) / 3)


@pytest.mark.parametrize("levels", [3, 1000], ids=["many ties", "no ties"])
def test_best_of_n_is_the_mean_over_all_subsets(levels: int):
    rng = np.random.default_rng(levels)
    for _ in range(20):
        scores = (rng.integers(0, levels, 7) / levels).tolist()
        truth = rng.integers(0, 2, 7).astype(float).tolist()
        for n in range(1, 8):
            assert metrics.best_of_n(scores, truth, n) == pytest.approx(
                by_enumeration(scores, truth, n)
            ), (scores, truth, n)
            assert metrics.oracle_best_of_n(truth, n) == pytest.approx(
                by_enumeration(truth, truth, n)
            )


def test_best_of_more_than_there_are_is_refused():
    for n in (0, 4):
        with pytest.raises(ValueError, match=f"best of {n} needs {n} samples, there are 3"):
            metrics.best_of_n([1, 2, 3], [1, 1, 1], n)
        with pytest.raises(ValueError, match=f"best of {n} needs {n} samples, there are 3"):
            metrics.oracle_best_of_n([1, 1, 1], n)


def test_first_error_f1_by_hand():
    erroneous = np.asarray([True, True, True, True, False, False])
    hits = array(1, 1, 1, 0, 1, 0)
    assert metrics.first_error_f1(hits, erroneous) == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    assert metrics.harmonic(0.0, 1.0) == 0.0
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.first_error_f1(hits, np.zeros(6, bool))


def test_the_first_step_below_the_threshold_is_the_first_error():
    assert metrics.first_below([0.9, 0.3, 0.1], 0.5) == 1
    assert metrics.first_below([0.9, 0.5], 0.5) is None
    assert metrics.first_below([], 0.5) is None


def test_the_threshold_is_the_best_of_all():
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores = [rng.integers(0, 20, rng.integers(1, 6)) / 20 for _ in range(30)]
        firsts = [int(rng.integers(0, len(s))) if rng.random() < 0.6 else None for s in scores]
        erroneous = np.asarray([f is not None for f in firsts])

        def f1(threshold: float, scores=scores, firsts=firsts, erroneous=erroneous) -> float:
            hits = [
                metrics.first_below(s, threshold) == f for s, f in zip(scores, firsts, strict=True)
            ]
            return metrics.first_error_f1(np.asarray(hits, float), erroneous)

        chosen = metrics.best_threshold(scores, firsts)
        # thresholds between any two neighbouring scores, below all and above all
        assert f1(chosen) == pytest.approx(max(f1(t) for t in np.arange(-0.025, 1.1, 0.05)))


def test_a_threshold_needs_both_kinds():
    with pytest.raises(ValueError, match="with and without an error"):
        metrics.best_threshold([[0.5], [0.4]], [0, 0])


def test_intervals_draw_whole_clusters():
    rng = np.random.default_rng(2)
    values = rng.random(40)
    names = [f"p{i}" for i in range(40)]
    alone = metrics.interval(lambda w: metrics.mean(values, w), names, 400, seed=3)
    # every row ten times over, in the same clusters: not one bit more is known
    copies = np.repeat(values, 10)
    cloned = metrics.interval(
        lambda w: metrics.mean(copies, w), list(np.repeat(names, 10)), 400, seed=3
    )
    assert cloned == pytest.approx(alone)
    error = values.std() / np.sqrt(40)
    assert alone[1] - alone[0] == pytest.approx(2 * 1.96 * error, rel=0.15)
    apart = [f"r{i}" for i in range(400)]
    naive = metrics.interval(lambda w: metrics.mean(copies, w), apart, 400, seed=3)
    assert naive[1] - naive[0] < 0.5 * (alone[1] - alone[0])
    assert alone == metrics.interval(lambda w: metrics.mean(values, w), names, 400, seed=3)
    assert alone != metrics.interval(lambda w: metrics.mean(values, w), names, 400, seed=4)


def test_draws_on_which_the_statistic_is_not_defined_are_drawn_again():
    erroneous = np.asarray([True, False, True, False])
    hits = array(1, 1, 1, 1)
    found = metrics.interval(
        lambda w: metrics.first_error_f1(hits, erroneous, w), ["a", "b", "c", "d"], 50, seed=0
    )
    assert found == (1.0, 1.0)


def test_an_interval_holds_its_value():
    # both bins are calibrated exactly; any reweighting inside a bin is not
    confidence, outcome = np.repeat([0.25, 0.75], 4), array(1, 0, 0, 0, 1, 1, 1, 0)
    bins = np.repeat([0, 1], 4)
    low, high = metrics.interval(
        lambda w: metrics.calibration_error(confidence, outcome, bins, w), list("abcdefgh"), 200, 0
    )
    assert low == 0.0 < high
