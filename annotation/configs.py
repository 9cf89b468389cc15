"""What people are shown: the kinds of question, each a Label Studio label config and a task's data.

Texts of models and datasets are shown by `Text`, which escapes them and keeps their line breaks, so
Markdown, code and LaTeX are read as they were written; nothing of them is ever part of a config. A
task's data holds text alone: no ids of models, no votes, no known answers, and no trace of the order.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotation import answers
from annotation.answers import Answer, Order, Problem
from annotation.questions import PREFERENCES as PREFERENCES
from annotation.questions import RATINGS, RUBRIC_VERDICTS, STEP_VERDICTS
from annotation.questions import SPAN_VERDICTS as SPAN_VERDICTS
from annotation.questions import QuestionConfig as QuestionConfig
from schemas.records import Criterion, Message

VERSION = 1
"""Raised when a config changes such that older answers would be read differently."""

LONGEST = 200_000
"""Characters of one text that are shown; a browser needs many seconds for more."""
STEPS = 400
"""Steps or criteria of one task: each has controls of its own."""


@dataclass(frozen=True)
class PairItem:
    """Two responses to one prompt."""

    prompt: str
    a: str
    b: str


@dataclass(frozen=True)
class StepsItem:
    """A solution in steps."""

    prompt: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class SpansItem:
    """One response whose errors are to be marked."""

    prompt: str
    response: str


@dataclass(frozen=True)
class RubricItem:
    """Criteria to be approved; `prompt` is empty for a rubric of any prompt."""

    prompt: str
    criteria: tuple[Criterion, ...]


Item = PairItem | StepsItem | SpansItem | RubricItem


@dataclass(frozen=True)
class Kind:
    """One kind of question."""

    name: str
    config: Callable[[QuestionConfig], str]
    """Label config, as XML."""
    data: Callable[..., dict[str, Any]]
    """`data(item, order)`: what the server shows. Raises ValueError for an item of another kind or
    one that is too large to be shown."""
    read: Callable[..., list[Answer] | Problem]
    """`read(result, data, order="ab", options=QuestionConfig())`: an annotation's result, checked
    against what was shown. With the order that was shown, the answers are about a and b as they are;
    "ab" leaves them as shown (first is a)."""


MODEL = "prefinery"
"""Under which the server keeps predictions."""


def predicted(probability: float, order: Order) -> dict[str, Any]:
    """A prediction of a pair as the server takes it: a tie up to 0.6 for either side, then a slight
    preference up to 0.75, a plain one up to 0.9, and a strong one."""
    certain = max(probability, 1 - probability)
    strength = sum(certain > limit for limit in (0.6, 0.75, 0.9))
    a_first = (probability > 0.5) == (order == "ab")
    choice = "tie" if not strength else f"-{strength}" if a_first else f"{strength}"
    return {
        "model_version": MODEL,
        "score": certain,
        "result": [
            {
                "from_name": "preference",
                "to_name": "prompt",
                "type": "choices",
                "value": {"choices": [choice]},
            }
        ],
    }


def conversation(messages: Sequence[Message]) -> str:
    """A prompt as plain text: the question alone, or turns that say who speaks."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"[{m.role}]\n{m.content}" for m in messages)


def shown(text: str) -> str:
    """A text as it is pushed: characters that no server stores are U+FFFD, what is too long is cut."""
    # A browser would make one line break of two characters, and spans would lie elsewhere.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = answers.UNSTORED.sub("\ufffd", text)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}\n[{len(text) - LONGEST:,} more characters are not shown]"
    return text


def _tag(kind: str, /, *inside: ET.Element, **attributes: str) -> ET.Element:
    made = ET.Element(kind, attributes)
    made.extend(inside)
    return made


_CSS = """
.pf-text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate;
  border: 1px solid #8885; border-radius: 6px; padding: 8px 12px; max-height: 60vh; overflow: auto; }
.pf-two { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 16px; }
"""


def _page(*inside: ET.Element) -> str:
    style = _tag("Style")
    style.text = _CSS
    page = _tag("View", style, *inside)
    ET.indent(page)
    return ET.tostring(page, encoding="unicode")


def _text(name: str, value: str, *, marked: bool = False) -> ET.Element:
    """A text of the task; only where spans are marked can it be selected as one."""
    text = _tag("Text", name=name, value=value, valueType="text")
    if not marked:
        text.set("selectionEnabled", "false")
    return _tag("View", text, className="pf-text")


def _head(text: str, size: str = "5") -> ET.Element:
    return _tag("Header", value=text, size=size)


def _choices(
    name: str, to: str, choices: Mapping[str, tuple[str, str]], *, required: bool, ask: str = ""
) -> ET.Element:
    """One of several: alias -> (what is shown, hotkey or nothing)."""
    made = _tag(
        "Choices",
        *(
            _tag("Choice", value=shown_as, alias=alias, **({"hotkey": key} if key else {}))
            for alias, (shown_as, key) in choices.items()
        ),
        name=name,
        toName=to,
        choice="single-radio",
        showInline="true",
    )
    if required:
        made.set("required", "true")
        made.set("requiredMessage", f"Please answer: {ask}")
    return made


def _words(name: str, to: str, placeholder: str, *, required: bool = False, rows: str = "3") -> Any:
    made = _tag(
        "TextArea", name=name, toName=to, placeholder=placeholder, rows=rows, maxSubmissions="1",
        editable="true", showSubmitButton="false",
    )  # fmt: skip
    if required:
        made.set("required", "true")
        made.set("requiredMessage", f"Please write: {placeholder}")
    return made


