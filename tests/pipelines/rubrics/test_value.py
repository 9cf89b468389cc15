from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.rubrics import scoring
from pipelines.rubrics.value import MARGINS, ValueConfig, binomial_test, ends, value
from schemas.records import Criterion, Pair, Rubric, RubricValue, Vote
from schemas.table import validate
from tests.pipelines.rows import criterion_vote

PROMPTS = 12


class World:
    """Pairs of `better<i>` and `worse<i>`, one a prompt unless told, and verdicts on them."""

    def __init__(self, pairs: int = PROMPTS, per_prompt: int = 1) -> None:
        self.pairs = []
        for i in range(pairs):
            # The better response is a in every other pair.
            sides = (f"better{i}", f"worse{i}") if i % 2 else (f"worse{i}", f"better{i}")
            self.pairs.append(
                Pair(
                    prompt_id=f"p{i // per_prompt}",
                    response_a=sides[0],
                    response_b=sides[1],
                    label="a" if i % 2 else "b",
                )
            )
        self.criteria: list[Criterion] = []
        self.votes: list[Vote] = []

    def add(self, name: str, gaps: str, kind: str = "principle") -> Criterion:
        """A criterion that is right (+), wrong (-), silent (0) or not judged (.) on each pair."""
        criterion = Criterion(kind=kind, text=name)
        self.criteria.append(criterion)
        for i, gap in enumerate(gaps):
            if gap != ".":
                self.say(f"better{i}", criterion, {"+": 1.0, "-": 0.0, "0": 0.5}[gap])
                self.say(f"worse{i}", criterion, {"+": 0.0, "-": 1.0, "0": 0.5}[gap])
        return criterion

    def say(self, unit: str, criterion: Criterion, said: float | None) -> None:
        self.votes.append(criterion_vote(unit, criterion.id, said))

    def value(self, rubrics=None, config=None, **more):
        rubrics = rubrics or [Rubric(criteria=tuple(c.id for c in self.criteria), method="m")]
        criteria, made = Criterion.to_table(self.criteria), Rubric.to_table(rubrics)
        votes, pairs = Vote.to_table(self.votes), Pair.to_table(self.pairs)
        units = sorted({v.unit for v in self.votes})
        responses = pa.table(
            {"id": units, "prompt_id": [self.prompt(u) for u in units]},
            schema=pa.schema([("id", pa.string()), ("prompt_id", pa.string())]),
        )
        scores = scoring.score(criteria, made, votes, responses, scoring.ScoringConfig())
        table = value(criteria, made, votes, scores, pairs, config or ValueConfig(), **more)
        validate(RubricValue, table)
        return {(r["rubric_id"], r["criterion_id"], r["judge"]): r for r in table.to_pylist()}

    def prompt(self, unit: str) -> str:
        pair = next(p for p in self.pairs if unit in (p.response_a, p.response_b))
        return pair.prompt_id

    def criterion_rows(self, **more):
        texts = {c.id: c.text for c in self.criteria}
        return {texts[c]: row for (_, c, _), row in self.value(**more).items() if c}


def base(world: World, hits: str) -> pa.Table:
    """Pair votes by a judge without a rubric: right, wrong or silent."""
    votes = []
    for pair, hit in zip(world.pairs, hits, strict=True):
        side = {"+": 1.0, "-": -1.0, "0": 0.0}[hit] * (1.0 if pair.label == "a" else -1.0)
        votes.append(
            Vote(unit=pair.id, unit_kind="pair", judge="plain", judge_kind="llm", value=side)
        )
    return Vote.to_table(votes)


