"""The parts of the process benchmark that run the stage itself, and that their checks can fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import Options, toml
from benchmarks.process_labels import crash, real, utilisation
from benchmarks.process_labels.chain import Cell, Chain
from benchmarks.process_labels.engine import ChainEngine
from flows.plan import load
from pipelines.engines.base import Reply, Request, Sampling
from schemas.errors import UserError
from schemas.records import Message, Prompt

# --- utilisation ---------------------------------------------------------------------------------


class Engine(ChainEngine):
    """The chain policy, with a count of what is under way at once."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.under_way: list[int] = [0]

    def tokens(self, text: str) -> None:
        return None

    async def complete(self, request: Request) -> Reply:
        self.under_way.append(self.under_way[-1] + 1)
        await asyncio.sleep(0)
        self.under_way.append(self.under_way[-1] - 1)
        return await super().complete(request)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    def problems(count: int, seed: int) -> list[Prompt]:
        chains = [Chain.make(8, f"{seed} {index}") for index in range(count)]
        return [
            Prompt(
                messages=(Message(role="user", content=chain.text),),
                reference=str(chain.right[-1]),
                verifier="numeric",
                source="chain",
            )
            for chain in chains
        ]

    monkeypatch.setattr(utilisation, "problems", problems)
    # A line of these has some 30 tokens, and there are 8.
    sampling = utilisation.SAMPLING.model_copy(update={"max_tokens": 400})
    monkeypatch.setattr(utilisation, "SAMPLING", sampling)
    return Engine(Cell(8, 0.5, 0.05))


def test_both_runs_of_a_pair_ask_the_same_of_the_engine(engine: Engine) -> None:
    work = utilisation.respond(engine, 6, seed=3)
    assert len(work.prompts) == 6
    assert len(work.responses) == 6 * utilisation.SAMPLES
    assert work.solutions == 24
    emptied: list[int] = []
    for method in utilisation.METHODS:
        labelled, requests = utilisation.labelling(engine, work, utilisation.settings(method))
        keys = [(r.messages, r.prefix, r.sample) for r in requests]
        assert len(set(keys)) == len(keys) > 50, method
        engine.under_way[:] = [0]
        batch = utilisation.plain(engine, requests)
        assert max(engine.under_way) == len(requests), "all are handed over at once"
        assert batch.tokens == labelled.tokens > 1000
        assert labelled.rate == pytest.approx(labelled.tokens / labelled.seconds)
        made = utilisation.pair(
            engine, work, utilisation.settings(method), lambda: emptied.append(1)
        )
        assert made["tokens"] == made["tokens_plain"] == batch.tokens
        assert made["requests"] == len(requests)
    assert len(emptied) == 2 * len(utilisation.METHODS)


def test_problems_that_are_always_solved_are_left_out(engine: Engine) -> None:
    sure = Engine(Cell(8, 0.999, 0.0))
    with pytest.raises(RuntimeError, match="of 30 problems are now right, now wrong"):
        utilisation.respond(sure, 6, seed=3)


def test_the_figure_is_that_of_the_worst_method_of_the_worse_engine() -> None:
    def pairs(*values: float) -> list[dict[str, float]]:
        row = {"loop_share": 0.1, "other_cpu_s": 2.0, "other_cpu_s_plain": 1.0}
        return [{"utilisation": value, **row} for value in values]

    found = {
        "local float64": {"changepoint": pairs(0.9, 0.5, 0.97), "omega": pairs(0.99)},
        "local float32": {"changepoint": pairs(0.95), "omega_curtailed": pairs(0.1)},
        "openai": {"changepoint": pairs(0.8, 1.2, 0.93)},
    }
    figures, intervals = utilisation.summary(found)
    assert figures["utilisation_local"] == figures["utilisation"] == 0.9
    assert intervals["utilisation"] == (0.5, 0.97)
    assert figures["utilisation_openai"] == 0.93
    assert figures["utilisation_local_float32_omega_curtailed"] == 0.1
    assert figures["utilisation_local_float64_changepoint_engine_cpu"] == 0.5
    assert "utilisation_openai_changepoint_engine_cpu" not in figures
    without = {name: own for name, own in found.items() if name != "openai"}
    assert utilisation.summary(without)[0]["utilisation"] == 0.9
    assert "utilisation_openai" not in utilisation.summary(without)[0]


