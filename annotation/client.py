"""What Prefinery asks of a Label Studio server, with its failures told apart.

A read is tried again; a write is sent once, because a second try of an import would store the tasks
twice. A write whose reply was lost raises `Unknown`: the caller looks before it sends again.
The token is taken from the environment or from a local server's account file, and is never shown.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from schemas.errors import MissingExtra, UserError

TOKEN = "LABEL_STUDIO_API_KEY"
"""Environment variable that holds the token, where no other is named."""
PAGE = 1000
PAGE_BYTES = 16 << 20
CLOCK = "%Y-%m-%dT%H:%M:%S.%fZ"
"""How the server's filters read a time."""
_TIMES = 5
_READ_S = 120.0
T = TypeVar("T")


class Unknown(Exception):
    """A write that the server may or may not have done."""


class Counts(NamedTuple):
    """What a project holds: tasks, answers and skips, counted by the server now."""

    tasks: int
    answers: int
    skips: int


@dataclass(frozen=True)
class Project:
    """A project as the server has it."""

    id: int
    title: str
    description: str
    label_config: str
    created_at: str


@dataclass(frozen=True)
class ServerTask:
    """A task as the server has it, with all annotations on it."""

    id: int
    data: Mapping[str, Any]
    updated_at: str
    annotations: Sequence[Mapping[str, Any]]


def token_of(account: Path | None = None, variable: str = TOKEN) -> str:
    """The token: that of a local server's `account.json`, or the environment's.

    Raises UserError where there is none.
    """
    if account is not None and account.is_file():
        return str(json.loads(account.read_text("utf-8"))["token"])
    token = os.environ.get(variable, "").strip()
    if not token:
        raise UserError(
            f"no token for Label Studio: set {variable} (in its page: Account & Settings, tokens)"
        )
    return token