def test_every_reason_and_its_action() -> None:
    world = World()
    world.add("helps", "+" * 12)
    world.add("misleads", "-" * 12)
    world.add("chance", "+-" * 6)
    world.add("silent", "0" * 12)
    world.add("rare", "+" * 9 + "...")
    rows = world.criterion_rows()
    assert {name: (row["action"], row["reason"]) for name, row in rows.items()} == {
        "helps": ("keep", "helps"),
        "misleads": ("flip", "misleads"),
        "chance": ("retire", "no_evidence"),
        "silent": ("retire", "never_separates"),
        "rare": ("retire", "too_few_pairs"),
    }
    assert [rows["rare"][key] for key in ("pairs", "prompts", "agreement")] == [9, 9, 1.0]
    assert [rows["silent"][key] for key in ("separates", "agreement", "value")] == [0.0, None, 0.0]


def test_a_criterion_that_only_some_pairs_show_has_its_share_agreement_and_interval() -> None:
    world = World(20)
    world.add("some", "+" * 9 + "-" + "0" * 10)
    row = world.criterion_rows()["some"]
    assert (row["pairs"], row["prompts"], row["separates"]) == (20, 20, 0.5)
    assert row["agreement"] == pytest.approx(0.9)
    assert row["value"] == pytest.approx(0.5 * (0.9 - 0.5))
    # One pair a prompt: the variance is that of independent pairs, less what few prompts cost.
    assert 0.5 * (0.4) < row["high"] < 0.25
    assert -0.1 < row["low"] < 0.5 * (0.596 - 0.5), "Wilson of 9 in 10 is [.596, .982]"


def test_a_pitfall_and_a_negative_weight_count_against() -> None:
    world = World()
    world.add("fault", "-" * 12, "pitfall")
    assert world.criterion_rows()["fault"]["reason"] == "helps"


def test_pairs_of_one_prompt_that_are_all_alike_count_as_one() -> None:
    config = ValueConfig(min_prompts=1)
    world = World(24, per_prompt=8)
    world.add("alike", "+" * 24)
    row = world.criterion_rows(config=config)["alike"]
    assert (row["pairs"], row["prompts"], row["reason"]) == (24, 3, "no_evidence")
    low, high = ends(np.array([1.0]), np.array([3.0]))
    assert (row["low"], row["high"]) == (pytest.approx(low[0] - 0.5), pytest.approx(high[0] - 0.5))
    apart = World(24)
    apart.add("apart", "+" * 24)
    assert apart.criterion_rows()["apart"]["reason"] == "helps"
    assert world.criterion_rows()["alike"]["reason"] == "too_few_pairs", "3 prompts are few"


def test_pairs_without_a_side_are_not_pairs() -> None:
    world = World()
    world.add("c", "+" * 12)
    world.pairs = [
        p if i > 1 else p.model_copy(update={"label": (None, "tie")[i]})
        for i, p in enumerate(world.pairs)
    ]
    assert world.criterion_rows()["c"]["pairs"] == 10


def test_pairs_that_a_rubric_was_made_from_do_not_prove_it() -> None:
    world = World(14)
    c = world.add("c", "+" * 14)
    made = tuple(p.id for p in world.pairs[:5])
    own, free = (
        Rubric(criteria=(c.id,), method="own", pairs=made),
        Rubric(criteria=(c.id,), method="free"),
    )
    rows = world.value([own, free])
    assert {key[:2]: row["pairs"] for key, row in rows.items()} == {
        (own.id, None): 9,
        (own.id, c.id): 9,
        (free.id, None): 14,
        (free.id, c.id): 14,
    }
    assert rows[own.id, None, "j"]["reason"] == "too_few_pairs"


def test_a_rubric_of_a_prompt_is_tested_on_its_pairs_alone() -> None:
    world = World(12, per_prompt=3)
    c = world.add("c", "+" * 12)
    rubric = Rubric(criteria=(c.id,), method="m", prompt_id="p1")
    lost = Rubric(criteria=(c.id,), method="m", prompt_id="elsewhere")
    rows = world.value([rubric, lost])
    assert [rows[rubric.id, x, "j"]["pairs"] for x in (None, c.id)] == [3, 3]
    assert [rows[lost.id, x, "j"]["pairs"] for x in (None, c.id)] == [0, 0]
    assert rows[lost.id, c.id, "j"]["value"] is None


