import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from annotation.aggregate import AggregateConfig, Method, aggregate, posteriors
from schemas.errors import SchemaError
from schemas.records import HumanLabel, Pair
from schemas.table import validate
from tests.annotation.votes import crowd, table, vote

pytest.importorskip("crowdkit")

METHODS: tuple[Method, ...] = ("majority", "dawid_skene", "one_coin", "mace", "bradley_terry")


def rows(labels: pa.Table) -> dict[str, dict[str, float]]:
    return {row["pair_id"]: row for row in labels.to_pylist()}


def pair(a: str, b: str) -> Pair:
    return Pair(prompt_id="q", response_a=a, response_b=b)


def right_share(labels: pa.Table, truth: dict[str, float]) -> float:
    return float(np.mean([np.sign(r["value"]) == truth[r["pair_id"]] for r in labels.to_pylist()]))


@pytest.mark.parametrize("method", METHODS)
def test_labels_are_sound_and_the_same_in_any_order(method: Method) -> None:
    pairs = [pair(f"r{i}", f"r{i + 1}") for i in range(12)]
    rng = np.random.default_rng(1)
    votes = [
        vote(p.id, f"j{j}", float(rng.choice([-1, -1 / 3, 0, 2 / 3, 1])))
        for p in pairs
        for j in range(4)
    ]
    known = Pair.to_table(pairs)
    config = AggregateConfig(method=method, pool_below=2, iterations=20)
    labels = aggregate(table(votes), config, pairs=known)
    validate(HumanLabel, labels)
    assert labels["pair_id"].to_pylist() == sorted(p.id for p in pairs)
    assert set(labels["people"].to_pylist()) == {4}
    assert all(0 <= e <= 0.5 for e in labels["error"].to_pylist())
    again = aggregate(table(reversed(votes)), config, pairs=known)
    assert again["id"].to_pylist() == labels["id"].to_pylist()


def test_a_majority_is_the_mean_of_the_votes_and_its_error_that_of_the_margin() -> None:
    votes = [vote("p", "a", 1.0), vote("p", "b", 1 / 3), vote("p", "c", -1 / 3)]
    votes += [vote("q", "a", 0.0), vote("r", "a", None)]
    labels = rows(aggregate(table(votes), AggregateConfig(method="majority", error=0.1)))
    assert labels["p"]["value"] == pytest.approx(1 / 3)
    assert labels["p"]["error"] == pytest.approx(0.1)
    assert (labels["q"]["value"], labels["q"]["error"]) == (0.0, 0.5)
    assert "r" not in labels  # nobody could judge it


@pytest.mark.parametrize("method", ["dawid_skene", "one_coin", "mace"])
def test_models_of_people_know_whom_to_believe(method: Method) -> None:
    # Three who toss coins outvote two who know; the majority is lost.
    votes, truth = crowd(300, [0.95, 0.95, 0.5, 0.5, 0.5])
    majority = right_share(aggregate(votes, AggregateConfig(method="majority")), truth)
    model = right_share(aggregate(votes, AggregateConfig(method=method)), truth)
    assert majority < 0.86
    assert model > 0.93


@pytest.mark.parametrize("method", ["dawid_skene", "one_coin", "mace"])
def test_disagreement_softens(method: Method) -> None:
    votes, _ = crowd(200, [0.85] * 5)
    extra = [vote("agreed", f"j{j:03}", 1.0) for j in range(5)]
    extra += [vote("split", f"j{j:03}", 1.0 if j < 3 else -1.0) for j in range(5)]
    labels = rows(
        aggregate(pa.concat_tables([votes, table(extra)]), AggregateConfig(method=method))
    )
    assert labels["agreed"]["value"] > 0.98
    assert 0 < labels["split"]["value"] < labels["agreed"]["value"] - 0.02
    assert labels["agreed"]["error"] < labels["split"]["error"]


@pytest.mark.parametrize("method", METHODS)
def test_ties_soften_and_win_nothing(method: Method) -> None:
    p, q = pair("r1", "r2"), pair("r3", "r4")
    votes = [vote(p.id, f"j{j}", 1.0 if j else 0.0) for j in range(4)]
    votes += [vote(q.id, f"j{j}", 0.0) for j in range(4)]
    config = AggregateConfig(method=method, pool_below=1)
    labels = rows(aggregate(table(votes), config, pairs=Pair.to_table([p, q])))
    assert 0.2 < labels[p.id]["value"] <= 1
    assert labels[q.id]["value"] == pytest.approx(0.0, abs=1e-3)
    if method in ("majority", "one_coin", "bradley_terry"):
        assert labels[p.id]["value"] < 0.76
        assert labels[q.id]["error"] == 0.5


def test_people_with_few_votes_are_one_person() -> None:
    # 150 people of two votes each: 120 are right, 30 are wrong on purpose and too few to be found out.
    votes, truth = crowd(100, [0.8] * 150, each=3)
    alone = right_share(
        aggregate(votes, AggregateConfig(method="dawid_skene", pool_below=1)), truth
    )
    pooled = right_share(aggregate(votes, AggregateConfig(method="dawid_skene")), truth)
    majority = right_share(aggregate(votes, AggregateConfig(method="majority")), truth)
    assert alone < pooled == majority


