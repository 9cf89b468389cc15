"""The bundled policy as a world: the pool is what the engine would have written, and truth is true."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from benchmarks.harness import Options
from benchmarks.process_labels import bundled, table
from benchmarks.process_labels.bundled import Words, fresh_prompts, questions
from benchmarks.process_labels.pool import POLICY, SAMPLING, Pool, Sampler, Together, policy, text
from pipelines.engines.base import Reply, Request
from pipelines.engines.local import LocalConfig, LocalEngine
from pipelines.process.search import Prefix, Question, tally
from schemas.records import Prompt

REQUESTS = [
    Request(prompt.messages, SAMPLING.with_seed(5), sample, prefix)
    for prompt in fresh_prompts(3, seed=9)
    for prefix in ("", "3+4=7\n")
    for sample in range(12)
]


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(policy())


def test_the_sampler_writes_what_the_local_engine_writes() -> None:
    """In float64, where no reply depends on what else is in the batch."""
    engine = LocalEngine(LocalConfig(model=str(POLICY), dtype="float64"))

    async def ask() -> list[Reply]:
        async with engine:
            return list(await asyncio.gather(*map(engine.complete, REQUESTS)))

    theirs = asyncio.run(ask())
    ours = dict(Sampler(engine).write(REQUESTS))
    assert [(w.text, w.tokens, w.ended) for w in (ours[i] for i in range(len(REQUESTS)))] == [
        (reply.text, reply.completion_tokens, reply.finish_reason == "stop") for reply in theirs
    ]
    assert len({reply.text for reply in theirs}) > 6


def test_a_reply_is_cut_at_its_limit(sampler: Sampler) -> None:
    from dataclasses import replace

    short = [replace(r, sampling=replace(r.sampling, max_tokens=4)) for r in REQUESTS[:12]]
    whole, cut = dict(sampler.write(REQUESTS[:12])), dict(sampler.write(short))
    for index in range(12):
        assert cut[index].tokens == 4 and not cut[index].ended
        assert whole[index].text.startswith(cut[index].text)


def test_as_an_engine_it_writes_nothing_twice(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, wrote = Together(sampler), []
    write = Sampler.write

    def counted(self: Sampler, requests: list[Request]):  # type: ignore[no-untyped-def]
        wrote.append(len(requests))
        return write(self, requests)

    monkeypatch.setattr(Sampler, "write", counted)

    async def ask(requests: list[Request]) -> list[Reply]:
        return list(await asyncio.gather(*map(engine.complete, requests)))

    first = asyncio.run(ask([*REQUESTS[:8], *REQUESTS[:4]]))
    again = asyncio.run(ask(REQUESTS[:8]))
    assert (first[:8], first[8:]) == (again, again[:4])
    assert wrote == [8]


def test_who_waits_for_a_reply_hears_why_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Together(Sampler(policy()))

    def fails(self: Sampler, requests: list[Request]) -> None:
        raise MemoryError("too many")

    monkeypatch.setattr(Sampler, "write", fails)
    with pytest.raises(MemoryError, match="too many"):
        asyncio.run(engine.complete(REQUESTS[0]))


def asked(prompt: Prompt) -> Question:
    return Question(prompt, (), tally(()))


def test_a_pool_is_kept_and_nothing_is_written_again(tmp_path: Path, sampler: Sampler) -> None:
    question = asked(fresh_prompts(1, seed=9)[0])
    wanted = [(question, Prefix("", 0), number) for number in (0, 1, 2, 5)]
    pool = Pool(tmp_path, sampler)
    pool.supply(wanted)
    pool.supply(wanted)
    pool.save()
    again = Pool(tmp_path, sampler)
    again.load()
    again.supply(wanted)
    assert (pool.written, again.written) == (4, 0)
    assert again.drawn == pool.drawn
    assert sorted(pool.drawn[text(question.prompt), ""]) == [0, 1, 2, 5]
    assert len(list(tmp_path.iterdir())) == 1


def test_five_seeds_begin_apart_and_the_pool_is_a_ring() -> None:
    worlds = [Words(Pool(Path()), seed, 1024) for seed in range(17, 22)]
    starts = sorted(world.place(0) for world in worlds)
    assert min(b - a for a, b in itertools.pairwise(starts)) >= 204
    assert {worlds[0].place(index) for index in range(1024)} == set(range(1024))


def test_the_solutions_are_wrong_and_their_truth_is_the_checkers(
    tmp_path: Path, sampler: Sampler
) -> None:
    pool = Pool(tmp_path, sampler)
    found = questions(pool, 5)
    solutions = [(q, s) for q in found for s in q.solutions]
    assert len(solutions) == 5
    bundled.fill(pool, found, 32)
    world = Words(pool, 0, 32)
    for question, solution in solutions:
        assert question.responses.n == bundled.RESPONSES
        sound = [
            world.is_sound(question, solution.prefix(t).text) for t in range(solution.steps + 1)
        ]
        assert sound == sorted(sound, reverse=True) and sound[0] and not sound[-1]
        assert world.value(question, solution.text) == 0.0
        seen = tally([world.draw(question, Prefix("", 0), i) for i in range(32)])
        assert world.value(question, "") == seen.right / seen.counted
    shown = bundled._shown()
    assert not {text(question.prompt) for question in found} & shown


def test_a_quick_run_has_the_figures_and_a_second_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [m for m in table.methods()[0] if m.name in ("monte_carlo k=8", "omega", "reference")]
    monkeypatch.setattr(table, "methods", lambda: (tuple(few), ()))
    monkeypatch.setattr(bundled, "QUICK_SOLUTIONS", 3)
    chosen = Options(True, 2, None)
    first = bundled.measure(chosen, [17, 18], tmp_path)

    def fails(self: Sampler, requests: list[Request]) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr(Sampler, "write", fails)
    assert repr(bundled.measure(chosen, [17, 18], tmp_path)) == repr(first)
    figures, intervals, tables = first
    assert (
        {
            "bundled_step_accuracy",
            "bundled_tokens_ratio_to_omega",
            "bundled_tokens_ratio_to_math_shepherd",
            "bundled_ece",
            "bundled_coverage_90",
        }
        <= figures.keys()
        == intervals.keys()
    )
    assert all(0 <= figures[f"bundled_{name}"] <= 1 for name in ("step_accuracy", "ece"))
    assert set(tables["methods"]) == {m.name for m in few} | set(bundled.variants())
    # A judge writes no policy tokens.
    assert tables["methods"]["reference"]["tokens_per_solution"][0] == 0
    assert figures["bundled_tokens_ratio_to_omega"] == pytest.approx(
        figures["bundled_tokens_per_solution"]
        / tables["methods"]["omega"]["tokens_per_solution"][0],
        rel=1e-3,
    )
