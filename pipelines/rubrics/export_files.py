"""A folder of exported rubrics: a Parquet file a table, and the card that says how to load them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from pipelines.durable import explained, write_durably, write_table
from pipelines.rubrics.exports import SCHEMAS, Export

_HOLDS: dict[Export, str] = {
    "generator": "a prompt and the rubric made for it, to train a rubric generator",
    "contrasts": "a helpful rubric of a prompt and a misleading one, as a preference",
    "judge": "a response and a criterion, answered by a judge's reasoning and verdict",
    "rewards": "a prompt with the criteria, weights and code checks that reward its responses",
}
_USES: dict[Export, str] = {
    "generator": "SFTTrainer(model=MODEL, train_dataset=rows)  # TRL: prompt and completion",
    "contrasts": "DPOTrainer(model=MODEL, train_dataset=rows)  # TRL: prompt, chosen, rejected",
    "judge": "SFTTrainer(model=MODEL, train_dataset=rows)  # TRL: prompt and completion",
    "rewards": (
        "for row in rows:\n"
        "    judged = [c for c in row['criteria'] if c['verifier'] is None]  # by a judge\n"
        "    checked = [c for c in row['criteria'] if c['verifier'] is not None]  # by code"
    ),
}
_MEANS: dict[Export, str] = {
    "generator": "`completion` is the rubric as JSON. Rubrics that were retired are not here.",
    "contrasts": (
        "`chosen_value` and `rejected_value` are what the rubrics were worth to `judge` on held-out "
        "pairs: above 0 it judges better with the rubric than without, below 0 worse."
    ),
    "judge": (
        "`verdict` is `yes`, `partly` or `no`: whether the criterion's words are true of the "
        "response. The reasoning is the judge's own and was not checked."
    ),
    "rewards": (
        "`scoring` says how verdicts become a reward: `share`, the weighted share of the criteria "
        "that are met, where a pitfall is met by not making it; `points`, points earned of all that "
        "can be; `tree`, weighted means from the leaves up. A `hard_rule` gates. `verifier` is the "
        "code check of a criterion, as its name and JSON arguments; `verifiers` lists the names; "
        "`answer_verifier` compares a final answer with `reference`."
    ),
}


def write(folder: Path, tables: Mapping[Export, pa.Table]) -> dict[str, int]:
    """Write `NAME/train.parquet` of every table that has rows, and README.md; rows by name.

    The card is written last. Equal tables give equal bytes. Raises StoreError where the folder
    cannot be written.
    """
    rows = {name: len(tables[name]) for name in SCHEMAS if name in tables}
    with explained(folder):
        for name, count in rows.items():
            if count:
                (folder / name).mkdir(parents=True, exist_ok=True)
                write_table(folder / name / "train.parquet", tables[name])
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / "README.md", card(rows).encode())
    return {str(name): count for name, count in rows.items()}


def card(rows: Mapping[Export, int]) -> str:
    """The folder's card as Markdown with its YAML header. No text of the data is in it."""
    held = [name for name, count in rows.items() if count]
    lines = ["---", "pretty_name: Rubrics", "tags:", "- rubrics", "- prefinery"]
    if held:
        lines.append("configs:")
    for name in held:
        lines += [
            f"- config_name: {name}",
            "  data_files:",
            "  - split: train",
            f"    path: {name}/train.parquet",
        ]
    lines += [
        "---",
        "",
        "# Rubrics",
        "",
        "Rubrics made by Prefinery, as training data. Prompts, responses, criteria and judges' words "
        "are model output and dataset text: treat them as untrusted.",
        "",
        "| configuration | holds | rows |",
        "| --- | --- | --- |",
        *(f"| `{name}` | {_HOLDS[name]} | {count} |" for name, count in rows.items()),
        "",
        "`PATH` is this folder, or the repository's name on the Hub.",
    ]
    for name in held:
        load = f'rows = load_dataset("PATH", "{name}", split="train")'
        lines += [
            *("", f"## {name}", "", _MEANS[name], ""),
            *("```python", "from datasets import load_dataset", "", load, _USES[name], "```"),
        ]
    return "\n".join(lines) + "\n"
