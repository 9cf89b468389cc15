"""`prefinery review`: a server, campaigns on it, and what came of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from annotation import environment
from annotation.campaign import Campaign, remembered, saved, status
from annotation.client import Client, token_of
from annotation.guide import guide
from annotation.pull import close, pull
from annotation.push import push
from annotation.server import Server
from flows import runs
from flows.plan import ReviewPlan, load
from flows.progress import Reporter
from flows.questions import KindName, questions, seed
from pipelines.durable import write_durably
from pipelines.store import Published, Store
from schemas.errors import UserError
from schemas.records import Criterion

SERVER = "label-studio"
"""Folder of the local server in a store."""
ADDRESS = "address.json"
MOST = 100
"""Solutions, responses or rubrics that are asked about where nothing else is said."""


def serve(root: Path, port: int) -> None:
    """Run a local Label Studio until it is stopped (Ctrl-C); says where it is and who owns it."""
    reporter = Reporter()
    store = Store.open(root)
    reporter.say("Label Studio's own environment: some minutes the first time")
    server = Server(environment.ensure(environment.cache_folder()), store.root / SERVER, port)
    account = server.account
    # A termination ends the server as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with server:
        place = server.data / ADDRESS
        write_durably(place, json.dumps({"url": server.url}).encode())
        reporter.say(f"Label Studio: {server.url}")
        reporter.say(f"  sign in as {account.user}; the password is in {server.data}/account.json")
        reporter.say("  annotators join by the link under Organization > Invite people")
        reporter.say("  Ctrl-C stops it; campaigns and answers stay")
        try:
            code = server.wait()
        finally:
            place.unlink(missing_ok=True)
    raise UserError(f"Label Studio ended by itself with {code}; {server.data}/server.log says why")


def client_of(store: Store, url: str | None, campaign: Campaign | None = None) -> Client:
    """The server that is named, else this store's own, else the one that the campaign is on."""
    own = store.root / SERVER
    place = own / ADDRESS
    if url is None and place.exists():
        address: dict[str, str] = json.loads(place.read_text("utf-8"))
        return Client(address["url"], token_of(own / "account.json"))
    known = saved(campaign) if campaign is not None else None
    # One that this store ran, and runs no longer, has an account of its own here.
    url = url or (known.url if known is not None and not own.exists() else None)
    if url is None:
        raise UserError("no server: start one with `prefinery review serve`, or give --url")
    return Client(url, token_of())


def campaign_of(store: Store, name: str) -> Campaign:
    """A campaign of this store as it was pushed last. Raises UserError where it was not."""
    found = remembered(name, folder_of(store, name))
    if found is None:
        raise UserError(f"campaign {name}: nothing was pushed; prefinery review push {name}")
    return found


def folder_of(store: Store, name: str) -> Path:
    """A campaign's folder. Raises UserError for what is no name."""
    return Campaign(name, store.root / "campaigns" / name).folder


def review_of(plan: Path | None) -> ReviewPlan | None:
    """A plan's [review]. Raises UserError where it has none."""
    if plan is None:
        return None
    found = load(plan).review
    if found is None:
        raise UserError(f"{plan}: has no [review]; add it, or leave --plan out")
    return found


def push_questions(
    root: Path,
    run_id: str,
    name: str,
    kind: KindName = "pairwise",
    *,
    most: int = MOST,
    overlap: int = 1,
    review: ReviewPlan | None = None,
    url: str | None = None,
    migrate: bool = False,
    resend: bool = False,
) -> dict[str, Any]:
    """Put questions on a run to people; pushed twice, they are there once.

    `review` says what is asked beside the main answer; without it a campaign goes on as it was.
    """
    store = Store.open(root, create=False)
    record = runs.load(store, run_id)
    outputs = dict(record.outputs(store))
    asked = list(questions(kind, outputs, most, overlap))
    campaign = _campaign(store, name, kind, seed(kind, outputs), overlap, review)
    reporter = Reporter()
    with reporter.stage("push", len(asked)) as advance:
        done = push(
            campaign,
            client_of(store, url or (review.url if review else None), campaign),
            asked,
            migrate=migrate,
            resend=resend,
            advance=advance,
        )
    guide_page = campaign.folder / "guide.html"
    write_durably(guide_page, _guide(campaign, outputs).encode())
    for reject in done.rejects[:5]:
        reporter.say(f"  not shown: {reject.unit}: {reject.detail}")
    return {
        "campaign": name,
        "kind": kind,
        "new": done.new,
        "already": done.already,
        "doubles": done.doubles,
        "gone": done.gone,
        "not_shown": len(done.rejects),
        "guide": str(guide_page),
    }


def _campaign(
    store: Store, name: str, kind: KindName, seed: int, overlap: int, review: ReviewPlan | None
) -> Campaign:
    folder = folder_of(store, name)
    before = remembered(name, folder)
    if review is not None:
        return Campaign(
            name,
            folder,
            kind,
            options=review.question,
            seed=seed,
            overlap=overlap,
            instruction=review.instruction,
            show_predictions=review.show_predictions,
        )
    if before is not None:
        return replace(before, kind=kind, seed=seed)
    return Campaign(name, folder, kind, seed=seed, overlap=overlap)


def _guide(campaign: Campaign, outputs: Mapping[str, Published]) -> str:
    made = outputs.get("rubric_value")
    criteria: list[Criterion] = []
    if made is not None:
        known = {c.id: c for c in Criterion.from_table(made.table("criteria"))}
        general = [
            row
            for row in made.table("rubrics").to_pylist()
            if row["prompt_id"] is None and row["status"] != "retired"
        ]
        criteria = [known[c] for row in general for c in row["criteria"]]
    return guide(
        campaign.kind, campaign.options, criteria,
        title=campaign.name, instruction=campaign.instruction,
    )  # fmt: skip


def pull_votes(root: Path, name: str, url: str | None, whole: bool, last: bool) -> dict[str, Any]:
    """Bring answers in; with `last`, close the campaign."""
    store = Store.open(root, create=False)
    campaign = campaign_of(store, name)
    client = client_of(store, url, campaign)
    found = close(campaign, client) if last else pull(campaign, client, whole=whole)
    return {
        "campaign": name,
        "tasks_read": found.tasks,
        "votes": found.votes,
        "rejects": found.rejects,
        "file": str(campaign.votes),
    }


def stand(root: Path, name: str) -> dict[str, Any]:
    """How a campaign stands, by what was pulled last."""
    store = Store.open(root, create=False)
    campaign = campaign_of(store, name)
    found = status(campaign)
    return {
        "campaign": found.name,
        "kind": campaign.kind,
        "url": f"{found.url}/projects/{found.project}/data",
        "closed": found.closed,
        **found.figures,
        "annotators": found.annotators,
    }
