"""What the terminal shows of campaigns: lines for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from flows.show import near, print_table
from flows.visible import plain

Found = Mapping[str, Any]


def show(found: Found, as_json: bool, text: Callable[[Found], None]) -> None:
    """As JSON, or as text."""
    if as_json:
        print(json.dumps(found, indent=2, default=str))
    else:
        text(found)


def pushed(done: Found) -> None:
    """What a push came to."""
    also = {
        "doubles": "asked twice by another pusher, and out of the queue",
        "gone": "deleted on the server (--resend asks them again)",
        "not_shown": "cannot be shown",
    }
    print(f"{done['campaign']}: {done['new']:,} new questions, {done['already']:,} were there")
    for key, words in also.items():
        if done[key]:
            print(f"  {done[key]:,} {words}")
    print(f"  guide for annotators: {near(done['guide'])}")


def pulled(found: Found) -> None:
    """What a pull came to."""
    print(
        f"{found['campaign']}: {found['votes']:,} votes, {found['rejects']:,} answers of no use\n"
        f"  {near(found['file'])}"
    )


def status(found: Found) -> None:
    """How a campaign stands."""
    closed = ", closed" if found["closed"] else ""
    print(f"{found['campaign']} ({found['kind']}{closed})  {found['url']}")
    print(f"  {found['answered']:,} of {found['items']:,} questions answered")
    for key in ("doubles", "edited", "gone", "foreign"):
        if found[key]:
            print(f"  {found[key]:,} {key}")
    for key, count in found.items():
        if key.startswith("annotations_") and key != "annotations_answer":
            print(f"  {count:,} answers: {key.removeprefix('annotations_')}")
    if found["annotators"]:
        rows = [(name, f"{count:,}") for name, count in found["annotators"].items()]
        print_table(("annotator", "answers"), rows)


def people(found: Found) -> None:
    """Who answered, how far they agree, what it cost and what it was worth."""
    cost, run = found["cost"], found.get("run")
    print(
        f"{found['campaign']}: {cost['votes']:,} answers on {cost['labels']:,} questions by "
        f"{len(found['annotators']):,} people"
    )
    if cost["seconds_per_label"] is not None:
        print(
            f"  a label: {cost['seconds_per_label']:.0f} s, {cost['money_per_label']:.2f}; all: "
            f"{cost['seconds'] / 3600:.2f} h, {cost['money']:.2f} at {found['hourly_rate']:.2f} an hour"
        )
    if run is not None:
        print(f"  {_worth(run)}")
    print_table(
        ("agreement", "alpha, 95%", "of", "meaning"),
        [
            (
                a["level"],
                _interval(a["alpha"], a["low"], a["high"]),
                f"{a['units']:,}",
                a["meaning"],
            )
            for a in found["agreement"]
        ],
    )
    if found["annotators"]:
        print_table(
            ("annotator", "answers", "known, right", "with the others", "first", "time", "flags"),
            [
                (
                    plain(one["judge"], 40),
                    f"{one['votes']:,}",
                    _share(one, "gold_accuracy", "gold_asked"),
                    _share(one, "rest_accuracy", "rest_asked"),
                    _share(one, "first_share", "first_asked"),
                    f"{one['seconds']:.0f} s" if one["seconds"] is not None else "",
                    one["flags"],
                )
                for one in found["annotators"]
            ],
        )


def _worth(run: Found) -> str:
    parts = [f"run {run['run']}:"]
    if run["changed"] is not None:
        each = run["money_per_change"]
        parts.append(
            f"{run['changed']:,} decisions changed by {run['votes']:,} answers"
            + (f" ({each:.2f} each)" if each is not None else "")
            + ";"
        )
    if run["waiting"] is None:
        return " ".join([*parts, "no queue"])
    parts.append(
        f"{run['waiting']:,} answers wait, the next {run['next_pairs']:,} pairs are worth "
        f"{run['next_worth']:+.2f}"
    )
    return " ".join(parts)


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None else "")


def _share(one: Found, share: str, of: str) -> str:
    return f"{one[share]:.2f} of {one[of]:,}" if one[share] is not None else ""