def test_notes_are_in_the_order_of_asking(engine: Engine) -> None:
    chain = Chain.make(8, "order")
    asked = [
        Request((Message(role="user", content=chain.text),), Sampling(max_tokens=400), sample)
        for sample in (2, 0, 1)
    ]
    noted = utilisation.Noted(engine)

    async def ask() -> list[Reply]:
        async with noted:
            return list(await asyncio.gather(*(noted.complete(r) for r in asked)))

    replies = asyncio.run(ask())
    assert noted.requests == asked
    assert replies[0] == asyncio.run(engine.complete(asked[0]))
    assert (noted.identity, noted.concurrency) == (engine.identity, engine.concurrency)


# --- crash ---------------------------------------------------------------------------------------


def test_plans_of_the_crash_part_are_valid_and_have_a_budget(tmp_path: Path) -> None:
    every = {**crash.parts(quick=True), **crash.parts(quick=False)}
    assert {part.plan["process"]["method"] for part in every.values()} == set(crash.METHODS)
    assert sum(part.kills for part in crash.parts(quick=False).values()) >= 20
    for name, part in every.items():
        path = tmp_path / f"{name}.toml"
        path.write_text(toml(part.plan))
        plan = load(path)
        assert plan.process is not None and plan.process.budget_tokens
        assert plan.train is None
        assert (name.startswith("varying")) == part.varying
        # Two shards, so that a kill comes between them, too.
        assert part.plan["prompts"]["limit"] == 2 * plan.shard_rows


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("varying", [False, True])
def test_a_labelling_run_that_is_killed_ends_in_the_same_bytes(
    tmp_path: Path, varying: bool
) -> None:
    part = replace(crash.part("scripted", "changepoint", 20, 2, varying), kills=2)
    outcome = crash.disturbed(tmp_path / "x", part, seed=5)
    assert outcome.identical == 1.0
    assert outcome.asked_twice == outcome.replies_changed == outcome.asked_when_repeated == 0
    assert outcome.kills + outcome.kills_missed == 2
    assert outcome.varied == varying
    labels = crash.stopped(tmp_path / "x" / "killed")
    known = {"budget", "confident", "cap", "uninformative", "refitted"}
    assert set(labels) <= known and labels["budget"]


# --- real text -----------------------------------------------------------------------------------


def test_steps_that_come_out_otherwise_are_listed() -> None:
    rows = [
        {"task": "t", "item": 1, "steps": ["One is 1.", "Two is 2."]},
        {"task": "t", "item": 2, "steps": ["One.", "", "Three."]},
        {"task": "t", "item": 3, "steps": ["One\nand a half.", "Two."]},
    ]
    found = real.unlike(rows, "lines")
    assert [(r["item"], r["stated"], r["split"], r["equal_but_for_empty"]) for r in found] == [
        (2, 3, 2, True),
        (3, 2, 3, False),
    ]
    # An empty step behind a marker is a step; so is one of two lines.
    assert [row["item"] for row in real.unlike(rows, "markers")] == [2]
    shares, steps = real.lossless(["a.\n\nB. C", "x" * 9])
    assert set(shares.values()) == {1.0}
    assert steps["paragraphs"] == {"median": 2, "p90": 2, "most": 2}


def test_verdicts_that_are_not_the_published_ones_are_listed() -> None:
    def row(item: int, solution: str, published: bool) -> dict[str, Any]:
        return {
            "question_id": item,
            "question": "How many?",
            "reference": "3 + 4 = 7\nA: 7",
            "model": "m",
            "solution": solution,
            "is_correct": published,
        }

    unlike, unreadable = real.check(
        [
            row(0, "3+4=7\nA: 7", True),
            row(1, "3+4=8\nA: 8", False),
            row(2, "3+4=8\nA: 8", True),
            row(3, "A: 7.0", False),
            row(4, "I do not know", False),
            row(5, "I do not know", True),
        ]
    )
    assert [(v.question_id, v.outcome, v.published) for v in unlike] == [
        (2, "wrong", True),
        (3, "right", False),
        (5, "unparsed", True),
    ]
    assert [v.question_id for v in unreadable] == [4, 5]
    assert unlike[0].reference == "A: 7"


def test_without_the_data_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(real, "DATA", tmp_path)
    with pytest.raises(UserError, match=r"bigbench_mistake\.parquet is not in the shared data"):
        real.measure(Options(quick=True, seeds=1, out=None), [17])


@pytest.mark.skipif(not real.DATA.is_dir(), reason="the shared data is not there")
def test_the_first_rows_of_real_text_agree() -> None:
    figures, _, tables = real.measure(Options(quick=True, seeds=1, out=None), [17])
    assert (tables["mistakes"], tables["solutions"]) == (real.QUICK, real.QUICK)
    assert figures["checker_agreement"] >= 0.99
    assert figures["splitter_agreement"] >= 0.99
    assert figures["lossless_sentences"] == figures["lossless_markers"] == 1.0
