"""The truth table of rule majority-1."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.consistency.decide import RULE, DecideConfig, decide
from pipelines.durable import write_table
from schemas.records import Decision, Pair, Vote
from schemas.table import validate
from tests.pipelines.rows import vote

ROOT = Path(__file__).parents[3]


def pair(label: Any = "a", name: str = "p") -> Pair:
    return Pair(prompt_id=name, response_a="x", response_b="y", label=label)


def decided(label: Any, *values: float | None, **config: Any) -> Decision:
    """The decision on a pair with this label and a vote of each judge."""
    one = pair(label)
    votes = [vote(one, f"judge {i}", value) for i, value in enumerate(values)]
    return decide_all([one], votes, **config)[0]


def decide_all(pairs: list[Pair], votes: list[Vote], **config: Any) -> list[Decision]:
    table = decide(Pair.to_table(pairs), Vote.to_table(votes), DecideConfig(**config))
    validate(Decision, table)
    return list(Decision.from_table(table))


# label, votes, action, reason, probability, target (that a is better), margin
TABLE = [
    # the majority agrees, by a wide margin
    ("a", (1.0, 0.5, 0.75), "keep", "majority_agrees", 4 / 5, 4 / 5, 0.75),
    ("b", (-1.0, -0.5, -0.75), "keep", "majority_agrees", 4 / 5, 1 / 5, 0.75),
    ("a", (1.0, 1.0, -0.5), "keep", "majority_agrees", 3 / 5, 3 / 5, 0.5),
    # ... by a small one, or one against the mean
    ("a", (0.25, 0.25), "soften", "small_margin", 3 / 4, 3 / 4, 0.25),
    ("b", (-0.25, -0.25), "soften", "small_margin", 3 / 4, 1 / 4, 0.25),
    ("a", (0.125, 0.125, -1.0), "soften", "small_margin", 3 / 5, 3 / 5, -0.25),
    # the majority disagrees, widely
    ("a", (-1.0, -0.5, -0.75), "flip", "majority_disagrees", 4 / 5, 1 / 5, 0.75),
    ("b", (1.0, 0.5, 0.75), "flip", "majority_disagrees", 4 / 5, 4 / 5, 0.75),
    ("a", (-1.0, -1.0, 0.5), "flip", "majority_disagrees", 3 / 5, 2 / 5, 0.5),
    # ... a little
    ("a", (-0.25, -0.25), "route", "disputed", 1 / 4, 1 / 4, -0.25),
    ("b", (0.25, 0.25), "route", "disputed", 1 / 4, 3 / 4, -0.25),
    # as many on either side
    ("a", (1.0, -0.5), "route", "disputed", 1 / 2, 1 / 2, 0.25),
    ("b", (1.0, -0.5), "route", "disputed", 1 / 2, 1 / 2, -0.25),
    # a 0 and a missing vote take no side; a 0 counts in the mean, a missing one does not
    ("a", (1.0, 1.0, 0.0, 0.0), "keep", "majority_agrees", 3 / 4, 3 / 4, 0.5),
    ("a", (1.0, 1.0, None, None), "keep", "majority_agrees", 3 / 4, 3 / 4, 1.0),
    # too few that took a side
    ("a", (1.0,), "drop", "few_votes", 2 / 3, 2 / 3, 1.0),
    ("b", (1.0,), "drop", "few_votes", 1 / 3, 2 / 3, -1.0),
    ("a", (1.0, 0.0, None), "drop", "few_votes", 2 / 3, 2 / 3, 0.5),
    ("a", (None, None), "drop", "few_votes", 1 / 2, 1 / 2, 0.0),
    ("a", (), "drop", "few_votes", 1 / 2, 1 / 2, 0.0),
    # a tie has no better side
    ("tie", (1.0, 1.0, 1.0), "drop", "tie", 1 / 5, 4 / 5, 0.0),
    ("tie", (), "drop", "tie", 1 / 2, 1 / 2, 0.0),
    # without a label the majority gives it
    (None, (1.0, 0.5), "keep", "majority_agrees", 3 / 4, 3 / 4, 0.75),
    (None, (-1.0, -0.5), "keep", "majority_agrees", 3 / 4, 1 / 4, 0.75),
    (None, (0.125, 0.25, -1.0), "soften", "small_margin", 3 / 5, 3 / 5, -0.625 / 3),
    (None, (1.0, -1.0), "drop", "tie", 1 / 2, 1 / 2, 0.0),
    (None, (-1.0,), "drop", "few_votes", 2 / 3, 1 / 3, 1.0),
    (None, (None,), "drop", "few_votes", 1 / 2, 1 / 2, 0.0),
    (None, (), "drop", "few_votes", 1 / 2, 1 / 2, 0.0),
]


@pytest.mark.parametrize(
    ("label", "values", "action", "reason", "probability", "target", "margin"), TABLE
)
def test_truth_table(
    label: Any,
    values: tuple[float | None, ...],
    action: str,
    reason: str,
    probability: float,
    target: float,
    margin: float,
) -> None:
    decision = decided(label, *values)
    assert (decision.pair_id, decision.rule) == (pair(label).id, RULE)
    assert (decision.action, decision.reason) == (action, reason)
    assert decision.probability == pytest.approx(probability)
    assert decision.target == pytest.approx(target)
    assert decision.margin == pytest.approx(margin)


@pytest.mark.parametrize(("label", "values"), [(row[0], row[1]) for row in TABLE])
def test_what_is_decided_does_not_depend_on_which_response_stands_first(
    label: Any, values: tuple[float | None, ...]
) -> None:
    turned_label = {"a": "b", "b": "a"}.get(label, label)
    one = decided(label, *values)
    turned = decided(turned_label, *(None if v is None else -v for v in values))
    assert (turned.action, turned.reason) == (one.action, one.reason)
    assert turned.target == pytest.approx(1 - one.target)
    if label != "tie":
        assert turned.probability == pytest.approx(one.probability)
    assert turned.margin == pytest.approx(one.margin)


def test_the_probability_is_of_the_label_after_the_action() -> None:
    for label, values, action, *_ in TABLE:
        decision = decided(label, *values)
        if action in ("keep", "soften", "flip"):
            stands_for_a = (label or ("a" if decision.target > 0.5 else "b")) == "a"
            if action == "flip":
                stands_for_a = not stands_for_a
            of_a = decision.probability if stands_for_a else 1 - decision.probability
            assert of_a == pytest.approx(decision.target)


@pytest.mark.parametrize(
    ("label", "values", "config", "action"),
    [
        ("a", (0.25, 0.25), {"keep_margin": 0.25}, "keep"),
        ("a", (-0.25, -0.25), {"flip_margin": 0.25}, "flip"),
        ("a", (-0.25, -0.25), {"route": False}, "drop"),
        ("a", (1.0,), {"min_votes": 1}, "keep"),
        ("a", (1.0, 1.0), {"min_votes": 3}, "drop"),
    ],
)
def test_settings(
    label: Any, values: tuple[float, ...], config: dict[str, Any], action: str
) -> None:
    assert decided(label, *values, **config).action == action


def test_both_orders_of_a_judge_are_one_vote() -> None:
    one = pair("a")
    swayed = [vote(one, "llm", 1.0, "ab"), vote(one, "llm", -1.0, "ba")]
    steady = [vote(one, "two", 1.0, "ab"), vote(one, "two", 0.5, "ba")]
    half = [vote(one, "three", 0.5, "ab"), vote(one, "three", None, "ba")]
    (decision,) = decide_all([one], [*swayed, *steady, *half])
    assert decision.probability == 3 / 4  # two took a side, the swayed one none
    assert decision.margin == pytest.approx((0.0 + 0.75 + 0.5) / 3)


def test_votes_on_other_units_and_other_pairs_do_not_count() -> None:
    one, other = pair("a", "one"), pair("a", "other")
    on_response = Vote(unit=one.id, unit_kind="response", judge="j", judge_kind="code", value=-1.0)
    votes = [vote(other, name, -1.0) for name in "xyz"]
    votes += [on_response, *(vote(one, name, 1.0) for name in "xy")]
    assert [(d.pair_id, d.action) for d in decide_all([one, other], votes)] == [
        (one.id, "keep"),
        (other.id, "flip"),
    ]


def test_one_row_a_pair_in_the_pairs_order() -> None:
    pairs = [pair("a", f"p{i}") for i in range(50)]
    votes = [vote(one, name, 1.0) for one in pairs[::2] for name in "xy"]
    decisions = decide_all(pairs, votes[::-1])
    assert [d.pair_id for d in decisions] == [one.id for one in pairs]
    assert [d.reason for d in decisions] == ["majority_agrees", "few_votes"] * 25
    assert decide_all([], []) == []


def big() -> tuple[pa.Table, pa.Table]:
    """Pairs with votes whose float sums depend on the order they are added in."""
    pairs = [pair("ab"[i % 2], f"p{i}") for i in range(300)]
    votes = [
        vote(one, f"judge {j}", ((i * 7 + j * 13) % 97 - 48) / 49.7 / 3**j, order)
        for i, one in enumerate(pairs)
        for j in range(9)
        for order in ("ab", "ba")
    ]
    return Pair.to_table(pairs), Vote.to_table(votes)


def test_bytes_are_equal_in_every_process_and_for_every_order_of_the_votes(tmp_path: Path) -> None:
    pairs, votes = big()
    turned = votes.take(list(range(len(votes)))[::-1])
    chunked = pa.concat_tables([votes.slice(0, 1001), votes.slice(1001)])
    hashes = {
        write_table(tmp_path / f"{i}", decide(pairs, given, DecideConfig())).sha256
        for i, given in enumerate([votes, votes, turned, chunked])
    }
    assert len(hashes) == 1
    code = (
        "import sys, pathlib; from tests.pipelines.consistency.test_decide import *;"
        "print(write_table(pathlib.Path(sys.argv[1]), decide(*big(), DecideConfig())).sha256)"
    )
    for threads in ("1", "3"):
        environment = {**os.environ, "POLARS_MAX_THREADS": threads, "PYTHONHASHSEED": threads}
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"other{threads}")],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(run.stdout.strip())
    assert hashes == {hashlib.sha256((tmp_path / "0").read_bytes()).hexdigest()}
