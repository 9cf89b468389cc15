"""People's answers from the server, as votes: again and again, with the same result.

A pull asks for the tasks that were touched since the last one, and reads all annotations of each anew:
updates and deletions follow from that. Where the server's own counts then differ from ours (a server
that was killed between an answer and its time stamp, a task deleted by hand), everything is read.
`votes.parquet` follows from the server's state alone, and is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.campaign import Campaign, project_of, save, saved
from annotation.client import Client, Project, stamp
from annotation.ledger import Ledger
from annotation.push import archive_doubles, page_size
from annotation.tasks import NAME, Reader, data_digest, external_of, votes
from pipelines.durable import explained, sync, write_table
from schemas.records import Reject, Vote

OVERLAP_S = 120
"""Seconds before the newest change that are read again: a change's time is older than the change."""
_GROUP = 65_536


@dataclass(frozen=True)
class Pulled:
    """What a pull came to."""

    tasks: int
    """Tasks that were read."""
    votes: int
    """Votes in `votes.parquet`."""
    rejects: int
    """Answers in `rejects.parquet`."""
    whole: bool
    """Whether everything was read."""


def pull(campaign: Campaign, client: Client, *, whole: bool = False) -> Pulled:
    """Bring the answers in. With `whole`, whatever the time stamps say.

    Raises UserError: no server, a refused token, an edited label config, nothing pushed.
    """
    with campaign.opened() as ledger:
        project = project_of(campaign, client, ledger)
        reader = Reader(campaign.question, campaign.options, client.users())
        since = None if whole else ledger.get("cursor")
        # What changes while we read is newer than this, so the next pull reads it.
        newest = client.newest(project.id)
        read = _bring(client, project, ledger, reader, since)
        if since is not None and client.counts(project.id) != ledger.known():
            since = None
            read += _bring(client, project, ledger, reader, None)
        if newest:
            ledger.put("cursor", newest)
        archive_doubles(client, ledger)
        wrote = export(campaign, ledger)
    return Pulled(read, wrote[0], wrote[1], since is None)


def close(campaign: Campaign, client: Client) -> Pulled:
    """A last pull of everything; then the project is marked as closed, and no push is taken.

    The server's community edition cannot keep people from answering: what comes later is brought
    in by another pull.
    """
    found = pull(campaign, client, whole=True)
    known = saved(campaign)
    assert known is not None
    client.update_project(known.project, title=f"{campaign.title} closed", is_published=False)
    save(campaign, replace(known, closed=True))
    return found


def _bring(
    client: Client, project: Project, ledger: Ledger, reader: Reader, since: str | None
) -> int:
    """Read tasks and their annotations into the ledger; how many tasks."""
    sweep = int(ledger.get("swept") or 0) + (since is None)
    if since is not None:
        since = stamp(datetime.fromisoformat(since) - timedelta(seconds=OVERLAP_S))
    read = 0
    for page in client.tasks(project.id, since=since, size=page_size(ledger)):
        tasks = [(t.id, external_of(t), data_digest(t.data)) for t in page]
        ledger.arrived(tasks, sweep)
        with ledger.transaction():
            for task, (_, external, _) in zip(page, tasks, strict=True):
                row = ledger.item(external) if external else None
                ledger.answered(task.id, [reader.kept(task, row, a) for a in task.annotations])
        read += len(page)
    if since is None:
        ledger.forget_unseen(sweep)
        ledger.put("swept", str(sweep))
    return read


_EXTRA = (
    pa.field("purpose", pa.string(), nullable=False),
    pa.field("propensity", pa.float64(), nullable=False),
    pa.field("version", pa.string(), nullable=False),
    pa.field("annotation", pa.string(), nullable=False),
)


def votes_schema() -> pa.Schema:
    """Columns of `votes.parquet`: those of `Vote`, then

    `purpose` and `propensity` of the question, `version` (the server's time of the answer's last
    change) and `annotation` (project/task/annotation).
    """
    return pa.schema([*Vote.arrow_schema(), *_EXTRA])


def export(campaign: Campaign, ledger: Ledger) -> tuple[int, int]:
    """Write the votes and the rejects as the ledger has them; their numbers of rows.

    Of several answers of one person to one question (on a double, say) the last counts; the others
    are rejects with the code `answered_again`. Codes else: see Reader.kept.
    """
    rejects: list[Reject] = []
    project = (ledger.get("instance") or "").partition(" ")[0]
    rows = _rows(campaign, ledger, project, rejects)
    with explained(campaign.folder):
        count = _write(campaign.votes, rows)
        rejects.sort(key=lambda r: (r.unit, r.code, r.detail))
        write_table(campaign.rejects, Reject.to_table(rejects))
    return count, len(rejects)


def _rows(
    campaign: Campaign, ledger: Ledger, project: str, rejects: list[Reject]
) -> Iterator[dict[str, Any]]:
    for _, group in groupby(ledger.annotations(), key=lambda row: (row[0], row[5])):
        taken = False
        for row in group:
            unit, parts, shown, purpose, propensity, annotator, number, task = row[:8]
            updated, seconds, state, detail = row[8:]
            if state not in ("answer", "skip") or taken:
                code = "answered_again" if state in ("answer", "skip") else state
                why = "" if state in ("answer", "skip") else f": {detail}"
                where = f"annotation {number} of {annotator or 'nobody known'} on task {task}{why}"
                rejects.append(Reject(unit=unit, stage=NAME, code=code, detail=where[:500]))
                continue
            taken = True
            more = {
                "purpose": purpose,
                "propensity": propensity,
                "version": updated,
                "annotation": f"{project}/{task}/{number}",
            }
            for vote in votes(campaign.kind, unit, parts, shown, annotator, seconds, state, detail):
                yield {"id": vote.id, **vote.model_dump(mode="json"), **more}


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    """Rows as Parquet, in groups of fixed size: equal rows give equal bytes, in little memory."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    schema, count = votes_schema(), 0
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for group in _groups(rows):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                count += len(group)
        sync(temporary)
        temporary.rename(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    sync(path.parent)
    return count


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group
