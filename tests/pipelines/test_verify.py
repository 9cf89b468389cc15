import pytest

from pipelines.verify import NAME, Config, verify
from schemas.records import Constraint, Message, Prompt, Reject, Vote
from schemas.table import validate
from tests.pipelines.rows import response


def make_prompt(text="How many?", **fields):
    fields = {"reference": "8", "verifier": "numeric", "source": "test", **fields}
    return Prompt(messages=(Message(role="user", content=text),), **fields)


def make_response(prompt, text, sample=0, finish="stop"):
    return response(prompt.id, sample, text, finish_reason=finish)


@pytest.mark.parametrize(
    ("text", "finish", "fields", "value", "reason"),
    [
        ("3+5=8\n#8", "stop", {}, 1.0, "right"),
        ("3+5=7\n#7", "stop", {}, 0.0, "wrong: 7 is not 8"),
        ("#18", "stop", {}, 0.0, "wrong: 18 is not 8"),
        ("3+5=8\n", "stop", {}, None, "unparsed"),
        ("#eight", "stop", {}, None, "unparsed"),
        ("3+5=8\n#8", "length", {}, None, "truncated"),
        ("3+5=8\n#8\nso", "length", {}, 1.0, "right"),
        ("\\boxed{8} and", "length", {}, 1.0, "right"),
        ("3+5", "length", {}, None, "truncated"),
        ("#8", "stop", {"reference": None}, None, "no_reference"),
        ("#8", "stop", {"verifier": None}, None, "no_verifier"),
        ("#8", "stop", {"reference": "several"}, None, "bad_reference"),
        ("#8", "stop", {"reference": "3+5=<<3+5=8>>8\n#### 8"}, 1.0, "right"),
        (
            "Answer: (C)",
            "stop",
            {"reference": "B", "verifier": "choice"},
            0.0,
            "wrong: (C) is not B",
        ),
        ("Answer: bern.", "stop", {"reference": "Bern", "verifier": "exact"}, 1.0, "right"),
        ("\\boxed{2, 1}", "stop", {"reference": "{1, 2}", "verifier": "set"}, 1.0, "right"),
        (
            "\\boxed{x^3}",
            "stop",
            {"reference": "x^2", "verifier": "latex"},
            0.0,
            "wrong: x^3 is not x^2",
        ),
        ("\\boxed{x^}", "stop", {"reference": "x^2", "verifier": "latex"}, None, "unparsed"),
        ("\\boxed{x}", "stop", {"reference": "x^", "verifier": "latex"}, None, "bad_reference"),
        (
            "```python\nf = abs\n```",
            "stop",
            {"reference": "assert f(-8) == 8", "verifier": "code"},
            1.0,
            "right",
        ),
        (
            "```python\nf = abs\n```",
            "stop",
            {"reference": "assert f(-8) == -8", "verifier": "code"},
            0.0,
            "wrong: AssertionError in line 1 of the tests",
        ),
        (
            "```python\nf = ab",
            "length",
            {"reference": "assert f(-8) == 8", "verifier": "code"},
            None,
            "truncated",
        ),
        ("8", "stop", {"reference": "assert", "verifier": "code"}, None, "bad_reference"),
        (
            "#" + "9" * 60,
            "stop",
            {"reference": "so\n#### " + "1" * 50},
            0.0,
            f"wrong: {'9' * 39}… is not {'1' * 39}…",
        ),
    ],
)
def test_the_verifiers_vote(text, finish, fields, value, reason):
    prompt = make_prompt(**fields)
    response = make_response(prompt, text, finish=finish)
    votes, rejects = verify([prompt], [response], Config())
    assert rejects == []
    assert votes == [
        Vote(
            unit=response.id,
            unit_kind="response",
            judge="verifier",
            judge_kind="code",
            value=value,
            reason=reason,
        )
    ]


def test_the_last_number_counts_only_if_asked_for():
    prompt = make_prompt()
    response = make_response(prompt, "I get 3 and 5, so 8 in all")
    assert verify([prompt], [response], Config())[0][0].value is None
    assert verify([prompt], [response], Config(last_number=True))[0][0].value == 1.0


def test_each_constraint_has_a_vote_of_its_own_name():
    wanted = (
        Constraint(kind="max_words", value="3"),
        Constraint(kind="includes", value="figs"),
        Constraint(kind="includes", value="nuts"),
        Constraint(kind="includes", value="figs"),
        Constraint(kind="lowercase"),
    )
    prompt = make_prompt(constraints=wanted)
    responses = [make_response(prompt, text, i) for i, text in enumerate(["8 Figs", "figs nuts"])]
    votes, rejects = verify([prompt], responses, Config())
    assert rejects == []
    assert [(v.unit, v.judge, v.value, v.reason) for v in votes] == [
        (responses[0].id, "verifier", None, "unparsed"),
        (responses[0].id, "constraint:max_words", 1.0, "2 words, at most 3"),
        (responses[0].id, "constraint:includes", 1.0, "holds 'figs'"),
        (responses[0].id, "constraint:includes#2", 0.0, "lacks 'nuts'"),
        (responses[0].id, "constraint:lowercase", 0.0, "holds 'F'"),
        (responses[1].id, "verifier", None, "unparsed"),
        (responses[1].id, "constraint:max_words", 1.0, "2 words, at most 3"),
        (responses[1].id, "constraint:includes", 1.0, "holds 'figs'"),
        (responses[1].id, "constraint:includes#2", 1.0, "holds 'nuts'"),
        (responses[1].id, "constraint:lowercase", 1.0, "lowercase"),
    ]
    validate(Vote, Vote.to_table(votes))


def test_what_cannot_be_checked_is_rejected_with_its_reason():
    prompt = make_prompt(
        constraints=(Constraint(kind="matches", value="("), Constraint(kind="matches", value="8"))
    )
    other = make_prompt("Another?")
    known, orphan = make_response(prompt, "#8"), make_response(other, "#8")
    votes, rejects = verify([prompt], [known, orphan], Config())
    assert [(v.judge, v.value) for v in votes] == [("verifier", 1.0), ("constraint:matches#2", 1.0)]
    assert rejects == [
        Reject(
            unit=known.id,
            stage=NAME,
            code="bad_constraint",
            detail="constraint:matches: matches: Invalid regular expression: missing ): (",
        ),
        Reject(
            unit=orphan.id,
            stage=NAME,
            code="missing_prompt",
            detail=f"no prompt {other.id}",
        ),
    ]
