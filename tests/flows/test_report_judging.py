"""The page's judges, rubrics and decisions: what is said, what is folded, what is refused."""

import re
from dataclasses import replace

import pytest

from flows.report import Band, ReportData, render
from flows.report_charts import RiskPoint
from flows.report_decisions import duration
from flows.report_judges import JudgeFigure
from tests.flows import sample_report_judging as judging
from tests.flows.sample_report import sample
from tests.flows.test_report import ATTACKS, Page, assert_safe


def section(page: str, name: str) -> str:
    """The words of a section, those of each element apart."""
    start = page.index(f'<section id="{name}">')
    after = ("judges", "rubrics", "decisions", "evaluation", "rows", "rejects")
    end = page.index(f'<section id="{after[after.index(name) + 1]}">')
    return " ".join(Page(re.sub("<(?!/|bdi)", " <", page[start:end])).words.split())


def test_a_judge_has_a_card():
    words = section(render(sample()), "judges")
    for said in (
        "judge-strict pairwise",
        "3,280 99.6% 122 of 1,633 in both orders",
        "122 position clash",
        "keeps all 2",
        "left out accuracy 0.480 of 25, at least 0.8",
        "0.871 [0.820, 0.910] 204 ✓ kept at least 0.8",
        "0.480 [0.360, 0.560] 25 ✗ broken at least 0.8",
        "not measured at most 0.2 either way",
        "−0.080 [−0.150, 0.020]",
        "It voted on no pair of this run.",
        "not probed",
    ):
        assert said in words, said


def test_a_judge_that_broke_a_limit_and_votes_all_the_same_is_marked():
    broken = replace(judging.judges()[1], probes=judging.probes(0.5, 0.8))
    words = section(render(replace(sample(), judges=(broken,))), "judges")
    assert "1 broken" in words
    assert "keeps" not in words


def test_rubrics_say_what_was_tested_and_what_was_done():
    words = section(render(sample()), "rubrics")
    order = ["Shows every step", "Ends with its answer", "Is longer", "Names its sources"]
    assert sorted(order, key=words.index) == order
    for said in (
        "31 rubrics of 240 criteria in all",
        "by the verdicts of judge-strict; 12 rubrics were retired",
        "principle 2 now 1.4 212 of 117 prompts +0.210, interval +0.150 to +0.270 +0.210 [0.150, 0.270] 84% tells 61% apart kept helps",
        "−0.180 [−0.240, −0.120]",
        "flipped misleads",
        "2 retired",
        "retired never_separates",
        "Rubric of one prompt mined, 1 criterion",
        "234 more criteria are not shown here; the store has them.",
    ):
        assert said in words, said


def test_a_criterion_that_stays_untested_says_why():
    shown = judging.rubrics()
    first = shown.rubrics[0]
    stays = replace(first.criteria[3], fate="keep")
    rubric = replace(first, criteria=(stays,))
    words = section(render(replace(sample(), rubrics=replace(shown, rubrics=(rubric,)))), "rubrics")
    assert "kept no_evidence: stays, for its rubric stands without a test" in words


def test_decisions_say_the_bound_and_who_is_asked():
    words = section(render(sample()), "decisions")
    for said in (
        "The bound holds. Of all pairs, 1,180 of 1,640 are accepted: at most 2.00%",
        "with 90% confidence. Behind it: 260 labels of 241 prompts.",
        "1,171 of them are marked accepted in the dataset",
        "0.009 over 260 pairs that people took a side on, drawn at random (audit)",
        "On 4 more pairs people took no side.",
        "by 260 audit labels (people who are split count against)",
        "accepted 72%",
        "probability that the label it came with is right",
        "keep likely_right 1,192 96.7%",
        "judge-strict 1,635",
        "candidates: isotonic 0.1911",
        "250 pairs for people; asking them is worth its cost",
        "value its label is worth its cost 210 260 +31.400",
        "2.2 h",
    ):
        assert said in words, said
    assert "not calibrated" not in words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"calibrated": None}, "They are the smoothed share of judges that side with the label"),
        (
            {"calibrated": 0, "warning": "9 human-labelled pairs of 7 prompts"},
            "These probabilities are not calibrated. 9 human-labelled pairs of 7 prompts.",
        ),
        ({"calibrated": 0}, "no human label stands behind them"),
        ({"calibrated": 1600}, "40 of 1,640 probabilities are not calibrated"),
        ({"bounds": (), "accepted": None}, "No bound on the error was asked for"),
        (
            {"bounds": (judging.bound("too_few_labels: needs 114 clean, has 31"),), "accepted": 0},
            "Nothing is accepted under the bound of 2%. There are too few audit labels to say so "
            "much: have more pairs, drawn at random, answered by people. Nothing is accepted of all "
            "pairs: too_few_labels: needs 114 clean, has 31",
        ),
        (
            {"bounds": (judging.bound("too_many_errors"),), "accepted": 0},
            "even among the surest pairs",
        ),
        ({"bins": (), "labelled": 0}, "No human label to hold them against."),
        ({"audited": False}, "these were not drawn at random"),
        ({"risk": ()}, "It needs audit labels"),
        ({"queue": ()}, "Nobody: no pair is worth what its answer costs."),
        ({"queue": (), "worth_another_round": None}, "Nobody: this run made no review queue."),
        ({"reasons": (), "actions": None}, "No pair was decided."),
    ],
)
def test_what_is_missing_is_said(change, said):
    data = replace(sample(), decisions=replace(judging.decisions(), **change))
    page = render(data)
    assert_safe(page)
    assert said in section(page, "decisions")


