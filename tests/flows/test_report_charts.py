import math
import re

import pytest
from scipy.stats import binomtest

from flows import report_charts as drawings
from flows.charts import Histogram
from flows.report_charts import RiskPoint
from flows.report_decisions import clopper_pearson
from tests.flows.test_charts import parts, words


def test_a_signed_bar_starts_in_the_middle():
    right = drawings.signed_bar(0.25, 0.1, 0.4, 0.5)
    (track, bar) = parts(right, "rect")
    assert (track.get("x"), track.get("width")) == ("0", "100")
    assert (bar.get("x"), bar.get("width"), bar.get("class")) == ("50", "25", "fill soft good")
    assert parts(right, "title")[0].text == "+0.250, interval +0.100 to +0.400"
    left = parts(drawings.signed_bar(-0.5, None, None, 0.5), "rect")[1]
    assert (left.get("x"), left.get("width"), left.get("class")) == ("0", "50", "fill soft bad")
    neutral = parts(drawings.signed_bar(-0.5, None, None, 0.5, "s0"), "rect")[1]
    assert neutral.get("class") == "fill soft s0"


def test_a_signed_bar_stays_within_its_ends_and_refuses_nonsense():
    bar = parts(drawings.signed_bar(7.0, -9.0, 9.0, 0.5), "rect")[1]
    assert (bar.get("x"), bar.get("width")) == ("50", "50")
    for value, reach in ((math.nan, 1.0), (math.inf, 1.0), (0.1, 0.0)):
        with pytest.raises(ValueError, match="no bar runs"):
            drawings.signed_bar(value, None, None, reach)


def test_strips_name_and_scale_each_row():
    rows = {"keep": Histogram(0, 1, (0, 40)), "flip": Histogram(0, 1, (4, 2))}
    picture = drawings.strips(rows, "By action", "probability", "pairs")
    keep, tall, short = parts(picture, "rect")
    assert keep.get("height") == tall.get("height") == "34"
    assert short.get("height") == "17"
    assert (keep.get("class"), tall.get("class")) == ("fill s3", "fill s1")
    assert {"keep", "40", "flip", "6"} <= set(words(picture))
    assert tall[0].text == "flip, 0 to 0.5: 4 pairs"


def test_risk_against_coverage_draws_band_bound_and_what_is_accepted():
    points = [RiskPoint(0.5, 0.0, 0.0, 0.1, 40, 0.9), RiskPoint(1.0, 0.1, 0.05, 0.2, 80, 0.6)]
    flat = drawings.risk_coverage(points, "Risk", [(0.0, 0.02), (1.0, 0.02)], 0.5)
    assert {"bound", "accepted 50%"} <= set(words(flat))
    titles = [t.text for t in parts(flat, "title")]
    assert "accepted within the bound: 50.0% of all pairs" in titles
    assert (
        "accepting 50.0% (probability 0.900 or more): 0.0% wrong [0.0%, 10.0%] of 40 labels"
        in titles
    )
    assert len(parts(flat, "circle")) == 2
    bare = drawings.risk_coverage(points, "Risk")
    assert not {"bound", "accepted 50%"} & set(words(bare))
    # What lies above the picture is drawn at its top, not outside it.
    steep = drawings.risk_coverage([RiskPoint(1.0, 0.0, 0.0, 1.0, 1, 0.5)], "Risk")
    heights = [float(n) for n in re.findall(r"[\d.]+ ([\d.]+)", parts(steep, "path")[0].get("d"))]
    assert min(heights) >= 26


@pytest.mark.parametrize(("k", "n"), [(0, 40), (3, 40), (40, 40), (1, 1)])
def test_clopper_and_pearson_is_scipys(k, n):
    theirs = binomtest(k, n).proportion_ci(method="exact")
    assert clopper_pearson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_hostile_names_are_escaped():
    name = '"><script>alert(1)</script>'
    picture = drawings.strips({name: Histogram(0, 1, (1,))}, name, name, name)
    assert not parts(picture, "script")
    assert "<script" not in picture
