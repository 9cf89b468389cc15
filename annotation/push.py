"""Questions onto the server, each once, whatever dies on the way.

Label Studio knows no idempotency key, and stores a batch whole or not at all. So a batch is noted
before it is sent; a reply that was lost, by us or by the server, is followed by a look at what is
there. The project's number of tasks says before each batch whether anyone else has pushed; where two
machines push at once all the same, the later ones of equal tasks are put out of the queue. Nothing is
deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from annotation.campaign import Campaign, project_of, saved
from annotation.client import PAGE, PAGE_BYTES, Client, Project, Unknown
from annotation.ledger import Ledger
from annotation.tasks import NAME, Prepared, Question, data_digest, external_of, prepare
from pipelines.config import Advance, silent
from schemas.errors import UserError
from schemas.records import Reject

BATCH = 5000
"""Tasks an import."""
BATCH_BYTES = 16 << 20
_TRIES = 4


@dataclass
class Pushed:
    """What a push came to."""

    new: int = 0
    """Tasks that were sent."""
    already: int = 0
    """Questions that were on the server."""
    doubles: int = 0
    """Tasks of another pusher that ask the same again: they are out of the queue."""
    gone: int = 0
    """Questions whose task was deleted on the server: not sent again unless `resend`."""
    rejects: list[Reject] = field(default_factory=list)
    """Questions that cannot be shown (`not_shown`)."""


def push(
    campaign: Campaign,
    client: Client,
    questions: Iterable[Question],
    *,
    migrate: bool = False,
    resend: bool = False,
    settle_s: float = 10.0,
    batch: int = BATCH,
    advance: Advance = silent,
) -> Pushed:
    """Ask these questions, as well as those asked before.

    Args:
        campaign: the campaign.
        client: its server.
        questions: read once, in batches; of two on one unit the first counts.
        migrate: put the campaign's label config in the place of another.
        resend: also push questions whose task was deleted on the server.
        settle_s: after a lost reply, how long (and 10 ms a task more) an import may still be at work
            on the server before it is sent again.
        batch: tasks an import.
        advance: told of every question.

    Raises UserError: no server, a refused token, an edited label config, a closed campaign.
    """
    done = Pushed()
    with campaign.opened() as ledger:
        known = saved(campaign)
        if known is not None and known.closed:
            raise UserError(f"campaign {campaign.name} is closed; name another")
        project = project_of(campaign, client, ledger, create=True, migrate=migrate)
        sender = _Sender(client, project, ledger, settle_s)
        sender.settle()
        ahead = _Ahead(_batches(campaign, questions, batch, done), ledger)
        for group in ahead:
            if client.counts(project.id).tasks != ledger.task_count():
                align(client, project, ledger)
            new = ledger.missing(list(group), resend)
            sender.send([p for external, p in group.items() if external in new], ahead.fill)
            done.new += len(new)
            done.gone += len(ledger.missing(list(group), True)) if not resend else 0
            done.already += len(group) - len(new)
            advance(len(group), 0)
        if client.counts(project.id).tasks != ledger.task_count():
            align(client, project, ledger)
        done.doubles = archive_doubles(client, ledger)
        usual = known.overlap if known else campaign.overlap
        for task, overlap in ledger.other_overlaps(usual):
            client.update_task(task, overlap=overlap)
            ledger.overlaps(task, overlap)
    done.already -= done.gone
    return done


def align(client: Client, project: Project, ledger: Ledger) -> None:
    """Learn which tasks the server holds: first the newer ones, then, if that is not all, each."""
    size = page_size(ledger)

    def look(after: int, sweep: int) -> None:
        for page in client.tasks(project.id, after=after, size=size, annotations=False):
            ledger.arrived(((t.id, external_of(t), data_digest(t.data)) for t in page), sweep)

    look(ledger.last_task(), int(ledger.get("swept") or 0))
    if client.counts(project.id).tasks != ledger.task_count():
        sweep = int(ledger.get("swept") or 0) + 1
        look(0, sweep)
        ledger.forget_unseen(sweep)
        ledger.put("swept", str(sweep))


def archive_doubles(client: Client, ledger: Ledger) -> int:
    """Take the later ones of equal tasks out of the queue: to the server they are finished."""
    found = ledger.doubles()
    for task in found:
        client.update_task(task, is_labeled=True)
        ledger.archive(task)
    return len(found)


def page_size(ledger: Ledger) -> int:
    """Tasks a page, such that a page of the largest ones still fits into memory."""
    return max(1, min(PAGE, PAGE_BYTES // max(ledger.largest(), 1)))


class _Ahead:
    """Batches, of which the next is made and noted while the server is at work on this one."""

    def __init__(self, batches: Iterator[dict[str, Prepared]], ledger: Ledger) -> None:
        self._batches = batches
        self._ledger = ledger
        self._next: list[dict[str, Prepared] | None] = []

    def fill(self) -> None:
        """Make the next one, if it is not made yet."""
        if not self._next:
            group = next(self._batches, None)
            self._ledger.add(p.row for p in (group or {}).values())
            self._next.append(group)

    def __iter__(self) -> Iterator[dict[str, Prepared]]:
        self.fill()
        while (group := self._next.pop()) is not None:
            yield group
            self.fill()


def _batches(
    campaign: Campaign, questions: Iterable[Question], batch: int, done: Pushed
) -> Iterator[dict[str, Prepared]]:
    """Prepared questions by external id, in batches of bounded size."""
    group: dict[str, Prepared] = {}
    held = 0
    for question in questions:
        try:
            made = prepare(
                question,
                campaign.question,
                campaign.name,
                campaign.seed,
                campaign.show_predictions,
            )
        except ValueError as error:
            detail = str(error)[:500]
            done.rejects.append(
                Reject(unit=question.unit, stage=NAME, code="not_shown", detail=detail)
            )
            continue
        if group and (len(group) >= batch or held + made.row.bytes > BATCH_BYTES):
            yield group
            group, held = {}, 0
        if made.row.external not in group:
            group[made.row.external] = made
            held += made.row.bytes
    if group:
        yield group


@dataclass(frozen=True)
class _Sender:
    client: Client
    project: Project
    ledger: Ledger
    settle_s: float

    def send(self, tasks: list[Prepared], meanwhile: Callable[[], None]) -> None:
        """Import these; return once they are known to be there."""
        for _ in range(_TRIES):
            if not tasks:
                return
            self.ledger.send([t.row for t in tasks], time.time())
            try:
                texts = [t.text for t in tasks]
                ids = self.client.import_tasks(self.project.id, texts, meanwhile)
            except Unknown as error:
                why = str(error)
            except UserError:
                self.ledger.unsend()
                raise
            else:
                self.ledger.arrived(
                    (number, t.row.external, t.row.digest)
                    for number, t in zip(ids, tasks, strict=True)
                )
                return
            self.settle()
            there = self.ledger.missing([t.row.external for t in tasks], True)
            tasks = [t for t in tasks if t.row.external in there]
        raise UserError(f"Label Studio at {self.client.url} stores no tasks ({why}); run again")

    def settle(self) -> None:
        """Find out what became of a batch whose reply was lost.

        Where it is not there yet, the server may still be at work on it: it is waited for.
        """
        waiting = self.ledger.sending()
        if not waiting:
            return
        patience = self.settle_s + 0.01 * len(waiting)
        # A clock that was set back must not make us wait for ever.
        until = min(max(waiting.values()), time.time()) + patience
        while True:
            align(self.client, self.project, self.ledger)
            if not self.ledger.sending() or time.time() > until:
                break
            time.sleep(0.25)
        self.ledger.unsend()
