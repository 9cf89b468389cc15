"""Hard rules without a model: what a prompt wishes, what contrasts give, what carries it out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.rubrics.mining import BadVerifier, best_limit, mine_pairs, mine_prompt, verify
from pipelines.rubrics.wishes import wishes
from schemas.records import Constraint, Instruction, Message, Pair, Prompt, Response
from tests.pipelines.rows import response

DATA = Path(__file__).parents[4] / "shared" / "data"


def prompt(text: str = "q", **more: Any) -> Prompt:
    return Prompt(messages=(Message(role="user", content=text),), source="s", **more)


# What a prompt asks for


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Use at most 50 words.", {'constraint {"kind": "max_words", "value": "50"}': "at most 50 words"}),
        ("Keep it to fewer than ten words.", {'constraint {"kind": "max_words", "value": "9"}': "fewer than ten words"}),
        ("Write 100 words or more.", {'constraint {"kind": "min_words", "value": "100"}': "100 words or more"}),
        ("A 300+ word essay", {'constraint {"kind": "min_words", "value": "300"}': "300+ word"}),
        ("No more than 5 sentences!", {'feature {"most": 5, "name": "sentences"}': "No more than 5 sentences"}),
        ("Answer in JSON.", {'constraint {"kind": "json"}': "Answer in JSON"}),
        ("Do not answer in JSON.", {}),
        ("Explain this JSON: {}", {}),
        ("Answer in lowercase.", {'constraint {"kind": "lowercase"}': "in lowercase"}),
        ("Write in all capital letters.", {'feature {"least": 1.0, "name": "capitals"}': "in all capital letters"}),
        ("Use at least 3 words in all caps.", {}),
        ("Write without using capital letters.", {}),
        ('Do not use the words "cat" and "dog".', {
            'constraint {"kind": "excludes", "value": "cat"}': 'Do not use the words "cat" and "dog"',
            'constraint {"kind": "excludes", "value": "dog"}': 'Do not use the words "cat" and "dog"',
        }),
        ("Don't use the word moist.", {'constraint {"kind": "excludes", "value": "moist"}': "Don't use the word moist"}),
        ("Include the phrase “well done”.", {'constraint {"kind": "includes", "value": "well done"}': "Include the phrase “well done”"}),
        ("What does the word 'cat' mean?", {}),
        ("Answer with a number.", {'feature {"least": 1.0, "name": "answer_is_number"}': "Answer with a number"}),
        ("Answer yes or no: is it?", {'constraint {"kind": "matches", "value": "(?i)^\\\\W*(yes|no)\\\\b"}': "Answer yes or no"}),
        ("Do not use any commas.", {'instruction {"arguments": {}, "id": "punctuation:no_comma"}': "Do not use any commas"}),
        ("Your entire response should be in German.", {
            'instruction {"arguments": {"language": "de"}, "id": "language:response_language"}': "response should be in German",
        }),
        ("How do I say hello in German?", {}),
        ("Janet has 3 ducks and 12 words of Latin.", {}),
    ],
)  # fmt: skip
def test_wishes_in_plain_words(text: str, found: dict[str, str]) -> None:
    mined = mine_prompt(prompt(text))
    assert {c.verifier: c.evidence for c in mined} == found
    assert all(evidence in text for evidence in found.values())
    assert all(c.kind == "hard_rule" for c in mined)


def test_exactly_so_many_bullets() -> None:
    (least, most) = mine_prompt(prompt("Give me 3 bullet points."))
    assert (least.verifier, most.verifier) == (
        'feature {"least": 3, "name": "bullets"}',
        'feature {"most": 3, "name": "bullets"}',
    )
    both = [verify(c.verifier or "", "q", "- a\n- b") for c in (least, most)]
    assert both == [False, True]


def test_rules_of_a_prompt_s_own_requirements() -> None:
    asked = prompt(
        "Use at most 5 words.",
        constraints=(
            Constraint(kind="max_words", value="5"),
            Constraint(kind="matches", value="("),
        ),
        instructions=(
            Instruction(id="startend:quotation"),
            Instruction(id="no:such"),
            Instruction(id="punctuation:no_comma", arguments="["),
        ),
    )
    mined = mine_prompt(asked)
    # The same wish in the text adds nothing; what cannot be carried out is no rule.
    assert [(c.text, c.verifier) for c in mined] == [
        ("Use at most 5 words.", 'constraint {"kind": "max_words", "value": "5"}'),
        (
            "Follow the instruction startend:quotation.",
            'instruction {"arguments": {}, "id": "startend:quotation"}',
        ),
    ]
    assert [verify(c.verifier or "", asked, '"one two"') for c in mined] == [True, True]
    assert [verify(c.verifier or "", asked, "a b c d e f") for c in mined] == [False, False]


def test_a_prompt_of_attacks_is_read_in_time() -> None:
    for unit in (
        "answer ",
        "not ",
        'word "a", ',
        "use words 'a' 'a'",
        "at least 3 ",
        " ",
        "0",
        '"',
    ):
        assert len(mine_prompt(prompt(unit * (100_000 // len(unit))))) < 10


def test_wishes_of_ifeval_are_those_that_its_authors_noted() -> None:
    path = DATA / "ifeval_prompts.parquet"
    if not path.exists():
        pytest.skip("the shared test data is not here")
    noted = {
        "max_words": "length_constraints:number_words",
        "min_words": "length_constraints:number_words",
        "sentences": "length_constraints:number_sentences",
        "bullets": "detectable_format:number_bullet_lists",
        "json": "detectable_format:json_format",
        "lowercase": "change_case:english_lowercase",
        "capitals": "change_case:english_capital",
        "punctuation:no_comma": "punctuation:no_comma",
        "excludes": "keywords:forbidden_words",
        "includes": "keywords:",
    }
    right = total = 0
    for row in pq.read_table(path).to_pylist():
        for wish in wishes(row["prompt"]):
            kind = wish.arguments.get("kind") or wish.arguments.get("name") or wish.arguments["id"]
            if kind in noted:
                total += 1
                right += any(i.startswith(noted[kind]) for i in row["instruction_id_list"])
    assert total > 300
    assert right / total > 0.97


# Contrasts


def rows(
    texts: list[tuple[str, str]], asked: str = "q"
) -> tuple[list[Prompt], list[Response], list[Pair]]:
    """A pair of each (better, worse), the better as b in every second."""
    prompts, responses, pairs = [], [], []
    for i, (better, worse) in enumerate(texts):
        own = prompt(f"{asked} {i}")
        a, b = response(own.id, 0, better), response(own.id, 1, worse)
        first, second, label = (a, b, "a") if i % 2 else (b, a, "b")
        prompts.append(own)
        responses += [a, b]
        pairs.append(Pair(prompt_id=own.id, response_a=first.id, response_b=second.id, label=label))
    return prompts, responses, pairs


def test_the_limit_that_tells_most_pairs_apart() -> None:
    assert best_limit([(5.0, 1.0)] * 10) == ("least", 5.0)
    assert best_limit([(1.0, 5.0)] * 10) == ("most", 1.0)
    assert best_limit([(5.0, 1.0)] * 9) is None
    assert best_limit([(5.0, 5.0)] * 50) is None
    assert best_limit([]) is None
    assert best_limit([(2.0, 1.0), (1.0, 2.0)] * 10) is None
    # 3 | 2 is told apart best: 12 wins and 1 loss; 2 | 1 has 10 and 1.
    assert best_limit([(3.0, 1.0)] * 9 + [(3.0, 2.0)] * 3 + [(2.0, 1.0)] + [(1.0, 3.0)]) == (
        "least",
        3.0,
    )


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=10, max_size=60))
def test_no_other_limit_is_better(values: list[tuple[int, int]]) -> None:
    def gain(key: str, limit: float) -> int:
        keeps = [
            tuple((x >= limit) if key == "least" else (x <= limit) for x in pair) for pair in values
        ]
        apart = sum(a != b for a, b in keeps)
        return sum(a - b for a, b in keeps) if apart >= 10 else 0

    found = best_limit([(float(a), float(b)) for a, b in values])
    most = max(gain(key, limit) for key in ("least", "most") for limit in range(9))
    assert (0 if found is None else gain(*found)) == most


def test_a_planted_difference_is_mined_and_carried_out() -> None:
    texts = [(f"1 + {i} = {i + 1}\n#### {i + 1}", f"1 + {i} = {i + 2}\n#### {i + 2}") for i in range(2, 22)]  # fmt: skip
    mined = {c.verifier: c for c in mine_pairs(*rows(texts), seed=0)}
    rule = mined['feature {"least": 1.0, "name": "equations_hold"}']
    assert rule.text == "Keep the share of its equations that hold at least 1."
    assert (rule.kind, rule.category) == ("hard_rule", "mined")
    assert verify(rule.verifier or "", "q", "2 + 2 = 4") is True
    assert verify(rule.verifier or "", "q", "2 + 2 = 5") is False
    assert verify(rule.verifier or "", "q", "four") is None


def test_flags_and_keywords() -> None:
    texts = [(f"thus {i}\n#### {i}", f"maybe {i}") for i in range(12)]
    mined = {c.verifier: c.text for c in mine_pairs(*rows(texts), seed=0)}
    flag = 'feature {"least": 1.0, "name": "final_answer"}'
    assert mined[flag] == "It holds that it marks a final answer."
    assert mined['constraint {"kind": "includes", "value": "thus"}'] == "Use the words “thus”."
    excluded = 'constraint {"kind": "excludes", "value": "maybe"}'
    assert mined[excluded] == "Do not use the words “maybe”."
    assert verify(excluded, "q", "Maybe so") is False


def test_labels_that_mean_nothing_give_nothing() -> None:
    prompts, responses, pairs = rows([(f"a b {i}", f"a {i}") for i in range(10, 30)])
    ties = [pair.model_copy(update={"label": "tie"}) for pair in pairs]
    assert mine_pairs(prompts, responses, ties, 0) == []
    assert mine_pairs([], responses, pairs, 0) == []
    assert mine_pairs(prompts, [], pairs, 0) == []
    # Half of the labels say the opposite of the other half.
    other = [p.model_copy(update={"label": "b" if p.label == "a" else "a"}) for p in pairs[:10]]
    assert mine_pairs(prompts, responses, [*other, *pairs[10:]], 0) == []


def test_the_order_of_the_rows_changes_nothing() -> None:
    texts = [(f"thus {'so ' * (i % 5)}{i}", f"maybe {i} {i}") for i in range(40)]
    prompts, responses, pairs = rows(texts)
    mined = mine_pairs(prompts, responses, pairs, 3)
    assert mined
    for order in (prompts, responses, pairs):
        random.Random(1).shuffle(order)
    assert mine_pairs(prompts, responses, pairs, 3) == mined


def test_of_too_many_pairs_the_seed_draws_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.rubrics.mining.MAX_PAIRS", 20)
    draw = random.Random(0)
    given = rows([("a " * draw.randint(3, 60), "a " * draw.randint(1, 50)) for _ in range(200)])
    mined = [mine_pairs(*given, seed) for seed in range(4)]
    assert mine_pairs(*given, 0) == mined[0]
    assert any(m != mined[0] for m in mined[1:])


@pytest.mark.parametrize(
    ("verifier", "why"),
    [
        ("", "'' is not NAME and a JSON object"),
        ("feature", "'feature' is not NAME and a JSON object"),
        ("feature [1]", "'feature [1]' is not NAME and a JSON object"),
        ("eval {}", "'eval' is no verifier: constraint, instruction or feature"),
        ('feature {"name": "words"}', "feature words takes least and most, not []"),
        (
            'feature {"name": "words", "least": 1, "x": 1}',
            "feature words takes least and most, not ['x']",
        ),
        ('feature {"name": "words", "least": "1"}', "feature words: '1' is no limit"),
        ('feature {"name": "words", "least": NaN}', "feature words: 'nan' is no limit"),
        ('feature {"name": "words", "least": true}', "feature words: 'True' is no limit"),
        ('constraint {"kind": "max_words"}', "max_words needs a value"),
        ('constraint {"kind": "json", "x": 1}', "constraint: Extra inputs are not permitted"),
        ('constraint {"kind": "matches", "value": "("}', None),
        ('instruction {"id": "x:y"}', "'x:y' is no kind of instruction"),
        ('instruction {"arguments": {}}', "instruction takes id and arguments"),
        ('instruction {"id": "startend:quotation", "loose": 1}', "instruction takes id and arguments"),
    ],
)  # fmt: skip
def test_a_verifier_that_cannot_be_carried_out(verifier: str, why: str | None) -> None:
    with pytest.raises(BadVerifier) as caught:
        verify(verifier, "q", "a")
    assert str(caught.value) == why or why is None


def test_an_unknown_feature_is_named_with_those_that_are_known() -> None:
    with pytest.raises(BadVerifier, match="feature 'x' is none of characters, words, "):
        verify('feature {"name": "x", "least": 1}', "q", "a")


def test_a_verifier_takes_a_prompt_or_its_text() -> None:
    rule = 'instruction {"id": "combination:repeat_prompt"}'
    for asked in (prompt("Say so."), "Say so."):
        assert verify(rule, asked, "Say so. So.") is True
        assert verify(rule, asked, "So.") is False
    assert verify('feature {"name": "words", "least": 1, "most": 2}', "q", "a b") is True


def test_real_solutions_give_rules_that_hold_a_meaning() -> None:
    path = DATA / "gsm8k_model_solutions.parquet"
    if not path.exists():
        pytest.skip("the shared test data is not here")
    texts = []
    by_question: dict[str, dict[bool, str]] = {}
    for row in pq.read_table(path).slice(0, 1200).to_pylist():
        by_question.setdefault(row["question"], {})[row["is_correct"]] = row["solution"]
    prompts, responses, pairs = [], [], []
    for question, sides in by_question.items():
        if len(sides) == 2:
            own = prompt(question)
            made = [response(own.id, i, sides[i == 0]) for i in range(2)]
            prompts.append(own)
            responses += made
            pairs.append(
                Pair(prompt_id=own.id, response_a=made[0].id, response_b=made[1].id, label="a")
            )
            texts.append(question)
    assert len(texts) > 80
    found = [json.loads((c.verifier or "").partition(" ")[2]) for c in mine_pairs(prompts, responses, pairs, 0)]  # fmt: skip
    limits = {rule["name"]: rule for rule in found if "name" in rule}
    # The better solution uses what the question gives and what it has worked out.
    assert "least" in limits["given_used"]
    assert "least" in limits["results_used"]
