"""Small drawings of the step pages: bars of one number, a solution at a glance, the order of asks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from flows.charts import number, svg, tag
from schemas.records import Asked, StepLabels

ASKS_DRAWN = 160
STEPS_DRAWN = 60

_TONES = {"policy": "s0", "prover": "s2", "judge": "s4"}


def meter(share: float, tone: str, words: str) -> Markup:
    """A bar of a probability in [0, 1]."""
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is outside 0 to 1")
    marks = [
        tag("title", f"{words} {share:.3f}"),
        tag("rect", x=0, y=0, width=48, height=6, class_="track"),
        tag("rect", x=0, y=0, width=48 * share, height=6, class_=f"fill {tone}"),
    ]
    return tag("svg", *marks, viewBox="0 0 48 6", role="img", class_="meter")


def signed(change: float, words: str) -> Markup:
    """A bar from the middle: to the right where above 0, to the left where below; [-1, 1]."""
    if not -1 <= change <= 1:
        raise ValueError(f"{change} is outside -1 to 1")
    wide = 24 * abs(change)
    bar = {"x": 24 if change >= 0 else 24 - wide, "y": 0, "width": wide, "height": 6}
    marks = [
        tag("title", f"{words} {change:+.3f}"),
        tag("rect", x=0, y=0, width=48, height=6, class_="track"),
        tag("rect", **bar, class_="fill good" if change >= 0 else "fill bad"),
        tag("line", x1=24, x2=24, y1=-1, y2=7, class_="base"),
    ]
    return tag("svg", *marks, viewBox="0 -1 48 8", role="img", class_="meter")


def strip(labels: StepLabels) -> Markup:
    """A solution at a glance: one cell a step, as high as its value, coloured by its hard label."""
    tones = {"right": "good", "wrong": "bad", None: "mute"}
    count = min(len(labels.steps), STEPS_DRAWN)
    marks = [tag("title", _in_words(labels))]
    for t in range(count):
        value, x = labels.value[t], 9.0 * t
        marks.append(tag("rect", x=x, y=0, width=7, height=16, class_="track"))
        if value is not None:
            tall = max(1.5, 16 * value)
            box = {"x": x, "y": 16 - tall, "width": 7, "height": tall}
            marks.append(tag("rect", **box, class_=f"fill {tones[labels.label[t]]}"))
        if labels.label[t] is not None or value is not None:
            marks.append(
                tag(
                    "rect",
                    x=x,
                    y=17.5,
                    width=7,
                    height=2.5,
                    class_=f"fill {tones[labels.label[t]]}",
                )
            )
    if labels.first_error is not None and labels.first_error < count:
        x = 9 * labels.first_error + 3.5
        marks.append(tag("path", d=f"M{x - 3} 25.5L{x} 21.5L{x + 3} 25.5Z", class_="fill bad"))
    wide = max(9, 9 * count)
    return tag(
        "svg", *marks, viewBox=f"0 0 {wide} 26", width=wide, height=26, role="img", class_="strip"
    )


def _in_words(labels: StepLabels) -> str:
    right, wrong = labels.label.count("right"), labels.label.count("wrong")
    none = len(labels.label) - right - wrong
    error = (
        "" if labels.first_error is None else f", the first wrong one is {labels.first_error + 1}"
    )
    return f"{len(labels.steps)} steps: {right} right, {wrong} wrong, {none} not labelled{error}"


def order(asked: Sequence[Asked], steps: int) -> Markup:
    """What was asked in which order: one dot an ask, left to right; its height is the position."""
    drawn = asked[:ASKS_DRAWN]
    rows = steps + 1
    gap = 15.0 if rows <= 16 else max(4.0, 240 / rows)
    wide, tall = 720.0, 24 + gap * max(1, rows - 1)
    left, right = 62.0, wide - 14
    apart = min(44.0, (right - left) / max(1, len(drawn)))

    def x(i: int) -> float:
        return left + apart * (i + 0.5)

    def y(position: int) -> float:
        return 12 + gap * min(position, steps)

    marks = []
    every = max(1, math.ceil(rows / 16))
    for position in range(0, rows, every):
        name = "question" if position == 0 else f"step {position}"
        marks.append(tag("line", x1=left, x2=right, y1=y(position), y2=y(position), class_="grid"))
        marks.append(tag("text", name, x=left - 8, y=y(position) + 4, text_anchor="end"))
    points = " ".join(f"{x(i):.1f},{y(a.position):.1f}" for i, a in enumerate(drawn))
    if len(drawn) > 1:
        marks.append(tag("polyline", points=points, class_="line thread"))
    most = max((a.count for a in drawn), default=1) or 1
    for i, a in enumerate(drawn):
        after = "the question alone" if a.position == 0 else f"step {a.position}"
        words = f"{i + 1}. {number(a.count)} of the {a.of} after {after}: {a.why}"
        radius = 2.2 + 3.6 * math.sqrt(a.count / most)
        radius = min(radius, max(2.0, apart * 0.6))
        dot = tag("circle", tag("title", words), cx=x(i), cy=y(a.position), r=radius)
        marks.append(Markup('<g class="{}">{}</g>').format(f"ask {_TONES[a.of]}", dot))
    more = f"; the first {ASKS_DRAWN} of {len(asked)} are drawn" if len(asked) > ASKS_DRAWN else ""
    desc = f"{number(len(asked))} asks, left to right; lower is later in the solution{more}."
    return svg(wide, tall, "What was asked, in order", desc, marks, "order")
