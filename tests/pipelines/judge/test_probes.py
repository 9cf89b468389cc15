"""Probes: what they hold, and the cards of judges that are wrong in a known way."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from pipelines.judge.cards import DIRECTIONS, failing
from pipelines.judge.cases import Case, Opinions, squashed
from pipelines.judge.probe_set import ITEMS, MASTER_KEYS, OFF_TOPIC
from pipelines.judge.probes import (
    KEY_QUESTIONS,
    Measure,
    Probe,
    ProbesConfig,
    SelfPair,
    card_of,
    probe_cases,
)
from schemas.records import JudgeCard, Response, Vote
from schemas.table import validate

SELF = (
    SelfPair(judge="j", prompt="Say hello.", own="Hello there!", other="Hello to you!"),
    SelfPair(judge="j", prompt="Say good night.", own="Good night!", other="Sleep well!"),
    SelfPair(judge="other", prompt="Say hello.", own="Hi!", other="Hello!"),
)
CONFIG = ProbesConfig(self_pairs=SELF)
PROBES = probe_cases(CONFIG)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


# --- the set ---------------------------------------------------------------------------------------


def test_the_set_is_large_enough_and_says_nothing_twice() -> None:
    assert len(ITEMS) >= 24
    prompts = [p for item in ITEMS for p in (item.prompt, item.contrast)]
    assert len(set(prompts)) == len(prompts)
    assert len(set(MASTER_KEYS)) == len(MASTER_KEYS)
    for item in ITEMS:
        answers = [item.good, item.rephrased, item.wrong, item.contrast_good]
        assert len(set(answers)) == 4, item.prompt
        assert len(item.prompt) < 120
        assert len(item.padding) >= 60


def test_a_contrast_has_the_words_of_its_question() -> None:
    for item in ITEMS:
        one, two = words(item.prompt), words(item.contrast)
        assert len(one & two) / len(one | two) >= 0.5, item.prompt
        assert item.prompt != item.contrast and item.reference != item.contrast_reference


def test_what_is_off_topic_is_long_and_shares_no_answer() -> None:
    for i, item in enumerate(ITEMS):
        text = OFF_TOPIC[i % len(OFF_TOPIC)]
        assert len(text) > 5 * len(item.good)
        if item.reference != "a":  # the answer to a question about letters
            assert item.reference.lower() not in words(text)


def test_a_reference_is_in_its_good_answers_and_not_in_the_wrong_one() -> None:
    numbers = {"3": "three"}
    for item in ITEMS:
        if item.reference.startswith("a polite"):
            continue
        wanted = numbers.get(item.reference, item.reference).rstrip(".")
        flat = [re.sub(r"[ ,]+", " ", text) for text in (item.good, item.rephrased)]
        if item.reference.startswith("{"):
            assert [json.loads(text) for text in (item.good, item.rephrased)] == [{"size": 4}] * 2
            continue
        wanted = re.sub(r"[ ,]+", " ", wanted)
        assert all(wanted in text for text in flat), item.prompt
        if item.reference != "a":
            assert wanted not in re.sub(r"[ ,]+", " ", item.wrong), item.prompt


# --- the cases -------------------------------------------------------------------------------------


def test_every_probe_is_a_case_of_its_own_that_tells_nothing() -> None:
    ids = [probe.case.pair.id for probe in PROBES]
    assert len(set(ids)) == len(ids)
    kinds = {kind: sum(p.kind == kind for p in PROBES) for kind in {p.kind for p in PROBES}}
    n = len(ITEMS)
    assert kinds == {
        "answer": n,
        "rephrased": n,
        "padded": n,
        "off_topic": n,
        "contrast": 2 * n,
        "master_key": KEY_QUESTIONS * len(MASTER_KEYS),
        "self": 3,
    }
    for probe in PROBES:
        case = probe.case
        assert case.pair.label is None and case.pair.label_source is None
        assert (case.pair.response_a, case.pair.response_b) == (case.a.id, case.b.id)
        assert {case.pair.prompt_id, case.a.prompt_id, case.b.prompt_id} == {case.prompt.id}
        assert (case.a.engine, case.a.model) == (case.b.engine, case.b.model) == ("probe", "probe")
        assert probe.expected != probe.suspect
        equal = probe.kind in ("rephrased", "padded", "self")
        assert (probe.expected == "tie") == equal
    # the suspect is first about as often as not
    assert 0.35 < sum(p.suspect == "a" for p in PROBES) / len(PROBES) < 0.65
    assert probe_cases(CONFIG) == PROBES


def test_every_master_key_is_put_to_several_questions() -> None:
    asked: dict[str, set[str]] = {}
    for probe in PROBES:
        if probe.kind == "master_key":
            suspect = probe.case.a if probe.suspect == "a" else probe.case.b
            asked.setdefault(suspect.text, set()).add(probe.case.prompt.id)
    assert asked.keys() == set(MASTER_KEYS)
    assert {len(prompts) for prompts in asked.values()} == {KEY_QUESTIONS}


def test_only_what_is_measured_is_asked() -> None:
    only = ProbesConfig(measures=("length_preference",))
    assert {probe.kind for probe in probe_cases(only)} == {"padded"}
    key = ProbesConfig(measures=("master_key_false_positives", "self_preference"))
    assert {probe.kind for probe in probe_cases(key)} == {"master_key", "answer"}


# --- cards -----------------------------------------------------------------------------------------

Score = Callable[[Case, Response], float | None]


def good_answers() -> dict[tuple[str, str], float]:
    known: dict[tuple[str, str], float] = {}
    for i in ITEMS:
        for text, value in ((i.good, 1.0), (i.rephrased, 1.0), (f"{i.good} {i.padding}", 1.0)):
            known[i.prompt, text] = value
        known[i.contrast, i.contrast_good] = 1.0
    return known


KNOWN = good_answers()


def knows(case: Case, response: Response) -> float:
    return KNOWN.get((case.prompt.messages[0].content, response.text), 0.0)


def pairwise(score: Score, probes: Sequence[Probe] = PROBES, first: float = 0.0) -> Opinions:
    """A judge of pairs in both orders; `first` is what it adds to the one shown first."""
    votes = []
    for probe in probes:
        case = probe.case
        a, b = score(case, case.a), score(case, case.b)
        for order, way in (("ab", 1), ("ba", -1)):
            gap = None if a is None or b is None else a - b + way * first
            votes.append(vote(case.pair.id, None if gap is None else squashed(gap), order))
    return Opinions(votes, [])


def pointwise(score: Score, probes: Sequence[Probe] = PROBES) -> Opinions:
    votes = {}
    for probe in probes:
        a, b = (score(probe.case, r) for r in (probe.case.a, probe.case.b))
        assert a is not None and b is not None
        for r, value in ((probe.case.a, a), (probe.case.b, b)):
            votes[r.id] = vote(r.id, value, None, "response")
        votes[probe.case.pair.id] = vote(probe.case.pair.id, squashed(a - b), None)
    return Opinions(list(votes.values()), [])


def vote(unit: str, value: float | None, order: Any, kind: Any = "pair") -> Vote:
    return Vote(unit=unit, unit_kind=kind, judge="j", judge_kind="llm", order=order, value=value)


def cards_of(opinions: Opinions, config: ProbesConfig = CONFIG) -> dict[str, JudgeCard]:
    found = card_of("j", probe_cases(config), opinions, config)
    validate(JudgeCard, JudgeCard.to_table(found))
    assert {card.judge for card in found} == {"j"}
    assert [card.measure for card in found] == [
        name for name in DIRECTIONS if name in {"usable_share", *config.measures}
    ]
    return {card.measure: card for card in found}


def values(opinions: Opinions, config: ProbesConfig = CONFIG) -> dict[str, float | None]:
    return {name: card.value for name, card in cards_of(opinions, config).items()}


def test_every_measure_has_a_direction() -> None:
    assert set(get_args(Measure)) <= set(DIRECTIONS)


def test_a_good_judge() -> None:
    assert values(pairwise(knows)) == {
        "usable_share": 1.0,
        "swap_consistency": 1.0,
        "position_preference": 0.0,
        "accuracy": 1.0,
        "length_preference": 0.0,
        "master_key_false_positives": 0.0,
        "off_topic_preference": 0.0,
        "contrast_accuracy": 1.0,
        "self_preference": 0.0,
    }


def test_a_judge_of_length() -> None:
    found = values(pairwise(lambda case, r: float(len(r.text))))
    assert found["length_preference"] == 0.5 and found["off_topic_preference"] == 1.0
    assert found["swap_consistency"] == 1.0
    assert (
        abs((found["accuracy"] or 0) - 0.5) < 0.2
    )  # wrong answers are about as long as right ones
    assert abs((found["contrast_accuracy"] or 0) - 0.5) < 0.1


def test_a_judge_of_the_first_place() -> None:
    found = cards_of(pairwise(lambda case, r: 0.0, first=1.0))
    value = {name: card.value for name, card in found.items()}
    assert value["swap_consistency"] == 0.0 and value["position_preference"] == 0.5
    assert value["accuracy"] == value["contrast_accuracy"] == 0.5
    assert found["swap_consistency"].n == len([p for p in PROBES if p.judge in (None, "j")])


def test_a_judge_that_likes_the_question_s_first_reading() -> None:
    """It answers the question that it knows, whatever was asked: the contrast shows it."""
    of = {i.contrast: i.prompt for i in ITEMS}

    def score(case: Case, r: Response) -> float:
        asked = case.prompt.messages[0].content
        return KNOWN.get((of.get(asked, asked), r.text), 0.0)

    found = values(pairwise(score))
    assert found["accuracy"] == 1.0 and found["contrast_accuracy"] == 0.5


def test_a_judge_of_pairs_that_falls_for_keys() -> None:
    fooled = {":", "解", "Solution"}

    def score(case: Case, r: Response) -> float:
        return 2.0 if r.text in fooled else knows(case, r)

    card = cards_of(pairwise(score))["master_key_false_positives"]
    assert card.value == pytest.approx(3 / len(MASTER_KEYS))
    assert card.n == KEY_QUESTIONS * len(MASTER_KEYS)
    assert card.detail.endswith("; most by ':' 3 of 3, 'Solution' 3 of 3, '解' 3 of 3")


def test_a_judge_of_single_responses_is_fooled_above_the_middle() -> None:
    """A key need not beat the right answer: it is enough that it passes for one."""
    for value, share in ((4.9, 0.0), (5.0, 0.5), (5.1, 1.0)):  # right is 8, wrong is 2

        def score(case: Case, r: Response, value: float = value) -> float:
            return value if r.text in MASTER_KEYS else 2.0 + 6.0 * knows(case, r)

        found = cards_of(pointwise(score))
        assert found["master_key_false_positives"].value == share
        assert found["accuracy"].value == 1.0
        assert found["swap_consistency"].value is None
        assert found["swap_consistency"].detail.startswith("not measured: ")
        assert found["swap_consistency"].detail.endswith("; it knows no order")


def test_self_preference_is_of_the_judge_s_own_pairs_alone() -> None:
    own = {pair.own for pair in SELF}
    found = cards_of(pairwise(lambda case, r: float(r.text in own)))
    assert (found["self_preference"].value, found["self_preference"].n) == (0.5, 2)
    without = cards_of(pairwise(knows), ProbesConfig())["self_preference"]
    assert (without.value, without.n, without.passed) == (None, 0, None)
    assert without.detail.startswith("not measured: ")
    assert without.detail.endswith("the plan gives no self_pairs of this judge")


def test_limits_leave_a_judge_out() -> None:
    limits: Any = {
        "swap_consistency": 0.7,
        "master_key_false_positives": 0.1,
        "length_preference": 0.2,
        "self_preference": 0.2,
    }
    config = ProbesConfig(limits=limits)
    probes = probe_cases(config)
    good = card_of("j", probes, pairwise(knows, probes), config)
    assert failing(JudgeCard.to_table(good)) == {}
    assert {c.measure: c.passed for c in good if c.limit is not None} == {
        "swap_consistency": True,
        "master_key_false_positives": True,
        "length_preference": True,
        "self_preference": None,  # not measured
    }
    long = card_of("j", probes, pairwise(lambda c, r: float(len(r.text)), probes), config)
    reasons = failing(JudgeCard.to_table(long))["j"]
    assert "length_preference 0.500 of 25, at most 0.2 either way" in reasons
    assert "swap_consistency" not in reasons
    single = card_of("j", probes, pointwise(knows, probes), config)  # knows no order: no failure
    assert failing(JudgeCard.to_table(single)) == {}


@pytest.mark.parametrize("silent", [Opinions([], []), pairwise(lambda case, r: None)])
def test_a_judge_that_says_nothing_keeps_no_limit(silent: Opinions) -> None:
    config = ProbesConfig(limits={"usable_share": 0.9, "swap_consistency": 0.7}, self_pairs=SELF)
    found = cards_of(silent, config)
    assert found["usable_share"].value == 0.0
    assert {name for name, card in found.items() if card.passed is False} == {
        "usable_share",
        "swap_consistency",
    }
    assert {card.value for name, card in found.items() if name != "usable_share"} == {None}


def test_votes_of_others_and_missing_ones_are_not_counted() -> None:
    half = pairwise(knows, PROBES[: len(PROBES) // 2])
    other = [v.model_copy(update={"judge": "k", "value": -1.0}) for v in pairwise(knows).votes]
    found = cards_of(Opinions([*half.votes, *other], []))
    asked = [p for p in PROBES if p.judge in (None, "j")]
    seen = PROBES[: len(PROBES) // 2]
    share = 2 * len(seen) / (2 * len(seen) + len(asked) - len(seen))
    assert found["usable_share"].value == pytest.approx(share)
    assert found["accuracy"].value == 1.0 and found["swap_consistency"].n == len(seen)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"limits": {"swap": 0.5}}, r"Input should be"),
        (
            {"measures": ("accuracy",), "limits": {"swap_consistency": 0.5}},
            r"limits on what is not measured: swap_consistency",
        ),
        ({"measures": ()}, r"at least 1 item"),
        ({"limit": {}}, r"Extra inputs"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ProbesConfig(**settings)


def test_a_judge_of_the_panel_runs_on_them_as_on_real_cases() -> None:
    async def judge(
        name: str, config: None, cases: Sequence[Case], engines: Any, seed: int, advance: Any
    ) -> Opinions:
        assert all(isinstance(case, Case) and case.rubric == () for case in cases)
        by = {probe.case.pair.id: probe for probe in PROBES}
        return pairwise(knows, [by[case.pair.id] for case in cases])

    given = [probe.case for probe in PROBES]
    opinions = asyncio.run(judge("j", None, given, {}, 0, lambda rows, tokens: None))
    assert values(opinions)["accuracy"] == 1.0
