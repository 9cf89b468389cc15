"""The stage of step labels, against engines that are told what to answer."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from pipelines.engines.base import Tokens
from pipelines.process import label as stage
from pipelines.process.config import ProcessConfig
from pipelines.process.estimate import interval
from pipelines.process.label import Engines, label_steps, templates_digest
from pipelines.process.splitting import prefix_id
from schemas.errors import EngineDown
from schemas.records import Reject
from tests.pipelines.process.told_label import (
    ANSWERS,
    PREFIXES,
    SEED,
    TEXT,
    checked,
    engine,
    label,
    prompt,
    response,
)
from tests.pipelines.told import ToldEngine, reply

# --- told engines --------------------------------------------------------------------------------


def test_counts_values_and_labels_by_hand() -> None:
    asked = engine({PREFIXES[0]: "wrtr----", PREFIXES[1]: "wwuwtwww", PREFIXES[2]: "ttuutttu"})
    done = checked(label(asked, [response()]), [response()])
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
    assert (row.first_error, row.no_error, row.final_right) == (1, None, True)
    assert (row.resolved, row.stopped) == (True, "complete")
    assert row.tokens == (3 + 3 + 8 + 3, 6 * 3 + 2 + 8, 5 * 8 + 3 * 2, 0)
    assert row.method == "monte_carlo(k=8,stop_at=2)"
    assert [(a.position, a.count, a.of) for a in row.asked[:3]] == [
        (t, 2, "policy") for t in (1, 2, 3)
    ]
    assert row.response_id == response().id
    unknown = (None,) * 4
    assert row.sound == row.error == row.advantage == row.judge_label == unknown


def test_rollouts_are_what_was_asked_and_never_more_than_needed() -> None:
    asked = engine({PREFIXES[0]: "rr", PREFIXES[1]: "wrwr", PREFIXES[2]: "wwwwwwww"})
    done = label(asked, [response()])
    (trajectory,) = done.trajectories
    assert [(r.position, r.draw, r.outcome) for r in done.rollouts] == [
        *((1, i, o) for i, o in enumerate(["right"] * 2)),
        *((2, i, o) for i, o in enumerate(["wrong", "right", "wrong", "right"])),
        *((3, i, "wrong") for i in range(8)),
    ]
    assert [r.prefix_id for r in done.rollouts] == [
        trajectory.prefixes[r.position] for r in done.rollouts
    ]
    asked_of = defaultdict(list)
    for request in asked.asked:
        asked_of[request.prefix].append(request.sample)
        assert request.messages == prompt().messages
        assert request.sampling.seed == SEED
        assert request.prefix_ids == ()
    assert {p: sorted(samples) for p, samples in asked_of.items()} == {
        PREFIXES[0]: [0, 1],
        PREFIXES[1]: [0, 1, 2, 3],
        PREFIXES[2]: list(range(8)),
    }
    assert tuple(TEXT[:end] for end in trajectory.ends[:-1]) == PREFIXES
    assert {r.answer for r in done.rollouts} == {"6", "7"}
    assert {r.text for r in done.rollouts} == {"#6", "#7"}


def test_prefixes_go_out_as_the_engines_own_tokens() -> None:
    class Tokenized(ToldEngine):
        def tokens(self, text: str) -> Tokens | None:
            return Tokens(tuple(map(ord, text)), tuple(range(1, len(text) + 1)))

    asked = Tokenized(lambda r: ANSWERS["r"])
    done = label(asked, [response("a\nb\n#6")], k=1)
    assert {(r.prefix, r.prefix_ids) for r in asked.asked} == {
        (text, tuple(map(ord, text))) for text in ("a\n", "a\nb\n")
    }
    assert done.trajectories[0].token_ends == (2, 4, 6)


def test_a_cut_rollout_has_no_answer_on_its_unfinished_line() -> None:
    """`#6` may have been on its way to `#64`."""
    cut = {"a\n": reply("#6", 8, "length"), "b\n": reply("#6\nand", 8, "length")}
    asked = ToldEngine(lambda r: cut[r.prefix])
    done = label(asked, [response("a\n#1"), response("b\n#1", 1)], k=1)
    assert [(r.outcome, r.answer) for r in done.rollouts] == [("truncated", None), ("right", "6")]


def test_a_rollout_is_graded_with_the_prefix_that_it_continues() -> None:
    """The answer may stand before the cut already."""
    whole = ToldEngine(lambda r: reply(" and so on", 1))
    done = label(whole, [response("a\n#6\nb\n#1")], k=1)
    assert [(r.position, r.outcome) for r in done.rollouts] == [
        (1, "unparsed"),
        (2, "right"),
        (3, "right"),
    ]


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
    done = label(
        ToldEngine(lambda r: reply("?")),
        responses,
        [prompt(), bare, unverified],
        advance=lambda rows, tokens: advanced.append(rows),
        per_prompt=2,
    )
    checked(done, responses)
    assert [row.response_id for row in done.labels] == [responses[0].id, responses[3].id]
    assert {r.unit: r.code for r in done.rejects} == {
        responses[1].id: "same_text",
        responses[2].id: "no_steps",
        responses[4].id: "over_limit",
        responses[5].id: "no_reference",
        responses[6].id: "no_reference",
    }
    assert {r.stage for r in done.rejects} == {"process"}
    assert sum(advanced) == len(responses)


def test_a_bad_reply_rejects_its_response_alone() -> None:
    asked = engine({"a\n": "rr", "b\n": "rb", "c\n": "ww"})
    responses = [response(f"{name}\n#6", i) for i, name in enumerate("abc")]
    done = checked(label(asked, responses, k=2), responses)
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


def test_responses_that_begin_alike_share_rollouts() -> None:
    asked = engine({"a\n": "rwrw", "a\nbad\n": "bb", "a\ngood\n": "ww"})
    responses = [response("a\nbad\n#6", 0), response("a\ngood\n#6", 1)]
    done = checked(label(asked, responses, k=2, stop_at=0), responses)
    assert [row.response_id for row in done.labels] == [responses[1].id]
    assert [(r.unit, r.code) for r in done.rejects] == [(responses[0].id, "refused")]
    assert len([r for r in asked.asked if r.prefix == "a\n"]) == 2
    assert done.labels[0].n == (2, 2, 0)


def test_an_engine_that_is_down_stops_the_work() -> None:
    with pytest.raises(EngineDown, match=r"^gone$"):
        label(ToldEngine(lambda r: EngineDown("gone")), [response()])


def test_nothing_gives_nothing() -> None:
    assert label(engine({}), []) == ([], [], [], [], [])
    assert label(engine({}), [], method="changepoint") == ([], [], [], [], [])


def test_rollouts_are_asked_under_the_system_message_of_the_responses() -> None:
    asked = engine({PREFIXES[0]: "rr", PREFIXES[1]: "rr", PREFIXES[2]: "rr"})
    settings = ProcessConfig(engine="policy")
    asyncio.run(
        label_steps([prompt()], [response()], Engines(asked), settings, SEED, system="Be brief.")
    )
    assert {request.messages[0].content for request in asked.asked} == {"Be brief."}
    assert {request.messages[1:] for request in asked.asked} == {prompt().messages}


def test_a_prover_draws_what_is_asked_of_it() -> None:
    policy = ToldEngine(lambda r: AssertionError("the policy was asked"))
    prover = ToldEngine(lambda r: ANSWERS["w" if r.prefix else "r"])
    done = label(
        Engines(policy, prover=prover), [response("a\n#7")], method="advantage", prover="p", k=4
    )
    assert policy.asked == []
    assert {r.prover for r in done.rollouts} == {True}
    assert Counter(r.position for r in done.rollouts) == {0: 4, 1: 4}
    assert done.labels[0].advantage == (-1.0, 0.0)


def test_a_judge_is_asked_with_the_template_and_its_reply_read() -> None:
    verdicts = [
        {"step": i, "reference": None, "explanation": "so", "verdict": v}
        for i, v in ((1, "right"), (2, "calculation"))
    ]
    policy = ToldEngine(lambda r: AssertionError("the policy was asked"))
    judge = ToldEngine(lambda r: reply(json.dumps({"steps": verdicts})))
    bad = ToldEngine(lambda r: reply("no JSON"))
    for engine_, codes in ((judge, []), (bad, ["not_json"])):
        done = label(
            Engines(policy, judge=engine_),
            [response("2+2=4\n#7")],
            method="reference",
            judge="j",
            judge_tokens=77,
        )
        assert [r.code for r in done.rejects] == codes
        if not codes:
            assert done.labels[0].judge_label == ("right", "wrong")
            assert done.labels[0].source == ("judge", "judge")
            assert done.rollouts == []
    (request,) = judge.asked
    assert (request.sampling.temperature, request.sampling.max_tokens) == (0.3, 77)
    assert request.sampling.seed == SEED
    said = request.messages[-1].content
    assert "2+2=4" in said and "How many?" in said and "6" in said
    assert len(bad.asked) == 3  # asked again, then recorded


def test_the_templates_are_part_of_what_the_stage_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = templates_digest()
    for path in stage.TEMPLATES.glob("*.md"):
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(stage, "TEMPLATES", tmp_path)
    assert templates_digest() == before
    other = tmp_path / "other"
    other.mkdir()
    for path in tmp_path.glob("*.md"):
        (other / path.name).write_text(path.read_text() + "Please.\n" * (path.stem == "reverse"))
    monkeypatch.setattr(stage, "TEMPLATES", other)
    assert templates_digest() != before


def test_a_bad_reply_of_a_shared_prefix_ends_no_run_of_changepoint() -> None:
    """The right response is sure without rollouts; those of the wrong one get no answer."""
    responses = [response(f"a\nb\n#{i}", i) for i in (6, 7)]
    done = label(
        ToldEngine(lambda r: ANSWERS["b"]),
        responses,
        method="changepoint",
        changepoint={"confidence": 0.85, "priors": {"solve_rate": 0.8, "recovery": 0.0}},
    )
    checked(done, responses)
    assert [(r.unit, r.code) for r in done.rejects] == [(responses[1].id, "refused")]
    assert [row.response_id for row in done.labels] == [responses[0].id]
