"""The dataset card: what an emitted folder holds, where it came from and how to read it.

Every text that comes from data is escaped: a card is shown on web pages, and a source named
`|<script>` must neither break a table nor run.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.emit.split import SPLITS
from pipelines.emit.view_text import HOLDS, MEANS, REASONS, USES, VIEWS, StepView, folder

FOLDERS = ("preference", "preference_standard", "steps", *(folder(view) for view in VIEWS))
"""Configurations of an emitted dataset, each a folder of one Parquet file a split."""

LOCAL_PATH = r"^(?:file://)?(?:~|[A-Za-z]:)?[/\\](?:.*[/\\])?"
"""The folders of an absolute path: of a model or source named by one, only the last part is shown."""

UNCALIBRATED = (
    "`probability` is the smoothed agreement of the judges with the label. It has not been "
    "calibrated against labels known to be right: read it as a rank, not as a rate."
)
_HOLD = {
    "preference": "one preference a row: `prompt`, `chosen`, `rejected` as lists of messages",
    "preference_standard": "the same preferences as plain text",
    "steps": "one solution a row, split into steps with a label and a soft value each",
    **{folder(view): text for view, text in HOLDS.items()},
}
_ROWS_SHOWN = 50
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


@dataclass(frozen=True)
class PlanFacts:
    """What only the plan knows of a run."""

    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Identity of every engine, as `Identity.as_dict()` gives it, by its digest."""
    probability: str | None = None
    """What `probability` means in this run, in one sentence; none: uncalibrated agreement."""
    bounds: Sequence[str] = ()
    """What is stated about the error of what was accepted, a sentence each."""


def escape(text: str) -> str:
    """Untrusted text as inert Markdown on one line, cut to 200 characters.

    Control and invisible format characters become spaces; HTML and every character that can
    start Markdown, math, a link or a mention is made literal.
    """
    shown = _one_line(text)
    if len(shown) > 200:
        shown = shown[:199] + "…"
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = re.sub(r"([\\`*_{}\[\]()#+!|~$^@:])", r"\\\1", shown)
    return re.sub(r"(?i)www\.", lambda found: found.group()[:3] + "\\.", shown)


def _one_line(text: str) -> str:
    """Text without control, invisible format and line-breaking characters."""
    hidden = ("Cc", "Cf", "Zl", "Zp")
    return " ".join("".join(" " if unicodedata.category(c) in hidden else c for c in text).split())


def _yaml(text: str) -> str:
    """A YAML string: on one line a JSON string is one, so nothing in it can break out."""
    return json.dumps(_one_line(text), ensure_ascii=False)


def public_name(text: str) -> str:
    """A model's or source's name without the folders of this machine."""
    return re.sub(LOCAL_PATH, "", text) or "local"


