import numpy as np
import pytest

from annotation.quality import Quality, QualityConfig, quality
from tests.annotation.votes import crowd, table, vote


def of(found: Quality, judge: str) -> dict[str, object]:
    return next(row for row in found.annotators.to_pylist() if row["judge"] == judge)


def test_gold_questions_measure_who_answers() -> None:
    votes, truth = crowd(60, [0.95, 0.6, 0.1], seed=3)
    found = quality(votes, QualityConfig(), gold=truth)
    for judge, accuracy in (("j000", 0.95), ("j001", 0.6), ("j002", 0.1)):
        row = of(found, judge)
        assert row["gold_asked"] == 60
        assert row["gold_accuracy"] == row["gold_right"] / 60  # type: ignore[operator]
        assert row["gold_low"] <= accuracy <= row["gold_high"]  # type: ignore[operator]
    assert of(found, "j002")["flags"] == "gold_below_chance"
    assert of(found, "j000")["flags"] == ""


def test_wilsons_interval() -> None:
    votes = [vote(f"p{i}", "a", 1.0 if i < 8 else -1.0) for i in range(10)]
    found = quality(table(votes), QualityConfig(), gold={f"p{i}": 1.0 for i in range(10)})
    row = of(found, "a")
    assert row["gold_accuracy"] == 0.8
    assert (row["gold_low"], row["gold_high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert row["rest_accuracy"] is None and row["rest_asked"] == 0  # nobody else answered


def test_nobody_is_measured_against_their_own_vote() -> None:
    votes = [vote("p", "a", 1.0), vote("p", "b", 1.0), vote("p", "c", -1.0)]
    found = quality(table(votes), QualityConfig())
    # The others of a are split, those of c agree.
    assert (of(found, "a")["rest_asked"], of(found, "b")["rest_asked"]) == (0, 0)
    assert (of(found, "c")["rest_right"], of(found, "c")["rest_asked"]) == (0, 1)


def test_position_bias_is_of_what_was_shown_first() -> None:
    votes = []
    for i in range(40):
        order = "ab" if i % 2 else "ba"
        first = 1.0 if order == "ab" else -1.0
        votes += [vote(f"p{i}", "lazy", first, order), vote(f"p{i}", "fair", 1.0, order)]
    votes.append(vote("q", "lazy", 0.0, "ab"))  # a tie is no side
    found = quality(table(votes), QualityConfig())
    lazy, fair = of(found, "lazy"), of(found, "fair")
    assert (lazy["first_share"], lazy["first_asked"], lazy["flags"]) == (1.0, 40, "position_bias")
    assert (fair["first_share"], fair["flags"]) == (0.5, "")
    assert found.first_share is not None and found.first_share[0] == 0.75


def test_times_that_stand_out() -> None:
    rng = np.random.default_rng(0)
    times = np.exp(rng.normal(3.5, 0.4, 200))
    votes = [vote(f"p{i:03}", "a", 1.0, seconds=float(t)) for i, t in enumerate(times)]
    votes += [vote("fast", "b", 1.0, seconds=1.0), vote("slow", "c", 1.0, seconds=3600.0)]
    votes += [vote("none", "b", 1.0), vote("zero", "b", 1.0, seconds=0.0)]
    found = quality(table(votes), QualityConfig())
    assert [(r["unit"], r["z"] > 0) for r in found.outliers.to_pylist()] == [
        ("fast", False),
        ("slow", True),
    ]
    assert of(found, "b")["flags"] == "fast"
    assert (of(found, "b")["fast"], of(found, "c")["slow"], of(found, "a")["fast"]) == (1, 1, 0)


def test_times_that_are_all_alike_have_no_outliers() -> None:
    votes = [vote(f"p{i}", "a", 1.0, seconds=5.0) for i in range(9)]
    votes.append(vote("q", "a", 1.0, seconds=50.0))
    assert len(quality(table(votes), QualityConfig()).outliers) == 0


def test_overlap_and_agreement() -> None:
    votes = [vote("p", j, 1.0) for j in "abc"] + [vote("q", j, -1 / 3) for j in "ab"]
    votes += [vote("r", "a", 1.0), vote("s", "a", None), vote("s", "b", 1.0)]
    found = quality(table(votes), QualityConfig())
    assert found.overlap.to_pylist() == [
        {"people": 1, "units": 2},
        {"people": 2, "units": 1},
        {"people": 3, "units": 1},
    ]
    assert [a.level for a in found.agreement] == ["nominal", "ordinal", "interval"]
    assert {a.alpha for a in found.agreement} == {1.0}
    assert {a.units for a in found.agreement} == {2}
    assert of(found, "a")["abstained"] == 1


def test_the_last_vote_of_a_person_counts_and_machines_do_not() -> None:
    machine = vote("p", "m", 1.0).model_copy(update={"judge_kind": "llm"})
    found = quality(table([vote("p", "a", -1.0), vote("p", "a", 1.0), machine]), QualityConfig())
    assert found.annotators["judge"].to_pylist() == ["a"]
    assert of(found, "a")["votes"] == 1


def test_no_votes() -> None:
    found = quality(table([]), QualityConfig())
    assert len(found.annotators) == len(found.outliers) == len(found.overlap) == 0
    assert found.first_share is None
    assert [a.alpha for a in found.agreement] == [None, None, None]
