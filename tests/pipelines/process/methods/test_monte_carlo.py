"""The stage with per-step Monte Carlo: labels from rollouts whose outcomes are known."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from pipelines.engines.base import Request
from pipelines.journal import Journal, Journaled
from pipelines.process.config import ProcessConfig
from pipelines.process.estimate import interval
from pipelines.process.label import Engines, Labelled, label_steps
from pipelines.process.splitting import prefix_id
from schemas.errors import BadReply, EngineDown
from schemas.records import Message, Prompt, Reject, Response, Rollout, StepLabels, Trajectory
from schemas.table import validate
from tests.pipelines.told import Answer, ToldEngine, reply

TEXT = "3+4=7\n7-2=5\n5+1=6\n#6"
PREFIXES = ("3+4=7\n", "3+4=7\n7-2=5\n", "3+4=7\n7-2=5\n5+1=6\n")


def prompt(**change: Any) -> Prompt:
    row: dict[str, Any] = {
        "messages": (Message(role="user", content="How many?"),),
        "reference": "6",
        "verifier": "numeric",
        "source": "s",
    }
    return Prompt(**(row | change))


def response(text: str = TEXT, index: int = 0, **change: Any) -> Response:
    row: dict[str, Any] = {
        "prompt_id": prompt().id,
        "engine": "e",
        "model": "m",
        "sample_index": index,
        "text": text,
        "prompt_tokens": 1,
        "completion_tokens": 9,
        "finish_reason": "stop",
    }
    return Response(**(row | change))


# r right, w wrong, t cut off, u without a readable answer, b bad reply
ANSWERS: dict[str, Answer] = {
    "r": reply("#6", 3),
    "w": reply("#7", 3),
    "t": reply("and then", 8, "length"),
    "u": reply("no idea", 2),
    "b": BadReply("refused", "no " * 300),
}


def engine(outcomes: dict[str, str], concurrency: int = 4) -> ToldEngine:
    """Draw i after a prefix comes to the i-th letter of its outcomes."""
    return ToldEngine(lambda r: ANSWERS[outcomes[r.prefix][r.sample]], concurrency)


def label(
    asked: ToldEngine | Journaled,
    responses: list[Response],
    prompts: list[Prompt] | None = None,
    **config: Any,
) -> Labelled:
    settings = ProcessConfig(engine="policy", **config)
    engines = Engines(asked)
    return asyncio.run(label_steps(prompts or [prompt()], responses, engines, settings, seed=5))


def test_counts_values_and_labels_by_hand() -> None:
    asked = engine({PREFIXES[0]: "wrtr----", PREFIXES[1]: "wwuwtwww", PREFIXES[2]: "ttuutttu"})
    done = label(asked, [response()])
    assert done.rejects == []
    (row,) = done.labels
    assert row.steps == ("3+4=7", "7-2=5", "5+1=6", "#6")
    assert row.n == (4, 8, 8, 0)
    assert row.successes == (2, 0, 0, 0)
    assert row.truncated == (1, 1, 5, 0)
    assert row.unparsed == (0, 1, 3, 0)
    assert row.value == (1 / 2, 0.0, None, 1.0)  # (2-1)/(3-1): the cut rollout does not count
    assert row.label == ("right", "wrong", None, "right")
    assert row.source == ("rollouts", "rollouts", "none", "answer")
    assert (row.low[0], row.high[0]) == interval(2, 3, 2)
    assert (row.low[1], row.high[1]) == interval(0, 6, 2)
    assert (row.low[2], row.high[2], row.low[3], row.high[3]) == (None, None, 1.0, 1.0)
    assert row.first_error == 1
    assert row.final_right is True
    assert row.tokens == (3 + 3 + 8 + 3, 6 * 3 + 2 + 8, 5 * 8 + 3 * 2, 0)
    assert row.method == "monte_carlo(k=8,stop_at=2)"
    assert (row.stopped, row.resolved) == ("complete", True)
    unknown = (None,) * 4
    assert row.sound == row.error == row.advantage == row.judge_label == unknown
    (trajectory,) = done.trajectories
    assert (row.trajectory_id, row.response_id) == (trajectory.id, response().id)
    for record, rows in (
        (Trajectory, done.trajectories),
        (Rollout, done.rollouts),
        (StepLabels, done.labels),
    ):
        validate(record, record.to_table(rows))


def test_rollouts_are_what_was_asked_and_never_more_than_needed() -> None:
    asked = engine({PREFIXES[0]: "rr", PREFIXES[1]: "wrwr", PREFIXES[2]: "wwwwwwww"})
    done = label(asked, [response()])
    assert [(r.position, r.draw, r.outcome) for r in done.rollouts] == [
        *((1, i, o) for i, o in enumerate(["right"] * 2)),
        *((2, i, o) for i, o in enumerate(["wrong", "right", "wrong", "right"])),
        *((3, i, "wrong") for i in range(8)),
    ]
    asked_of = defaultdict(list)
    for request in asked.asked:
        asked_of[request.prefix].append(request.sample)
        assert request.messages == prompt().messages
        assert request.sampling.seed == 5
    assert {p: sorted(samples) for p, samples in asked_of.items()} == {
        PREFIXES[0]: [0, 1],
        PREFIXES[1]: [0, 1, 2, 3],
        PREFIXES[2]: list(range(8)),
    }
    (trajectory,) = done.trajectories
    assert tuple(TEXT[:end] for end in trajectory.ends[:-1]) == PREFIXES
    assert {(r.position, r.prefix_id) for r in done.rollouts} == {
        (position, trajectory.prefixes[position]) for position in (1, 2, 3)
    }
    assert {(r.prompt_id, r.prover) for r in done.rollouts} == {(prompt().id, False)}
    assert {r.answer for r in done.rollouts} == {"6", "7"}
    assert {r.text for r in done.rollouts} == {"#6", "#7"}
    asks = [(ask.position, ask.count) for ask in done.labels[0].asked]
    assert asks == [(1, 2), (2, 2), (3, 2), (2, 1), (3, 2), (2, 1), (3, 2), (3, 2)]
    assert {(ask.of, ask.why) for ask in done.labels[0].asked} == {("policy", "every step")}


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


def test_a_cut_rollout_has_no_answer_on_its_unfinished_line() -> None:
    """`#6` may have been on its way to `#64`."""
    cut = {"a\n": reply("#6", 8, "length"), "b\n": reply("#6\nand", 8, "length")}
    asked = ToldEngine(lambda r: cut[r.prefix])
    done = label(asked, [response("a\n#1"), response("b\n#1", 1)], k=1)
    assert [(r.outcome, r.answer) for r in done.rollouts] == [("truncated", None), ("right", "6")]


def test_a_response_cut_off_is_sampled_at_its_last_step_too() -> None:
    answers = {"a\n": reply("#6"), "a\n#6": reply("4\nwait")}
    asked = ToldEngine(lambda r: answers[r.prefix])
    done = label(asked, [response("a\n#6", finish_reason="length")], k=2)
    (row,) = done.labels
    assert row.n == (2, 2)
    assert row.source == ("rollouts", "rollouts")
    assert row.final_right is None  # its last line is unfinished
    assert row.first_error == 1


@pytest.mark.parametrize(
    ("last", "right", "value", "step"),
    [("#6", True, 1.0, "right"), ("#7", False, 0.0, "wrong"), ("so be it", None, None, None)],
)
def test_the_last_step_rests_on_the_checked_answer(
    last: str, right: bool | None, value: float | None, step: str | None
) -> None:
    asked = ToldEngine(lambda r: reply("?"))
    done = label(asked, [response(last)])
    (row,) = done.labels
    assert asked.asked == []
    assert (row.final_right, row.value, row.label) == (right, (value,), (step,))
    assert row.source == (("none",) if right is None else ("answer",))
    assert row.first_error == (0 if step == "wrong" else None)


def test_what_is_not_labelled_is_rejected_with_its_reason() -> None:
    bare = prompt(reference=None, source="bare")
    unverified = prompt(verifier=None, source="unverified")
    responses = [
        response("#6", 0),
        response("#6", 1),
        response(" \n", 2),
        response("#7", 3),
        response("#8", 4),
        response("#6", 5, prompt_id=bare.id),
        response("#6", 6, prompt_id=unverified.id),
    ]
    advanced: list[int] = []
    config = ProcessConfig(engine="e", per_prompt=2)
    done = asyncio.run(
        label_steps(
            [prompt(), bare, unverified],
            responses,
            Engines(ToldEngine(lambda r: reply("?"))),
            config,
            0,
            lambda rows, tokens: advanced.append(rows),
        )
    )
    assert [row.response_id for row in done.labels] == [responses[0].id, responses[3].id]
    assert {r.unit: r.code for r in done.rejects} == {
        responses[1].id: "same_text",
        responses[2].id: "no_steps",
        responses[4].id: "over_limit",
        responses[5].id: "no_reference",
        responses[6].id: "no_reference",
    }
    assert {r.stage for r in done.rejects} == {"process"}
    assert len(done.labels) + len(done.rejects) == len(responses) == sum(advanced)


def test_a_bad_reply_rejects_its_response_alone() -> None:
    asked = engine({"a\n": "rr", "b\n": "rb", "c\n": "ww"})
    responses = [response(f"{name}\n#6", i) for i, name in enumerate("abc")]
    done = label(asked, responses, k=2)
    assert [row.response_id for row in done.labels] == [responses[0].id, responses[2].id]
    assert done.rejects == [
        Reject(unit=responses[1].id, stage="process", code="refused", detail=("no " * 300)[:500])
    ]
    # The rollouts that it did get were paid for, and are kept.
    assert [(r.prefix_id, r.draw) for r in done.rollouts] == [
        (prefix_id(prompt().id, f"{name}\n"), draw)
        for name, draws in (("a", 2), ("b", 1), ("c", 2))
        for draw in range(draws)
    ]


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
    tmp_path: Any,
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


def test_a_resumed_run_has_the_same_rows_and_asks_nothing_again(tmp_path: Any) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    letters = {PREFIXES[0]: "wrtr", PREFIXES[1]: "wwuwtwww", PREFIXES[2]: "ttuutttr"}
    asked = engine(letters)
    whole = label(Journaled(asked, journal), [response()])
    other = ToldEngine(lambda r: ANSWERS["b"])  # were it asked, it would have no answer
    again = label(Journaled(other, journal), [response()])
    assert other.asked == []
    assert again == whole
    journal.close()


def test_an_engine_that_is_down_stops_the_work() -> None:
    with pytest.raises(EngineDown, match=r"^gone$"):
        label(ToldEngine(lambda r: EngineDown("gone")), [response()])


def test_results_do_not_depend_on_what_finishes_first() -> None:
    def run(slow: str) -> Labelled:
        async def told(request: Request) -> Answer:
            await asyncio.sleep(0.01 if request.prefix.startswith(slow) else 0)
            return ANSWERS["rw"[(len(request.prefix) + request.sample) % 2]]

        responses = [response(f"{name}\nx\n#6", i) for i, name in enumerate("abc")]
        return label(ToldEngine(told), responses)

    assert run("a") == run("b") == run("c")


def test_nothing_gives_nothing() -> None:
    assert label(engine({}), []) == ([], [], [], [], [])


def test_rollouts_are_asked_under_the_system_message_of_the_responses() -> None:
    asked = engine({PREFIXES[0]: "rr", PREFIXES[1]: "rr", PREFIXES[2]: "rr"})
    settings = ProcessConfig(engine="policy")
    engines = Engines(asked)
    asyncio.run(
        label_steps([prompt()], [response()], engines, settings, seed=5, system="Be brief.")
    )
    assert {request.messages[0].content for request in asked.asked} == {"Be brief."}
    assert {request.messages[1:] for request in asked.asked} == {prompt().messages}
