"""What people answered: an annotation's result, checked against what was shown.

Label Studio's server checks nothing: any choice, any control's name, any span and an empty result are
stored. What does not fit is a `Problem` with a stable code, never half an answer:

not_a_result, unknown_control, wrong_target, wrong_type, unknown_choice, twice, missing,
contradiction, bad_span
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from annotation.questions import (
    PREFERENCES,
    RATINGS,
    RUBRIC_VERDICTS,
    SPAN_VERDICTS,
    STEP_VERDICTS,
    QuestionConfig,
)

Order = Literal["ab", "ba"]

LONGEST_REASON = 4000
CANNOT = "cannot_judge"
UNSTORED = re.compile("[\0\ud800-\udfff]")
"""Characters that databases and files of text do not hold."""


@dataclass(frozen=True)
class Answer:
    """One answer in a task; with the item's ids it becomes a `Vote`.

    `about` says which part of the item the unit is: the `pair`, its response `a` or `b`, the marked
    `response`, a `step` of the trajectory or a `criterion` of the rubric; of the last two `index`
    says which, from 0. `unit_kind`, `value`, `criterion`, `step` and `reason` are the vote's.

    Values: a pair in [-1, 1], above 0 a is better; a rating in [0, 1] (0 to 4, divided by 4); a step
    1 right, 0 wrong; a response 1 without errors, else 0, and 0 for each marked error under its type;
    a criterion 1 accepted, 0.5 accepted as edited (`reason` is the wording), 0 rejected, and under
    `weight` its weight in (0, 1] (1 to 5, divided by 5). None: could not judge.
    """

    about: Literal["pair", "a", "b", "response", "step", "criterion"]
    unit_kind: Literal["response", "pair", "criterion", "step"]
    value: float | None
    criterion: str | None = None
    index: int | None = None
    reason: str = ""
    span: tuple[int, int] | None = None
    """Characters of the shown response that an error is marked on."""

    @property
    def step(self) -> int | None:
        """The vote's `step`."""
        return self.index if self.about == "step" else None


@dataclass(frozen=True)
class Problem:
    """Why a result cannot be used."""

    code: str
    detail: str


