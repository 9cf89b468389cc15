"""`prefinery audit`: preference data in; beliefs, findings, a page to read and a cleaned set out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows import audit_page
from flows.page import write_page
from flows.progress import Reporter
from pipelines.audit import clean
from pipelines.audit.audit import NAME, VERSION, Embed, audit, summary, table
from pipelines.audit.config import Action, AuditConfig
from pipelines.durable import explained, write_durably, write_table
from schemas.errors import UserError
from schemas.records import Reject

PAGE = "audit.html"
PAIRS = "pairs.parquet"
REJECTS = "rejects.parquet"
SUMMARY = "summary.json"
CLEAN = "clean"
WORK = "work"


def run(
    datasets: Sequence[str],
    out: Path,
    *,
    model: str,
    action: Action = "report",
    prompt: str | None = None,
    chosen: str | None = None,
    rejected: str | None = None,
    responses: str | None = None,
    ratings: str | None = None,
    judges: Sequence[str] = (),
    human: str | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
    embed: tuple[str, Embed] | None = None,
) -> dict[str, Any]:
    """Audit the data sets into the folder `out`; what `summary.json` holds.

    The summary is written last: where it is, all else is whole. Stopped at any time, the same call goes
    on from the texts that are embedded and ends in the same bytes. Raises UserError, one line.
    """
    try:
        config = AuditConfig(
            datasets=tuple(datasets),
            model=model,
            action=action,
            prompt=prompt,
            chosen=chosen,
            rejected=rejected,
            responses=responses,
            ratings=ratings,
            judges=tuple(judges),
            human=human,
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UserError(f"audit: {name}: {first['msg']}") from error
    if (chosen is None) != (rejected is None):
        raise UserError("give both --chosen and --rejected, or neither")
    _apart(config, out)
    shown = reporter or Reporter()
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / SUMMARY).unlink(missing_ok=True)
    found = audit(config, out / WORK, shown.stage, embed)
    told = {"stage": NAME, "version": VERSION, "action": action, "seed": seed} | summary(found)
    with explained(out):
        if action == "report":
            shutil.rmtree(out / CLEAN, ignore_errors=True)
            told["clean"] = []
        else:
            files = clean.write(found, config, out / CLEAN)
            told["clean"] = [path.relative_to(out).as_posix() for path in files]
        write_table(out / PAIRS, table(found))
        write_table(out / REJECTS, Reject.to_table(found.pairs.rejects))
        write_page(audit_page.render(found, told), out / PAGE)
        write_durably(out / SUMMARY, json.dumps(told, indent=1, sort_keys=True).encode())
    _say(shown, told, out)
    return told


def _apart(config: AuditConfig, out: Path) -> None:
    """The folder written to is never one that is read."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder; name another with --out")
    target = out.resolve()
    for given in config.datasets:
        path = Path(given)
        if path.is_dir() and (target == path.resolve() or path.resolve() in target.parents):
            raise UserError(f"{out} lies in the data set {given}; name another folder with --out")
        if target in path.resolve().parents and (target / CLEAN) in path.resolve().parents:
            raise UserError(f"{given} lies in {out}, which is written to; name another with --out")


def _say(shown: Reporter, told: dict[str, Any], out: Path) -> None:
    noise, findings = told["noise"], told["findings"]
    shown.say(
        f"{told['pairs']:,} pairs of {told['rows']:,} rows, {told['rejected_rows']:,} rows rejected"
    )
    sure = "" if noise["told"] else "; the data says little about it"
    shown.say(
        f"labels wrong: about {noise['rate']:.0%} [{noise['low']:.0%}, {noise['high']:.0%}]{sure}"
    )
    parts = [f"{count:,} {name.replace('_', ' ')}" for name, count in findings.items() if count]
    shown.say(f"pairs with: {', '.join(parts) or 'nothing else'}")
    if told["clean"]:
        shown.say(f"cleaned ({told['action']}): {out / CLEAN}")
    shown.say(f"read {out / PAGE}")
