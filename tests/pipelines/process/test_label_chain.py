"""The stage of step labels, against a policy whose values are exact: replay, budgets, the fit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.process_labels.chain import Cell, Chain, Policy
from benchmarks.process_labels.engine import ChainEngine
from pipelines.engines.base import Engine, Tokens
from pipelines.engines.scripted import ScriptedConfig, ScriptedEngine
from pipelines.generate import GenerateConfig, generate
from pipelines.journal import Journal, Journaled
from pipelines.process.label import Labelled
from pipelines.process.methods.changepoint import Changepoint
from pipelines.sampling import SamplingConfig
from schemas.records import (
    Message,
    Prompt,
    Response,
)
from tests.pipelines.process.told_label import (
    SEED,
    TABLES,
    checked,
    label,
    prompt,
)


class Policied(ChainEngine):
    """The chain world's engine, which has no tokenizer."""

    def tokens(self, text: str) -> Tokens | None:
        return None


# --- the chain world's policy --------------------------------------------------------------------

CELL = Cell(6, 0.5, 0.05)
SAMPLING = SamplingConfig(max_tokens=400)


def chains(count: int, cell: Cell = CELL) -> list[Prompt]:
    return [
        Prompt(
            messages=(Message(role="user", content=chain.text),),
            reference=str(chain.right[-1]),
            verifier="numeric",
            source="chain",
        )
        for chain in (Chain.make(cell.steps, f"stage {i}") for i in range(count))
    ]


def generated(prompts: Sequence[Prompt], policy: Engine, samples: int = 4) -> list[Response]:
    config = GenerateConfig(engine="policy", samples=samples, sampling=SAMPLING)

    async def main() -> list[Response]:
        async with policy:
            return (await generate(prompts, policy, config, SEED))[0]

    return asyncio.run(main())


def settings(method: str, **change: Any) -> dict[str, Any]:
    return {"method": method, "k": 4, "sampling": SAMPLING.model_dump(), **change}


METHODS: list[dict[str, Any]] = [
    settings("monte_carlo"),
    settings("monte_carlo", filter={"rollouts": 8}),
    settings("omega", omega={"searches": 6}),
    settings("omega_mm", omega={"searches": 6}),
    settings("advantage"),
    settings("sorm"),
    settings("tree", tree={"simulations": 8}),
    settings("epic"),
    settings("scan"),
    settings("changepoint", changepoint={"pilot": 4}),
    settings("changepoint", changepoint={"pilot": 4}, filter={"rollouts": 8}),
]


@pytest.mark.parametrize("config", METHODS, ids=lambda c: c["method"] + ("+" * ("filter" in c)))
@pytest.mark.parametrize("budget", [None, 3000])
def test_every_response_is_labelled_or_rejected_once_and_tables_agree(
    config: dict[str, Any], budget: int | None
) -> None:
    prompts, policy = chains(5), Policied(CELL, concurrency=8)
    responses = generated(prompts, policy)
    advanced: list[tuple[int, int]] = []
    done = label(
        policy,
        responses,
        prompts,
        advance=lambda rows, tokens: advanced.append((rows, tokens)),
        budget_tokens=budget,
        **config,
    )
    checked(done, responses, at_prefix=config["method"] != "tree")
    # A filter may take all that there is.
    assert done.labels or (budget and {r.code for r in done.rejects} >= {"over_budget"})
    spent = sum(r.completion_tokens for r in done.rollouts)
    assert spent == sum(tokens for _, tokens in advanced)
    assert sum(rows for rows, _ in advanced) == len(responses)
    if budget is not None:
        # Over by no more than a rollout of each question, or two where there is a pilot.
        assert spent <= budget + 2 * 5 * 6 * 45


