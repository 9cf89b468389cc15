"""What is read of step labels: whole counts, few texts, the questions worth reading first."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import runs, steps_data
from flows.steps_data import Listed, Made, Outcomes, choose
from pipelines.store import Store
from schemas.errors import UserError
from tests.flows.sample_steps import (
    GIVEN,
    HEAD,
    PENS,
    Rows,
    draw,
    empty,
    joined,
    pens,
    plain,
    prefix_id,
    publish,
    solve,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, Store, runs.RunRecord, Made]:
    rows = joined([pens(), plain(5, ["RR", "RR"]), plain(9, ["RWWWWR", "W" * 8, "W" * 40])])
    store, record = publish(tmp_path_factory.mktemp("data") / "store", rows)
    return rows, store, record, dict(record.outputs(store))


def test_the_numbers_of_a_question(whole: tuple[Rows, Store, runs.RunRecord, Made]) -> None:
    rows, _, _, made = whole
    found = {row.prompt_id: row for row in steps_data.overview(made)}
    assert len(found) == 3
    row = found[rows.prompts[0].id]
    assert (row.solutions, row.grown, row.resolved, row.errors) == (5, 2, 3, 3)
    assert (row.steps, row.labelled) == (5 + 5 + 4 + 4 + 3, 5 + 5 + 2 + 4 + 2)
    drawn = [r for r in rows.rollouts if r.prompt_id == rows.prompts[0].id]
    assert (row.rollouts, row.tokens) == (len(drawn), sum(r.completion_tokens for r in drawn))
    assert row.rollouts == 84
    total = steps_data.total(list(found.values()))
    assert (total.solutions, total.rollouts) == (len(rows.labels), len(rows.rollouts))
    assert total.widest == max(row.widest or 0 for row in found.values())
    assert steps_data.stopped(made) == {
        "confident": 3,
        "complete": 2,
        "budget": 1,
        "pool_empty": 1,
    }


def test_a_question_is_read_whole_but_its_rollouts_are_capped(
    whole: tuple[Rows, Store, runs.RunRecord, Made],
) -> None:
    rows, _, _, made = whole
    ids = [rows.prompts[2].id, rows.prompts[0].id]
    nuts, question = steps_data.questions(made, ids)
    assert [q.prompt.id for q in (nuts, question)] == ids
    assert question.prompt.messages[0].content == PENS
    assert [s.response.sample_index if s.response else None for s in question.solutions] == [
        *(0, 1, 2),
        *(None, None),
    ]
    assert question.solutions[3].text.endswith("So she ends with 29 × 3 = 87.\n#87")
    assert [s.labels.id for s in question.solutions] == [row.id for row in rows.labels[:5]]
    assert question.responses == 4
    assert [reject.code for reject in question.rejects] == ["same_text"]
    assert len(question.pairs) == 4
    key = prefix_id(question.prompt, HEAD + GIVEN)
    assert question.rollouts[key, False].outcomes == Outcomes(11, 1, 0, 0, 306)
    assert question.rollouts[key, True].outcomes == Outcomes(3, 1, 0, 0, 86)
    many = nuts.rollouts[nuts.solutions[0].trajectory.prefixes[3], False]
    assert many.outcomes.n == 40
    assert [r.draw for r in many.shown] == list(range(steps_data.SHOWN_ROLLOUTS))


def test_any_of_its_ids_names_a_question(
    whole: tuple[Rows, Store, runs.RunRecord, Made],
) -> None:
    rows, _, _, made = whole
    labels = rows.labels[1]
    assert labels.response_id is not None
    asked = (labels.prompt_id, None)
    single = (labels.prompt_id, labels.trajectory_id)
    assert steps_data.find(made, labels.prompt_id) == asked
    for unit in (labels.response_id, labels.trajectory_id, labels.id, labels.id[:10]):
        assert steps_data.find(made, unit) == single
    grown = rows.labels[4]
    assert steps_data.find(made, grown.trajectory_id) == (grown.prompt_id, grown.trajectory_id)


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("f" * 32, "no prompt, response, trajectory or step labels of this run begin so"),
        ("../../etc/passwd", "'../../etc/passwd': no id; give at least 4 hex digits"),
        ("abc", "'abc': no id"),
    ],
)
def test_what_names_nothing_is_said(
    unit: str, message: str, whole: tuple[Rows, Store, runs.RunRecord, Made]
) -> None:
    with pytest.raises(UserError) as error:
        steps_data.find(whole[3], unit)
    assert message in str(error.value)


def test_a_response_that_was_left_out_is_said_with_its_reason(
    whole: tuple[Rows, Store, runs.RunRecord, Made],
) -> None:
    rows, _, _, made = whole
    unit = rows.rejects[0].unit
    with pytest.raises(UserError) as error:
        steps_data.find(made, unit)
    assert str(error.value) == (f"{unit}: it was left out: same_text, another sample says the same")


def test_a_run_without_labels(tmp_path: Path) -> None:
    store, record = publish(tmp_path / "store", empty())
    made = dict(record.outputs(store))
    assert not steps_data.labelled(made)
    assert steps_data.overview(made) == []
    assert steps_data.total([]) == Listed("", 0, 0, 0, 0, 0, 0, 0, 0, None)
    del made["process"]
    assert not steps_data.labelled(made)
    with pytest.raises(UserError, match="this run has no step labels"):
        steps_data.find(made, "0123456789")


def test_a_question_none_of_whose_steps_was_sampled(tmp_path: Path) -> None:
    rows = plain(3, [])
    draw(rows, rows.prompts[0], [], "")
    store, record = publish(tmp_path / "store", rows)
    made = dict(record.outputs(store))
    [row] = steps_data.overview(made)
    assert (row.solutions, row.steps, row.labelled) == (1, 1, 0)
    assert (row.rollouts, row.tokens, row.widest) == (0, 0, None)
    solve(rows, rows.prompts[0], ["#2"], grown=True)


def listed(name: str, unresolved: int = 0, errors: int = 0, widest: float | None = None) -> Listed:
    return Listed(name, 8, 0, 8 - unresolved, errors, 40, 40, 100, 1000, widest)


def test_questions_are_chosen_in_turn_for_what_they_teach() -> None:
    rows = [
        listed("calm"),
        listed("wide", widest=0.9),
        listed("some unresolved", unresolved=2, widest=0.2),
        listed("most unresolved", unresolved=5, widest=0.3),
        listed("errors", errors=7, widest=0.1),
    ]
    chosen = choose(rows, 3, seed=1)
    assert [(row.prompt_id, row.why) for row in chosen] == [
        ("most unresolved", "unresolved"),
        ("wide", "widest interval"),
        ("errors", "first errors"),
    ]
    everything = choose(rows, 40, seed=1)
    assert {row.prompt_id for row in everything} == {row.prompt_id for row in rows}
    assert everything[3].why == "random sample"


@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 8), st.none() | st.floats(0, 1)), max_size=30
    ),
    st.integers(0, 40),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_the_choice_is_fixed_by_the_seed_alone(
    found: list[tuple[int, int, float | None]], most: int, seed: int, random: object
) -> None:
    rows = [listed(f"q{i}", *row) for i, row in enumerate(found)]
    chosen = choose(rows, most, seed)
    assert len(chosen) == len({row.prompt_id for row in chosen}) == min(most, len(rows))
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert choose(rows, most, seed) == chosen
