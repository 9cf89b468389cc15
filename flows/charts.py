"""Inline SVG charts: small functions from numbers to markup.

Every chart carries a <title> and a <desc>; marks carry a <title> of their own, which a browser
shows on hover without any script. Colours are CSS classes of the page, so that the light, dark and
printed page each have theirs. Text and attributes are escaped here; a number that is not finite
raises ValueError instead of drawing a wrong picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from flows import visible
from pipelines import intervals


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of k of n; (0, 1) where n is 0."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    if n == 0:
        return 0.0, 1.0
    low, high = intervals.wilson(k / n, n)
    return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width from `low` to `high`; the last bin holds `high` too."""

    low: float
    high: float
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Sequence[float], low: float, high: float, bins: int) -> Histogram:
        """Count values; one outside [low, high] raises ValueError: it may not vanish."""
        counts = [0] * bins
        for value in values:
            if not low <= value <= high:
                raise ValueError(f"{value} is outside the histogram's {low} to {high}")
            counts[min(bins - 1, int((value - low) / (high - low) * bins))] += 1
        return cls(low, high, tuple(counts))

    @property
    def total(self) -> int:
        """Values counted."""
        return sum(self.counts)


@dataclass(frozen=True)
class Point:
    """A value at n with its interval."""

    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A named series of points, in the order of n."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Bin:
    """Predictions that fell together: their mean, how many there were, how many came true."""

    predicted: float
    right: int
    count: int


def tag(name: str, *children: str | Markup, **attributes: str | float) -> Markup:
    """An element; `class_` is class, _ becomes -.

    Text is escaped and its hidden characters are shown; attribute values are escaped.
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if isinstance(value, int | float):
            if not math.isfinite(value):
                raise ValueError(f"a chart cannot draw {value}")
            value = f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"
        key = key.rstrip("_").replace("_", "-")
        parts.append(f' {key}="{escape(value)}"')
    body = "".join(
        str(escape(child if isinstance(child, Markup) else visible.plain(child, 2000)))
        for child in children
    )
    return Markup("".join(parts) + f">{body}</{name}>")


def svg(
    width: float, height: float, title: str, desc: str, body: Sequence[Markup], class_: str = ""
) -> Markup:
    """A whole picture; it scales with the page's width."""
    head = [tag("title", title), tag("desc", desc)]
    box = f"0 0 {width:.0f} {height:.0f}"
    return tag("svg", *head, *body, viewBox=box, role="img", class_=f"chart {class_}".strip())


def number(value: float) -> str:
    """A number for a reader: thousands separated, three decimals at most, no needless zeros."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.3f}".rstrip("0").rstrip(".")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round positions (1, 2 or 5 times a power of ten apart) within [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"no axis runs from {low} to {high}")
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    gap = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / gap - 1e-9)
    return [round(i * gap, 12) for i in range(first, math.floor(high / gap + 1e-9) + 1)]


@dataclass(frozen=True)
class Frame:
    """A plotting area: pixel box and the numbers at its edges."""

    left: float
    right: float
    top: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, value: float) -> float:
        """Pixel of a number on the horizontal axis."""
        low, high = self.x
        return self.left + (value - low) / ((high - low) or 1) * (self.right - self.left)

    def py(self, value: float) -> float:
        """Pixel of a number on the vertical axis."""
        low, high = self.y
        return self.bottom - (value - low) / ((high - low) or 1) * (self.bottom - self.top)

    def axes(self, xlabel: str, ylabel: str, xticks: Mapping[float, str]) -> list[Markup]:
        """Grid lines, tick labels and axis titles."""
        parts = []
        for value in ticks(*self.y, most=5):
            y = self.py(value)
            parts.append(tag("line", x1=self.left, x2=self.right, y1=y, y2=y, class_="grid"))
            parts.append(
                tag(
                    "text",
                    number(value),
                    x=self.left - 6,
                    y=y + 4,
                    class_="tick",
                    text_anchor="end",
                )
            )
        for value, label in xticks.items():
            at = {"x": self.px(value), "y": self.bottom + 16}
            parts.append(tag("text", label, **at, class_="tick", text_anchor="middle"))
        middle = (self.left + self.right) / 2
        at = {"x": middle, "y": self.bottom + 34}
        parts.append(tag("text", xlabel, **at, class_="axis", text_anchor="middle"))
        parts.append(tag("text", ylabel, x=2, y=self.top - 9, class_="axis"))
        ends = {"y1": self.bottom, "y2": self.bottom}
        parts.append(tag("line", x1=self.left, x2=self.right, **ends, class_="base"))
        return parts


def _whisker(x: float, low: float, high: float, class_: str, cap: float = 3) -> Markup:
    path = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - cap:.1f} {low:.1f}h{2 * cap}M{x - cap:.1f} {high:.1f}h{2 * cap}"
    return tag("path", d=path, class_=f"whisker {class_}")


def histogram(hist: Histogram, title: str, xlabel: str, unit: str) -> Markup:
    """Bars of counts over a number's range."""
    top = max(hist.counts, default=0) or 1
    frame = Frame(44, 390, 26, 172, (hist.low, hist.high), (0, top))
    width = (hist.high - hist.low) / max(len(hist.counts), 1)
    marks = frame.axes(xlabel, unit, {t: number(t) for t in ticks(hist.low, hist.high, 5)})
    for i, count in enumerate(hist.counts):
        low = hist.low + i * width
        x, y = frame.px(low), frame.py(count)
        words = (
            f"{number(round(low, 6))} to {number(round(low + width, 6))}: {number(count)} {unit}"
        )
        box = {"x": x + 0.75, "y": y, "height": frame.bottom - y}
        box["width"] = max(frame.px(low + width) - x - 1.5, 0.5)
        marks.append(tag("rect", tag("title", words), **box, class_="fill s0"))
    desc = f"Histogram of {number(hist.total)} {unit}, tallest bar {number(top)}."
    return svg(400, 212, title, desc, marks)


