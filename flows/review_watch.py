"""`prefinery review watch`: votes come in as they are given."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from urllib.parse import urlsplit

from annotation.campaign import saved
from annotation.pull import pull
from annotation.webhook import Receiver
from flows.progress import Reporter
from flows.review_command import campaign_of, client_of
from pipelines.store import Store
from schemas.errors import UserError

SETTLE_S = 1.0
"""What a server calls about is seen a moment later, and answers come in bursts."""


def watch(root: Path, name: str, url: str | None, every: float, port: int) -> None:
    """Pull when the server calls, and at least every so many seconds, until Ctrl-C.

    A server on another machine cannot call: it is polled. One that is away is waited for. Raises
    UserError where the campaign is not there, or the first pull fails.
    """
    reporter = Reporter()
    store = Store.open(root, create=False)
    campaign = campaign_of(store, name)
    client = client_of(store, url, campaign)
    # A termination ends it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Receiver(port) as receiver:
        before = pull(campaign, client)
        reporter.say(f"review {name}: {before.votes} votes in {campaign.votes}")
        known = saved(campaign)
        if known is not None and urlsplit(client.url).hostname in ("127.0.0.1", "localhost"):
            receiver.hook(client, known.project)
        away = ""
        while True:
            if receiver.wait(every):
                time.sleep(SETTLE_S)
            try:
                found = pull(campaign, client)
            except UserError as error:
                if str(error) != away:
                    reporter.say(f"review {name}: {error}")
                away = str(error)
                continue
            if away or found.votes != before.votes or found.rejects != before.rejects:
                reporter.say(f"review {name}: {found.votes} votes, {found.rejects} of no use")
            away, before = "", found
