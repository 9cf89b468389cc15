"""Synthesis by every method: what is drawn, merged, left out with its reason, and never used."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipelines.prompting import load
from pipelines.rubrics import synthesis
from pipelines.rubrics.config import RubricsConfig, is_held_out
from pipelines.rubrics.rubric_file import write_rubric
from pipelines.rubrics.synthesis import Made, synthesize
from schemas.errors import PlanError
from schemas.records import Criterion, Pair, Prompt, Rubric
from tests.pipelines.rows import response
from tests.pipelines.rubrics.synthesizing import Rows, codes, contrast, engine, item, make, prompt

# --- the other methods ------------------------------------------------------------------------------


def explained(asked: str, bad: str = "") -> Any:
    if "<explanation-" not in asked:
        number = next(n for n in range(20) if f"Write {n} words" in asked)
        return {"explanation": f"it is calm, {number}"}
    if bad and f"it is calm, {bad}\n" in asked:
        return "the rules are clear"
    return {"rules": [{"text": "Is calm.", "kind": "principle"}]}


def test_rules_are_extracted_from_explanations_and_merged_into_one_rubric() -> None:
    rows = Rows(5)
    told = engine(lambda asked: explained(asked, bad="3"))
    made = make(rows, told, methods=("extraction",))
    assert made.criteria == [Criterion(kind="principle", text="Is calm.")]
    lost = rows.pairs[3].id
    assert [(r.unit, r.code) for r in made.rejects] == [(lost, "not_json")]
    (rubric,) = made.rubrics
    assert rubric.prompt_id is None and rubric.method == "extraction"
    assert rubric.pairs == tuple(sorted(p.id for p in rows.pairs if p.id != lost))
    # The model that extracts sees the explanation, and none of the responses.
    second = [
        r.messages[-1].content for r in told.asked if "<explanation-" in r.messages[-1].content
    ]
    assert len(second) == 5 + 2 and not any("I dunno" in text for text in second)


def test_extraction_explains_no_more_pairs_than_its_limit_and_the_seed_says_which() -> None:
    rows = Rows(20)

    def used(seed: int) -> tuple[str, ...]:
        return make(rows, explained, seed, methods=("extraction",), max_pairs=6).rubrics[0].pairs

    assert len(used(0)) == 6 and used(0) == used(0) and used(0) != used(1)


def test_nuggets_are_of_the_reference_and_quote_it() -> None:
    rows = Rows(2)
    rows.prompts[1] = prompt("No reference.")
    nuggets = [
        {"evidence": "Salt 0", "text": "There is salt.", "importance": "essential"},
        {"evidence": "words on the sea", "text": "The sea is wide.", "importance": "optional"},
    ]
    told = engine(lambda asked: {"nuggets": nuggets})
    made = make(rows, told, methods=("nuggets",), scope="general")
    assert [(c.kind, c.text, c.weight) for c in made.criteria] == [
        ("nugget", "There is salt.", 1.0)
    ]
    # The prompt is no source of facts.
    assert [(r.unit, r.code) for r in made.rejects if r.code != "missing_prompt"] == [
        (rows.prompts[0].id, "evidence_not_found")
    ]
    assert [(r.prompt_id, r.pairs) for r in made.rubrics] == [(rows.prompts[0].id, ())]
    assert len(told.asked) == 1


def principle(text: str, met: str, evidence: str = "good") -> Any:
    return {"evidence": evidence, "text": text, "met": met}


def test_feedback_of_one_annotator_is_taken_where_its_span_is_there() -> None:
    rows = Rows(1)
    target = rows.responses[0]
    said = {"principles": [principle("Is calm.", "yes", "so calm"), principle("Rhymes.", "no")]}
    made = make(
        rows, lambda asked: said, methods=("feedback",), feedback={target.id: ["It is so calm"]}
    )
    assert [(c.kind, c.text, c.evidence) for c in made.criteria] == [
        ("principle", "Is calm.", "so calm")
    ]
    assert [(r.unit, r.code) for r in made.rejects] == [(target.id, "evidence_not_found")]
    assert made.rubrics[0].pairs == (rows.pairs[0].id,)


def test_of_more_annotators_two_must_say_the_same() -> None:
    rows = Rows(1)
    target = rows.responses[0]

    def replies(asked: str) -> Any:
        own = "one" if "good, one" in asked else "two"
        other = "yes" if own == "one" else "no"
        return {
            "principles": [
                principle("Cites its sources.", "yes"),
                principle("Is short.", other),
                principle(f"Is {own}.", "yes"),
            ]
        }

    made = make(
        rows,
        replies,
        methods=("feedback",),
        feedback={target.id: ["good, one", "good, two"], "unknown": ["x"]},
    )
    assert [c.text for c in made.criteria] == ["Cites its sources."]
    assert codes(made) == ["annotators_disagree"] * 2 + ["one_annotator"] * 2


def test_a_persons_file_is_taken_as_it_is(tmp_path) -> None:
    rows = Rows(1)
    criteria = [Criterion(kind="principle", text=f"Says {i}.") for i in range(30)]
    rubric = Rubric(criteria=tuple(c.id for c in criteria), method="person", status="approved")
    write_rubric(tmp_path / "mine.toml", rubric, criteria)
    path = str(tmp_path / "mine.toml")
    made = make(rows, lambda asked: "", methods=("person",), paths=(path,))
    assert made == Made(criteria, [rubric], [])


def test_what_code_mines_stands_a_prompt_and_for_all_pairs(monkeypatch) -> None:
    rows = Rows(3)
    seen = []

    def mine_pairs(prompts: Any, responses: Any, pairs: Any, seed: int) -> list[Criterion]:
        seen.append((responses, pairs, seed))
        return [Criterion(kind="hard_rule", text="Is long.", verifier='words {"least": 4}')]

    def mine_prompt(row: Prompt) -> list[Criterion]:
        text = row.messages[0].content
        return [] if "Write 1" in text else [Criterion(kind="hard_rule", text=text)] * 2

    mining = SimpleNamespace(mine_pairs=mine_pairs, mine_prompt=mine_prompt)
    monkeypatch.setitem(sys.modules, "pipelines.rubrics.mining", mining)
    held = next(s for s in range(99) if [_held(p, s) for p in rows.prompts] == [False, False, True])
    made = make(rows, lambda asked: "", held, methods=("mined",), held_out=0.3)
    train = sorted(p.id for p in rows.pairs if not _held_id(p.prompt_id, held))
    assert {r.prompt_id: (len(r.criteria), list(r.pairs)) for r in made.rubrics} == {
        rows.prompts[0].id: (1, []),
        rows.prompts[2].id: (1, []),  # its pairs are held out, its text is not
        None: (1, train),
    }
    ((responses, pairs, seed),) = seen
    assert [p.id for p in pairs] == train and seed == held
    assert {r.prompt_id for r in responses} == {p.prompt_id for p in pairs}


def _held_id(prompt_id: str, seed: int) -> bool:
    return is_held_out(prompt_id, seed, 0.3)


def _held(row: Prompt, seed: int) -> bool:
    return _held_id(row.id, seed)


# --- what holds for all ----------------------------------------------------------------------------


def test_held_out_pairs_and_feedback_are_never_used() -> None:
    rows = Rows(40)
    feedback = {r.id: [f"{r.text} good"] for r in rows.responses}

    def replies(asked: str) -> Any:
        if "<feedback-" in asked:
            return {"principles": [principle("Is calm.", "yes")]}
        if "<better-" in asked and "Explain why" not in asked:
            return contrast(item("Is on the sea.", "the sea"))
        return explained(asked) if "<explanation-" in asked else {"explanation": "it is calm"}

    told = engine(replies)
    made = make(
        rows,
        told,
        seed=7,
        methods=("contrastive", "extraction", "feedback"),
        held_out=0.5,
        feedback=feedback,
    )
    held = {p.id for p in rows.prompts if is_held_out(p.id, 7, 0.5)}
    assert 10 < len(held) < 30
    assert len(told.asked) == (40 - len(held)) * (1 + 2 + 2)
    texts = "\n".join(request.messages[-1].content for request in told.asked)
    for row, pair in zip(rows.prompts, rows.pairs, strict=True):
        assert (f"{row.messages[0].content}\n" in texts) == (row.id not in held)
        used = any(pair.id in rubric.pairs for rubric in made.rubrics)
        assert used == (row.id not in held)


def test_which_prompts_are_held_out_follows_from_id_and_seed() -> None:
    ids = [f"{i:x}" for i in range(4000)]
    chosen = {i for i in ids if is_held_out(i, 0, 0.3)}
    assert 0.27 < len(chosen) / len(ids) < 0.33
    assert chosen <= {i for i in ids if is_held_out(i, 0, 0.5)}
    assert chosen != {i for i in ids if is_held_out(i, 1, 0.3)}
    assert not any(is_held_out(i, 0, 0.0) for i in ids)


def test_pairs_without_a_side_are_passed_over_and_broken_ones_say_so() -> None:
    rows = Rows(4)
    rows.pairs[0] = rows.pairs[0].model_copy(update={"label": "tie"})
    rows.pairs[1] = rows.pairs[1].model_copy(update={"label": None})
    rows.pairs[2] = rows.pairs[2].model_copy(update={"response_b": "gone"})
    rows.prompts.pop(3)
    told = engine(lambda asked: contrast())
    made = make(rows, told, methods=("contrastive",))
    assert told.asked == []
    assert {r.unit: (r.code, r.detail) for r in made.rejects} == {
        rows.pairs[2].id: ("missing_response", "gone"),
        rows.pairs[3].id: ("missing_prompt", rows.pairs[3].prompt_id),
    }


def test_the_order_of_the_rows_is_of_no_account() -> None:
    def replies(asked: str) -> Any:
        own = next(n for n in range(6) if f"Write {n} words" in asked)
        return contrast(item("Is on the sea.", "the sea"), item(f"Has {own}.", f"Write {own}"))

    settings = {"methods": ("contrastive",), "scope": "general", "max_criteria": 3}
    one, two = Rows(6), Rows(6)
    for part in two.all():
        part.reverse()
    assert make(one, replies, **settings) == make(two, replies, **settings)


def test_samples_are_asked_apart_and_merged() -> None:
    rows = Rows(1)
    told = engine(lambda asked: contrast(item("Is on the sea.", "the sea")))
    steps: list[tuple[int, int]] = []
    config = RubricsConfig(methods=("contrastive",), engine="w", held_out=0.0, samples=3)
    made = asyncio.run(
        synthesize(*rows.all(), config, {"w": told}, 5, lambda r, t: steps.append((r, t)))
    )
    assert [request.sample for request in told.asked] == [0, 1, 2]
    assert {request.sampling.seed for request in told.asked} == {5}
    assert len(made.criteria) == 1 and steps == [(1, 0)] * 3


def test_an_embedder_says_what_is_alike() -> None:
    rows = Rows(1)
    reply = contrast(item("Is on the sea.", "the sea"), item("Treats of oceans.", "the sea"))
    same = make(
        rows,
        lambda asked: reply,
        methods=("contrastive",),
        embed=lambda texts: np.ones((len(texts), 1), np.float32),
    )
    assert [c.text for c in same.criteria] == ["Is on the sea."]
    assert codes(same) == ["duplicate_criterion"]
    assert len(make(rows, lambda asked: reply, methods=("contrastive",)).criteria) == 2


def test_the_templates_asked_are_those_of_the_digest(monkeypatch) -> None:
    asked: set[str] = set()

    def noting(folder: Any, name: str) -> Any:
        asked.add(name)
        return load(folder, name)

    monkeypatch.setattr("pipelines.rubrics.drafting.load", noting)
    rows = Rows(2)
    third = response(rows.prompts[0].id, 2, "Third.")
    rows.responses.append(third)
    for index in (0, 1):
        better = rows.responses[index].id
        rows.pairs.append(
            Pair(prompt_id=third.prompt_id, response_a=better, response_b=third.id, label="a")
        )
    make(
        rows,
        lambda asked: {"explanation": "it is calm"},
        methods=("contrastive", "extraction", "feedback", "nuggets"),
        contrast="lists",
        feedback={third.id: ["fine"]},
    )
    assert sorted(asked) == list(synthesis._ASKED)
    before = synthesis.templates_digest()
    monkeypatch.setattr("pipelines.rubrics.synthesis._ASKED", ("contrast",))
    assert len(before) == 32 and synthesis.templates_digest() != before


def test_an_engine_that_is_not_there_is_one_line() -> None:
    rows = Rows(1)
    with pytest.raises(PlanError, match="no engine 'other'; there are: writer"):
        make(rows, lambda asked: "", methods=("nuggets",), engine="other")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "method 'contrastive' needs an engine; set rubrics.engine"),
        ({"methods": ("person",)}, "method 'person' needs a file; set rubrics.paths"),
        ({"methods": ()}, "at least 1 item"),
    ],
)
def test_a_config_says_what_it_lacks(settings: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RubricsConfig(**settings)