@pytest.mark.parametrize(("method", "share"), [("monte_carlo", 0.8), ("changepoint", 0.95)])
def test_labels_are_mostly_those_of_the_exact_policy(method: str, share: float) -> None:
    """With recovery `any right` holds some wrong prefixes for right."""
    prompts, policy = chains(12), Policied(CELL)
    responses = generated(prompts, policy, samples=6)
    done = checked(label(policy, responses, prompts, **settings(method, k=8)), responses)
    exact = {p.id: Policy(CELL, Chain.parse(p.messages[0].content)) for p in prompts}
    texts = {r.id: r.text for r in responses}
    hits = total = 0
    for trajectory, row in zip(done.trajectories, done.labels, strict=True):
        assert trajectory.response_id is not None
        own = exact[row.prompt_id]
        for t, found in enumerate(row.label[:-1]):
            if found is not None:
                sound = own.is_sound(texts[trajectory.response_id][: trajectory.ends[t]])
                hits += (found == "right") == sound
                total += 1
    assert total > 150
    assert hits / total > share


def tables(done: Labelled) -> list[bytes]:
    """The tables as they go to disk."""
    found = []
    for record, kept in TABLES:
        table = record.to_table(kept(done))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        found.append(sink.getvalue().to_pybytes())
    return found


@pytest.mark.parametrize("config", METHODS, ids=lambda c: c["method"] + ("+" * ("filter" in c)))
def test_a_replay_from_the_journal_gives_the_same_bytes_and_asks_nothing(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """The second time with other concurrency, so that all comes in another order."""
    prompts = chains(4)
    journal = Journal(tmp_path / "journal.sqlite")
    first, second = (Journaled(Policied(CELL, concurrency=c), journal) for c in (3, 200))
    responses = generated(prompts, first)
    one = label(first, responses, prompts, budget_tokens=4000, **config)
    two = label(second, responses, prompts, budget_tokens=4000, **config)
    assert second.asked == 0
    assert second.replayed == len(two.rollouts)
    assert tables(one) == tables(two)
    fresh = label(Policied(CELL, concurrency=1), responses, prompts, budget_tokens=4000, **config)
    assert tables(one) == tables(fresh)
    journal.close()


def test_root_rollouts_are_the_responses_themselves(tmp_path: Path) -> None:
    """With the sampling of `generate` and its seed they come from the journal."""
    prompts = chains(6)
    journal = Journal(tmp_path / "journal.sqlite")
    policy = Journaled(Policied(CELL), journal)
    responses = generated(prompts, policy, samples=4)
    done = label(policy, responses, prompts, **settings("monte_carlo", filter={"rollouts": 8}))
    roots = [r for r in done.rollouts if r.position == 0]
    texts = {(r.prompt_id, r.sample_index): r.text for r in responses}
    same = [r for r in roots if r.draw < 4]
    assert len(same) == policy.replayed == 4 * 6
    assert all(r.text == texts[r.prompt_id, r.draw] for r in same)
    assert {r.code for r in done.rejects} <= {"too_easy", "too_hard", "same_text"}
    journal.close()


def test_a_response_is_no_evidence_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = chains(6)
    journal = Journal(tmp_path / "journal.sqlite")
    policy = Journaled(Policied(CELL), journal)
    responses = generated(prompts, policy, samples=8)
    seen: list[tuple[int, int]] = []
    evidence = Changepoint._evidence

    def kept(self: Changepoint, question: Any, solution: Any) -> Any:
        found = evidence(self, question, solution)
        told = found.others + found.counts[0].sum() + (solution.final_right is not None)
        texts = {r.text for r in responses if r.prompt_id == question.prompt.id}
        texts |= {d.text for d in question.book.draws.get((False, ""), ())}
        seen.append((int(told), len(texts)))
        return found

    monkeypatch.setattr(Changepoint, "_evidence", kept)
    # Not curtailed: all 8 of the filter's rollouts are the responses.
    label(policy, responses, prompts, **settings("changepoint", filter={"rollouts": 8}, stop_at=0))
    journal.close()
    assert seen
    assert [told for told, there in seen if told > 8] == []


def test_the_bad_replies_of_a_scripted_engine_are_replayed_too(tmp_path: Path) -> None:
    replies = ("one\ntwo\n#6", "one\nthree\n#7", "two\n#6", "#8", "what")
    scripted = ScriptedConfig(replies=replies, fail_share=0.1, concurrency=4)
    journal = Journal(tmp_path / "journal.sqlite")
    asked = [(Message(role="user", content=f"How many {i}?"),) for i in range(12)]
    prompts = [prompt(messages=messages) for messages in asked]
    first, second = (Journaled(ScriptedEngine(scripted), journal) for _ in range(2))
    config: dict[str, Any] = {"method": "monte_carlo", "k": 4}

    async def answers() -> list[Response]:
        async with first:
            own = GenerateConfig(engine="policy", samples=4)
            return (await generate(prompts, first, own, SEED))[0]

    responses = asyncio.run(answers())
    one = checked(label(first, responses, prompts, **config), responses)
    assert {r.code for r in one.rejects} == {"refused", "same_text"}
    two = label(second, responses, prompts, **config)
    assert (second.asked, tables(two)) == (0, tables(one))
    journal.close()


# --- budgets and the pilot -----------------------------------------------------------------------


def spent_with(share: float, budget: int, method: str = "monte_carlo", count: int = 6) -> int:
    prompts, policy = chains(count), Policied(CELL)
    responses = generated(prompts, policy, samples=2)
    done = label(
        policy,
        responses,
        prompts,
        share=share,
        budget_tokens=budget,
        **settings(method, k=64, stop_at=0),
    )
    checked(done, responses)
    ends = {"budget", "complete", "confident", "cap", "refitted"}
    assert {row.stopped for row in done.labels} <= ends
    return sum(r.completion_tokens for r in done.rollouts)


def test_these_prompts_have_their_share_of_the_runs_budget() -> None:
    whole, half = spent_with(1.0, 12_000), spent_with(0.5, 12_000)
    assert 12_000 <= whole < 12_000 + 6 * 300
    assert 6_000 <= half < 6_000 + 6 * 300


@pytest.mark.parametrize(("method", "budget"), [("monte_carlo", 3), ("changepoint", 3)])
def test_a_budget_of_next_to_nothing_still_labels_or_rejects_all(method: str, budget: int) -> None:
    assert spent_with(1.0, budget, method) < 6 * 300


def test_a_pilot_that_went_over_its_part_leaves_the_rest_to_end_cleanly() -> None:
    prompts, policy = chains(9), Policied(Cell(6, 0.5, 0.15))
    responses = generated(prompts, policy, samples=2)
    own = {"pilot": 12, "confidence": 0.999}
    done = label(
        policy,
        responses,
        prompts,
        budget_tokens=600,
        **settings("changepoint", changepoint=own),
    )
    checked(done, responses)


def test_the_fit_is_made_after_the_pilot_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[tuple[int, int]] = []
    fit = Changepoint.fit

    def counted(self: Changepoint, findings: Any) -> None:
        every = list(findings)
        draws = sum(len(d) for q, _ in every for d in q.book.draws.values())
        fits.append((sum(len(found) for _, found in every), draws))
        fit(self, every)

    monkeypatch.setattr(Changepoint, "fit", counted)
    prompts, policy = chains(8), Policied(CELL)
    responses = generated(prompts, policy)
    done = label(policy, responses, prompts, **settings("changepoint", changepoint={"pilot": 9}))
    assert len(fits) == 2
    assert 9 <= fits[0][0] < 9 + 4
    assert fits[1] == (len(done.labels), len(done.rollouts))
    assert fits[0][1] < fits[1][1]
    assert {row.method for row in done.labels} == {"changepoint(pilot=9)"}


def test_without_a_fit_a_question_is_labelled_as_it_would_be_alone() -> None:
    prompts, policy = chains(5), Policied(CELL)
    responses = generated(prompts, policy)
    config = settings("changepoint", changepoint={"fit": False})
    together = {row.response_id: row for row in label(policy, responses, prompts, **config).labels}
    for one in prompts:
        own = [r for r in responses if r.prompt_id == one.id]
        for row in label(policy, own, [one], **config).labels:
            assert row == together[row.response_id]