def test_one_criterion_in_many_found_by_chance_is_not_kept() -> None:
    # 11 of 12 has p = .006: enough for one criterion, to be expected once among 41 or so.
    alone, among = World(), World()
    alone.add("lucky", "+" * 11 + "-")
    among.add("lucky", "+" * 11 + "-")
    for i in range(40):
        among.add(f"chance {i}", "+-" * 6)
    assert alone.criterion_rows()["lucky"]["reason"] == "helps"
    assert among.criterion_rows()["lucky"]["reason"] == "no_evidence"
    assert among.criterion_rows()["lucky"]["low"] > 0


def test_a_rubric_as_a_whole_is_worth_what_its_scores_are() -> None:
    world = World()
    good, bad = world.add("good", "+" * 12), world.add("bad", "-" * 12)
    heavy = bad.model_copy(update={"weight": 3.0})
    world.criteria.append(heavy)
    world.votes += [
        v.model_copy(update={"criterion": heavy.id}) for v in world.votes if v.criterion == bad.id
    ]
    light = Rubric(criteria=(good.id,), method="m")
    wrong = Rubric(criteria=(good.id, heavy.id), method="m")
    rows = world.value([light, wrong])
    assert (rows[light.id, None, "j"]["reason"], rows[light.id, None, "j"]["value"]) == (
        "helps",
        0.5,
    )
    assert rows[wrong.id, None, "j"]["reason"] == "misleads"
    assert rows[wrong.id, good.id, "j"]["reason"] == "helps"


def test_worse_than_a_baseline_is_retired_and_not_flipped_where_the_direction_is_right() -> None:
    world = World(24)
    world.add("weak", "+" * 14 + "-" * 10)
    world.add("strong", "+" * 24)
    world.add("wrong", "-" * 24)
    rows = world.criterion_rows(baseline=base(world, "+" * 24))
    assert {n: (r["action"], r["reason"], r["value"]) for n, r in rows.items()} == {
        "weak": ("retire", "worse_than_baseline", pytest.approx(-10 / 24)),
        "strong": ("retire", "no_evidence", 0.0),
        "wrong": ("flip", "misleads", -1.0),
    }
    rows = world.criterion_rows(baseline=base(world, "0" * 24))
    assert rows["strong"]["reason"] == "helps" and rows["strong"]["value"] == 0.5
    rows = world.criterion_rows(baseline=base(world, "-" * 24))
    assert (rows["strong"]["value"], rows["strong"]["reason"]) == (1.0, "helps")
    assert (rows["wrong"]["value"], rows["wrong"]["reason"]) == (0.0, "no_evidence")


def margins(world: World, rubric: Rubric, gains) -> pa.Table:
    """m0 = 1 towards the right side, and m = m0 + gain."""
    rows = []
    for pair, gain in zip(world.pairs, gains, strict=True):
        sign = 1.0 if pair.label == "a" else -1.0
        rows.append(
            {
                "rubric_id": rubric.id,
                "pair_id": pair.id,
                "judge": "asked",
                "with_rubric": sign * (1.0 + gain),
                "without": sign,
            }
        )
    return pa.Table.from_pylist(rows, schema=MARGINS)


def test_log_odds_with_and_without_a_rubric_are_its_value_in_nats() -> None:
    world = World()
    c = world.add("c", "+" * 12)
    rubric = Rubric(criteria=(c.id,), method="m")
    gains = [0.5 + 0.1 * (i % 3) for i in range(12)]
    rows = world.value([rubric], margins=margins(world, rubric, gains))
    row = rows[rubric.id, None, "asked"]
    assert row["value"] == pytest.approx(0.6)
    error = np.std(gains, ddof=1) / math.sqrt(12)
    assert row["high"] - row["low"] == pytest.approx(2 * 2.200985 * error, rel=1e-5)
    assert (row["action"], row["reason"], row["agreement"]) == ("keep", "helps", 1.0)
    assert (rubric.id, None, "j") in rows and (rubric.id, c.id, "asked") not in rows


