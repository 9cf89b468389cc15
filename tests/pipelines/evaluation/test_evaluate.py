from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.evaluation.evaluate import EvaluateConfig, Evaluation, GoldSteps, evaluate
from pipelines.training.model import load_tokenizer, new_reward_model
from pipelines.training.step_model import new_step_model, save_step_model
from schemas.errors import UserError
from schemas.record import digest
from schemas.records import Preference
from tests.pipelines.evaluation.fakes import Reward, Steps, ask, sampled, use
from tests.pipelines.training.tiny import preference, write_base

QUICK = EvaluateConfig(bootstrap=50)
HERE = Path("model")
NONE = Preference.to_table([])


def gold(count: int = 40) -> list[GoldSteps]:
    """Sound solutions, and ones whose second step is the first error and scores low."""
    rows = []
    for i in range(count):
        rows.append(GoldSteps(ask(f"p{i}"), ("0.9\n", "0.8\n", "0.85"), None))
        rows.append(GoldSteps(ask(f"p{i}"), ("0.9\n", "0.2\n", "0.1"), 1))
    return rows


def test_pairs_by_hand(monkeypatch: pytest.MonkeyPatch):
    use(monkeypatch, Reward())
    rows = [
        preference("a", "2", "1"),
        preference("b", "3", "3"),
        preference("c", "0", "1"),
        preference("d", "9", "1"),
        preference("e", "long", "1"),
    ]
    told: list[tuple[int, int]] = []
    done = evaluate(
        QUICK,
        HERE,
        None,
        Preference.to_table(rows),
        [],
        [],
        0,
        advance=lambda r, t: told.append((r, t)),
    )
    assert (done.figures["pairs"], done.figures["pairs_unscored"]) == (4, 1)
    assert done.figures["pair_accuracy"] == 2.5 / 4
    # differences 1, 0, -1, 8: confidences .7310586, .5, .7310586, .9996646 were right 1, .5, 0, 1
    assert done.figures["brier_pairs"] == pytest.approx(
        (0.0723295 + 0 + 0.5344466 + 0) / 4, abs=1e-6
    )
    # the two equal confidences share a bin, half right; the others are bins of their own
    expected = (abs(2 * 0.7310586 - 1) + 0 + (1 - 0.9996646)) / 4
    assert done.figures["ece_pairs"] == pytest.approx(expected, abs=1e-6)
    low, high = done.intervals["pair_accuracy"]
    assert 0 <= low <= 0.625 <= high <= 1
    assert told == [(4, 0)]
    assert done.curve == () and done.reliability == ()


def test_best_of_n_by_hand(monkeypatch: pytest.MonkeyPatch):
    # reward prefers the last of eight, the steps the first
    use(monkeypatch, Reward(lambda t: -float(t)), Steps())
    texts = [str(k / 10) for k in range(9, 1, -1)]
    samples = [
        sampled("a", texts, [True] + [False] * 7, logprob=-1.0),
        sampled("b", texts, [True] * 2 + [None] * 5 + [True], logprob=-1.0),
    ]
    done = evaluate(QUICK, HERE, HERE, NONE, samples, [], 0)
    figures = done.figures
    assert (figures["prompts"], figures["samples"], figures["samples_unverified"]) == (2, 16, 5)
    assert figures["policy_accuracy"] == pytest.approx((1 / 8 + 3 / 8) / 2)
    assert figures["best_of_8_reward"] == pytest.approx(0.5)
    assert figures["best_of_8_steps"] == figures["best_of_8_likelihood"] == pytest.approx(1.0)
    assert figures["oracle_best_of_8"] == 1.0
    # z-scores cancel: a tie of all, so chance
    assert figures["best_of_8_accuracy"] == pytest.approx(figures["policy_accuracy"])
    points = {(p.n, p.model): p for p in done.curve}
    assert {n for n, _ in points} == {1, 2, 4, 8}
    assert {m for _, m in points} == {"reward", "steps", "combined", "likelihood", "oracle"}
    assert points[1, "steps"].accuracy == pytest.approx(0.25)
    # prompt a: 1 of 8 right and always picked when drawn: 2/8; prompt b: by ranks, the best two
    # (right) or the worst (right, picked never): (7 + 6)/28
    assert points[2, "steps"].accuracy == pytest.approx((7 / 28 + 13 / 28) / 2)
    assert points[2, "oracle"].accuracy == pytest.approx((7 / 28 + 18 / 28) / 2)
    assert all(p.low <= p.accuracy <= p.high for p in done.curve)


