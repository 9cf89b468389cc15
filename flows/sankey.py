"""Where rows went, as an inline SVG: bars of rows, ribbons between them, rejects falling out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flows.charts import number, svg, tag

TONES = {
    **dict.fromkeys(("right", "keep", "train"), "good"),
    **dict.fromkeys(("wrong",), "bad"),
    **dict.fromkeys(("flip", "soften", "route"), "warn"),
    **dict.fromkeys(("drop", "unparsed", "truncated", "none"), "mute"),
}
"""Colour class of the outcomes that have a meaning; other names take the series' colours."""

_TALL = 92.0
_TOP = 46.0
_BAR = 9.0


@dataclass(frozen=True)
class FlowStep:
    """A stage in a flow of one unit: `rows_in` less `rejects` goes on, split into `outcomes`.

    `outcomes` may be empty: what goes on is then not split.
    """

    label: str
    rows_in: int
    rejects: Mapping[str, int]
    outcomes: Mapping[str, int]
    came: str = "in"
    """What `rows_in` is: rows that came in, were asked for, or were made."""

    @property
    def rows_out(self) -> int:
        """Rows that go on."""
        return self.rows_in - sum(self.rejects.values())


def tone(name: str, index: int) -> str:
    """Colour class of an outcome: its meaning's, or that of its place in the list."""
    return TONES.get(name, f"s{index % 6}")


def flow(steps: Sequence[FlowStep], unit: str, title: str) -> Markup:
    """A left-to-right flow of rows of one unit; heights are shares of the largest `rows_in`.

    Each step has a bar of what came in; rejects fall below it with their reasons; outcomes fan out
    to its right. Counts of 0 are left out of the picture (tables hold them).
    """
    scale = _TALL / max(max(s.rows_in for s in steps), 1)
    columns = sum(1 + bool(s.outcomes) for s in steps) + (not steps[-1].outcomes)
    gap = min(max((1080 - 150) / max(columns - 1, 1), 150), 310)
    marks: list[Markup] = []
    x, bottom = 2.0, _TOP + _TALL
    for i, step in enumerate(steps):
        came = f"{number(step.rows_in)} {step.came}"
        tallest = max(step.rows_in * scale, _fan_height(step, scale))
        floor = _TOP + tallest + 22
        bottom = max(bottom, _TOP + tallest)
        bottom = max(bottom, _rejects(marks, step, x, gap, scale, floor))
        marks.append(_bar(x, _TOP, step.rows_in * scale, f"{step.label}: {came}"))
        marks += _heading(x, step.label, came)
        last = i == len(steps) - 1
        ends = [(_TOP, step.rows_out * scale, "s0")] if step.rows_out else []
        if step.outcomes:
            ends = _fan(marks, step, x, gap, scale)
            x += gap
        if not last or not step.outcomes:
            y = _TOP
            for top, tall, colour in ends:
                marks.append(_ribbon(x + _BAR, top, x + gap, y, tall, colour))
                y += tall
            x += gap
        if last and not step.outcomes:
            marks.append(_bar(x, _TOP, step.rows_out * scale, f"{number(step.rows_out)} out"))
            marks += _heading(x, "out", f"{number(step.rows_out)} {unit}")
    words = [f"{s.label}: {number(s.rows_in)} in, {number(s.rows_out)} on" for s in steps]
    return svg(max(1080, x + 150), bottom + 6, title, "; ".join(words), marks, "flow")


def _heading(x: float, name: str, count: str) -> list[Markup]:
    return [
        tag("text", name, x=x, y=_TOP - 24, class_="name"),
        tag("text", count, x=x, y=_TOP - 9, class_="tick"),
    ]


def _bar(x: float, y: float, tall: float, words: str, colour: str = "s0") -> Markup:
    box = {"x": x, "y": y, "width": _BAR, "height": max(tall, 1.2)}
    return tag("rect", tag("title", words), **box, class_=f"fill {colour}")


def _ribbon(x1: float, y1: float, x2: float, y2: float, tall: float, colour: str) -> Markup:
    mid = (x1 + x2) / 2
    path = (
        f"M{x1:.1f} {y1:.1f}C{mid:.1f} {y1:.1f} {mid:.1f} {y2:.1f} {x2:.1f} {y2:.1f}v{tall:.2f}"
        f"C{mid:.1f} {y2 + tall:.1f} {mid:.1f} {y1 + tall:.1f} {x1:.1f} {y1 + tall:.1f}z"
    )
    return tag("path", d=path, class_=f"ribbon {colour}")


def _fan_height(step: FlowStep, scale: float) -> float:
    return sum(max(count * scale, 12) + 8 for count in step.outcomes.values() if count)


def _fan(
    marks: list[Markup], step: FlowStep, x: float, gap: float, scale: float
) -> list[tuple[float, float, str]]:
    """Draw the outcomes one column to the right; their (top, height, colour), for what follows."""
    source, target, ends = _TOP, _TOP, []
    for i, (name, count) in enumerate(step.outcomes.items()):
        if not count:
            continue
        tall, colour = count * scale, tone(name, i)
        slot = max(tall, 12)
        top = target + (slot - tall) / 2
        marks.append(_ribbon(x + _BAR, source, x + gap, top, tall, colour))
        marks.append(_bar(x + gap, top, tall, f"{name}: {number(count)}", colour))
        at = {"x": x + gap + _BAR + 6, "y": target + slot / 2 + 4}
        marks.append(tag("text", f"{name} {number(count)}", **at, class_="name halo"))
        ends.append((top, tall, colour))
        source += tall
        target += slot + 8
    return ends


def _rejects(
    marks: list[Markup], step: FlowStep, x: float, gap: float, scale: float, floor: float
) -> float:
    """Draw what fell out of a step, with its commonest reasons; the lowest pixel used."""
    reasons = sorted(((n, code) for code, n in step.rejects.items() if n), reverse=True)
    total = sum(n for n, _ in reasons)
    if not total:
        return 0.0
    tall, end = total * scale, x + min(gap * 0.3, 48)
    marks.append(_ribbon(x + _BAR, _TOP + step.rows_out * scale, end, floor, tall, "bad"))
    marks.append(_bar(end, floor, tall, f"{step.label}: {number(total)} rejected", "bad"))
    lines = [f"{number(n)} {code}" for n, code in reasons[:3]]
    if len(reasons) > 3:
        lines.append(
            f"{number(sum(n for n, _ in reasons[3:]))} for {len(reasons) - 3} more reasons"
        )
    marks.append(
        tag("text", f"{number(total)} rejected", x=end + _BAR + 6, y=floor + 9, class_="name bad")
    )
    for i, line in enumerate(lines):
        at = {"x": end + _BAR + 6, "y": floor + 24 + 14 * i}
        marks.append(tag("text", line, **at, class_="tick"))
    return floor + max(tall, 14 + 14 * len(lines))