def test_a_bound_that_nothing_holds_accepts_nothing_in_the_picture():
    closed = (judging.bound("too_many_errors"),)
    decided = replace(judging.decisions(), bounds=closed, accepted=0)
    words = section(render(replace(sample(), decisions=decided)), "decisions")
    assert "accepted 0%" not in words
    assert "accepted 72%" not in words


def test_pairs_of_each_probability_are_there_to_read():
    words = section(render(sample()), "rows")
    assert "0.50 to 0.90 310 pairs" in words
    assert "0.90 to 1.00 1,330 pairs: all of them are above" in words
    assert "0.00 to 0.50" not in words
    assert sample().bands[1].rows[0].pair.id in words


def test_bands_and_judges_are_checked():
    row = sample().rows[0]
    with pytest.raises(ValueError, match="1 pairs of a band that has 0"):
        render(replace(sample(), bands=(Band(0, 1, 0, (row,)),)))
    judge = replace(judging.judges()[0], usable=1639)
    with pytest.raises(ValueError, match="judge reward-0: more pairs than usable votes"):
        render(replace(sample(), judges=(judge,)))


def test_an_empty_run_has_none_of_it():
    page = render(ReportData("empty", "run-0", "0" * 32, 0))
    assert section(page, "judges") == "Judges No judge voted in this run."
    assert section(page, "rubrics") == "Rubrics No rubrics were made in this run."
    assert section(page, "decisions").endswith("Nothing was decided in this run.")


def hostile(text: str) -> ReportData:
    """The sample with a text wherever judges, rubrics and decisions show one."""
    figure = JudgeFigure(text, text, 0.5, 0.4, 0.6, 9, 0.3, True)
    judge = replace(
        judging.judges()[1], name=text, kind=text, left_out=text, probes=(figure,), own=(figure,)
    )
    shown = judging.rubrics(text)
    first = shown.rubrics[0]
    one = first.criteria[0]
    value = one.value.model_copy(update={"reason": text})
    criterion = one.criterion.model_copy(update={"verifier": text})
    rubric = first.rubric.model_copy(update={"name": text, "method": text})
    first = replace(
        first,
        rubric=rubric,
        value=value,
        criteria=(replace(one, criterion=criterion, value=value),),
    )
    decided = judging.decisions()
    return replace(
        sample(),
        judges=(replace(judge, sides={text: 3}),),
        rubrics=replace(shown, rubrics=(first,), judge=text, tested={text: 1}),
        decisions=replace(
            decided,
            calibrated=0,
            warning=text,
            bounds=(
                judging.bound(text),
                judging.bound().model_copy(update={"slice": text, "reason": text}),
            ),
            actions={text: judging.histogram({3: 2})},
            actions_of=text,
            reasons=((text, text, 4),),
            judges=(replace(decided.judges[0], judge=text),),
            facts=((text, text),),
            queue=(replace(decided.queue[0], purpose=text),),
        ),
    )


def test_hostile_texts_are_shown_and_never_run():
    text = "".join(ATTACKS)
    page = render(hostile(text))
    read = assert_safe(page)
    for attack in ATTACKS[:2]:
        assert read.words.count(attack) > 12
    for char in "\u202e\u202c\u200b\x00\x1b\ud800":
        assert char not in page
    assert "49 49" not in read.words


def test_a_megabyte_of_text_does_not_blow_up_the_page():
    page = render(hostile("A" * 1_000_000))
    assert_safe(page)
    assert len(page) < 1_000_000


def test_one_label_draws_a_curve():
    point = RiskPoint(1.0, 0.0, 0.0, 0.975, 1, 0.5)
    decided = replace(judging.decisions(), risk=(point,), labelled=1)
    assert "by 1 audit labels" in section(render(replace(sample(), decisions=decided)), "decisions")


def test_times_for_readers():
    assert [duration(s) for s in (0, 45, 600, 9000)] == ["0 s", "45 s", "10 min", "2.5 h"]