class Client:
    """One Label Studio server. `import_s`: seconds that an import's reply is waited for."""

    def __init__(self, url: str, token: str, import_s: float = 300.0) -> None:
        try:
            import httpx
            from label_studio_sdk import LabelStudio
            from label_studio_sdk.core.api_error import ApiError
        except ImportError:
            raise MissingExtra("label-studio-sdk", "review") from None
        self.url = url.rstrip("/")
        self._import_s = import_s
        self._api_error = ApiError
        self._broken = (httpx.HTTPError, httpx.InvalidURL)
        try:
            # A proxy of the environment has no business between us and this machine.
            here = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
            self._http = httpx.Client(timeout=_READ_S, trust_env=not here)
            make: Any = LabelStudio  # it has no types
            self._sdk = make(
                base_url=self.url,
                api_key=token,
                httpx_client=self._http,
                timeout=_READ_S,
                max_retries=0,
            )
        except ApiError as error:
            raise UserError(f"Label Studio: {_said(error.body)}") from None

    def projects(self, title: str) -> list[Project]:
        """Projects whose title contains it, oldest first."""

        def ask() -> list[Any]:
            return list(self._sdk.projects.list(title=title, page_size=100))

        return sorted((_project(p) for p in self._read(ask)), key=lambda p: p.id)

    def project(self, number: int) -> Project | None:
        """A project, if it is there."""
        try:
            return _project(self._read(lambda: self._sdk.projects.get(id=number), missing=True))
        except _Missing:
            return None

    def create_project(self, **settings: Any) -> Project:
        """Make a project. Raises Unknown where the reply was lost."""
        return _project(self._write(lambda: self._sdk.projects.create(**settings)))

    def update_project(self, number: int, **settings: Any) -> None:
        """Change a project's settings; sent once more where the reply was lost, as that is harmless."""
        self._read(lambda: self._sdk.projects.update(id=number, **settings))

    def counts(self, number: int) -> Counts:
        """What the project holds now."""
        names = ("task_number", "total_annotations_number", "skipped_annotations_number")
        include = ",".join(("id", *names))
        page = self._read(lambda: self._sdk.projects.list_counts(ids=str(number), include=include))
        if not page.results:
            raise UserError(f"Label Studio at {self.url} has no project {number}")
        return Counts(*(int(getattr(page.results[0], name) or 0) for name in names))

    def import_tasks(
        self, number: int, tasks: Sequence[str], meanwhile: Callable[[], None] = lambda: None
    ) -> list[int]:
        """Import tasks, given as JSON, all or none; their ids in the order given.

        `meanwhile` is called while the server is at work.

        Raises Unknown where they may have been stored all the same, UserError where they were refused.
        """
        content = ("[" + ",".join(tasks) + "]").encode()

        def body() -> Iterator[bytes]:
            yield content
            # It has been sent whole, and the server knows by its length. A thread of our own for this
            # would fight the sending one for the interpreter.
            meanwhile()

        def ask() -> Any:
            # The SDK takes tasks apart and writes them anew, which costs a tenth of the import.
            headers = {
                **self._sdk._client_wrapper.get_headers(),
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
            }
            reply = self._http.post(
                f"{self.url}/api/projects/{number}/import",
                params={"return_task_ids": "true"},
                content=body(),
                headers=headers,
                timeout=self._import_s,
            )
            if not reply.is_success:
                try:
                    said = reply.json()
                except ValueError:
                    said = reply.text
                raise self._api_error(status_code=reply.status_code, body=said)
            try:
                return reply.json()
            except ValueError:
                raise Unknown("the reply to an import is no JSON") from None

        reply = self._write(ask)
        ids = reply.get("task_ids") if isinstance(reply, dict) else None
        if not isinstance(ids, list) or len(ids) != len(tasks):
            raise Unknown(f"{len(tasks)} tasks were sent, {len(ids or ())} ids came back")
        return [int(i) for i in ids]

    def update_task(self, number: int, **settings: Any) -> None:
        """Change a task's settings (not its data)."""
        self._read(lambda: self._sdk.tasks.update(id=str(number), **settings))

    def tasks(
        self, number: int, *, after: int = 0, since: str | None = None, size: int = PAGE,
        annotations: bool = True,
    ) -> Iterator[list[ServerTask]]:  # fmt: skip
        """The project's tasks in the order of their ids, in pages.

        Pages are cut by id and not by position, so that nothing is missed while tasks come and go.

        Args:
            number: the project.
            after: only tasks with a higher id.
            since: only tasks that were touched after this time of the server's clock.
            size: tasks a page.
            annotations: whether the annotations are wanted, too.
        """
        # The server cuts annotations down to the fields that are named for the task.
        more = ",annotations,result,completed_by,updated_by,was_cancelled,lead_time"
        wanted = "id,data,updated_at" + (more if annotations else "")
        while True:
            items = [_filter("id", "greater", "Number", after)]
            if since is not None:
                items.append(_filter("updated_at", "greater", "Datetime", since))
            filters = {"conjunction": "and", "items": items}
            query = json.dumps({"ordering": ["tasks:id"], "filters": filters})

            def ask(query: str = query) -> Any:
                return self._sdk.tasks.list(
                    project=number, page=1, page_size=size, query=query, include=wanted,
                    fields="all", resolve_uri=False,
                ).items  # fmt: skip

            rows = [
                ServerTask(int(t.id), t.data or {}, stamp(t.updated_at), t.annotations or ())
                for t in self._read(ask)
            ]
            if rows:
                yield rows
                after = rows[-1].id
            if len(rows) < size:
                return

    def newest(self, number: int) -> str | None:
        """When the project's tasks were last touched, by the server's clock; None: there are none."""
        query = json.dumps({"ordering": ["-tasks:updated_at"]})

        def ask() -> Any:
            return self._sdk.tasks.list(
                project=number, page=1, page_size=1, query=query, include="id,updated_at",
                fields="all", resolve_uri=False,
            ).items  # fmt: skip

        rows = self._read(ask)
        return stamp(rows[0].updated_at) if rows else None

    def users(self) -> dict[int, str]:
        """Who can answer: e-mail address by user id."""
        return {int(u.id): str(u.email) for u in self._read(lambda: self._sdk.users.list())}

    def hook(self, number: int, url: str, headers: Mapping[str, str]) -> int:
        """Have the server post to a URL, without content, whenever something changes; its id."""
        made = self._write(
            lambda: self._sdk.webhooks.create(
                url=url, project=number, headers=dict(headers), send_payload=False,
                send_for_all_actions=True,
            )
        )  # fmt: skip
        return int(made.id)

    def hooks(self, number: int) -> list[tuple[int, frozenset[str]]]:
        """A project's webhooks: id, and the names of the headers that each brings."""
        found = self._read(lambda: self._sdk.webhooks.list(project=str(number)))
        return [(int(hook.id), frozenset(hook.headers or {})) for hook in found]

    def unhook(self, hook: int) -> None:
        """Take a hook away."""
        self._write(lambda: self._sdk.webhooks.delete(id=hook))

    def _read(self, ask: Callable[[], T], missing: bool = False) -> T:
        """Ask, and ask again where that is harmless and may help."""
        for n in range(_TIMES):
            if n:
                time.sleep(0.25 * 2**n)
            try:
                return self._write(ask, missing)
            except Unknown as error:
                why = str(error)
        raise UserError(
            f"Label Studio at {self.url} does not answer ({why}); start it and run again: "
            "what is done is kept"
        )

    def _write(self, ask: Callable[[], T], missing: bool = False) -> T:
        try:
            return ask()
        except self._api_error as error:
            status, said = error.status_code or 0, _said(error.body)
        except self._broken as error:
            raise Unknown(type(error).__name__) from None
        if status in (401, 403):
            raise UserError(
                f"Label Studio at {self.url} refuses the token ({status}); check {TOKEN}"
            )
        if status == 404 and missing:
            raise _Missing
        if 300 <= status < 400:
            raise UserError(f"{self.url} redirects; name the address that it redirects to")
        if 400 <= status < 500 and status not in (408, 429):
            raise UserError(f"Label Studio at {self.url} refuses ({status}): {said}")
        raise Unknown(f"status {status}: {said}")


class _Missing(Exception):
    """What was asked for is not there."""


def _filter(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {
        "filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value
    }  # fmt: skip


def _project(row: Any) -> Project:
    return Project(
        int(row.id), row.title or "", row.description or "", row.label_config or "",
        stamp(row.created_at),
    )  # fmt: skip


def stamp(given: Any) -> str:
    """A time of the server as its filters read it: UTC, ISO 8601 with microseconds."""
    if given is None:
        return ""
    moment = datetime.fromisoformat(given) if isinstance(given, str) else given
    text: str = moment.astimezone(UTC).strftime(CLOCK)
    return text


def _said(body: Any) -> str:
    """What a server says went wrong, in one short line: it may quote anything."""
    if isinstance(body, dict):
        found = body.get("validation_errors") or body.get("detail") or body
        body = json.dumps(found, ensure_ascii=False) if not isinstance(found, str) else found
    line = " ".join(str(body).split())
    return "".join(c if c.isprintable() else "?" for c in line)[:300]
