import itertools
import math
import xml.etree.ElementTree as ET

import pytest
from scipy.stats import binomtest

from flows import charts
from flows.charts import Bin, Curve, Histogram, Point


def parts(picture: str, name: str) -> list[ET.Element]:
    """Elements of a picture; parsing proves that it is well-formed."""
    return list(ET.fromstring(picture).iter(name))


def words(picture: str) -> list[str]:
    return [element.text or "" for element in parts(picture, "text")]


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (411, 1000)])
def test_wilson_is_scipys(k, n):
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    assert charts.wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_wilson_of_nothing_says_nothing():
    assert charts.wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 of 2 is no share"):
        charts.wilson(3, 2)


def test_histogram_counts_its_edges():
    hist = Histogram.of([0.0, 0.49, 0.5, 1.0], 0, 1, 2)
    assert hist.counts == (2, 2)
    assert hist.total == 4
    with pytest.raises(ValueError, match="outside"):
        Histogram.of([1.2], 0, 1, 2)
    with pytest.raises(ValueError, match="outside"):
        Histogram.of([math.nan], 0, 1, 2)


def test_histogram_draws_heights_in_proportion():
    picture = charts.histogram(Histogram(0, 1, (10, 5, 0)), "Values", "value", "steps")
    heights = [float(r.get("height", "")) for r in parts(picture, "rect")]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.02)
    assert heights[2] == 0
    titles = [t.text for t in parts(picture, "title")]
    assert titles[0] == "Values"
    assert titles[1] == "0 to 0.333: 10 steps"
    assert parts(picture, "desc")[0].text == "Histogram of 15 steps, tallest bar 10."


def test_shares_draw_wilson_and_skip_what_has_no_rows():
    picture = charts.shares([("1", 2, 8), ("2", 0, 0)], "Wrong", "step", "share")
    assert len(parts(picture, "rect")) == 1
    assert "2 of 8 = 25.0%, 95% interval 7.1% to 59.1%" in picture


def test_curves_name_every_series_without_overlap():
    series = [Curve(f"s{i}", (Point(1, 0.8, 0.7, 0.9), Point(4, 0.9, 0.8, 0.95))) for i in range(6)]
    picture = charts.curves(series, "Best of n", "n", "share")
    names = [
        t for t in parts(picture, "text") if (t.text or "").startswith("s") and t.text != "share"
    ]
    heights = sorted(float(t.get("y", "")) for t in names)
    assert len(names) == 6
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 15.99
    assert len(parts(picture, "circle")) == 12
    assert {"1", "4"} <= set(words(picture))


def test_a_curve_of_one_flat_point_is_drawn():
    picture = charts.curves([Curve("policy", (Point(1, 0.5, 0.5, 0.5),))], "Best", "n", "share")
    assert len(parts(picture, "circle")) == 1


def test_reliability_places_bins_on_the_diagonal():
    picture = charts.reliability([Bin(0.5, 50, 100), Bin(0.9, 0, 0)], "Reliability")
    (dot,) = parts(picture, "circle")
    assert float(dot.get("cx", "")) == pytest.approx((44 + 390) / 2, abs=0.1)
    assert float(dot.get("cy", "")) == pytest.approx((26 + 262) / 2, abs=0.1)


def test_value_bar_says_its_interval_and_refuses_nonsense():
    assert "0.85, interval 0.71 to 0.97" in charts.value_bar(0.85, 0.71, 0.97)
    with pytest.raises(ValueError, match="outside 0 to 1"):
        charts.value_bar(1.5, None, None)
    with pytest.raises(ValueError, match="outside 0 to 1"):
        charts.value_bar(math.nan, None, None)


def test_stacked_fills_its_width():
    picture = charts.stacked([("right", 3, "good"), ("wrong", 1, "bad"), ("none", 0, "mute")])
    assert [r.get("width") for r in parts(picture, "rect")] == ["750", "250"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 7, [0, 2, 4, 6]),
        (0.78, 0.99, [0.8, 0.85, 0.9, 0.95]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert charts.ticks(low, high, 5) == pytest.approx(expected)


def test_numbers_that_are_none_raise():
    with pytest.raises(ValueError, match="no axis"):
        charts.curves([Curve("x", (Point(1, math.nan, math.nan, math.nan),))], "t", "n", "y")
    with pytest.raises(ValueError, match="cannot draw"):
        charts.tag("rect", x=math.inf)


def test_hostile_names_are_escaped():
    name = '"><script>alert(1)</script>'
    for picture in (
        charts.curves([Curve(name, (Point(1, 0.5, 0.4, 0.6),))], name, name, name),
        charts.shares([(name, 1, 2)], name, name, name),
        charts.histogram(Histogram(0, 1, (1,)), name, name, name),
        charts.stacked([(name, 1, name)]),
    ):
        assert not parts(picture, "script")
        assert "<script" not in picture


def test_numbers_for_readers():
    assert charts.number(1234567) == "1,234,567"
    assert charts.number(0.5) == "0.5"
    assert charts.number(2.0) == "2"
    assert charts.number(0.12345) == "0.123"
