"""The chain world is what it says: exact values, true labels."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.process_labels import grid
from benchmarks.process_labels.chain import Cell, Chain, Policy
from benchmarks.process_labels.driving import World
from benchmarks.process_labels.engine import ChainEngine
from pipelines.engines.base import Request, Sampling
from pipelines.grading import grade
from schemas.records import Message

CELLS = [
    Cell(8, 0.3, 0.15),
    Cell(8, 0.3, 0.15, monotone=False),
    Cell(16, 0.7, 0.05, monotone=False),
    Cell(8, 0.3, 0.05, family="steep"),
    Cell(8, 0.1, 0.05, monotone=False, family="lenient"),
    Cell(8, 0.3, 0.0, family="systematic"),
]


def responses(policy: Policy, count: int) -> list[Any]:
    return [policy.draw("", index, 5) for index in range(count)]


def prefixes(text: str) -> list[str]:
    lines = text.split("\n")
    return [*("".join(f"{x}\n" for x in lines[:t]) for t in range(len(lines))), text]


# --- the world -----------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_value_by_dynamic_programming_is_what_rollouts_come_to(cell: Cell) -> None:
    """20,000 rollouts: at the root, and after half of a right and of a wrong solution."""
    policy = Policy(cell, Chain.make(cell.steps, 1))
    drawn = responses(policy, 40)
    half = cell.steps // 2
    checked = [""]
    checked += [prefixes(d.text)[half] for d in drawn if d.outcome == "right"][:1]
    wrong = [prefixes(d.text)[half] for d in drawn]
    checked += [text for text in wrong if not policy.is_sound(text)][:1]
    assert len(checked) == 3
    for prefix in checked:
        n = 20_000 // len(checked)
        share = sum(policy.draw(prefix, i, 9).outcome == "right" for i in range(n)) / n
        value = policy.value(prefix)
        assert abs(share - value) <= 4.5 * math.sqrt(value * (1 - value) / n), (prefix, value)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_the_rate_is_the_share_of_solutions_without_an_error(cell: Cell) -> None:
    clean = []
    for seed in range(400):
        policy = Policy(cell, Chain.make(cell.steps, f"rate {seed}"))
        clean += [policy.is_sound(d.text) for d in responses(policy, 10)]
    # Questions differ in difficulty, here and among those that the hazard was set by.
    assert abs(np.mean(clean) - cell.rate) < 0.05


def test_the_root_value_lies_above_the_rate_by_recovery_alone() -> None:
    for q in (0.0, 0.05, 0.15):
        cell = Cell(16, 0.1, q)
        expected = []
        for index in range(40):
            hazard = Policy(cell, Chain.make(16, f"0 {index}")).hazard
            before = math.prod(1 - own[0] for own in hazard[:-1])
            # The last line is right if all was, and it is; or it checks, and q.
            expected.append(before * (1 - hazard[-1][0]) + (1 - before) * q)
        assert grid.root_value(cell) == pytest.approx(np.mean(expected), abs=1e-12)


def test_recovery_from_the_middle_is_q() -> None:
    for q in (0.05, 0.15):
        policy = Policy(Cell(16, 0.7, q, monotone=False), Chain.make(16, 2))
        ever = 1 - math.prod(1 - r for r in policy.recovery[8:])
        assert ever == pytest.approx(q)
    assert Policy(Cell(16, 0.7, 0.15), Chain.make(16, 2)).recovery == (0.0,) * 15 + (0.15,)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CELLS), st.integers(0, 10_000), st.integers(0, 50))
def test_a_text_says_all_that_the_policy_knows(cell: Cell, seed: int, index: int) -> None:
    chain = Chain.make(cell.steps, seed)
    assert Chain.parse(chain.text) == chain
    policy = Policy(cell, chain)
    drawn = policy.draw("", index, 3)
    lines = drawn.text.split("\n")
    assert len(lines) == cell.steps
    assert drawn.tokens == len(drawn.text.split())
    last = policy.state(drawn.text)
    assert (str(last.value), last.position) == (drawn.answer, cell.steps)
    assert (drawn.outcome == "right") == (last.value == chain.right[-1])
    assert policy.value(drawn.text) == (drawn.outcome == "right")
    sound = [policy.is_sound(p) for p in prefixes(drawn.text)]
    assert sound == sorted(sound, reverse=True)
    assert last.first_error == (sound.index(False) - 1 if False in sound else None)
    # A finished prefix leaves nothing to write, an unfinished one the lines that are missing.
    for t, prefix in enumerate(prefixes(drawn.text)):
        rest = policy.draw(prefix, 0, 4)
        whole = prefix + rest.text
        assert whole.count("\n") == cell.steps - 1
        assert policy.state(whole).position == cell.steps
        assert (rest.tokens == 0) == (t == cell.steps)
    asked = Message(role="user", content=chain.text)
    prompt = World(cell)._question(chain, 8, 8).prompt
    assert prompt.messages == (asked,)
    graded = asyncio.run(grade(prompt, drawn.text, False))
    assert (graded.outcome, graded.answer) == (drawn.outcome, drawn.answer)


@pytest.mark.parametrize("monotone", [True, False])
def test_an_unsound_line_never_comes_upon_the_right_value_by_chance(monotone: bool) -> None:
    """Without recovery a wrong value stays wrong, or the dynamic programme would be off."""
    cell = Cell(16, 0.1, 0.0, monotone)
    for seed in range(20):
        policy = Policy(cell, Chain.make(16, seed))
        for drawn in responses(policy, 20):
            states = [policy.state(p) for p in prefixes(drawn.text)]
            right = [policy.is_right(state) for state in states]
            assert right == sorted(right, reverse=True)


def test_a_recovered_prefix_keeps_its_error_and_has_a_high_value() -> None:
    cell = Cell(16, 0.3, 0.15, monotone=False)
    found = 0
    for seed in range(30):
        policy = Policy(cell, Chain.make(16, seed))
        for drawn in responses(policy, 20):
            for prefix in prefixes(drawn.text):
                state = policy.state(prefix)
                if state.first_error is not None and policy.is_right(state):
                    found += 1
                    assert not policy.is_sound(prefix)
                    assert policy.value(prefix) == policy.v[state.position][1][state.mode]
    assert found > 10


def test_a_sound_step_may_lower_the_value_only_with_modes() -> None:
    def drops(cell: Cell) -> int:
        world, count = World(cell), 0
        for question in world.questions(20, wrong=0, right=4):
            for solution in question.solutions:
                kept = [solution.prefix(t).text for t in range(solution.steps + 1)]
                own = [world.value(question, p) for p in kept if world.is_sound(question, p)]
                count += sum(b < a - 1e-12 for a, b in itertools.pairwise(own))
        return count

    assert drops(Cell(16, 0.3, 0.15)) == 0
    assert drops(Cell(16, 0.3, 0.15, monotone=False)) > 10


def test_systematic_errors_make_sound_prefixes_meet_the_solutions_answer() -> None:
    def meets(cell: Cell) -> float:
        world = World(cell)
        hits, all_wrong = 0, 0
        for question in world.questions(15, wrong=1):
            (solution,) = question.solutions
            root = solution.prefix(0)
            drawn = [world.draw(question, root, i) for i in range(200)]
            wrong = [d.answer for d in drawn if d.outcome == "wrong"]
            hits += wrong.count(solution.answer)
            all_wrong += len(wrong)
        return hits / all_wrong

    assert meets(Cell(8, 0.3, 0.05, family="systematic")) > 1.5 * meets(Cell(8, 0.3, 0.05))


def test_a_draw_depends_on_question_prefix_index_and_stream_alone() -> None:
    cell, chain = Cell(8, 0.3, 0.05), Chain.make(8, 3)
    policy, again = Policy(cell, chain), Policy(cell, chain)
    prefix = prefixes(policy.draw("", 0, 1).text)[3]
    drawn = [policy.draw(prefix, i, 1) for i in range(50)]
    assert [again.draw(prefix, i, 1) for i in reversed(range(50))] == drawn[::-1]
    assert [policy.draw(prefix, i, 2) for i in range(50)] != drawn
    assert len({d.text for d in drawn}) > 3


# --- the engine ----------------------------------------------------------------------------------


def test_the_engine_writes_what_the_policy_writes_and_is_cut_at_its_limit() -> None:
    cell, chain = Cell(8, 0.3, 0.05), Chain.make(8, 4)
    policy, engine = Policy(cell, chain), ChainEngine(cell)
    prefix = prefixes(policy.draw("", 0, 1).text)[2]

    async def ask(most: int) -> Any:
        messages = (Message(role="user", content=chain.text),)
        sampling = Sampling(max_tokens=most, seed=6)
        async with engine:
            return await engine.complete(Request(messages, sampling, sample=7, prefix=prefix))

    drawn, reply = policy.draw(prefix, 7, 6), asyncio.run(ask(5000))
    assert (reply.text, reply.finish_reason) == (drawn.text, "stop")
    assert reply.completion_tokens == drawn.tokens
    cut = asyncio.run(ask(40))
    assert (cut.finish_reason, cut.completion_tokens, len(cut.text.split())) == ("length", 40, 40)
    assert drawn.text.startswith(cut.text)
