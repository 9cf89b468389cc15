"""Each judge's votes, by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from pipelines.judge.derived import DerivedConfig, judge
from schemas.records import Pair, Response, StepLabels, Vote
from schemas.table import validate
from tests.pipelines.rows import response, step_labels, verdict

TEXTS = ["1\n#6", "2\n#6.0", "3\nAnswer: six", "4", "5\n#7", "6\n#6"]
RESPONSES = [
    response("p", i, text, logprob=logprob)
    for i, (text, logprob) in enumerate(
        zip(TEXTS, [-5.0, -20.0, None, -1.0, -10.0, -10.0], strict=True)
    )
]
RIGHT, SAME, OTHER, SILENT, WRONG, TWIN = (r.id for r in RESPONSES)
VERDICTS = [
    verdict(RIGHT, 1.0),
    verdict(SAME, 1.0),
    verdict(OTHER, None),
    verdict(WRONG, 0.0),
    verdict(TWIN, 0.0, judge="constraint:json"),
]
LABELS = [
    step_labels(RESPONSES[0], 0.75, None, 0.5),
    step_labels(RESPONSES[1], None),
    step_labels(RESPONSES[4], 0.25, 1.0),
]


def votes_of(
    sides: Sequence[tuple[str, str]],
    name: str,
    labels: list[StepLabels] | None = LABELS,
    responses: list[Response] = RESPONSES,
) -> list[tuple[float | None, str]]:
    pairs = [Pair(prompt_id="p", response_a=a, response_b=b, label="a") for a, b in sides]
    table = judge(
        Pair.to_table(pairs),
        Response.to_table(responses),
        Vote.to_table(VERDICTS),
        None if labels is None else StepLabels.to_table(labels),
        DerivedConfig(judges=(name,)),  # type: ignore[arg-type]
    )
    validate(Vote, table)
    votes = list(Vote.from_table(table))
    assert [vote.unit for vote in votes] == [pair.id for pair in pairs]
    for vote in votes:
        assert (vote.unit_kind, vote.judge, vote.judge_kind) == ("pair", name, "code")
        assert (vote.order, vote.seconds, vote.cost) == (None, None, None)
        assert (vote.value is None) == (vote.reason == "no_score")
    return [(vote.value, vote.reason) for vote in votes]


NO = (None, "no_score")


def test_verifier() -> None:
    sides = [(RIGHT, WRONG), (WRONG, RIGHT), (RIGHT, SAME), (RIGHT, OTHER), (SILENT, WRONG)]
    assert votes_of(sides, "verifier") == [
        (1.0, "a: 1.0 (equal); b: 0.0 (equal)"),
        (-1.0, "a: 0.0 (equal); b: 1.0 (equal)"),
        (0.0, "a: 1.0 (equal); b: 1.0 (equal)"),
        NO,
        NO,
    ]
    assert votes_of([(RIGHT, TWIN)], "verifier") == [NO]  # a constraint is not the verifier


def test_step_values_are_compared_by_their_lowest() -> None:
    assert votes_of([(RIGHT, WRONG), (RIGHT, SAME), (RIGHT, OTHER)], "step_values") == [
        (0.25, "a: 0.5 (lowest of 3 steps); b: 0.25 (lowest of 2 steps)"),
        NO,
        NO,
    ]
    assert votes_of([(RIGHT, WRONG)], "step_values", None) == [NO]
    assert votes_of([(RIGHT, WRONG)], "step_values", []) == [NO]


def test_paths_that_a_search_grew_have_no_vote() -> None:
    grown = [step_labels(RESPONSES[0], value, grown=f"t{value}") for value in (0.0, 1.0)]
    sides = [(RIGHT, WRONG), (RIGHT, SAME), (RIGHT, OTHER)]
    assert votes_of(sides, "step_values", grown + LABELS) == votes_of(sides, "step_values")
    assert votes_of(sides, "step_values", grown) == [NO, NO, NO]


def test_agreement_is_the_share_of_the_other_samples() -> None:
    # `#6`, `#6.0` and `#6` agree as numbers; `six` and `7` stand alone; one marks no answer
    assert votes_of([(RIGHT, WRONG), (WRONG, TWIN), (SAME, TWIN), (OTHER, WRONG)], "agreement") == [
        (pytest.approx(0.4), "a: 0.4 (3 of 6 samples agree); b: 0.0 (1 of 6 samples agree)"),
        (pytest.approx(-0.4), "a: 0.0 (1 of 6 samples agree); b: 0.4 (3 of 6 samples agree)"),
        (0.0, "a: 0.4 (3 of 6 samples agree); b: 0.4 (3 of 6 samples agree)"),
        (0.0, "a: 0.0 (1 of 6 samples agree); b: 0.0 (1 of 6 samples agree)"),
    ]
    assert votes_of([(RIGHT, SILENT), (SILENT, WRONG)], "agreement") == [NO, NO]


def test_agreement_knows_other_prompts_and_lone_samples_apart() -> None:
    lone = [response("p", 0, "#6"), response("q", 0, "#6"), response("q", 1, "#6")]
    sides = [(lone[0].id, lone[1].id), (lone[1].id, lone[2].id)]
    assert votes_of(sides, "agreement", responses=lone)[0] == NO
    assert votes_of(sides, "agreement", responses=lone)[1][0] == 0.0


def test_an_answer_on_the_unfinished_line_of_a_cut_response_does_not_agree() -> None:
    cut = [
        response("p", 0, "a\n#6"),
        response("p", 1, "b\n#6", finish_reason="length"),
        response("p", 2, "c\n#7"),
    ]
    sides = [(cut[0].id, cut[1].id), (cut[0].id, cut[2].id)]
    assert votes_of(sides, "agreement", responses=cut) == [
        NO,
        (0.0, "a: 0.0 (1 of 3 samples agree); b: 0.0 (1 of 3 samples agree)"),
    ]


def test_likelihood_is_a_token_and_squashed() -> None:
    assert votes_of([(RIGHT, SAME), (WRONG, TWIN), (RIGHT, OTHER)], "likelihood") == [
        (
            pytest.approx(math.tanh(-0.5 + 2.0)),
            "a: -0.5 (log-probability a token); b: -2.0 (log-probability a token)",
        ),
        (0.0, "a: -1.0 (log-probability a token); b: -1.0 (log-probability a token)"),
        NO,
    ]
    empty = [response("p", 0, "", completion_tokens=0, logprob=0.0), RESPONSES[0]]
    assert votes_of([(empty[0].id, RIGHT)], "likelihood", responses=empty) == [NO]


def test_every_pair_has_one_vote_of_every_judge_in_order() -> None:
    pairs = [
        Pair(prompt_id="p", response_a=RIGHT, response_b=other) for other in (WRONG, SAME, TWIN)
    ]
    config = DerivedConfig()
    tables = [
        judge(
            Pair.to_table(pairs),
            Response.to_table(responses),
            Vote.to_table(VERDICTS),
            StepLabels.to_table(LABELS),
            config,
        )
        for responses in (RESPONSES, RESPONSES[::-1])
    ]
    assert tables[0] == tables[1]
    votes = [(vote.unit, vote.judge) for vote in Vote.from_table(tables[0])]
    assert votes == [(pair.id, name) for pair in pairs for name in config.judges]
    assert all(-1 <= v.value <= 1 for v in Vote.from_table(tables[0]) if v.value is not None)


def test_no_pairs_have_no_votes() -> None:
    assert votes_of([], "verifier") == []


def test_no_judges_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"at least 1 item"):
        DerivedConfig(judges=())
