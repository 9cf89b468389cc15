"""What `prefinery rubrics` does: a run's rubrics as files to read and edit, and as training data."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from flows import runs
from flows.review_command import campaign_of
from pipelines.rubrics import approval, export_files, exports
from pipelines.rubrics.rubric_file import write_rubric
from pipelines.store import Published, Store
from schemas.errors import UserError
from schemas.records import Criterion, Rubric, Vote


def write_files(
    root: Path, run_id: str, out: Path, retired: bool, campaign: str | None = None
) -> list[tuple[Path, str]]:
    """A TOML file a rubric of a run, as the proof left them; retired ones only where wanted.

    With a campaign, those that people judged in it, as they want them. Each file with the rubric's
    status, and what is still undecided. Raises UserError where the run
    has no rubrics, or nobody judged any of them.
    """
    made = _outputs(root, run_id)["rubric_value"]
    known = {c.id: c for c in Criterion.from_table(made.table("criteria"))}
    said = _verdicts(root, campaign) if campaign is not None else None
    written = []
    for rubric in Rubric.from_table(made.table("rubrics")):
        criteria, undecided = [known[c] for c in rubric.criteria], 0
        if said is not None:
            if not any(c in said for c in rubric.criteria):
                continue
            judged = approval.approve(rubric, known, said)
            rubric, criteria = judged.rubric, judged.criteria or criteria
            undecided = judged.undecided
        if rubric.status == "retired" and not retired:
            continue
        path = out / f"{rubric.method}-{rubric.id[:12]}.toml"
        out.mkdir(parents=True, exist_ok=True)
        write_rubric(path, rubric, criteria)
        of_all = f": {undecided} of {len(criteria)} criteria undecided" if undecided else ""
        written.append((path, f"{rubric.status}{of_all}"))
    if said is not None and not written:
        raise UserError(
            f"campaign {campaign}: no verdict there leaves a rubric of this run; push them with "
            f"`prefinery review push {campaign} --kind rubric`, and pull when people have answered"
        )
    return written


def _verdicts(root: Path, campaign: str) -> dict[str, approval.Said]:
    """What people said of criteria, by criterion. Raises UserError where nothing was pulled."""
    store = Store.open(root, create=False)
    path = campaign_of(store, campaign).votes
    if not path.exists():
        raise UserError(
            f"campaign {campaign}: nothing was pulled; prefinery review pull {campaign}"
        )
    table = pq.read_table(path, columns=list(Vote.model_fields))
    return approval.gather([Vote(**row) for row in table.to_pylist()])


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
