"""Judging: how fast requests to an LLM judge become votes, and how much memory that takes.

The pairwise judge in both orders, with a rubric, through the journal (one durable SQLite commit a
batch of replies), to the votes as a table with ids. The engine costs nothing: it answers every
request with the same verdict, which is read and checked like any other. Prompts, responses and
criteria have the sizes of chat data. Every measurement has a fresh process and a fresh journal.

Figures: `votes_per_s` (wall clock, best of the repetitions: others on the machine only ever slow a
run down), `votes_per_cpu_s` of the measured process, `peak_mib` of all, `judging_bytes_per_vote`:
what judging and its votes' table add to the peak of the cases alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Result, options, peak_mib, report, say

PAIRS = {"full": 100_000, "quick": 10_000}
PAIRS_A_PROMPT = 4
VERDICT = (
    '{"reasoning": "A keeps to the limit and its sum is right.", "winner": "A", "strength": 2}'
)
QUESTION = "Ana has {} pens, gets 4 more and loses 2. How many has she? Explain it to a child. " * 3
RESPONSE = "First, count what Ana has at the start, which is {}. Then add what she gets. " * 10
CRITERIA = (
    "The final count is stated as a number.",
    "Every step of the calculation is shown before its result.",
    "A child understands the words.",
)


def measure(folder: str, pairs: int) -> dict[str, float]:
    """Judge so many pairs with a journal in `folder`; rates and peak memory of this process."""
    from pipelines.engines.scripted import ScriptedConfig, ScriptedEngine
    from pipelines.journal import Journal, Journaled
    from pipelines.judge.cases import Opinions
    from pipelines.judge.llm import PairwiseConfig, judge
    from schemas.records import Vote

    cases = made(pairs)
    config = PairwiseConfig(engine="judge", rubric=True, think=True)
    journal = Journal(Path(folder) / "journal.sqlite")
    finished = 0
    before = peak_mib()

    def advance(rows: int, tokens: int) -> None:
        nonlocal finished
        finished += rows

    found: list[Opinions] = []

    async def run() -> None:
        async with Journaled(ScriptedEngine(ScriptedConfig(replies=(VERDICT,))), journal) as engine:
            # Not returned: asyncio.run writes out, as text, what its coroutine returns.
            found.append(await judge("constant", config, cases, {"judge": engine}, 0, advance))

    try:
        wall, cpu = time.perf_counter(), time.process_time()
        asyncio.run(run())
        opinions = found[0]
        table = Vote.to_table(opinions.votes)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        kept = journal.count()
    finally:
        journal.close()
    votes = 2 * pairs
    if not table.num_rows == kept == votes or finished != pairs or opinions.rejects:
        raise RuntimeError(f"{votes} votes asked for, {table.num_rows} made, {kept} kept")
    return {
        "votes": votes,
        "wall_s": wall,
        "cpu_s": cpu,
        "votes_per_s": votes / wall,
        "votes_per_cpu_s": votes / cpu,
        "peak_mib": peak_mib(),
        "judging_bytes_per_vote": (peak_mib() - before) * 2**20 / votes,
    }


def made(pairs: int) -> list[Any]:
    """Cases of their own: no two requests are the same."""
    from pipelines.judge.cases import Case
    from schemas.records import Criterion, Message, Pair, Prompt, Response

    rubric = tuple(Criterion(kind="principle", text=text) for text in CRITERIA)
    cases = []
    for index in range(pairs):
        if index % PAIRS_A_PROMPT == 0:
            messages = (Message(role="user", content=QUESTION.format(*[index] * 3)),)
            prompt = Prompt(messages=messages, source="benchmark")
        a, b = (
            Response(
                prompt_id=prompt.id,
                engine="e",
                model="m",
                sample_index=2 * (index % PAIRS_A_PROMPT) + place,
                text=RESPONSE.format(*[f"{index} {place}"] * 10),
                prompt_tokens=60,
                completion_tokens=180,
                finish_reason="stop",
            )
            for place in range(2)
        )
        pair = Pair(prompt_id=prompt.id, response_a=a.id, response_b=b.id)
        cases.append(Case(prompt, pair, a, b, rubric))
    return cases


def fresh(pairs: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="judging-") as folder:
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(1) as pool:
            found = pool.apply(measure, (folder, pairs))
    say(str(found))
    return found


def main(argv: list[str] | None = None) -> dict[str, Any]:
    chosen = options(__doc__ or "", seeds=3, argv=argv)
    pairs = PAIRS["quick" if chosen.quick else "full"]
    runs = [fresh(pairs) for _ in range(chosen.seeds)]
    result = Result("judging", list(range(chosen.seeds)))
    for rate in ("votes_per_s", "votes_per_cpu_s"):
        values = [run[rate] for run in runs]
        result.figures[rate] = max(values)
        result.intervals[rate] = (min(values), max(values))
    for most in ("peak_mib", "judging_bytes_per_vote"):
        result.figures[most] = max(run[most] for run in runs)
    result.tables = {"runs": runs}
    return report(result, chosen)


if __name__ == "__main__":
    main()
