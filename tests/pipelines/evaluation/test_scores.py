import numpy as np
import pytest

from pipelines.evaluation.evaluate import EvaluateConfig
from pipelines.evaluation.scores import combination, sample_scores, scorable
from schemas.records import Preference
from tests.pipelines.evaluation.fakes import Reward, Steps, ask, sampled
from tests.pipelines.training.tiny import preference


@pytest.mark.parametrize(
    ("how", "expected"), [("min", [0.5, 0.0]), ("last", [0.8, 0.0]), ("product", [0.4, 0.0])]
)
def test_steps_become_one_score_and_a_blank_answer_gets_the_least(how: str, expected: list):
    config = EvaluateConfig(step_aggregate=how)
    samples = [sampled("p", ["0.5\n0.8", " \n"], [True, False])]
    (row,) = sample_scores(config, None, Steps(), samples, None)
    assert row is not None and row["steps"].tolist() == pytest.approx(expected)
    assert "likelihood" not in row and "reward" not in row


def test_both_models_are_combined_by_z_scores_or_by_weights():
    samples = [sampled("p", ["1", "3"], [True, False], logprob=-2.0)]
    (row,) = sample_scores(EvaluateConfig(), Reward(lambda t: -float(t)), Steps(), samples, None)
    assert row is not None
    assert row["reward"].tolist() == [-1.0, -3.0] and row["steps"].tolist() == [1.0, 3.0]
    assert row["combined"].tolist() == pytest.approx([0.0, 0.0])
    assert row["likelihood"].tolist() == [0.0, -2.0]
    weights = {"reward": 2.0, "steps": 1.0}
    (row,) = sample_scores(EvaluateConfig(), Reward(lambda t: -float(t)), Steps(), samples, weights)
    assert row is not None and row["combined"].tolist() == [-1.0, -3.0]


def test_z_scores_of_equal_scores_are_zero():
    samples = [sampled("p", ["2", "2"], [True, False])]
    (row,) = sample_scores(EvaluateConfig(), Reward(), None, samples, None)
    assert row is not None and row["combined"].tolist() == [0.0, 0.0]


def test_a_prompt_with_a_sample_that_cannot_be_scored_is_none_and_others_stay_in_place():
    samples = [sampled("a", ["1", "long"], [True, True]), sampled("b", ["2", "3"], [True, False])]
    first, second = sample_scores(EvaluateConfig(), Reward(), None, samples, None)
    assert first is None
    assert second is not None and second["reward"].tolist() == [2.0, 3.0]
    assert scorable(Reward(), [(ask("a"), "1"), (ask("a"), "long")]).tolist() == [True, False]


def test_weights_are_the_ridge_optimum_and_never_negative():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        good, bad = rng.normal(0.7, 1.0), rng.normal(0.0, 1.0)
        rows.append(preference(f"p{i}", f"{good}", f"{bad}"))
    table = Preference.to_table(rows)
    # both models read the same number, one of them the wrong way round
    weights = combination(EvaluateConfig(), Reward(lambda t: -float(t)), Steps(), table)
    assert weights is not None and weights["reward"] == pytest.approx(0.0, abs=1e-6)
    difference = np.asarray(
        [float(r.chosen[0].content) - float(r.rejected[0].content) for r in rows]
    )
    scale = np.sqrt(np.square(difference).mean())
    w = weights["steps"] * scale
    slope = -(difference / scale / (1 + np.exp(w * difference / scale))).mean() + 2 * w / 60
    assert w > 0 and slope == pytest.approx(0.0, abs=1e-4)


def test_without_pairs_there_are_no_weights():
    unscored = Preference.to_table([preference("p", "long", "1")])
    for table in (Preference.to_table([]), unscored):
        assert combination(EvaluateConfig(), Reward(), Steps(), table) is None
