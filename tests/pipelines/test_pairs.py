"""Which responses are compared, in which order, and why a prompt has no pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pytest

from pipelines.pairs import PairsConfig, pair_up
from schemas.records import Pair, Prompt, Reject, Response, StepLabels, Vote
from schemas.table import validate
from tests.pipelines.rows import prompt, response, step_labels, verdict


def pairs_of(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    votes: Sequence[Vote],
    labels: Sequence[StepLabels] | None = None,
    seed: int = 0,
    **config: object,
) -> tuple[list[Pair], list[Reject]]:
    pairs, rejects = pair_up(
        Prompt.to_table(prompts),
        Response.to_table(responses),
        Vote.to_table(votes),
        None if labels is None else StepLabels.to_table(labels),
        PairsConfig(**config),  # type: ignore[arg-type]
        seed,
    )
    validate(Pair, pairs)
    validate(Reject, rejects)
    assert pairs.schema.equals(Pair.arrow_schema(), check_metadata=True)
    return list(Pair.from_table(pairs)), list(Reject.from_table(rejects))


def verified(name: str, *values: float | None) -> tuple[Prompt, list[Response], list[Vote]]:
    """A prompt whose i-th response has the i-th verdict."""
    asked = prompt(name)
    answers = [response(asked.id, i, f"{name} answer {i}") for i in range(len(values))]
    return asked, answers, [verdict(r.id, v) for r, v in zip(answers, values, strict=True)]


def sides(pair: Pair) -> tuple[str, str]:
    """Better and worse response."""
    a_is_better = pair.label == "a"
    assert pair.label in ("a", "b")
    return (pair.response_a, pair.response_b) if a_is_better else (pair.response_b, pair.response_a)


def test_right_is_paired_with_wrong_alone() -> None:
    asked, answers, votes = verified("q", 1.0, 0.0, None, 1.0, 0.0)
    pairs, rejects = pairs_of([asked], answers, votes, per_prompt=100)
    right, wrong = {answers[0].id, answers[3].id}, {answers[1].id, answers[4].id}
    assert {sides(pair) for pair in pairs} == {(r, w) for r in right for w in wrong}
    assert {(pair.prompt_id, pair.label_source) for pair in pairs} == {(asked.id, "verifier")}
    assert rejects == []


@pytest.mark.parametrize("per_prompt", [1, 3, 4])
def test_no_prompt_has_more_pairs_than_the_limit(per_prompt: int) -> None:
    made = [verified(f"q{i}", *[1.0] * 6, *[0.0] * 6) for i in range(4)]
    pairs, _ = pairs_of(
        [m[0] for m in made],
        [r for m in made for r in m[1]],
        [v for m in made for v in m[2]],
        per_prompt=per_prompt,
    )
    assert Counter(pair.prompt_id for pair in pairs) == {m[0].id: per_prompt for m in made}
    assert [p.prompt_id for p in pairs] == [m[0].id for m in made for _ in range(per_prompt)]


def test_only_the_verifier_says_what_is_right() -> None:
    asked, answers, _ = verified("q", 1.0, 0.0)
    votes = [verdict(r.id, v, "constraint:json") for r, v in zip(answers, (1.0, 0.0), strict=True)]
    pairs, rejects = pairs_of([asked], answers, votes)
    assert pairs == []
    assert [r.code for r in rejects] == ["no_contrast"]


def test_equal_texts_stand_for_one_response_and_are_never_paired() -> None:
    asked = prompt()
    answers = [response(asked.id, i, t) for i, t in enumerate(["r", "r", "w", "w", "w"])]
    votes = [verdict(r.id, float(r.text == "r")) for r in answers]
    pairs, _ = pairs_of([asked], answers, votes, per_prompt=100)
    assert [sides(pair) for pair in pairs] == [(answers[0].id, answers[2].id)]
    same = [response(asked.id, i, "same") for i in range(2)]
    labels = [step_labels(same[0], 1.0), step_labels(same[1], 0.0)]
    pairs, rejects = pairs_of([asked], same, [], labels)
    assert pairs == []
    assert [(r.code, r.detail) for r in rejects] == [
        ("no_contrast", "1 different responses, 0 right, 0 wrong")
    ]


def test_best_is_paired_with_worst_where_the_verifier_gives_no_contrast() -> None:
    asked, answers, votes = verified("q", 1.0, 1.0, 1.0, 1.0)
    labels = [
        step_labels(answers[0], 0.5, 0.6),
        step_labels(answers[1], 0.9, 0.7),
        step_labels(answers[2], 0.1, None, 0.2),
        step_labels(answers[3], None),
    ]
    pairs, rejects = pairs_of([asked], answers, votes, labels)
    assert [sides(pair) for pair in pairs] == [(answers[1].id, answers[2].id)]
    assert pairs[0].label_source == "step_values"
    assert rejects == []
    pairs, rejects = pairs_of([asked], answers, votes, labels, best_worst=False)
    assert pairs == []
    assert [r.code for r in rejects] == ["no_contrast"]


def test_where_the_verifier_gives_contrast_step_values_are_not_used() -> None:
    asked, answers, votes = verified("q", 1.0, 0.0)
    labels = [step_labels(answers[0], 0.1), step_labels(answers[1], 0.9)]
    pairs, _ = pairs_of([asked], answers, votes, labels)
    assert [(sides(p), p.label_source) for p in pairs] == [
        ((answers[0].id, answers[1].id), "verifier")
    ]


def test_paths_that_a_search_grew_and_steps_without_values_pair_nothing() -> None:
    asked, answers, votes = verified("q", 1.0, 1.0, 1.0)
    labels = [
        step_labels(answers[0], 0.5, None),
        step_labels(answers[1], None, 0.9),
        step_labels(answers[2], None, None),
    ]
    alone = pairs_of([asked], answers, votes, labels)
    grown = [step_labels(answers[0], value, grown=f"t{value}") for value in (0.0, 0.3, 1.0)]
    assert pairs_of([asked], answers, votes, grown + labels) == alone
    assert [sides(pair) for pair in alone[0]] == [(answers[1].id, answers[0].id)]
    pairs, rejects = pairs_of([asked], answers, votes, grown)
    assert (pairs, [r.code for r in rejects]) == ([], ["no_contrast"])


@pytest.mark.parametrize(
    ("gap", "min_gap", "paired"),
    [(0.25, 0.25, True), (0.25, 0.26, False), (0.0, 0.0, False), (0.125, 0.0, True)],
)
def test_best_and_worst_must_be_far_enough_apart(gap: float, min_gap: float, paired: bool) -> None:
    asked, answers, _ = verified("q", None, None)
    labels = [step_labels(answers[0], 0.5), step_labels(answers[1], 0.5 + gap)]
    pairs, rejects = pairs_of([asked], answers, [], labels, min_gap=min_gap)
    assert (len(pairs), len(rejects)) == ((1, 0) if paired else (0, 1))


def test_every_prompt_has_a_pair_or_a_reason() -> None:
    made = [
        verified("both", 1.0, 0.0),
        verified("right", 1.0, 1.0),
        verified("unparsed", None, 0.0),
        verified("silent"),
    ]
    prompts = [m[0] for m in made]
    pairs, rejects = pairs_of(
        prompts, [r for m in made for r in m[1]], [v for m in made for v in m[2]]
    )
    assert [pair.prompt_id for pair in pairs] == [prompts[0].id]
    assert [(r.unit, r.stage, r.code, r.detail) for r in rejects] == [
        (prompts[1].id, "pairs", "no_contrast", "2 different responses, 2 right, 0 wrong"),
        (prompts[2].id, "pairs", "no_contrast", "2 different responses, 0 right, 1 wrong"),
        (prompts[3].id, "pairs", "no_response", "0 different responses, 0 right, 0 wrong"),
    ]


def many() -> tuple[list[Prompt], list[Response], list[Vote]]:
    made = [verified(f"q{i}", *[1.0, 0.0] * 4) for i in range(200)]
    return (
        [m[0] for m in made],
        [r for m in made for r in m[1]],
        [v for m in made for v in m[2]],
    )


def test_the_better_one_stands_first_half_of_the_time() -> None:
    """Also where few of many candidate pairs are taken: the choice must not show in the order."""
    for per_prompt in (1, 4):
        pairs, _ = pairs_of(*many(), per_prompt=per_prompt)
        first = sum(pair.label == "a" for pair in pairs)
        # six standard deviations of a fair coin
        assert abs(first - len(pairs) / 2) < 3 * len(pairs) ** 0.5


def test_choice_depends_on_content_and_seed_alone() -> None:
    prompts, responses, votes = many()
    pairs, _ = pairs_of(prompts, responses, votes)
    assert pairs_of(prompts, responses, votes)[0] == pairs
    shuffled = pairs_of(prompts, responses[::-1], votes[::-1])[0]
    assert shuffled == pairs
    other = pairs_of(prompts, responses, votes, seed=1)[0]
    assert {p.id for p in other} != {p.id for p in pairs}
    assert len(other) == len(pairs)


def test_empty_tables_give_empty_tables() -> None:
    assert pairs_of([], [], []) == ([], [])
    assert pairs_of([], [], [], []) == ([], [])


def test_chunked_tables_give_what_whole_ones_give() -> None:
    prompts, responses, votes = many()
    table = Response.to_table(responses)
    chunked = pa.concat_tables([table.slice(0, 11), table.slice(11)])
    arguments = Vote.to_table(votes), None, PairsConfig(), 0
    whole = pair_up(Prompt.to_table(prompts), table, *arguments)
    assert pair_up(Prompt.to_table(prompts), chunked, *arguments) == whole


def test_what_nothing_tells_apart_is_paired_without_a_label_where_that_is_wanted() -> None:
    asked, answers, votes = verified("q", None, None, None, None, None)
    checked, its_answers, its_votes = verified("other", 1.0, 0.0, 0.0)
    every = [asked, checked], [*answers, *its_answers], [*votes, *its_votes]
    pairs, rejects = pairs_of(*every, per_prompt=4, unlabelled=True)
    own = [pair for pair in pairs if pair.prompt_id == asked.id]
    assert [(p.label, p.label_source) for p in own] == [(None, None)] * 4
    met = [{p.response_a, p.response_b} for p in own]
    assert len({frozenset(m) for m in met}) == 4 and all(len(m) == 2 for m in met)
    # Two pairs share no response, as far as five go.
    assert any(not (a & b) for a in met for b in met)
    # Where the verifier found a contrast, that is what is compared.
    assert {p.label_source for p in pairs if p.prompt_id == checked.id} == {"verifier"}
    assert rejects == []
    assert len(pairs_of(*every, per_prompt=2)[1]) == 1


def test_two_pairs_of_four_unlabelled_responses_are_disjoint() -> None:
    asked, answers, votes = verified("q", None, None, None, None)
    pairs, _ = pairs_of([asked], answers, votes, per_prompt=2, unlabelled=True)
    assert sorted([*(p.response_a for p in pairs), *(p.response_b for p in pairs)]) == sorted(
        r.id for r in answers
    )
    assert len(pairs_of([asked], answers, votes, per_prompt=99, unlabelled=True)[0]) == 6
