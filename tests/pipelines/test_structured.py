"""JSON replies: parsed right or refused with the reason, never guessed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.engines.base import Identity, Reply, Sampling
from pipelines.structured import RETRY_STRIDE, ask_json, read
from schemas.errors import BadReply
from schemas.records import Message
from tests.pipelines.told import Answer, ToldEngine, reply


def schema_of(**properties: Any) -> str:
    return json.dumps(
        {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    )


SCHEMA = schema_of(
    why={"type": "string", "maxLength": 40},
    verdict={"type": "string", "enum": ["right", "wrong"]},
    step={"type": ["integer", "null"], "minimum": 1, "maximum": 9},
)
GOOD = '{"why": "so", "verdict": "right", "step": 3}'
CANONICAL = '{"step":3,"verdict":"right","why":"so"}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  \n{GOOD}\n\n",
        '{\n  "step": 3,\n  "why": "so",\n  "verdict": "right"\n}',
        f"```json\n{GOOD}\n```",
        f"```JSON\n{GOOD}\n```  ",
        f"```\n{GOOD}\n```",
        f"The third step is right, see [1].\n\n{GOOD}",
        f"Let me think.\n\n```json\n{GOOD}\n```\n",
        f"```json {GOOD}\n```",
        f"<think>3 + 4 = 7, fine</think>\n{GOOD}",
        f"<think>perhaps {{}} or {GOOD.replace('right', 'wrong')}</think>\n\n{GOOD}",
        f"<think></think>\n```json\n{GOOD}\n```",
        f"Die Antwort ist:\n  {GOOD}",
        f"答案：\n{GOOD}",
        '{"why": "s\\u006f", "verdict": "right", "step": 3}',
    ],
)
def test_what_is_one_object_for_sure_is_read(text: str) -> None:
    assert read(text, SCHEMA) == CANONICAL


BAD: dict[str, list[tuple[str, str]]] = {
    "empty_reply": [("", "is empty"), (" \n\t ", "is empty")],
    "not_json": [
        ("I cannot judge this.", "holds no JSON object"),
        ("right", "holds no JSON object"),
        ("Verdict: wrong", "holds no JSON object"),
        ("[1, 2]", "holds no JSON object"),
        ("null", "holds no JSON object"),
        ("...", "holds no JSON object"),
        (GOOD[:-1], "does not end with one JSON object"),
        (GOOD[:20], "does not end with one JSON object"),
        (GOOD + GOOD, "does not end with one JSON object"),
        (GOOD + "\n" + GOOD.replace("right", "wrong"), "does not end with one JSON object"),
        (GOOD + "\nI hope this helps.", "does not end with one JSON object"),
        (GOOD + "}", "does not end with one JSON object"),
        ("{" + GOOD + "}", "does not end with one JSON object"),
        (GOOD.replace('"', "'"), "does not end with one JSON object"),
        ('{why: "so", verdict: "right", step: 3}', "does not end with one JSON object"),
        ('{"why": "so", "verdict": "right", "step": 3,}', "does not end with one JSON object"),
        ('{"why": "so", "verdict": right, "step": 3}', "does not end with one JSON object"),
        ('{"why": "so", "verdict": "right", "step": None}', "does not end with one JSON object"),
        ('{"why": "so" "verdict": "right"}', "does not end with one JSON object"),
        ('{"why": "so", "verdict": "right", "step": 03}', "does not end with one JSON object"),
        ('{"why": "so", // note\n "verdict": "right", "step": 3}', "does not end with one"),
        ('{"why": "a\nb", "verdict": "right", "step": 3}', "does not end with one JSON object"),
        ("{...}", "does not end with one JSON object"),
        ("In $x^{2}$ all is well.\n" + GOOD, "stands within a line of prose"),
        (f"I refuse. The text tells me to say {GOOD}", "stands within a line of prose"),
        (f"The text says\n{GOOD}\nwhich I ignore.", "does not end with one JSON object"),
        (f"It says\n{GOOD}\nbut I say\n{GOOD}", "does not end with one JSON object"),
        (f"}}\n{GOOD}", "prose before the reply's object holds braces or a fence"),
        (f"<think>so far\n{GOOD}", "where the reply's thought ends is not for sure"),
        (f"<think>a</think>\n{GOOD}\n</think>\n{GOOD}", "thought ends is not for sure"),
        ("<think>right</think>", "holds no JSON object"),
        (f"```\nx\n```\n{GOOD}", "fence is open, or followed by more"),
        (f"```\nx\n```\nso\n{GOOD}", "prose before the reply's object holds braces or a fence"),
        (f"```python\n{GOOD}\n```", "fence is not one of JSON"),
        (f"```json\n{GOOD}", "fence is open, or followed by more"),
        (f"```json\n{GOOD}\n```\nDone.", "fence is open, or followed by more"),
        (f"```json\n{GOOD}\n```\n```json\n{GOOD}\n```", "does not end with one JSON object"),
        ('{"why": "so", "verdict": "right", "step": NaN}', "NaN is not JSON"),
        ('{"why": "so", "verdict": "right", "step": -Infinity}', "-Infinity is not JSON"),
        ('{"why": "\\ud83d", "verdict": "right", "step": 3}', "half a surrogate pair"),
        ('{"a":' * 200_000, "nested too deeply"),
        ('{"why":' + "[" * 200_000, "nested too deeply"),
    ],
    "bad_shape": [
        ("{}", "reply lacks or adds: 'step, verdict, why'"),
        ('{"why": "so", "verdict": "right"}', "reply lacks or adds: 'step'"),
        (GOOD[:-1] + ', "more": 1}', "reply lacks or adds: 'more'"),
        (GOOD.replace("verdict", "Verdict"), "reply lacks or adds: 'Verdict, verdict'"),
        (GOOD.replace('"right"', '"Right"'), "reply.verdict is none of its choices: 'Right'"),
        (GOOD.replace('"right"', '"A"'), "reply.verdict is none of its choices: 'A'"),
        (GOOD.replace('"right"', '"right or wrong"'), "none of its choices: 'right or wrong'"),
        (GOOD.replace('"right"', '"richtig"'), "reply.verdict is none of its choices"),
        (GOOD.replace('"right"', '"правильно"'), r"none of its choices: '\\u043f"),
        (GOOD.replace('"right"', "true"), "reply.verdict is not string"),
        (GOOD.replace('"right"', "null"), "reply.verdict is not string"),
        (GOOD.replace('"right"', '["right"]'), "reply.verdict is not string"),
        (GOOD.replace("3", '"3"'), "reply.step is not integer or null"),
        (GOOD.replace("3", "3.0"), "reply.step is not integer or null"),
        (GOOD.replace("3", "true"), "reply.step is not integer or null"),
        (GOOD.replace("3", "0"), "reply.step is 0, outside its bounds"),
        (GOOD.replace("3", "10"), "reply.step is 10, outside its bounds"),
        (GOOD.replace("3", "1" * 16), "an integer of 16 digits"),
        (GOOD.replace("3", "-" + "1" * 100_000), "an integer of 100000 digits"),
        (GOOD.replace("3", "1e999"), "a number beyond all floats"),
        (GOOD.replace('"so"', f'"{"s" * 41}"'), "the length of reply.why is 41"),
        (GOOD[:-1] + ', "verdict": "wrong"}', "an object says a key twice"),
        ('{"reply": ' + GOOD + "}", "reply lacks or adds: 'reply, step, verdict, why'"),
    ],
}


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [(code, text, reason) for code, cases in BAD.items() for text, reason in cases],
)
def test_all_else_is_refused_with_its_reason(code: str, text: str, reason: str) -> None:
    with pytest.raises(BadReply, match=reason) as raised:
        read(text, SCHEMA)
    assert raised.value.code == code
    assert len(raised.value.detail) < 300 and "\n" not in raised.value.detail


@given(st.text())
def test_no_text_crashes_the_reader(text: str) -> None:
    with pytest.raises(BadReply):
        read(text, SCHEMA)


@given(cut=st.integers(0, len(GOOD) - 1))
def test_no_cut_reply_is_read(cut: int) -> None:
    with pytest.raises(BadReply):
        read(GOOD[:cut], SCHEMA)


@given(
    why=st.text(max_size=40),
    verdict=st.sampled_from(["right", "wrong"]),
    step=st.none() | st.integers(1, 9),
    prose=st.text(st.characters(exclude_characters="{}`", exclude_categories=("Cs",))),
)
def test_every_fitting_object_is_read_back(
    why: str, verdict: str, step: int | None, prose: str
) -> None:
    value = {"why": why, "verdict": verdict, "step": step}
    assert json.loads(read(prose + "\n" + json.dumps(value, indent=1), SCHEMA)) == value


def test_lists_are_checked_within() -> None:
    schema = schema_of(
        steps={
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "items": json.loads(schema_of(p={"type": "number", "minimum": 0, "maximum": 1})),
        }
    )
    assert read('{"steps": [{"p": 0.5}, {"p": 1}]}', schema) == '{"steps":[{"p":0.5},{"p":1}]}'
    for text, reason in (
        ('{"steps": []}', "the length of reply.steps is 0"),
        ('{"steps": [{"p": 0}, {"p": 0}, {"p": 0}]}', "the length of reply.steps is 3"),
        ('{"steps": [{"p": 0}, {"p": 1.5}]}', r"reply.steps\[1\].p is 1.5"),
        ('{"steps": [{"p": true}]}', r"reply.steps\[0\].p is not number"),
        ('{"steps": {"p": 0}}', "reply.steps is not array"),
    ):
        with pytest.raises(BadReply, match=reason):
            read(text, schema)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ('{"type": "array", "items": {"type": "null"}}', "root is not an object"),
        ('{"type": "object", "properties": {}, "required": []}', "additionalProperties"),
        (schema_of(a={"type": "string", "pattern": "x"}), "pattern is not checked here"),
        (schema_of(a={"enum": ["x"]}), "without a known type"),
        (schema_of(a={"type": "array"}), "without a known type"),
        (schema_of(a={"type": "string"}).replace('["a"]', "[]"), "must require all"),
    ],
)
def test_a_schema_beyond_the_subset_is_our_mistake(schema: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read("{}", schema)


# --- asking ---------------------------------------------------------------------------------------

ASKED = (Message(role="system", content="s"), Message(role="user", content="Judge."))
STATED = "Reply with one JSON object that fits this JSON schema, and with nothing else:\n"


def ask(engine: ToldEngine, messages: tuple[Message, ...] = ASKED, **more: Any) -> str:
    return asyncio.run(ask_json(engine, messages, SCHEMA, Sampling(), **more))


def told(*answers: Answer) -> ToldEngine:
    left = iter(answers)
    return ToldEngine(lambda request: next(left))


def test_the_schema_is_stated_and_held() -> None:
    engine = told(reply(GOOD))
    assert ask(engine, sample=7) == CANONICAL
    (request,) = engine.asked
    assert request.schema == SCHEMA
    assert request.sample == 7
    assert [m.role for m in request.messages] == ["system", "user"]
    assert request.messages[1].content == f"Judge.\n\n{STATED}{SCHEMA}"


def test_an_engine_that_cannot_hold_a_schema_is_not_given_one() -> None:
    engine = told(reply(GOOD))
    engine._identity = replace(engine.identity, kind="local")
    assert isinstance(engine.identity, Identity)
    assert ask(engine) == CANONICAL
    assert engine.asked[0].schema is None
    assert engine.asked[0].messages[1].content == f"Judge.\n\n{STATED}{SCHEMA}"


def test_the_plans_system_message_goes_first() -> None:
    engine = told(reply(GOOD), reply(GOOD))
    ask(engine, ASKED[1:], system="plan")
    ask(engine, ASKED, system="plan")
    assert [e.messages[0].content for e in engine.asked] == ["plan", "s"]


def test_unusable_replies_are_asked_again_under_other_samples() -> None:
    engine = told(reply("no"), BadReply("empty_reply", "null content"), reply(GOOD))
    assert ask(engine, sample=7) == CANONICAL
    assert [r.sample for r in engine.asked] == [7, 7 + RETRY_STRIDE, 7 + 2 * RETRY_STRIDE]


def test_every_reply_is_heard_of() -> None:
    heard: list[str] = []
    engine = told(reply("no"), reply("so", finish="length"), BadReply("empty_reply", ""))
    with pytest.raises(BadReply):
        ask(engine, heard=lambda reply: heard.append(reply.text))
    assert heard == ["no", "so"]


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (reply("no"), "not_json"),
        (reply("{}"), "bad_shape"),
        (reply(" "), "empty_reply"),
        # Also a whole object: what followed it is not known.
        (reply(GOOD, finish="length"), "cut_off"),
        (BadReply("cut_off", "no finish_reason"), "cut_off"),
    ],
)
def test_the_third_failure_is_the_reason(last: Answer, code: str) -> None:
    engine = told(reply("no"), reply("no"), last, reply(GOOD))
    with pytest.raises(BadReply, match=r"\(the last of 3 attempts\)$") as raised:
        ask(engine)
    assert raised.value.code == code
    assert len(engine.asked) == 3


@pytest.mark.parametrize("code", ["refused", "too_long", "bad_request", "wrong_model"])
def test_what_another_sample_cannot_mend_is_not_asked_again(code: str) -> None:
    engine = told(BadReply(code, "so"), reply(GOOD))
    with pytest.raises(BadReply) as raised:
        ask(engine)
    assert (raised.value.code, raised.value.detail) == (code, "so")
    assert len(engine.asked) == 1


def test_a_sample_that_retries_of_another_would_meet_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 1000000"):
        ask(told(Reply(GOOD, "stop", 1, 1)), sample=RETRY_STRIDE)
    with pytest.raises(ValueError, match="must be the user's"):
        ask(told(reply(GOOD)), ASKED[:1])
