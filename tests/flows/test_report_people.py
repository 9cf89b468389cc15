"""The page's people: agreement, each annotator, what it cost and what it was worth."""

import re
from dataclasses import replace

import pytest

from annotation.agreement import Agreement
from annotation.cost import Cost
from flows.report import ReportData, render
from flows.report_people import AnnotatorShown, PeopleShown, Share, hourly_rate
from tests.flows.sample_report import sample
from tests.flows.test_report import ATTACKS, Page, assert_safe


def shown(**changes) -> PeopleShown:
    """People made up, but every figure agrees with the others."""
    spent = Cost(
        votes=412, labels=180, timed=400, seconds=9600.0, seconds_per_vote=21.0,
        seconds_per_label=54.9, money=53.33, money_per_label=0.296, changed=23,
        money_per_change=2.319, next_pairs=100, next_worth=4.75,
    )  # fmt: skip
    people = PeopleShown(
        people=4,
        agreement=(
            Agreement("nominal", 0.712, 0.655, 0.768, 96, 300, 4),
            Agreement("ordinal", 0.834, 0.79, 0.871, 96, 300, 4),
            Agreement("interval", -0.052, -0.12, 0.02, 96, 300, 4),
        ),
        annotators=(
            AnnotatorShown(
                "human-90ab12cd34ef", 61, 0, Share(3, 12, 0.089, 0.532), Share(20, 41, 0.343, 0.635),
                Share(55, 60, 0.819, 0.964), 2.4,
                ("sides with a place, first or second", "answers in hardly any time"),
            ),
            AnnotatorShown(
                "human-0f1e2d3c4b5a", 180, 4, Share(38, 40, 0.835, 0.986),
                Share(80, 92, 0.786, 0.924), Share(88, 170, 0.443, 0.592), 24.0, (),
            ),
            AnnotatorShown("human-77aa77bb77cc", 6, 1, None, None, None, None, ()),
        ),
        known=40,
        first=(0.544, 0.497, 0.59),
        outliers=7,
        method="mace",
        without=("human-666666666666",),
        rate=20.0,
        cost=spent,
        waiting=138,
    )  # fmt: skip
    return replace(people, **changes)


def section(people: PeopleShown) -> str:
    """The words of the section, those of each element apart."""
    page = render(replace(sample(), people=people))
    assert '<a href="#people">People</a>' in page
    start = page.index('<section id="people">')
    end = page.index('<section id="rubrics">')
    return " ".join(Page(re.sub("<(?!/|bdi)", " <", page[start:end])).words.split())


def test_what_is_known_of_people_is_said():
    words = section(shown())
    for said in (
        "4 people gave 412 answers on 180 pairs.",
        "put together by mace, and decisions follow that",
        "Left out by the plan: human-666666666666. Nothing on this page counts their votes.",
        "sides nominal",
        "0.712 [0.655, 0.768] 96 fit for tentative conclusions",
        "0.834 [0.790, 0.871] 96 reliable",
        "−0.052 [−0.120, 0.020] 96 no better than chance",
        "Of all sides taken, a share of 0.544 [0.497, 0.590] fell on what was shown first. 7 answers took",
        "3 of 4 people: first who stands out, then who answered most",
        "✗ sides with a place, first or second ✗ answers in hardly any time",
        "0.250 [0.089, 0.532] 3 of 12",
        "180 4 could not judge",
        "24 s median",
        "was asked none nobody to compare with order not known not known",
        "1 more person is not shown here",
        "time an answer 21 s median of 400 timed ones",
        "time a label 55 s all answers on a pair",
        "money 53.33 as paid, else at 20 an hour",
        "money a label 0.30 180 labels",
        "changed a decision 23 pairs decided otherwise than without their votes",
        "money a change 2.32 all answers over all changes",
        "still waiting 138 answers that the queue asks for",
        "the next 100 +4.750 expected gain less the cost",
    ):
        assert said in words, said


NOTHING = Cost(3, 3, 0, 0.0, None, None, None, None, None, None, 0, 0.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"known": None}, "Nobody was measured on known answers: name pairs"),
        ({"known": 0}, "none of them is of a pair of this run"),
        ({"method": ""}, "The mean of their votes counts"),
        ({"first": None}, "Which response was shown first is not known."),
        ({"waiting": None}, "still waiting no queue"),
        ({"waiting": None}, "not known: no queue"),
        ({"cost": NOTHING}, "money not known: no answer says how long it took"),
        ({"cost": NOTHING}, "changed a decision not counted"),
        ({"cost": NOTHING}, "the next pairs nobody is to be asked"),
        ({"cost": replace(NOTHING, timed=3), "rate": None}, "money not known: the plan names no"),
        ({"cost": replace(NOTHING, changed=0)}, "money a change nothing was changed"),
        (
            {"agreement": (Agreement("nominal", None, None, None, 0, 0, 0),)},
            "not known 0 not known: nothing was answered by two people",
        ),
        (
            {"agreement": (Agreement("nominal", None, None, None, 4, 8, 2),)},
            "not known: there is one answer throughout",
        ),
        ({"people": 1, "annotators": shown().annotators[:1]}, "1 person gave"),
    ],
)
def test_what_is_not_known_is_said(change, said):
    assert said in section(shown(**change))


def test_where_nobody_voted_there_is_no_section():
    for data in (sample(), ReportData("empty", "run-0", "0" * 32, 0)):
        assert "people" not in re.findall(r'id="(\w+)"', render(data))


def test_hostile_names_are_shown_and_never_run():
    text = "".join(ATTACKS)
    one = replace(shown().annotators[0], name=text, flags=(text,))
    people = shown(annotators=(one,), method=text, without=(text,))
    page = render(replace(sample(), people=people))
    read = assert_safe(page)
    assert read.words.count(ATTACKS[0]) >= 2
    for char in "\u202e\u202c\u200b\x00\x1b\ud800":
        assert char not in page


def test_many_who_were_left_out_are_counted():
    people = shown(without=tuple(f"human-{n:012d}" for n in range(25)))
    assert "human-000000000019 and 5 more." in section(people)


@pytest.mark.parametrize(
    ("plan", "rate"),
    [
        ("[route]\nanswers = 5\nhourly_rate = 12.5\n", 12.5),
        ("[route]\nanswers = 5\n", 20.0),
        ('name = "x"\n', None),
    ],
)
def test_the_rate_is_the_plans(tmp_path, plan, rate):
    (tmp_path / "plan.toml").write_text(plan)
    assert hourly_rate(tmp_path / "plan.toml") == rate
    assert hourly_rate(tmp_path / "gone.toml") is None