def test_a_rubric_that_turns_a_judge_round_misleads_and_one_that_weakens_it_is_retired() -> None:
    world = World()
    c = world.add("c", "+" * 12)
    rubric = Rubric(criteria=(c.id,), method="m")
    wobble = [0.1 * (i % 3) for i in range(12)]
    for shift, action, reason in (
        (-3.0, "flip", "misleads"),
        (-0.5, "retire", "worse_than_baseline"),
        (-0.1, "retire", "no_evidence"),
    ):
        table = margins(world, rubric, [shift + w for w in wobble])
        row = world.value([rubric], margins=table)[rubric.id, None, "asked"]
        assert (row["action"], row["reason"]) == (action, reason)


def test_the_interval_and_the_test_are_those_of_the_textbook() -> None:
    low, high = ends(np.array([0.9, 1.0, 0.5]), np.array([10.0, 3.0, 0.0]))
    assert low == pytest.approx([0.59585, 0.43850, 0.0], abs=1e-5)
    assert high == pytest.approx([0.98212, 1.0, 1.0], abs=1e-5)
    p = binomial_test(np.array([1.0, 10 / 12, 0.5, 0.0, 0.5]), np.array([10.0, 12, 12, 6, 0]))
    assert p == pytest.approx([2 / 1024, 2 * 79 / 4096, 1.0, 2 / 64, 1.0])


def test_nothing_to_test_gives_no_rows_and_no_error() -> None:
    empty = value(
        Criterion.to_table([]),
        Rubric.to_table([]),
        Vote.to_table([]),
        scoring.SCHEMA.empty_table(),
        Pair.to_table([]),
        ValueConfig(),
    )
    assert empty.num_rows == 0
    validate(RubricValue, empty)


def test_chance_criteria_are_seldom_flipped_though_pairs_of_a_prompt_agree() -> None:
    rng = np.random.default_rng(3)
    world = World(60, per_prompt=5)
    for i in range(200):
        alike = np.where(
            rng.random(60) < 0.5, np.repeat(rng.random(12) < 0.5, 5), rng.random(60) < 0.5
        )
        world.add(f"c{i}", "".join("+" if hit else "-" for hit in alike))
    rows = world.criterion_rows().values()
    assert sum(row["action"] != "retire" for row in rows) <= 2
    outside = sum(row["low"] > 0 or row["high"] < 0 for row in rows)
    assert outside <= 200 * 0.09, "95% intervals that hold 0 about as often as they say"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("+-0.", min_size=12, max_size=12), min_size=1, max_size=6))
def test_an_inverted_criterion_is_its_mirror(gaps: list[str]) -> None:
    plain, turned = World(12, 2), World(12, 2)
    for i, row in enumerate(gaps):
        plain.add(f"c{i}", row)
        turned.add(f"c{i}", row.translate(str.maketrans("+-", "-+")))
    config = ValueConfig(min_pairs=1, min_prompts=1)
    one, other = plain.criterion_rows(config=config), turned.criterion_rows(config=config)
    for name, row in one.items():
        mirror = other[name]
        assert row["separates"] == mirror["separates"]
        if row["agreement"] is not None:
            assert row["agreement"] == pytest.approx(1 - mirror["agreement"])
        if row["value"] is not None:
            assert row["value"] == pytest.approx(-mirror["value"])
            assert (row["low"], row["high"]) == pytest.approx((-mirror["high"], -mirror["low"]))
        if row["action"] == "flip":
            assert row["high"] < 0 and mirror["action"] == "keep"


def test_the_same_rows_in_another_order_give_the_same_bytes() -> None:
    world = World(12, 3)
    for i in range(5):
        world.add(f"c{i}", ("+-0+" * 3)[i:] + ("+-0+" * 3)[:i])
    rubric = [Rubric(criteria=tuple(c.id for c in world.criteria), method="m")]
    first = world.value(rubric)
    world.votes.reverse()
    world.pairs.reverse()
    world.criteria.reverse()
    assert world.value(rubric) == first
