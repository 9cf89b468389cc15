"""The stage with per-step Monte Carlo: labels from rollouts whose outcomes are known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipelines.engines.base import Request
from pipelines.journal import Journal, Journaled
from pipelines.process.label import Labelled
from schemas.errors import BadReply
from tests.pipelines.process.told_label import ANSWERS, PREFIXES, engine, label, prompt, response
from tests.pipelines.told import Answer, ToldEngine


def test_every_step_is_asked_for_until_each_has_what_it_needs() -> None:
    asked = engine({PREFIXES[0]: "rr", PREFIXES[1]: "wrwr", PREFIXES[2]: "wwwwwwww"})
    done = label(asked, [response()])
    asks = [(ask.position, ask.count) for ask in done.labels[0].asked]
    assert asks == [(1, 2), (2, 2), (3, 2), (2, 1), (3, 2), (2, 1), (3, 2), (3, 2)]
    assert {(ask.of, ask.why) for ask in done.labels[0].asked} == {("policy", "every step")}
    assert {(r.prompt_id, r.prover) for r in done.rollouts} == {(prompt().id, False)}


@pytest.mark.parametrize(
    ("stop_at", "k", "outcomes", "n"),
    [
        (0, 4, "rrrr", 4),
        (1, 4, "wr--", 2),
        (2, 4, "wwrr", 4),
        (3, 8, "rwrr----", 4),
        (2, 1, "r", 1),
        (9, 3, "rrr", 3),
    ],
)
def test_sampling_stops_where_it_should(stop_at: int, k: int, outcomes: str, n: int) -> None:
    asked = engine({"a\n": outcomes})
    done = label(asked, [response("a\n#6")], k=k, stop_at=stop_at)
    assert done.labels[0].n == (n, 0)
    assert len(asked.asked) == n


@pytest.mark.parametrize("delays", [(0.0, 0.02), (0.02, 0.0)])
def test_which_bad_reply_is_reported_does_not_depend_on_which_came_first(
    delays: tuple[float, float],
) -> None:
    async def told(request: Request) -> Answer:
        first = request.prefix == "a\n"
        await asyncio.sleep(delays[0] if first else delays[1])
        return BadReply("first" if first else "second", "")

    done = label(ToldEngine(told), [response("a\nb\n#6")], k=2)
    assert [r.code for r in done.rejects] == ["first"]


def test_responses_that_begin_alike_share_rollouts_and_one_is_not_stopped_by_the_other(
    tmp_path: Path,
) -> None:
    """Both ask for what follows `a`; the first response is rejected while that is under way."""

    async def told(request: Request) -> Answer:
        if request.prefix == "a\nbad\n":
            return BadReply("refused", "no")
        await asyncio.sleep(0.01)
        return ANSWERS["r"]

    asked = ToldEngine(told)
    journaled = Journaled(asked, Journal(tmp_path / "journal.sqlite"))
    responses = [response("a\nbad\n#6", 0), response("a\ngood\n#6", 1)]
    done = label(journaled, responses, k=2)
    assert [row.response_id for row in done.labels] == [responses[1].id]
    assert [r.unit for r in done.rejects] == [responses[0].id]
    assert len([r for r in asked.asked if r.prefix == "a\n"]) == 2


def test_a_prefix_that_two_solutions_share_is_sampled_once_and_counts_in_both() -> None:
    asked = engine({"a\n": "wwwr", "a\nb\n": "rwrw", "a\nc\n": "wwww"})
    done = label(asked, [response("a\nb\n#6"), response("a\nc\n#7", 1)], k=4, stop_at=0)
    assert [row.n for row in done.labels] == [(4, 4, 0)] * 2
    assert [row.successes for row in done.labels] == [(1, 2, 0), (1, 0, 0)]
    assert len(done.rollouts) == len(asked.asked) == 12
    first, second = done.trajectories
    assert first.prefixes[:2] == second.prefixes[:2]
    assert first.prefixes[2] != second.prefixes[2]


def test_a_resumed_run_has_the_same_rows_and_asks_nothing_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    letters = {PREFIXES[0]: "wrtr", PREFIXES[1]: "wwuwtwww", PREFIXES[2]: "ttuutttr"}
    asked = engine(letters)
    whole = label(Journaled(asked, journal), [response()])
    other = ToldEngine(lambda r: ANSWERS["b"])  # were it asked, it would have no answer
    again = label(Journaled(other, journal), [response()])
    assert other.asked == []
    assert again == whole
    journal.close()


def test_results_do_not_depend_on_what_finishes_first() -> None:
    def run(slow: str) -> Labelled:
        async def told(request: Request) -> Answer:
            await asyncio.sleep(0.01 if request.prefix.startswith(slow) else 0)
            return ANSWERS["rw"[(len(request.prefix) + request.sample) % 2]]

        responses = [response(f"{name}\nx\n#6", i) for i, name in enumerate("abc")]
        return label(ToldEngine(told), responses)

    assert run("a") == run("b") == run("c")