def test_an_annotator_can_be_left_out() -> None:
    votes = [vote("p", "a", 1.0), vote("p", "b", -1.0), vote("q", "b", 1.0)]
    config = AggregateConfig(method="majority")
    labels = rows(aggregate(table(votes), config, without=["b"]))
    assert list(labels) == ["p"]
    assert (labels["p"]["value"], labels["p"]["people"]) == (1.0, 1)


def test_the_last_vote_counts_and_other_judges_do_not() -> None:
    machine = vote("p", "m", -1.0).model_copy(update={"judge_kind": "llm"})
    rating = vote("p", "a", -1.0).model_copy(update={"unit_kind": "response"})
    votes = [vote("p", "a", -1.0), machine, vote("p", "a", 2 / 3), rating]
    labels = rows(aggregate(table(votes), AggregateConfig(method="majority")))
    assert (labels["p"]["value"], labels["p"]["people"]) == (2 / 3, 1)


def test_purpose_and_propensity_come_along() -> None:
    asked = pl.DataFrame(
        {
            "pair_id": ["p", "p", "q"],
            "purpose": ["value", "audit", "gold"],
            "propensity": [1.0, 0.25, 0.5],
        }
    ).to_arrow()
    votes = [vote(unit, "a", 1.0) for unit in "pqr"]
    labels = rows(aggregate(table(votes), AggregateConfig(method="majority"), asked=asked))
    found = {k: (row["purpose"], row["propensity"]) for k, row in labels.items()}
    assert found == {"p": ("audit", 0.25), "q": ("gold", 0.5), "r": ("value", 1.0)}


def test_bradley_terry_carries_over_from_other_pairs() -> None:
    pairs = [pair("best", "middle"), pair("middle", "worst"), pair("best", "worst"), pair("x", "y")]
    votes = [vote(p.id, f"j{j}", 1.0) for p in pairs[:2] for j in range(5)]
    votes += [vote(pairs[2].id, "j0", -1.0), vote(pairs[3].id, "j0", 1.0)]
    known = Pair.to_table(pairs)
    labels = rows(aggregate(table(votes), AggregateConfig(method="bradley_terry"), pairs=known))
    # One slip against what ten votes say of the two.
    assert labels[pairs[2].id]["value"] > 0.5
    # One vote and half a win to either side: 3 to 1.
    assert labels[pairs[3].id]["value"] == pytest.approx(0.5, abs=1e-3)


def test_noisy_bradley_terry_leaves_the_process_generator_alone() -> None:
    pairs = [pair("best", "middle"), pair("worst", "middle"), pair("best", "worst")]
    votes = [
        vote(p.id, f"j{j}", v)
        for p, v in zip(pairs, (1.0, -1.0, 1.0), strict=True)
        for j in range(5)
    ]
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    config = AggregateConfig(method="noisy_bradley_terry")
    labels = aggregate(table(votes), config, pairs=Pair.to_table(pairs))
    assert np.random.random() == expected
    found = rows(labels)
    assert found[pairs[0].id]["value"] > 0 > found[pairs[1].id]["value"]


def test_bradley_terry_needs_the_pairs() -> None:
    config = AggregateConfig(method="bradley_terry")
    with pytest.raises(SchemaError, match="needs the pairs"):
        aggregate(table([vote("p", "a", 1.0)]), config)
    with pytest.raises(SchemaError, match="pair p is not among the pairs"):
        aggregate(table([vote("p", "a", 1.0)]), config, pairs=Pair.to_table([pair("x", "y")]))


@pytest.mark.parametrize("method", METHODS)
def test_no_votes_are_no_labels(method: Method) -> None:
    labels = aggregate(table([]), AggregateConfig(method=method), pairs=Pair.to_table([]))
    assert labels.schema == HumanLabel.arrow_schema()
    assert len(labels) == 0


def test_without_the_extra_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['crowdkit'] = None; sys.modules['crowdkit.aggregation'] = None\n"
        "from annotation.aggregate import AggregateConfig, aggregate\n"
        "from tests.annotation.votes import table, vote\n"
        "aggregate(table([vote('p', 'a', 1.0)]), AggregateConfig(method='majority'))\n"
        "aggregate(table([vote('p', 'a', 1.0)]), AggregateConfig())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'prefinery[review]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("method", METHODS)
def test_posteriors_leave_room_for_neither(method: Method) -> None:
    p = pair("r1", "r2")
    votes = [vote(p.id, "j0", 1.0), vote(p.id, "j1", 1.0), vote(p.id, "j2", 0.0)]
    config = AggregateConfig(method=method)
    (row,) = posteriors(table(votes), config, Pair.to_table([p])).to_pylist()
    assert row["pair_id"] == p.id
    assert 0 <= row["b"] < row["a"]
    assert row["a"] + row["b"] <= 1 + 1e-9
