"""Drawings of judges and decisions: signed bars, histograms above each other, risk against coverage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flows.charts import Frame, Histogram, number, svg, tag, ticks

TONES = {"keep": "s3", "flip": "s1", "soften": "s4", "drop": "s5", "route": "s2"}
"""Colour class of each action, where they stand beside each other."""


@dataclass(frozen=True)
class RiskPoint:
    """What is accepted down to a probability: its share of all pairs, and how much of it is wrong."""

    coverage: float
    error: float
    low: float
    high: float
    labels: int
    threshold: float


def signed_bar(
    value: float, low: float | None, high: float | None, reach: float, tone: str = ""
) -> Markup:
    """A small bar from 0 in the middle to a value, with its interval; the ends are -reach and reach.

    Without a `tone`, above 0 is good and below it is bad.
    """
    if not (math.isfinite(value) and reach > 0):
        raise ValueError(f"no bar runs to {value} of {reach}")

    def at(number_: float) -> float:
        return 50 + 50 * max(-1.0, min(1.0, number_ / reach))

    x = at(value)
    tone = tone or ("good" if value > 0 else "bad" if value < 0 else "mute")
    marks = [
        tag("rect", x=0, y=3, width=100, height=8, class_="track"),
        tag("rect", x=min(50, x), y=3, width=abs(x - 50), height=8, class_=f"fill soft {tone}"),
        tag("line", x1=50, x2=50, y1=0, y2=14, class_="base"),
    ]
    words = f"{value:+.3f}"
    if low is not None and high is not None:
        path = f"M{at(low):.1f} 7H{at(high):.1f}M{at(low):.1f} 3v8M{at(high):.1f} 3v8"
        marks.append(tag("path", d=path, class_=f"whisker {tone}"))
        words += f", interval {low:+.3f} to {high:+.3f}"
    marks.append(tag("circle", cx=x, cy=7, r=2.8, class_=f"dot {tone}"))
    body = [tag("title", words), *marks]
    return tag("svg", *body, viewBox="-3 0 106 14", role="img", class_="spark")


def strips(rows: Mapping[str, Histogram], title: str, xlabel: str, unit: str) -> Markup:
    """Histograms of one range above each other, each scaled to its own tallest bar and named."""
    tall, left, right, top = 34.0, 76.0, 390.0, 8.0
    marks: list[Markup] = []
    ends = [(h.low, h.high) for h in rows.values()]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    bottom = top + len(rows) * (tall + 12)
    frame = Frame(left, right, top, bottom, (low, high), (0, 1))
    for value in ticks(low, high, 6):
        x = frame.px(value)
        marks.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        at = {"x": x, "y": bottom + 16}
        marks.append(tag("text", number(value), **at, class_="tick", text_anchor="middle"))
    for i, (name, hist) in enumerate(rows.items()):
        floor = top + (i + 1) * (tall + 12)
        tone = TONES.get(name, f"s{i % 6}")
        most = max(hist.counts, default=0) or 1
        wide = (hist.high - hist.low) / max(len(hist.counts), 1)
        for words, y, class_ in ((name, 18, f"name {tone}"), (number(hist.total), 3, "tick")):
            spot = {"x": left - 10, "y": floor - y}
            marks.append(tag("text", words, **spot, class_=class_, text_anchor="end"))
        for j, count in enumerate(hist.counts):
            if not count:
                continue
            start = hist.low + j * wide
            words = (
                f"{name}, {number(round(start, 6))} to {number(round(start + wide, 6))}: "
                f"{number(count)} {unit}"
            )
            height = max(tall * count / most, 1.0)
            box = {"x": frame.px(start) + 0.75, "y": floor - height, "height": height}
            box["width"] = max(frame.px(start + wide) - frame.px(start) - 1.5, 0.5)
            marks.append(tag("rect", tag("title", words), **box, class_=f"fill {tone}"))
        marks.append(tag("line", x1=left, x2=right, y1=floor, y2=floor, class_="base"))
    middle = {"x": (left + right) / 2, "y": bottom + 34}
    marks.append(tag("text", xlabel, **middle, class_="axis", text_anchor="middle"))
    desc = "; ".join(f"{name}: {number(hist.total)} {unit}" for name, hist in rows.items())
    return svg(400, bottom + 40, title, desc, marks)


def risk_coverage(
    points: Sequence[RiskPoint],
    title: str,
    limit: Sequence[tuple[float, float]] = (),
    accepted: float | None = None,
) -> Markup:
    """Error of what is accepted against the share that is, with its band, and the bound's line.

    `limit`: (share accepted, largest error) points of the bound; `accepted`: the share that it takes.
    """
    steady = [p.high for p in points if p.labels >= 20] or [p.high for p in points]
    top = min(1.0, max([*steady, *(p.error for p in points), *(y for _, y in limit[-1:]), 0.02]))
    frame = Frame(44, 390, 26, 262, (0, 1), (0, top * 1.08))
    axis = {t: f"{100 * t:.0f}%" for t in ticks(0, 1, 5)}
    marks = frame.axes("share of all pairs accepted, the surest first", "share wrong", axis)

    def y(value: float) -> float:
        return frame.py(min(value, frame.y[1]))

    high = [f"{frame.px(p.coverage):.1f} {y(p.high):.1f}" for p in points]
    low = [f"{frame.px(p.coverage):.1f} {y(p.low):.1f}" for p in reversed(points)]
    marks.append(tag("path", d="M" + "L".join([*high, *low]) + "Z", class_="ribbon s0"))
    line = "M" + "L".join(f"{frame.px(p.coverage):.1f} {y(p.error):.1f}" for p in points)
    marks.append(tag("path", d=line, class_="line s0"))
    seen = [(x, e) for x, e in limit if e <= frame.y[1]]
    if seen:
        path = "M" + "L".join(f"{frame.px(x):.1f} {frame.py(e):.1f}" for x, e in seen)
        marks.append(tag("path", tag("title", "the bound"), d=path, class_="line s1 d1"))
        flat = seen[0][1] == seen[-1][1]
        x, e = (1.0, seen[0][1]) if flat else seen[0]
        spot = {"x": frame.px(x) + (-2 if flat else 6), "y": frame.py(e) + (-5 if flat else 10)}
        side = "end" if flat else "start"
        marks.append(tag("text", "bound", **spot, class_="name halo s1", text_anchor=side))
    if accepted is not None:
        x = frame.px(accepted)
        words = f"accepted within the bound: {accepted:.1%} of all pairs"
        ends = {"x1": x, "x2": x, "y1": frame.top, "y2": frame.bottom}
        marks.append(tag("line", tag("title", words), **ends, class_="ideal"))
        side = "end" if accepted > 0.5 else "start"
        at = {"x": x + (-5 if accepted > 0.5 else 5), "y": frame.top + 11}
        words = f"accepted {accepted:.0%}"
        marks.append(tag("text", words, **at, class_="name halo", text_anchor=side))
    for p in points:
        words = (
            f"accepting {p.coverage:.1%} (probability {p.threshold:.3f} or more): {p.error:.1%} wrong "
            f"[{p.low:.1%}, {p.high:.1%}] of {number(p.labels)} labels"
        )
        spot = {"cx": frame.px(p.coverage), "cy": y(p.error), "r": 2.4}
        marks.append(tag("circle", tag("title", words), **spot, class_="dot s0"))
    last = points[-1]
    desc = f"Accepting {last.coverage:.0%} of the pairs, an estimated {last.error:.1%} are wrong."
    return svg(400, 302, title, desc, marks)
