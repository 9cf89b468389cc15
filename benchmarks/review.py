"""Human review at size: push and pull a campaign on a real Label Studio server (SQLite).

A server is started from its own environment. The same tasks are stored by the server's bulk import
alone (plain requests of 5,000 tasks, nothing checked, once before the push and once after, each time
into a project of its own: an import takes the longer the more tasks its project holds) and by `push`,
which checks, notes and can be killed at any moment. Then some answers are entered, and
pulled: everything, then again when ten more have come in.

    python -m benchmarks.review [--quick] [--seeds N] [--out FILE] [--tasks N]
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from annotation.campaign import Campaign
from annotation.client import Client
from annotation.configs import PairItem
from annotation.ledger import Ledger
from annotation.pull import pull
from annotation.push import push
from annotation.tasks import Question
from benchmarks.harness import Result, options, peak_mib, report, say
from tests.servers import label_studio

WORDS = [
    "the",
    "model",
    "answers",
    "a",
    "question",
    "about",
    "numbers",
    "because",
    "it",
    "was",
    "asked",
    "to",
    "and",
    "so",
    "we",
    "read",
    "on",
]
IMPORT = 5000
ANSWERS = 200


def questions(n: int, seed: int) -> Iterator[Question]:
    """Pairs of about 2,000 characters, made as they are asked for, at next to no cost."""
    coin = random.Random(seed)
    texts = [" ".join(coin.choices(WORDS, k=180)) for _ in range(1000)]
    for i in range(n):
        item = PairItem(f"{i}: {texts[i % 997][:300]}", texts[i % 1000], texts[(i + 7) % 991])
        yield Question(f"pair-{i:06d}", item, (f"a-{i}", f"b-{i}"))


def bulk(url: str, token: str, n: int, seed: int, config: str, seconds: Any) -> None:
    """The server's import alone; adds the seconds that the requests took."""
    headers = {"Authorization": f"Token {token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=600, trust_env=False) as client:
        made = client.post("/api/projects/", json={"title": "bulk alone", "label_config": config})
        place = f"/api/projects/{made.raise_for_status().json()['id']}/import?return_task_ids=true"
        group: list[dict[str, dict[str, str]]] = []
        for i, q in enumerate(questions(n, seed), 1):
            assert isinstance(q.item, PairItem)
            data = {"prompt": q.item.prompt, "first": q.item.a, "second": q.item.b}
            group.append({"data": {**data, "external_id": f"{i:032x}"}})
            if len(group) == IMPORT or i == n:
                began = time.monotonic()
                client.post(place, json=group).raise_for_status()
                seconds.value += time.monotonic() - began
                group = []


def in_a_process(url: str, token: str, n: int, seed: int, config: str) -> float:
    """`bulk` in a process of its own, so that its memory is not counted as ours."""
    spawn = multiprocessing.get_context("spawn")
    seconds = spawn.Value("d", 0.0)
    child = spawn.Process(target=bulk, args=(url, token, n, seed, config, seconds))
    child.start()
    child.join()
    assert child.exitcode == 0
    return float(seconds.value)


def measure(n: int, seed: int, folder: Path) -> dict[str, float]:
    found: dict[str, float] = {"tasks": n}
    with label_studio.server(folder / "server") as server:
        client = Client(server.url, server.account.token)
        campaign = Campaign("benchmark", folder / "campaign", seed=seed)
        token, config = server.account.token, campaign.label_config
        alone = [in_a_process(server.url, token, n, seed, config)]
        say(f"bulk import alone: {alone[0]:.1f} s")
        found["start_mib"] = peak_mib()
        began = time.monotonic()
        push(campaign, client, questions(n, seed))
        found["push_s"] = time.monotonic() - began
        found["push_peak_mib"] = peak_mib()
        say(f"push: {found['push_s']:.1f} s")
        alone.append(in_a_process(server.url, token, n, seed, config))
        say(f"bulk import alone, again: {alone[1]:.1f} s")
        found["bulk_s"] = sum(alone) / 2
        found["push_of_bulk_rate"] = found["bulk_s"] / found["push_s"]
        began = time.monotonic()
        again = push(campaign, client, questions(n, seed))
        found["push_again_s"] = time.monotonic() - began
        assert (again.new, again.already) == (0, n)

        with label_studio.owner(server) as owner:
            person = label_studio.Person(owner, "one@example.org")
        ledger = Ledger(campaign.folder / "ledger.sqlite")
        last = ledger.last_task()
        ledger.close()
        answers = min(ANSWERS, n // 4)
        for i in range(answers):
            person.answer(last - i, "2")
        began = time.monotonic()
        assert pull(campaign, client).votes == answers
        found["pull_whole_s"] = time.monotonic() - began
        for i in range(10):
            person.answer(last - answers - i, "2")
        began = time.monotonic()
        assert pull(campaign, client).votes == answers + 10
        found["pull_again_s"] = time.monotonic() - began
        found["pull_peak_mib"] = peak_mib()
    return found


def main() -> None:
    argv, n = sys.argv[1:], None
    if "--tasks" in argv:
        at = argv.index("--tasks")
        n = int(argv[at + 1])
        del argv[at : at + 2]
    chosen = options(__doc__ or "", seeds=1, argv=argv)
    n = n or (1000 if chosen.quick else 50_000)
    runs = []
    for seed in range(chosen.seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(n, seed, Path(folder)))
    result = Result("review", list(range(chosen.seeds)))
    result.figures = {k: sum(r[k] for r in runs) / len(runs) for k in runs[0]}
    result.tables["runs"] = runs
    report(result, chosen)


if __name__ == "__main__":
    main()
