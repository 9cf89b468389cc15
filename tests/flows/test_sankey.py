import xml.etree.ElementTree as ET

from flows.sankey import FlowStep, flow, tone


def words(picture: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(picture).iter("text")]


def heights(picture: str) -> dict[str, float]:
    """Bars by their hover words."""
    root = ET.fromstring(picture)
    return {r.findtext("title") or "": float(r.get("height", "")) for r in root.iter("rect")}


def test_bars_are_in_proportion_and_named():
    steps = [
        FlowStep("ingest", 200, {"duplicate": 40, "not_json": 10}, {}),
        FlowStep("verify", 150, {}, {"right": 100, "wrong": 50, "unparsed": 0}),
    ]
    picture = flow(steps, "prompts", "Where the prompts went")
    tall = heights(picture)
    assert tall["ingest: 50 rejected"] * 4 == tall["ingest: 200 in"]
    assert tall["right: 100"] == 2 * tall["wrong: 50"]
    assert "unparsed: 0" not in tall
    shown = words(picture)
    assert {"50 rejected", "40 duplicate", "10 not_json", "right 100", "wrong 50"} <= set(shown)
    assert (
        ET.fromstring(picture).findtext("desc") == "ingest: 200 in, 150 on; verify: 150 in, 150 on"
    )


def test_an_unsplit_flow_ends_in_what_came_out():
    shown = words(flow([FlowStep("ingest", 10, {}, {})], "prompts", "t"))
    assert shown == ["ingest", "10 in", "out", "10 prompts"]


def test_many_reasons_are_summed():
    rejects = {f"code_{i}": 10 - i for i in range(6)}
    shown = words(flow([FlowStep("s", 100, rejects, {})], "rows", "t"))
    assert "18 for 3 more reasons" in shown
    assert "45 rejected" in shown


def test_nothing_at_all_is_drawn_without_breaking():
    assert "0 rows" in words(flow([FlowStep("s", 0, {}, {})], "rows", "t"))


def test_long_flows_get_wider():
    steps = [FlowStep(f"s{i}", 5, {}, {}) for i in range(12)]
    width = float(ET.fromstring(flow(steps, "rows", "t")).get("viewBox", "").split()[2])
    assert width >= 12 * 150


def test_meaning_has_its_colour():
    assert tone("keep", 3) == "good"
    assert tone("something", 7) == "s1"