def test_weights_fitted_on_validation_pairs_choose_the_better_model(monkeypatch):
    use(monkeypatch, Reward(lambda t: -float(t)), Steps())
    texts = [str(k / 10) for k in range(9, 1, -1)]
    samples = [sampled("a", texts, [True] + [False] * 7)]
    validation = Preference.to_table([preference(f"v{i}", "0.9", "0.2") for i in range(20)])
    done = evaluate(QUICK, HERE, HERE, NONE, samples, [], 0, validation)
    assert done.figures["weight_reward"] == 0.0 and done.figures["weight_steps"] > 0
    assert done.figures["best_of_8_accuracy"] == 1.0
    assert "best_of_8_likelihood" not in done.figures


def test_one_model_alone_is_the_combination_and_is_drawn_once(monkeypatch):
    use(monkeypatch, Reward())
    samples = [sampled("a", [str(k) for k in range(8)], [False] * 7 + [True])]
    done = evaluate(EvaluateConfig(n=(2,), bootstrap=20), HERE, None, NONE, samples, [], 0)
    assert done.figures["best_of_8_accuracy"] == done.figures["best_of_8_reward"] == 1.0
    assert [(p.n, p.model) for p in done.curve] == [(2, "reward"), (2, "oracle")]


def test_what_is_too_little_is_left_out_and_counted(monkeypatch):
    use(monkeypatch, Reward())
    samples = [
        sampled("a", ["1", "2", "3"], [True, False, False]),
        sampled("b", ["1", "long", "3"], [True, True, True]),
        sampled("c", [], []),
    ]
    done = evaluate(QUICK, HERE, None, NONE, samples, [], 0)
    counts = ("prompts", "prompts_unscored", "prompts_without_samples", "samples")
    assert [done.figures[name] for name in counts] == [1, 1, 1, 3]
    assert {p.n for p in done.curve} == {1, 2}
    assert "best_of_8_accuracy" not in done.figures


def test_first_errors_by_hand(monkeypatch):
    use(monkeypatch, None, Steps())
    done = evaluate(QUICK, None, HERE, NONE, [], gold(), 3)
    figures = done.figures
    assert figures["first_error_f1"] == 1.0
    assert 0.2 < figures["first_error_threshold"] <= 0.8
    assert figures["first_error_f1_chance"] == pytest.approx(0.25)
    # told that there is an error, it names the third step, which is never the first error
    assert figures["first_error_f1_last_step"] == 0.0
    assert (figures["solutions"], figures["steps"]) == (80, 240)
    # sound: .9 .8 .85 and the other's .9; unsound: .2 .1
    squares = 0.1**2 + 0.2**2 + 0.15**2 + 0.1**2 + 0.2**2 + 0.1**2
    assert figures["brier"] == pytest.approx(squares / 6)
    assert figures["ece"] == pytest.approx((0.1 + 0.2 + 0.15 + 0.1 + 0.2 + 0.1) / 6)
    assert [(round(b.confidence, 2), b.right, b.count) for b in done.reliability] == [
        (0.1, 0.0, 40),
        (0.2, 0.0, 40),
        (0.8, 1.0, 40),
        (0.85, 1.0, 40),
        (0.9, 1.0, 80),
    ]


