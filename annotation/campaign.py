"""A campaign: one kind of question, one project on a Label Studio server, one folder on our side.

    FOLDER/campaign.json    what it is, and which project it is on which server
    FOLDER/ledger.sqlite    what was asked and answered (annotation.ledger)
    FOLDER/votes.parquet    people's votes, for `humans.paths` of a plan
    FOLDER/rejects.parquet  answers that are no votes, with the reason

A project is known by a mark in its description, made from the campaign's name. So a push that died
after it had made the project finds it, and a second machine joins the same project: two plans that
name one campaign share it, and each gets the votes on its own questions.
"""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from annotation import configs
from annotation.client import Client, Project, Unknown
from annotation.configs import Kind, QuestionConfig
from annotation.ledger import Ledger
from annotation.tasks import kind_named
from pipelines.durable import explained, write_durably
from schemas.errors import UserError
from schemas.record import digest

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,37}")
_MARK = "prefinery campaign "
VOTES = "votes.parquet"


@dataclass(frozen=True)
class Campaign:
    """What a plan says of a campaign."""

    name: str
    """Lower-case letters, digits, `.`, `_`, `-`; at most 38."""
    folder: Path
    """Its folder in the store."""
    kind: str = "pairwise"
    """Kind of question (see annotation.configs)."""
    options: QuestionConfig = field(default_factory=QuestionConfig)
    """What is asked beside the main answer."""
    seed: int = 0
    """The plan's seed: the order of responses follows from it."""
    overlap: int = 1
    """How many people usually answer a question."""
    instruction: str = ""
    """What annotators read before they begin, as plain text."""
    show_predictions: bool = False
    """Whether annotators of pairs see what the machine believes, as an answer that is chosen already.
    People follow what they are shown: votes are then no independent evidence."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(
                f"campaign {self.name!r}: a name is 1 to 38 of a-z, 0-9, '.', '_' and '-'"
            )
        if self.kind not in configs.KINDS:
            raise UserError(
                f"campaign {self.name}: kind {self.kind!r} is none of {', '.join(configs.KINDS)}"
            )

    @property
    def question(self) -> Kind:
        """Its kind of question."""
        return kind_named(self.kind)

    @property
    def label_config(self) -> str:
        """The label config that its project has to have."""
        return self.question.config(self.options)

    @property
    def mark(self) -> str:
        """What its project's description says."""
        return _MARK + digest("campaign", self.name)

    @property
    def title(self) -> str:
        """Its project's title."""
        return f"{self.name} [review]"

    @property
    def votes(self) -> Path:
        """The file of votes."""
        return self.folder / VOTES

    @property
    def rejects(self) -> Path:
        """The file of answers that are no votes."""
        return self.folder / "rejects.parquet"

    @contextmanager
    def opened(self) -> Iterator[Ledger]:
        """Its ledger, for this process alone: others wait. The lock ends with the process."""
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("w")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with closing(Ledger(self.folder / "ledger.sqlite")) as ledger:
                yield ledger


@dataclass(frozen=True)
class Saved:
    """`campaign.json`."""

    name: str
    kind: str
    seed: int
    overlap: int
    url: str
    project: int
    created_at: str
    label_config: str
    """Hash of the config that was last agreed on."""
    closed: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    """What is asked beside the main answer."""
    instruction: str = ""
    show_predictions: bool = False


def remembered(name: str, folder: Path) -> Campaign | None:
    """A campaign as it was pushed last; None where it was not."""
    found = _read(folder)
    if found is None:
        return None
    return Campaign(
        name,
        folder,
        kind=found.kind.partition("/")[0],
        options=QuestionConfig.model_validate_json(json.dumps(found.options)),
        seed=found.seed,
        overlap=found.overlap,
        instruction=found.instruction,
        show_predictions=found.show_predictions,
    )


