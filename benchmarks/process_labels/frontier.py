"""The frontier plot: step accuracy over tokens a solution, one point a method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from flows.charts import number, svg, tag, ticks

LEFT, RIGHT, TOP, BOTTOM = 48.0, 560.0, 30.0, 380.0
WIDTH, HEIGHT = 850, 430
GAP = 13.0
STYLES = {"ours": "s1", "search": "s2", "judge": "s3", "fixed": "s0"}


class Spot(NamedTuple):
    """A method: where it stands, and the line (methods that differ in k alone) it belongs to."""

    name: str
    line: str
    kind: str
    tokens: float
    accuracy: float


def frontier(spots: Sequence[Spot], title: str) -> Markup:
    """A scatter plot with a logarithmic horizontal axis; a line is named at its last point."""
    spots = [spot for spot in spots if spot.tokens > 0]
    if not spots:
        raise ValueError("nothing to be shown")
    logs = [math.log10(spot.tokens) for spot in spots]
    x_low, x_high = min(logs) - 0.1, max(logs) + 0.1
    y_low = min(spot.accuracy for spot in spots) - 0.02
    y_high = min(1.0, max(spot.accuracy for spot in spots) + 0.02)

    def px(tokens: float) -> float:
        return LEFT + (math.log10(tokens) - x_low) / (x_high - x_low) * (RIGHT - LEFT)

    def py(accuracy: float) -> float:
        return BOTTOM - (accuracy - y_low) / (y_high - y_low) * (BOTTOM - TOP)

    marks = []
    for value in ticks(y_low, y_high, 6):
        y = py(value)
        marks.append(tag("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"))
        at = {"x": LEFT - 6, "y": y + 4}
        marks.append(tag("text", number(value), **at, class_="tick", text_anchor="end"))
    for power in range(math.floor(x_low), math.ceil(x_high) + 1):
        for tokens in (10**power, 2 * 10**power, 5 * 10**power):
            if x_low <= math.log10(tokens) <= x_high:
                at = {"x": px(tokens), "y": BOTTOM + 16}
                marks.append(tag("text", number(tokens), **at, class_="tick", text_anchor="middle"))
    at = {"x": (LEFT + RIGHT) / 2, "y": BOTTOM + 36}
    words = "policy tokens a solution (logarithmic)"
    marks.append(tag("text", words, **at, class_="axis", text_anchor="middle"))
    marks.append(tag("text", "step accuracy", x=2, y=TOP - 12, class_="axis"))
    marks.append(tag("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="base"))

    lines: dict[str, list[Spot]] = {}
    for spot in spots:
        lines.setdefault(spot.line, []).append(spot)
    ends = []
    for name, own in lines.items():
        style = STYLES[own[0].kind]
        own = sorted(own, key=lambda spot: spot.tokens)
        path = "M" + "L".join(f"{px(s.tokens):.1f} {py(s.accuracy):.1f}" for s in own)
        if len(own) > 1:
            marks.append(tag("path", d=path, class_=f"line {style}"))
        for spot in own:
            words = f"{spot.name}: {spot.accuracy:.3f} at {spot.tokens:,.0f} tokens"
            at = {"cx": px(spot.tokens), "cy": py(spot.accuracy)}
            r = 5.0 if spot.kind == "ours" else 3.2
            marks.append(tag("circle", tag("title", words), **at, r=r, class_=f"dot {style}"))
        label = own[0].name if len(own) == 1 else name
        ends.append((py(own[-1].accuracy), px(own[-1].tokens), label, style))
    marks += _labels(ends)
    best = max(spots, key=lambda spot: spot.accuracy)
    desc = f"{len(spots)} methods; the most accurate is {best.name} with {best.accuracy:.3f}."
    return svg(WIDTH, HEIGHT, title, desc, marks, "broad")


def _labels(ends: Sequence[tuple[float, float, str, str]]) -> list[Markup]:
    """Names at the right, in the order of their points and apart, with a thin line to each."""
    marks, y = [], TOP - GAP
    room = len(ends)
    for at_y, at_x, name, style in sorted(ends):
        room -= 1
        y = min(max(at_y, y + GAP), BOTTOM - GAP * room)
        ends_at = {"x1": at_x + 5, "y1": at_y, "x2": RIGHT + 8, "y2": y}
        marks.append(tag("line", **ends_at, class_="grid"))
        marks.append(tag("text", name, x=RIGHT + 12, y=y + 4, class_=f"name {style}"))
    return marks