def test_the_last_step_baseline_is_told_whether_there_is_an_error(monkeypatch):
    use(monkeypatch, None, Steps())
    rows = [GoldSteps(g.messages, g.completions[:2], g.first_error) for g in gold()]
    figures = evaluate(QUICK, None, HERE, NONE, [], rows, 0).figures
    assert figures["first_error_f1_last_step"] == 1.0


def test_a_threshold_never_judges_the_solutions_it_was_chosen_on(monkeypatch):
    """Each half is separable, at another threshold: fitted on the same rows F1 would be 1, on all
    rows together at least 2/3; with the other half's threshold one kind is missed in each half.
    """
    use(monkeypatch, None, Steps())
    rows = []
    upper = 0
    for i in range(40):
        half = (
            int(digest("threshold", 0, digest([m.model_dump() for m in ask(f"p{i}")]))[0], 16) % 2
        )
        upper += half
        sound, unsound = ("0.9", "0.6") if half else ("0.4", "0.1")
        rows.append(GoldSteps(ask(f"p{i}"), (sound,), None))
        rows.append(GoldSteps(ask(f"p{i}"), (unsound,), 0))
    share = upper / 40
    figures = evaluate(QUICK, None, HERE, NONE, [], rows, 0).figures
    assert 0 < share < 1
    assert figures["first_error_f1"] == pytest.approx(2 * share * (1 - share))


def test_what_cannot_be_evaluated_is_one_clear_line(monkeypatch):
    use(monkeypatch, Reward(), Steps())
    with pytest.raises(UserError, match="give a reward model, a step model, or both"):
        evaluate(QUICK, None, None, NONE, [], [], 0)
    one_kind = [g for g in gold() if g.first_error is None]
    with pytest.raises(UserError, match="there are 40 prompts, give more"):
        evaluate(QUICK, None, HERE, NONE, [], one_kind, 0)
    unscored = Preference.to_table([preference("a", "long", "1")])
    with pytest.raises(UserError, match="can score no test pair"):
        evaluate(QUICK, HERE, None, unscored, [], [], 0)
    with pytest.raises(UserError, match="can score no prompt's samples"):
        evaluate(QUICK, HERE, None, NONE, [sampled("a", ["long"], [True])], [], 0)
    for wrong in ({"n": ()}, {"n": (0,)}, {"level": 1.0}, {"step_agregate": "min"}):
        with pytest.raises(ValidationError):
            EvaluateConfig.model_validate(wrong)
    assert all(info.description for info in EvaluateConfig.model_fields.values())


def test_with_real_models_every_figure_has_its_value_inside_its_interval(tmp_path: Path):
    base = write_base(tmp_path / "base")
    tokenizer = load_tokenizer(base)
    model, _ = new_reward_model(base, tokenizer, 0)
    model.save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    (tmp_path / "steps").mkdir()
    save_step_model(new_step_model(base, tokenizer, 0), tmp_path / "steps")
    tokenizer.save_pretrained(tmp_path / "steps")
    pairs = Preference.to_table([preference(f"{i}+1?", f"{i + 1}", f"{i}") for i in range(12)])
    samples = [
        sampled(f"{i}", [f"{k}\n#{k}" for k in range(8)], [k == i for k in range(8)])
        for i in range(4)
    ]

    def run() -> Evaluation:
        return evaluate(
            QUICK, tmp_path / "reward", tmp_path / "steps", pairs, samples, gold(12), 0, pairs
        )

    done = run()
    for name, (low, high) in done.intervals.items():
        assert 0 <= low <= done.figures[name] <= high <= 1, name
    wanted = {
        "pair_accuracy", "ece_pairs", "brier_pairs", "policy_accuracy", "best_of_8_reward",
        "best_of_8_steps", "best_of_8_accuracy", "oracle_best_of_8", "first_error_f1",
        "first_error_f1_chance", "first_error_f1_last_step", "ece", "brier",
    }  # fmt: skip
    assert wanted == set(done.intervals)
    assert done.figures["policy_accuracy"] == 0.125 and done.figures["oracle_best_of_8"] == 1.0
    assert run() == done