def _read(folder: Path) -> Saved | None:
    place = folder / "campaign.json"
    try:
        return Saved(**json.loads(place.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{place} cannot be read ({error}); restore it or move it away") from None


def saved(campaign: Campaign) -> Saved | None:
    """What was noted when the campaign began; None where it has not.

    Raises UserError where it began as something else.
    """
    found = _read(campaign.folder)
    if found is None:
        return None
    for what, was, now in (
        ("kind", found.kind, _kind(campaign)),
        ("seed", found.seed, campaign.seed),
    ):
        if was != now:
            raise UserError(
                f"campaign {campaign.name} began with {what} {was}, now it is {now}: "
                "go back to it, or name another campaign"
            )
    return found


def save(campaign: Campaign, what: Saved) -> None:
    """Note it."""
    text = json.dumps(asdict(what), indent=2) + "\n"
    with explained(campaign.folder):
        write_durably(campaign.folder / "campaign.json", text.encode())


def _kind(campaign: Campaign) -> str:
    return f"{campaign.kind}/{configs.VERSION}"


def project_of(
    campaign: Campaign, client: Client, ledger: Ledger, *, create: bool = False, migrate: bool = False
) -> Project:  # fmt: skip
    """The campaign's project, its label config checked; the ledger mirrors it from then on.

    Raises UserError where there is none (and none is to be made), and where its label config is not
    the campaign's and `migrate` is not given.
    """
    known = saved(campaign)
    if known is None and not create:
        raise UserError(f"campaign {campaign.name}: nothing was pushed from {campaign.folder}")
    project = client.project(known.project) if known else None
    if project is None or campaign.mark not in project.description or (
        known is not None and project.created_at != known.created_at
    ):  # fmt: skip
        project = _found(campaign, client)
    if project is None and known is not None:
        raise UserError(
            f"campaign {campaign.name}: its project {known.project} is not on {client.url}; name the "
            f"server it was pushed to (then {known.url}), or another campaign"
        )
    if project is None:
        project = _made(campaign, client)
    wanted = digest("label_config", campaign.label_config)
    _agree(campaign, client, project, known.label_config if known else wanted, migrate)
    now = Saved(
        name=campaign.name,
        kind=_kind(campaign),
        seed=campaign.seed,
        overlap=known.overlap if known else campaign.overlap,
        url=client.url,
        project=project.id,
        created_at=project.created_at,
        label_config=wanted,
        closed=known.closed if known else False,
        options=campaign.options.model_dump(mode="json"),
        instruction=campaign.instruction,
        show_predictions=campaign.show_predictions,
    )
    before = (known.instruction, known.show_predictions) if known else None
    if before not in (None, (campaign.instruction, campaign.show_predictions)):
        client.update_project(project.id, **_settings(campaign))
    if now != known:
        save(campaign, now)
    ledger.belong_to(f"{project.id} {project.created_at}")
    return project


def _found(campaign: Campaign, client: Client) -> Project | None:
    """The oldest project that bears the campaign's mark."""
    there = client.projects(campaign.title)
    return next((p for p in there if campaign.mark in p.description), None)


def _made(campaign: Campaign, client: Client) -> Project:
    mine: Project | None = None
    for _ in range(3):
        try:
            mine = client.create_project(
                title=campaign.title,
                description=campaign.mark,
                label_config=campaign.label_config,
                **_settings(campaign),
                maximum_annotations=campaign.overlap,
                enable_empty_annotation=False,
                show_skip_button=True,
                show_annotation_history=False,
                evaluate_predictions_automatically=False,
                reveal_preannotations_interactively=False,
            )
        except Unknown:
            time.sleep(2)
        # Another machine may have made one at the same moment: both of us take the older.
        first = _found(campaign, client)
        if first is not None:
            if mine is not None and mine.id != first.id:
                client.update_project(mine.id, title="(unused) [review]", description="")
            return first
    raise UserError(f"Label Studio at {client.url} makes no project; look into its log")


def _settings(campaign: Campaign) -> dict[str, Any]:
    """What annotators are shown beside the task."""
    return {
        "expert_instruction": _escaped(campaign.instruction),
        "show_instruction": bool(campaign.instruction),
        "show_collab_predictions": campaign.show_predictions,
    }


def _agree(
    campaign: Campaign, client: Client, project: Project, before: str, migrate: bool
) -> None:
    if project.label_config == campaign.label_config:
        return
    if not migrate:
        edited = digest("label_config", project.label_config) != before
        what = "was edited on the server" if edited else "is not the plan's any more"
        raise UserError(
            f"campaign {campaign.name}: the label config of project {project.id} {what}; answers "
            "would be misread: restore it, or push with --migrate to put the plan's in its place"
        )
    client.update_project(project.id, label_config=campaign.label_config)


def _escaped(text: str) -> str:
    """Plain text for a page that reads HTML."""
    import html

    return html.escape(text).replace("\n", "<br>")


@dataclass(frozen=True)
class Status:
    """How a campaign stands, by what is known on our side since the last push or pull."""

    name: str
    url: str
    project: int
    closed: bool
    figures: dict[str, int]
    """Items, pushed, answered, doubles, edited, gone, foreign; annotations by state."""
    annotators: dict[str, int]
    """Answers by annotator."""


def status(campaign: Campaign) -> Status:
    """How it stands. Raises UserError where nothing was pushed."""
    known = saved(campaign)
    if known is None:
        raise UserError(f"campaign {campaign.name}: nothing was pushed from {campaign.folder}")
    with campaign.opened() as ledger:
        figures, people = ledger.tally(), ledger.people()
    return Status(known.name, known.url, known.project, known.closed, figures, people)
