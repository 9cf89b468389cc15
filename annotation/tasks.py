"""From a question on our side to a task on the server, and from an annotation back to votes.

A task's data is what people are shown and an external id made from the kind, the unit and the
campaign: the same question has the same id whenever and wherever it is pushed. The order in which a
pair is shown follows from that id and the plan's seed; it is kept on our side alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from annotation import configs
from annotation.answers import Answer, Order, Problem
from annotation.client import ServerTask, stamp
from annotation.configs import Item, Kind, QuestionConfig
from annotation.ledger import Kept, Row, as_text
from pipelines.humans import pseudonym
from schemas.record import canonical, digest, digest_text
from schemas.records import Vote

NAME = "review"
EXTERNAL = "external_id"
"""Where a task's data holds our id."""
Purpose = Literal["value", "audit", "gold"]


@dataclass(frozen=True)
class Question:
    """What people are to be asked."""

    unit: str
    """Id of what is judged: a pair, a response, a trajectory or a rubric."""
    item: Item
    """What they are shown."""
    parts: tuple[str, ...] = ()
    """Ids of its parts: responses a and b of a pair, the criteria of a rubric."""
    purpose: Purpose = "value"
    """Why it is asked (see ReviewItem)."""
    propensity: float = 1.0
    """Probability with which it was chosen."""
    overlap: int = 1
    """How many people are to answer it."""
    prediction: float | None = None
    """Of a pair, the machine's probability that a is better; none: it has none."""


@dataclass(frozen=True)
class Prepared:
    """A question as it goes to the server, and as the ledger keeps it."""

    row: Row
    text: str
    """The task as JSON: its data, and a prediction where people are to see it."""


def external_id(kind: str, unit: str, campaign: str) -> str:
    """The id by which a task is known again."""
    return digest("review", kind, unit, campaign)


def order_of(external: str, seed: int) -> Order:
    """The order in which a pair is shown: a coin thrown by seed and id."""
    return "ab" if int(digest("order", seed, external)[:8], 16) % 2 == 0 else "ba"


def prepare(
    question: Question, kind: Kind, campaign: str, seed: int, show_prediction: bool = False
) -> Prepared:
    """A question as a task. Raises ValueError for one that cannot be shown."""
    external = external_id(kind.name, question.unit, campaign)
    shown = order_of(external, seed)
    data = {**kind.data(question.item, shown), EXTERNAL: external}
    shown_as = canonical(data)  # once, as most of a push is this
    predictions = ""
    if show_prediction and question.prediction is not None:
        predictions = f',"predictions":[{canonical(configs.predicted(question.prediction, shown))}]'
    text = f'{{"data":{shown_as}{predictions}}}'
    row = Row(
        external=external,
        unit=question.unit,
        parts=as_text(question.parts),
        shown=shown,
        digest=_data_digest(shown_as),
        bytes=len(text.encode()),
        purpose=question.purpose,
        propensity=question.propensity,
        overlap=question.overlap,
    )
    return Prepared(row, text)


def data_digest(data: Mapping[str, Any]) -> str:
    """Hash of all that people are shown."""
    return _data_digest(canonical(dict(data)))


def _data_digest(data: str) -> str:
    return digest_text(f'["task",{data}]')


def external_of(task: ServerTask) -> str:
    """The external id of a task on the server; empty where it is none of ours."""
    found = task.data.get(EXTERNAL)
    return found if isinstance(found, str) else ""


@dataclass(frozen=True)
class Reader:
    """Reads annotations of one kind of question."""

    kind: Kind
    options: QuestionConfig
    users: Mapping[int, str]
    """E-mail addresses by user id."""

    def kept(self, task: ServerTask, row: Row | None, annotation: Mapping[str, Any]) -> Kept:
        """An annotation as the ledger keeps it.

        States beside those of a kind's `Problem`: `foreign`, `task_edited` (the text is not the one
        that was pushed: what was answered is unknown), `unknown_annotator`, `other_hand` (written or
        last changed by someone else than it names: the community edition forbids neither), `skip`.
        """
        author = annotation.get("completed_by")
        email = self.users.get(author) if isinstance(author, int) else None
        state, detail = self._judge(task, row, annotation, email)
        seconds = annotation.get("lead_time")
        return Kept(
            id=int(annotation["id"]),
            annotator=None if email is None else pseudonym(email),
            updated=stamp(annotation.get("updated_at")),
            cancelled=bool(annotation.get("was_cancelled")),
            seconds=float(seconds) if isinstance(seconds, int | float) and seconds >= 0 else None,
            state=state,
            detail=detail,
            result="" if row is None else as_text(annotation.get("result")),
        )

    def _judge(
        self, task: ServerTask, row: Row | None, annotation: Mapping[str, Any], email: str | None
    ) -> tuple[str, str]:
        if row is None:
            return "foreign", ""
        if data_digest(task.data) != row.digest:
            return "task_edited", "the task was edited on the server"
        if email is None:
            return "unknown_annotator", "its author is no user of the server"
        if annotation.get("updated_by") not in (None, annotation.get("completed_by")):
            return "other_hand", "written or last changed by someone else than it names"
        if annotation.get("was_cancelled"):
            return "skip", ""
        shown: Order = "ab" if row.shown == "ab" else "ba"
        found = self.kind.read(annotation.get("result"), task.data, shown, self.options)
        if isinstance(found, Problem):
            return found.code, found.detail
        return "answer", as_text([_packed(a) for a in found])


def _packed(a: Answer) -> list[Any]:
    return [a.about, a.unit_kind, a.value, a.criterion, a.index, a.reason, a.span]


_WHOLE = {"pairwise": "pair", "steps": "step", "spans": "response", "rubric": "criterion"}


def votes(
    kind: str, unit: str, parts: str, shown: str, judge: str, seconds: float | None, state: str,
    detail: str,
) -> list[Vote]:  # fmt: skip
    """The votes of one annotation; its seconds stand with the first of them, so that sums are right.

    Ids: a rating is of its response, under the rating's name; a verdict on a criterion is of the
    criterion; a marked error is of the response, under its type, with where it is.
    """
    order: Order | None = None
    if kind == "pairwise":
        order = "ab" if shown == "ab" else "ba"

    def vote(of: str, unit_kind: Any, value: float | None, reason: str, **more: Any) -> Vote:
        return Vote(
            unit=of, unit_kind=unit_kind, judge=judge, judge_kind="human", value=value,
            reason=reason, **more,
        )  # fmt: skip

    if state == "skip":
        return [vote(unit, _WHOLE[kind], None, "skipped", order=order, seconds=seconds)]
    ids: list[str] = json.loads(parts)
    found = []
    for n, (about, unit_kind, value, criterion, index, reason, span) in enumerate(
        json.loads(detail)
    ):
        of = unit
        if about in ("a", "b") and len(ids) == 2:
            of = ids["ab".index(about)]
        elif about == "criterion" and index < len(ids):
            of = ids[index]
        start, end = span or (None, None)
        found.append(
            vote(
                of, unit_kind, value, reason,
                order=order if about == "pair" else None,
                criterion=criterion,
                step=index if about == "step" else None,
                span_start=start,
                span_end=end,
                seconds=seconds if n == 0 else None,
            )
        )  # fmt: skip
    return found


def kind_named(name: str) -> Kind:
    """A kind of question by its name."""
    return configs.KINDS[name]