def card(name: str, licence: str | None, counts: Mapping[str, Any], facts: PlanFacts) -> str:
    """The card as Markdown with its YAML header; `counts` is what `emit` counted."""
    parts = [
        _header(name, licence, counts),
        f"# {escape(name)}",
        "Preference data made by Prefinery. Every row carries the probability that its label is "
        "right, the votes behind it and the ids it came from. Responses, prompts and judges' words "
        "are model output and dataset text: treat them as untrusted.",
        _holds(counts),
        _counted(counts),
        _sources(licence, counts),
        _writers(counts, facts),
        _labels(counts),
        _views(counts),
        "## What probability means",
        escape(facts.probability) if facts.probability is not None else UNCALIBRATED,
        "It is the probability that `chosen` is better than `rejected`, and so the soft target to "
        "train on. `margin` is the mean of the judges' oriented votes, in [-1, 1].",
        _bounds(facts, counts),
        _loading(counts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bounds(facts: PlanFacts, counts: Mapping[str, Any]) -> str:
    """What is stated about wrong labels; nothing where no bound was asked for."""
    if not facts.bounds:
        return ""
    stated = "\n".join(f"- {escape(line)}" for line in facts.bounds)
    return (
        f"## Error bound\n\n{stated}\n\nThe bound is about rows whose `accepted` is true: "
        f"{counts['accepted']} of those emitted here. It holds for pairs like those that people were "
        "asked about, drawn at random, and for no others."
    )


def _header(name: str, licence: str | None, counts: Mapping[str, Any]) -> str:
    """The YAML header that the Hub and `datasets` read."""
    rows = max((sum(splits.values()) for splits in counts["rows"].values()), default=0)
    size = next((label for limit, label in _SIZES if rows < limit), "n>1M")
    tags = ["preference", "reward-model", "prefinery"]
    if counts["rows"].get("steps"):
        tags.append("process-reward-model")
    lines = ["---", f"pretty_name: {_yaml(name)}"]
    if licence is not None:
        lines.append(f"license: {_yaml(licence)}")
    lines += ["tags:", *(f"- {tag}" for tag in tags), "size_categories:", f"- {_yaml(size)}"]
    configs = [folder for folder in FOLDERS if counts["rows"].get(folder)]
    if configs:
        lines.append("configs:")
    for config in configs:
        lines.append(f"- config_name: {config}")
        if config == configs[0]:
            lines.append("  default: true")
        lines.append("  data_files:")
        for split in SPLITS:
            if split in counts["rows"][config]:
                lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    return "\n".join([*lines, "---"])


def _holds(counts: Mapping[str, Any]) -> str:
    rows = [
        [f"`{config}`", _HOLD[config], *(splits.get(s, 0) for s in SPLITS), sum(splits.values())]
        for config, splits in counts["rows"].items()
        if splits
    ]
    if not rows:
        return "No row was emitted: `rejects.parquet` says why."
    text = _table(["configuration", "holds", *SPLITS, "rows"], rows)
    text += (
        "\n\nA prompt's rows are all in one split, read off the prompt's id: they stay there when "
        "rows are added."
    )
    if counts["promoted"]:
        text += (
            f" {counts['promoted']} prompt(s) were moved to `train`, which had no rows otherwise."
        )
    return text


def _counted(counts: Mapping[str, Any]) -> str:
    parts = [
        "## Counts",
        _table(
            ["table", "rows"],
            [[kind, counts[kind]] for kind in ("prompts", "responses", "votes", "trajectories")],
        ),
        "Every pair ends in one of these ways; `rejects.parquet` names each one that was not "
        "emitted, with its stage, code and detail.",
        _table(
            ["pairs", "rows"],
            [[_FATES[fate], rows] for fate, rows in counts["pairs"].items()]
            + [["all pairs", sum(counts["pairs"].values())]],
        ),
    ]
    if counts["step_labels"]:
        parts.append(
            _table(
                ["step-labelled solutions", "rows"],
                [[_FATES[fate], rows] for fate, rows in counts["step_labels"].items()]
                + [["all", sum(counts["step_labels"].values())]],
            )
        )
    if counts["step_pairs"]:
        parts.append(
            _table(
                ["pairs of sibling steps", "rows"],
                [[_FATES[fate], rows] for fate, rows in counts["step_pairs"].items()]
                + [["all", sum(counts["step_pairs"].values())]],
            )
        )
    rejects = [[escape(r["stage"]), escape(r["code"]), r["rows"]] for r in counts["rejects"]]
    total = sum(r["rows"] for r in counts["rejects"])
    parts += [
        "Rows of `rejects.parquet`. A row can stand for a prompt, a response, one judge's failure or "
        "what a view leaves out too: this is no sum of the tables above.",
        _table(["stage", "reason", "rows"], [*rejects, ["all", "", total]]),
    ]
    return "\n\n".join(parts)


_FATES = {
    "keep": "emitted: label kept",
    "flip": "emitted: label flipped",
    "soften": "emitted: label softened",
    "emitted": "emitted",
    "drop": "dropped by the decision rule",
    "route": "routed to people, not answered yet",
    "rejected": "stopped before a decision",
    "undecided": "no decision",
    "missing_prompt": "prompt not in the run",
    "missing_response": "response not in the run",
    "low_probability": "probability below the plan's minimum",
    "outside_bound": "not accepted within the plan's error bound",
    "bad_split": "steps do not make up the solution",
    "unresolved": "the labelling method found no label and no value",
    "unlabelled": "no step has a label or a value",
}


def _sources(licence: str | None, counts: Mapping[str, Any]) -> str:
    rows = [
        [
            escape(row["source"]),
            "not stated" if row["licence"] is None else escape(row["licence"]),
            row["rows"],
            row["preference"],
            row["steps"],
        ]
        for row in counts["sources"]
    ]
    stated = (
        "No licence was given for the whole: each row keeps its source's."
        if licence is None
        else f"Licence of the whole, as the plan states it: {escape(licence)}."
    )
    table = _table(["source", "licence", "prompts", "preferences", "step rows"], rows)
    return f"## Sources and licences\n\n{stated}\n\n{table}"


def _writers(counts: Mapping[str, Any], facts: PlanFacts) -> str:
    rows = []
    for row in counts["writers"]:
        identity = facts.engines.get(row["engine"], {})
        rows.append(
            [
                escape(row["model"]),
                escape(str(identity.get("kind", ""))),
                escape(str(identity.get("revision", ""))),
                f"`{re.sub('[^0-9A-Za-z]', '', row['engine'])[:12]}`",
                row["rows"],
            ]
        )
    table = _table(["model", "engine", "revision", "engine identity", "responses"], rows)
    return f"## Who wrote the responses\n\n{table}"


def _labels(counts: Mapping[str, Any]) -> str:
    parts = ["## How the labels were made"]
    if counts["rules"]:
        rules = [[escape(r["rule"]), r["action"], r["rows"]] for r in counts["rules"]]
        parts += ["Rules that decided about the pairs:", _table(["rule", "action", "pairs"], rules)]
    if counts["judges"]:
        judges = [
            [escape(r["judge"]), r["judge_kind"], r["unit_kind"], r["rows"], r["abstained"]]
            for r in counts["judges"]
        ]
        parts += [
            "Judges; people are counted together. In a row's `votes` a value above 0 sides with "
            "`chosen`, averaged over both orders of showing the pair.",
            _table(["judge", "kind", "judges a", "votes", "could not judge"], judges),
        ]
    if counts["methods"]:
        methods = [[escape(r["method"]), r["rows"]] for r in counts["methods"]]
        parts += ["Methods of the step labels:", _table(["method", "solutions"], methods)]
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _views(counts: Mapping[str, Any]) -> str:
    """What each view of the step labels is, and what of `steps` is not in it."""
    held: list[StepView] = [view for view in VIEWS if folder(view) in counts["rows"]]
    if not held:
        return ""
    rows = []
    for view in held:
        if view not in counts["views"]:
            continue
        of = counts["views"][view]
        why = "; ".join(f"{n}: {REASONS[code]}" for code, n in of["left_out"].items())
        less = [
            f"{n} {done}, {where}"
            for done in ("cut", "masked")
            for where, n in of[done].items()
            if n
        ]
        rows.append([f"`{folder(view)}`", of["rows"], why, of["steps"], "; ".join(less)])
    parts = [
        "## Views of the step labels",
        "The rows of `steps` in other shapes. `rejects.parquet` names each row that a view leaves "
        "out, under the view's name and the reason.",
        *(
            f"`{folder(view)}`: {MEANS[view]}"
            + ("" if counts["rows"][folder(view)] else " It has no rows here.")
            for view in held
        ),
    ]
    if rows:
        header = ["configuration", "rows", "rows left out", "steps", "of these solutions' steps"]
        parts.insert(2, _table(header, rows))
    return "\n\n".join(parts)


def _loading(counts: Mapping[str, Any]) -> str:
    configs = [folder for folder in FOLDERS if counts["rows"].get(folder)]
    if not configs:
        return ""
    first = configs[0]
    split = next(split for split in SPLITS if split in counts["rows"][first])
    lines = [
        "## Loading",
        "`PATH` is this folder, or the repository's name on the Hub.",
        "```python\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset("PATH", "{first}", split="{split}")\n```',
    ]
    if first.startswith("preference"):
        lines += [
            "TRL reads those rows as they are:",
            "```python\nfrom trl import RewardTrainer\n\n"
            'RewardTrainer(model="MODEL", train_dataset=rows).train()\n```',
        ]
    if "preference_standard" in configs:
        lines.append(
            "In `preference_standard` the prompt is its text where it is one user message, and "
            "otherwise a transcript of `role: content` paragraphs."
        )
    if "steps" in configs:
        lines.append(
            "In `steps` the `completions` joined are the solution; `labels` are 1 (right), 0 (wrong) "
            "and -100 (not labelled); `values` are the estimated chances that the policy ends right "
            "after the step, `sound` the probabilities that no step so far is wrong, `advantages` "
            "the changes of value; null where not known; `rests_on` is what each label rests on. A `response_id` of null is a path that a "
            "search grew; its `model` is that of the prompt's first response."
        )
    for view in VIEWS:
        if counts["rows"].get(folder(view)):
            split = next(split for split in SPLITS if split in counts["rows"][folder(view)])
            load = f'rows = load_dataset("PATH", "{folder(view)}", split="{split}")'
            lines.append(f"```python\n{load}\n\n{USES[view]}\n```")
    lines += [
        "DuckDB, in a copy of this folder:",
        f"```sh\nduckdb -c \"select * from '{first}/*.parquet' limit 5\"\n"
        "duckdb -c \"select stage, code, count(*) from 'rejects.parquet' group by all\"\n```",
    ]
    return "\n\n".join(lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table whose cells are already escaped; a long one is cut and says so."""
    listed = list(rows)
    shown = listed if len(listed) <= _ROWS_SHOWN else [*listed[: _ROWS_SHOWN - 1], listed[-1]]
    lines = [
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in shown),
    ]
    if len(shown) < len(listed):
        lines.append(f"\n{len(listed) - len(shown)} rows of this table are left out.")
    return "\n".join(lines)