def shares(
    rows: Sequence[tuple[str, int, int]], title: str, xlabel: str, ylabel: str, class_: str = "s0"
) -> Markup:
    """Shares k of n with Wilson 95% intervals, one a category; rows are (category, k, n)."""
    spans = [wilson(k, n) for _, k, n in rows]
    top = max((high for (_, _, n), (_, high) in zip(rows, spans, strict=True) if n), default=1.0)
    frame = Frame(48, 510, 28, 178, (0, max(len(rows), 1)), (0, min(1.0, top * 1.08)))
    every = math.ceil(len(rows) / 13)
    labels = {i + 0.5: name for i, (name, _, _) in enumerate(rows) if i % every == 0}
    marks = frame.axes(xlabel, ylabel, labels)
    for i, ((name, k, n), (low, high)) in enumerate(zip(rows, spans, strict=True)):
        if not n:
            continue
        x, y, bar = frame.px(i + 0.5), frame.py(k / n), (frame.px(1) - frame.left) * 0.62
        words = f"{name}: {number(k)} of {number(n)} = {k / n:.1%}, 95% interval {low:.1%} to {high:.1%}"
        box = {"x": x - bar / 2, "y": y, "width": bar, "height": frame.bottom - y}
        marks.append(tag("rect", tag("title", words), **box, class_=f"fill soft {class_}"))
        marks.append(_whisker(x, frame.py(high), frame.py(low), class_))
    return svg(
        520, 220, title, f"Shares with 95% intervals for {len(rows)} categories.", marks, "broad"
    )


def curves(series: Sequence[Curve], title: str, xlabel: str, ylabel: str) -> Markup:
    """Lines with interval bars over n, evenly spaced by n's rank, named at their right ends."""
    ns = sorted({p.n for c in series for p in c.points})
    ends = [e for c in series for p in c.points for e in (p.low, p.high)]
    low, high = min(ends), max(ends)
    pad = (high - low) * 0.06 or 0.05
    frame = Frame(44, 438, 26, 262, (-0.25, len(ns) - 0.75), (low - pad, high + pad))
    marks = frame.axes(xlabel, ylabel, {float(i): str(n) for i, n in enumerate(ns)})
    spots: list[float] = [0.0] * len(series)
    for i, curve in enumerate(series):
        shift = (i - (len(series) - 1) / 2) * 3
        at = [(frame.px(ns.index(p.n)) + shift, frame.py(p.value), p) for p in curve.points]
        line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in at)
        marks.append(tag("path", d=line, class_=f"line s{i % 6} d{i % 6}"))
        for x, y, p in at:
            marks.append(_whisker(x, frame.py(p.high), frame.py(p.low), f"s{i % 6}"))
            words = f"{curve.name}, n = {p.n}: {p.value:.3f} [{p.low:.3f}, {p.high:.3f}]"
            marks.append(
                tag("circle", tag("title", words), cx=x, cy=y, r=3.2, class_=f"dot s{i % 6}")
            )
        spots[i] = at[-1][1]
    for i, y in enumerate(_spread(spots, 16, frame.top, frame.bottom)):
        marks.append(tag("text", series[i].name, x=452, y=y + 4, class_=f"name s{i % 6}"))
    desc = "; ".join(f"{c.name}: {c.points[-1].value:.3f} at n = {c.points[-1].n}" for c in series)
    return svg(580, 302, title, desc, marks, "broad")