def _pairwise(options: QuestionConfig) -> str:
    two = [
        _tag("View", _head("First response"), _text("first", "$first")),
        _tag("View", _head("Second response"), _text("second", "$second")),
    ]
    parts = [
        _head("Prompt"),
        _text("prompt", "$prompt"),
        _tag("View", *two, className="pf-two"),
        _head("Which response is better? (keys 1 to 9)"),
        _choices("preference", "prompt", PREFERENCES, required=True, ask="which is better?"),
    ]
    if options.justification != "none":
        must = options.justification == "required"
        parts.append(_words("justification", "prompt", "Why, in a sentence or two", required=must))
    if options.ratings != "none":
        must = options.ratings == "required"
        scale = {str(n): (str(n), "") for n in range(5)}
        columns = []
        for side in ("first", "second"):
            rows = [_head(f"{side.capitalize()} response, 0 (lowest) to 4", "6")]
            for rating in RATINGS:
                name = f"{side}_{rating}"
                rows.append(_head(rating.capitalize(), "6"))
                ask = f"{rating} of the {side} response"
                rows.append(_choices(name, side, scale, required=must, ask=ask))
            columns.append(_tag("View", *rows))
        parts.append(_tag("View", *columns, className="pf-two"))
    return _page(*parts)


def _steps(options: QuestionConfig) -> str:
    del options
    verdicts = {alias: (words, "") for alias, words in STEP_VERDICTS.items()}
    each = _tag(
        "Repeater",
        _head("Step {{idx}}", "6"),
        _text("step_{{idx}}", "$steps[{{idx}}].text"),
        _choices(
            "verdict_{{idx}}", "step_{{idx}}", verdicts, required=True, ask="each step's verdict"
        ),
        on="$steps",
        indexFlag="{{idx}}",
    )
    return _page(
        _head("Problem"),
        _text("prompt", "$prompt"),
        _head("Is each step right, given the steps before it? (steps count from 0)"),
        each,
        _words("note", "prompt", "What is wrong with the first wrong step"),
    )


def _spans(options: QuestionConfig) -> str:
    keys = "123456789"
    labels = _tag("Labels", name="errors", toName="response", showInline="true")
    for i, name in enumerate(options.error_types):
        label = _tag("Label", value=name, background=_COLOURS[i % len(_COLOURS)])
        if i < len(keys):
            label.set("hotkey", keys[i])
        labels.append(label)
    note = _words("note", "response", "What is wrong here", rows="1")
    note.set("perRegion", "true")
    return _page(
        _head("Prompt"),
        _text("prompt", "$prompt"),
        _head("Choose a type (keys 1 to 9), then mark the words that are wrong"),
        labels,
        _text("response", "$response", marked=True),
        note,
        _choices("verdict", "response", SPAN_VERDICTS, required=True, ask="are there errors?"),
    )


_COLOURS = ("#d6453d", "#c77700", "#7a56a8", "#2468ad", "#16806a", "#8a6d3b", "#5d636e")


def _rubric(options: QuestionConfig) -> str:
    del options
    verdicts = {alias: (words, "") for alias, words in RUBRIC_VERDICTS.items()}
    each = _tag(
        "Repeater",
        _head("Criterion {{idx}}", "6"),
        _text("criterion_{{idx}}", "$criteria[{{idx}}].text"),
        _choices(
            "verdict_{{idx}}", "criterion_{{idx}}", verdicts, required=True, ask="each criterion"
        ),
        _words("edit_{{idx}}", "criterion_{{idx}}", "Your wording, if it needs one", rows="2"),
        _head("Weight, 1 (hardly matters) to 5", "6"),
        _tag("Rating", name="weight_{{idx}}", toName="criterion_{{idx}}", maxRating="5"),
        on="$criteria",
        indexFlag="{{idx}}",
    )
    return _page(_head("The rubric is for"), _text("prompt", "$prompt"), each)


def _pair_data(item: Item, order: Order = "ab") -> dict[str, Any]:
    if not isinstance(item, PairItem):
        raise ValueError(f"pairwise: a {type(item).__name__} is no pair")
    first, second = (item.a, item.b) if order == "ab" else (item.b, item.a)
    return {"prompt": shown(item.prompt), "first": shown(first), "second": shown(second)}


def _steps_data(item: Item, order: Order = "ab") -> dict[str, Any]:
    if not isinstance(item, StepsItem):
        raise ValueError(f"steps: a {type(item).__name__} is no solution in steps")
    return {"prompt": shown(item.prompt), "steps": _each(item.steps)}


def _spans_data(item: Item, order: Order = "ab") -> dict[str, Any]:
    if not isinstance(item, SpansItem):
        raise ValueError(f"spans: a {type(item).__name__} is no response")
    return {"prompt": shown(item.prompt), "response": shown(item.response)}


def _rubric_data(item: Item, order: Order = "ab") -> dict[str, Any]:
    if not isinstance(item, RubricItem):
        raise ValueError(f"rubric: a {type(item).__name__} is no rubric")
    prompt = shown(item.prompt) or "Any prompt"
    return {"prompt": prompt, "criteria": _each([c.text for c in item.criteria])}


def _each(texts: Sequence[str]) -> list[dict[str, str]]:
    if not 1 <= len(texts) <= STEPS:
        raise ValueError(f"{len(texts)} parts: a task shows 1 to {STEPS}")
    return [{"text": shown(text)} for text in texts]


KINDS: dict[str, Kind] = {
    "pairwise": Kind("pairwise", _pairwise, _pair_data, answers.read_pairwise),
    "steps": Kind("steps", _steps, _steps_data, answers.read_steps),
    "spans": Kind("spans", _spans, _spans_data, answers.read_spans),
    "rubric": Kind("rubric", _rubric, _rubric_data, answers.read_rubric),
}
