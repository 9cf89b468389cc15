"""`prefinery review`: a server, campaigns on it, and what came of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotation import environment
from annotation.campaign import Campaign, status
from annotation.client import Client, token_of
from annotation.configs import PairItem, QuestionConfig, conversation
from annotation.cost import cost
from annotation.guide import guide
from annotation.pull import close, pull
from annotation.push import push
from annotation.quality import QualityConfig, quality
from annotation.server import Server
from annotation.tasks import Question
from flows import runs
from flows.progress import Reporter
from pipelines.durable import write_durably
from pipelines.store import Published, Store
from schemas.errors import UserError
from schemas.records import Criterion, Pair, Prompt, Response, ReviewItem, Vote

SERVER = "label-studio"
"""Folder of the local server in a store."""
ADDRESS = "address.json"
PORT = 8090


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


def client_of(store: Store, url: str | None) -> Client:
    """The server that is named, or this store's own."""
    own = store.root / SERVER
    if url is None:
        place = own / ADDRESS
        if not place.exists():
            raise UserError("no server: start one with `prefinery review serve`, or give --url")
        address: dict[str, str] = json.loads(place.read_text("utf-8"))
        return Client(address["url"], token_of(own / "account.json"))
    return Client(url, token_of())


def campaign_of(store: Store, name: str, seed: int = 0, instruction: str = "") -> Campaign:
    """A campaign of this store."""
    return Campaign(
        name, store.root / "campaigns" / name, seed=seed, instruction=instruction,
        options=QuestionConfig(),
    )  # fmt: skip


def push_queue(
    root: Path, run_id: str, name: str, url: str | None, migrate: bool, resend: bool
) -> dict[str, Any]:
    """Put a run's review queue to people; pushed twice, it is there once."""
    store = Store.open(root, create=False)
    record = runs.load(store, run_id)
    outputs = dict(record.outputs(store))
    queue = outputs.get("route")
    if queue is None:
        raise UserError(f"{record.id}: has no review queue; add [route] to its plan and run it")
    campaign = campaign_of(store, name, queue.manifest.seed)
    reporter = Reporter()
    total = queue.manifest.rows("queue")
    with reporter.stage("push", total) as advance:
        done = push(
            campaign,
            client_of(store, url),
            _questions(outputs),
            migrate=migrate,
            resend=resend,
            advance=advance,
        )
    write_durably(campaign.folder / "guide.html", _guide(outputs, name).encode())
    for reject in done.rejects[:5]:
        reporter.say(f"  not shown: {reject.unit}: {reject.detail}")
    return {
        "campaign": name,
        "new": done.new,
        "already": done.already,
        "doubles": done.doubles,
        "gone": done.gone,
        "not_shown": len(done.rejects),
        "guide": str(campaign.folder / "guide.html"),
    }


def _questions(outputs: dict[str, Published]) -> Iterator[Question]:
    queue = sorted(ReviewItem.from_table(outputs["route"].table("queue")), key=lambda i: i.rank)
    wanted = {item.pair_id for item in queue}
    pairs = {p.id: p for p in Pair.from_table(outputs["pairs"].table("pairs")) if p.id in wanted}
    sides = {side for p in pairs.values() for side in (p.response_a, p.response_b)}
    asked = {p.prompt_id for p in pairs.values()}
    texts = {
        r.id: r.text
        for r in Response.from_table(outputs["generate"].table("responses"))
        if r.id in sides
    }
    prompts = {
        p.id: conversation(p.messages)
        for p in Prompt.from_table(outputs["ingest"].table("prompts"))
        if p.id in asked
    }
    for item in queue:
        pair = pairs[item.pair_id]
        a, b = pair.response_a, pair.response_b
        yield Question(
            item.pair_id,
            PairItem(prompts[pair.prompt_id], texts[a], texts[b]),
            (a, b),
            item.purpose,
            item.propensity,
            item.overlap,
        )


def _guide(outputs: dict[str, Published], name: str) -> str:
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
    return guide("pairwise", QuestionConfig(), criteria, title=name)


def pull_votes(root: Path, name: str, url: str | None, whole: bool, last: bool) -> dict[str, Any]:
    """Bring answers in; with `last`, close the campaign."""
    store = Store.open(root, create=False)
    campaign = _known(store, name)
    client = client_of(store, url)
    found = close(campaign, client) if last else pull(campaign, client, whole=whole)
    return {
        "campaign": name,
        "tasks_read": found.tasks,
        "votes": found.votes,
        "rejects": found.rejects,
        "file": str(campaign.votes),
    }


def _known(store: Store, name: str) -> Campaign:
    """A campaign that was begun, under the seed that it began with."""
    place = campaign_of(store, name).folder / "campaign.json"
    if not place.exists():
        raise UserError(f"campaign {name}: nothing was pushed; prefinery review push {name}")
    began: dict[str, Any] = json.loads(place.read_text("utf-8"))
    return campaign_of(store, name, began["seed"])


def stand(root: Path, name: str) -> dict[str, Any]:
    """How a campaign stands, by what was pulled last."""
    store = Store.open(root, create=False)
    found = status(_known(store, name))
    return {
        "campaign": found.name,
        "url": f"{found.url}/projects/{found.project}/data",
        "closed": found.closed,
        **found.figures,
        "annotators": found.annotators,
    }


def judge_people(root: Path, name: str, run_id: str | None, hourly_rate: float) -> dict[str, Any]:
    """Quality, agreement and cost of what was pulled; with a run, what it changed and what is next."""
    store = Store.open(root, create=False)
    campaign = _known(store, name)
    if not campaign.votes.exists():
        raise UserError(f"campaign {name}: nothing was pulled; prefinery review pull {name}")
    table = pq.read_table(campaign.votes)
    votes = table.select(Vote.arrow_schema().names)
    queue = None
    if run_id is not None:
        made = runs.load(store, run_id).output(store, "route")
        queue = _unanswered(made, votes) if made is not None else None
    known = quality(votes, QualityConfig())
    spent = cost(votes, hourly_rate, queue=queue)
    return {
        "campaign": name,
        "agreement": [
            {"level": a.level, "alpha": a.alpha, "low": a.low, "high": a.high}
            for a in known.agreement
        ],
        "first_share": known.first_share,
        "annotators": known.annotators.to_pylist(),
        "outliers": len(known.outliers),
        "cost": spent.__dict__,
    }


def _unanswered(made: Published, votes: pa.Table) -> pa.Table:
    answered = set(votes["unit"].to_pylist())
    queue = made.table("queue")
    return queue.filter(pa.array([p not in answered for p in queue["pair_id"].to_pylist()]))