def _spread(spots: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Move labels apart until they are `gap` from each other, keeping their order."""
    order = sorted(range(len(spots)), key=lambda i: spots[i])
    placed = list(spots)
    edge = top
    for i in order:
        placed[i] = max(spots[i], edge)
        edge = placed[i] + gap
    edge = max(bottom, top + gap * (len(spots) - 1))
    for i in reversed(order):
        placed[i] = min(placed[i], edge)
        edge = placed[i] - gap
    return placed


def reliability(bins: Sequence[Bin], title: str) -> Markup:
    """Predicted probability against the share that came true, with Wilson intervals and counts."""
    frame = Frame(44, 390, 26, 262, (0, 1), (0, 1))
    axis = {t: number(t) for t in ticks(0, 1, 5)}
    marks = frame.axes("probability that was predicted", "share that came true", axis)
    most = max((b.count for b in bins), default=1) or 1
    ends = {"x1": frame.px(0), "y1": frame.py(0), "x2": frame.px(1), "y2": frame.py(1)}
    marks.append(tag("line", tag("title", "perfect calibration"), **ends, class_="ideal"))
    for b in bins:
        if not b.count:
            continue
        low, high = wilson(b.right, b.count)
        x, share = frame.px(b.predicted), b.right / b.count
        tall = 46 * b.count / most
        words = f"predicted {b.predicted:.3f}: {number(b.right)} of {number(b.count)} came true, {share:.3f} [{low:.3f}, {high:.3f}]"
        box = {"x": x - 6, "y": frame.bottom - tall, "width": 12, "height": tall}
        marks.append(tag("rect", **box, class_="fill faint"))
        marks.append(_whisker(x, frame.py(high), frame.py(low), "s0"))
        marks.append(
            tag("circle", tag("title", words), cx=x, cy=frame.py(share), r=3.6, class_="dot s0")
        )
    desc = f"{len(bins)} bins; on the diagonal, predictions mean what they say."
    return svg(400, 302, title, desc, marks)


def value_bar(value: float, low: float | None, high: float | None) -> Markup:
    """A small bar of a value in [0, 1] with its interval drawn over it."""
    for end in (value, low, high):
        if end is not None and not 0 <= end <= 1:
            raise ValueError(f"{end} is outside 0 to 1")
    marks = [
        tag("rect", x=0, y=3, width=100, height=8, class_="track"),
        tag("rect", x=0, y=3, width=100 * value, height=8, class_="fill soft s0"),
    ]
    words = f"{value:.2f}"
    if low is not None and high is not None:
        path = f"M{100 * low:.1f} 7H{100 * high:.1f}M{100 * low:.1f} 3v8M{100 * high:.1f} 3v8"
        marks.append(tag("path", d=path, class_="whisker s0"))
        words += f", interval {low:.2f} to {high:.2f}"
    marks.append(tag("circle", cx=100 * value, cy=7, r=2.8, class_="dot s0"))
    body = [tag("title", words), *marks]
    return tag("svg", *body, viewBox="-3 0 106 14", role="img", class_="spark")


def stacked(parts: Sequence[tuple[str, int, str]]) -> Markup:
    """One bar split by count; parts are (name, count, class)."""
    total = sum(count for _, count, _ in parts) or 1
    x, marks = 0.0, [tag("title", ", ".join(f"{name}: {number(c)}" for name, c, _ in parts))]
    for name, count, class_ in parts:
        if count:
            wide = 1000 * count / total
            box = {"x": x, "y": 0, "width": wide, "height": 10}
            marks.append(
                tag(
                    "rect", tag("title", f"{name}: {number(count)}"), **box, class_=f"fill {class_}"
                )
            )
            x += wide
    frame = {"viewBox": "0 0 1000 10", "preserveAspectRatio": "none", "role": "img"}
    return tag("svg", *marks, **frame, class_="stack")
