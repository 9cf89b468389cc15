"""What `prefinery rubrics` does: a run's rubrics as files to read and edit, and as training data."""

from __future__ import annotations

from pathlib import Path

from flows import runs
from pipelines.rubrics import export_files, exports
from pipelines.rubrics.rubric_file import write_rubric
from pipelines.store import Published, Store
from schemas.errors import UserError
from schemas.records import Criterion, Rubric


def write_files(root: Path, run_id: str, out: Path, retired: bool) -> list[Path]:
    """A TOML file a rubric of a run, as the proof left them; retired ones only where wanted."""
    made = _outputs(root, run_id)["rubric_value"]
    known = {c.id: c for c in Criterion.from_table(made.table("criteria"))}
    written = []
    for rubric in Rubric.from_table(made.table("rubrics")):
        if rubric.status == "retired" and not retired:
            continue
        path = out / f"{rubric.method}-{rubric.id[:12]}.toml"
        out.mkdir(parents=True, exist_ok=True)
        write_rubric(path, rubric, [known[c] for c in rubric.criteria])
        written.append(path)
    return written


def export(root: Path, run_id: str, out: Path) -> dict[str, int]:
    """Training data from a run's rubrics: Parquet files and a card; rows by file."""
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: not empty; name a new folder")
    outputs = _outputs(root, run_id)
    made = outputs["rubric_value"]
    prompts = outputs["ingest"].table("prompts")
    responses = outputs["generate"].table("responses")
    criteria, rubrics = made.table("criteria"), made.table("rubrics")
    drafts = outputs["rubrics"]
    return export_files.write(
        out,
        {
            "generator": exports.generator_rows(prompts, rubrics, criteria),
            "contrasts": exports.contrast_rows(
                prompts, drafts.table("rubrics"), drafts.table("criteria"), made.table("values")
            ),
            "judge": exports.judge_rows(
                prompts, responses, drafts.table("criteria"), outputs["verdicts"].table("votes")
            ),
            "rewards": exports.reward_rows(prompts, rubrics, criteria),
        },
    )


def _outputs(root: Path, run_id: str) -> dict[str, Published]:
    """A run's outputs. Raises UserError where it has no proven rubrics."""
    store = Store.open(root, create=False)
    record = runs.load(store, run_id)
    found = dict(record.outputs(store))
    if "rubric_value" not in found:
        raise UserError(f"{record.id}: has no rubrics; add [rubrics] to its plan and run it")
    return found