class _Bad(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.problem = Problem(code, detail[:300])


@dataclass(frozen=True)
class _Control:
    """What a control's answers must look like."""

    type: Literal["choices", "textarea", "rating", "labels"]
    to: str
    choices: frozenset[str] = frozenset()
    per_region: bool = False


@dataclass(frozen=True)
class _Given:
    """A result, by control; `regions` by region id: (start, end, text, label, notes)."""

    values: dict[str, Any]
    regions: dict[str, dict[str, Any]]

    def choice(self, name: str) -> str | None:
        return self.values.get(name)

    def need(self, name: str) -> Any:
        if name not in self.values:
            raise _Bad("missing", f"no answer to {name}")
        return self.values[name]


def read_pairwise(
    result: object, data: Mapping[str, Any], order: Order = "ab", options: QuestionConfig | None = None
) -> list[Answer] | Problem:  # fmt: skip
    """The preference first, with the justification as its reason, then the ratings given."""
    controls = {
        "preference": _Control("choices", "prompt", frozenset(PREFERENCES)),
        "justification": _Control("textarea", "prompt"),
    }
    scale = frozenset(str(n) for n in range(5))
    for side in ("first", "second"):
        for rating in RATINGS:
            controls[f"{side}_{rating}"] = _Control("choices", side, scale)
    try:
        given = _read(result, controls)
        said = given.need("preference")
        words = given.values.get("justification", "")
        if options is not None and options.justification == "required" and not words:
            raise _Bad("missing", "no answer to justification")
        if options is not None and options.ratings == "required":
            for name in (name for name in controls if name.startswith(("first_", "second_"))):
                given.need(name)
    except _Bad as bad:
        return bad.problem
    code = said if said in ("tie", "both_bad", CANNOT) else ""
    reason = f"{code}: {words}" if code and words else code or words
    value: float | None = None
    if said != CANNOT:
        value = 0.0 if code else -int(said) / 3
        value = (-value if order == "ba" else value) + 0.0  # no -0.0
    found = [Answer("pair", "pair", value, reason=reason)]
    sides: tuple[tuple[str, Literal["a", "b"]], ...] = (("first", "a"), ("second", "b"))
    if order == "ba":
        sides = (("second", "a"), ("first", "b"))
    for side, about in sides:
        for rating in RATINGS:
            stars = given.choice(f"{side}_{rating}")
            if stars is not None:
                found.append(Answer(about, "criterion", int(stars) / 4, criterion=rating))
    return found


def read_steps(
    result: object, data: Mapping[str, Any], order: Order = "ab", options: QuestionConfig | None = None
) -> list[Answer] | Problem:  # fmt: skip
    """One answer a step; the note stands with the first wrong step."""
    count = len(data["steps"])
    controls = {
        f"verdict_{i}": _Control("choices", f"step_{i}", frozenset(STEP_VERDICTS))
        for i in range(count)
    }
    controls["note"] = _Control("textarea", "prompt")
    try:
        given = _read(result, controls)
        said = [given.need(f"verdict_{i}") for i in range(count)]
    except _Bad as bad:
        return bad.problem
    note = given.values.get("note", "")
    worth = {"right": 1.0, "wrong": 0.0, "unsure": None}
    found = [
        Answer("step", "step", worth[s], index=i, reason=CANNOT if s == "unsure" else "")
        for i, s in enumerate(said)
    ]
    if note and "wrong" in said:
        first = said.index("wrong")
        found[first] = replace(found[first], reason=note)
    return found


def read_spans(
    result: object, data: Mapping[str, Any], order: Order = "ab", options: QuestionConfig | None = None
) -> list[Answer] | Problem:  # fmt: skip
    """The response first, then each marked error, in the order of the text."""
    types = (options or QuestionConfig()).error_types
    controls = {
        "verdict": _Control("choices", "response", frozenset(SPAN_VERDICTS)),
        "errors": _Control("labels", "response", frozenset(types)),
        "note": _Control("textarea", "response", per_region=True),
    }
    try:
        given = _read(result, controls)
        said = given.need("verdict")
        errors = [_error(region, data["response"]) for region in given.regions.values()]
        if (said == "errors") != bool(errors):
            raise _Bad("contradiction", f"verdict {said}, {len(errors)} errors marked")
    except _Bad as bad:
        return bad.problem
    whole = {"no_errors": 1.0, "errors": 0.0, CANNOT: None}[said]
    head = Answer("response", "response", whole, reason=CANNOT if said == CANNOT else "")
    return [head, *sorted(errors, key=lambda e: (e.span or (0, 0), e.criterion or "", e.reason))]


def read_rubric(
    result: object, data: Mapping[str, Any], order: Order = "ab", options: QuestionConfig | None = None
) -> list[Answer] | Problem:  # fmt: skip
    """For each criterion the verdict and, where one was given, its weight."""
    controls: dict[str, _Control] = {}
    for i in range(len(data["criteria"])):
        to = f"criterion_{i}"
        controls[f"verdict_{i}"] = _Control("choices", to, frozenset(RUBRIC_VERDICTS))
        controls[f"edit_{i}"] = _Control("textarea", to)
        controls[f"weight_{i}"] = _Control("rating", to)
    found = []
    try:
        given = _read(result, controls)
        for i in range(len(data["criteria"])):
            said = given.need(f"verdict_{i}")
            wording = given.values.get(f"edit_{i}", "")
            if said == "edit" and not wording:
                raise _Bad("missing", f"criterion {i} is to be edited, and no wording is given")
            worth = {"accept": 1.0, "edit": 0.5, "reject": 0.0}[said]
            found.append(Answer("criterion", "criterion", worth, index=i, reason=wording))
            if f"weight_{i}" in given.values:
                weight = given.values[f"weight_{i}"] / 5
                found.append(Answer("criterion", "criterion", weight, "weight", i))
    except _Bad as bad:
        return bad.problem
    return found


def _read(result: object, controls: Mapping[str, _Control]) -> _Given:
    if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
        raise _Bad("not_a_result", "the result is no list of answers")
    values: dict[str, Any] = {}
    regions: dict[str, dict[str, Any]] = {}
    for item in result:
        name = item.get("from_name")
        control = controls.get(name) if isinstance(name, str) else None
        if control is None or not isinstance(name, str):
            raise _Bad("unknown_control", f"{name!r} is no control of this question")
        if item.get("to_name") != control.to:
            raise _Bad("wrong_target", f"{name} answers {item.get('to_name')!r}, not {control.to}")
        value = item.get("value")
        if item.get("type") != control.type or not isinstance(value, dict):
            raise _Bad("wrong_type", f"{name} is {item.get('type')!r}, not {control.type}")
        if control.type == "labels" or control.per_region:
            _into_region(regions, item, name, control)
            continue
        if name in values:
            raise _Bad("twice", f"{name} is answered twice")
        read = _value(name, value, control)
        if read != "":
            values[name] = read
    return _Given(values, regions)


def _into_region(
    regions: dict[str, dict[str, Any]], item: dict[str, Any], name: str, control: _Control
) -> None:
    """Gather what belongs to one marked span."""
    key = item.get("id")
    if not isinstance(key, str):
        raise _Bad("bad_span", f"{name} has no region")
    region = regions.setdefault(key, {})
    if name in region:
        raise _Bad("twice", f"{name} is answered twice in one region")
    region[name] = _value(name, item["value"], control)
    if control.type == "labels":
        region["span"] = (item["value"].get("start"), item["value"].get("end"))
        region["text"] = item["value"].get("text")


def _value(name: str, value: dict[str, Any], control: _Control) -> Any:
    if control.type == "rating":
        stars = value.get("rating")
        if (
            isinstance(stars, bool)
            or not isinstance(stars, int | float)
            or not math.isfinite(stars)
        ):
            raise _Bad("wrong_type", f"{name}: {stars!r} is no number")
        if stars not in (1, 2, 3, 4, 5):
            raise _Bad("unknown_choice", f"{name}: {stars!r} is none of 1 to 5")
        return int(stars)
    if control.type == "textarea":
        texts = value.get("text")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise _Bad("wrong_type", f"{name} holds no text")
        return _clean("\n".join(texts))
    chosen = value.get(control.type)
    if not isinstance(chosen, list) or len(chosen) != 1:
        raise _Bad("unknown_choice", f"{name}: {chosen!r} is not one choice")
    if not isinstance(chosen[0], str) or chosen[0] not in control.choices:
        raise _Bad("unknown_choice", f"{name}: {chosen[0]!r} is none of its choices")
    return chosen[0]


def _clean(text: str) -> str:
    """A person's words: what cannot be stored goes, what is too long is cut."""
    text = UNSTORED.sub("\ufffd", text).strip()
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


def _error(region: Mapping[str, Any], response: str) -> Answer:
    """A marked error; its offsets, in characters, must be those of its words in what was shown."""
    if "errors" not in region:
        raise _Bad("bad_span", "a note stands on no marked error")
    start, end = region["span"]
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        raise _Bad("bad_span", f"{start!r} to {end!r} is no span")
    if end > len(response):
        raise _Bad("bad_span", f"{start} to {end} lies beyond the response")
    words = response[start:end]
    if region["text"] is not None and region["text"] != words:
        raise _Bad("bad_span", f"{start} to {end} reads {words!r}, not {region['text']!r}")
    return Answer(
        "response",
        "criterion",
        0.0,
        criterion=region["errors"],
        reason=region.get("note", ""),
        span=(start, end),
    )
