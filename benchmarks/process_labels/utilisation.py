"""Engine utilisation: tokens/s of a labelling run over tokens/s of one plain batch of its requests.

A labelling run (the stage, through the journal, as a run of a plan has it) notes what it asks. Then
the same requests go to the same engine all at once, in the order of the run, through a fresh
journal, and nothing else is done: prompts, prefixes and lengths are equal. Both begin with an empty
prefix cache. One such pair a seed, each with problems of its own: others on the machine slow both
runs of a pair. The problems are those that the policy answers now right, now wrong, of which half
the responses are labelled: the others need next to no rollouts under any method.

Engines: `local` (the bundled policy, float64 and float32, one thread: the labelling run's own work
has the other core) and `openai` (`completions`, a vLLM server on the CPU). Figures:
`utilisation_local` and `utilisation_openai`: the least of the engine's medians over seeds, one a
method; `utilisation`: the smaller of the two. A machine that cannot have vLLM has no
`utilisation_openai`. `omega` draws all k rollouts of a prefix at once, as published;
`omega_curtailed` asks a question's rollouts one at a time and so needs several times as many
questions to fill a batch: it has figures of its own and no part in those three.

Beside each: `*_loop_share`, CPU seconds of the thread that does everything but the engine's work,
over seconds of the labelling run; and for `local` `*_engine_cpu`, the engine's CPU seconds in the
plain batch over those in the labelling run: what small batches cost, whoever else is on the machine.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple, Self

from benchmarks.harness import REPO, Options, say
from pipelines.engines.base import Engine, Identity, Reply, Request, Tokens
from pipelines.generate import GenerateConfig, generate
from pipelines.grading import Solution, grade_all
from pipelines.journal import Journal, Journaled
from pipelines.process.config import ProcessConfig
from pipelines.process.label import Engines, label_steps
from pipelines.sampling import SamplingConfig
from schemas.records import Message, Prompt, Response

Measured = tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, Any]]
"""Figures, their intervals, tables."""

METHODS: dict[str, dict[str, Any]] = {
    "changepoint": {"method": "changepoint"},
    "monte_carlo": {"method": "monte_carlo"},
    "omega": {"method": "omega", "stop_at": 0},
    "omega_curtailed": {"method": "omega"},
}
APART = ("omega_curtailed",)
SAMPLES, PER_PROMPT = 8, 4
"""Responses a problem, and how many of them are labelled."""
DTYPES: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
SAMPLING = SamplingConfig(max_tokens=96)
POLICY = REPO / "data" / "policy"


FULL, QUICK = 200, 12
"""Problems."""
PAIRS = 3
"""Most seeds that are taken: a pair takes minutes."""


@dataclass
class Noted:
    """An engine whose requests are noted in the order in which they are asked."""

    engine: Engine
    requests: list[Request] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        """As the engine says."""
        return self.engine.identity

    @property
    def concurrency(self) -> int:
        """As the engine says."""
        return self.engine.concurrency

    def tokens(self, text: str) -> Tokens | None:
        """As the engine says."""
        return self.engine.tokens(text)

    async def __aenter__(self) -> Self:
        await self.engine.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.engine.__aexit__(*exc)

    async def complete(self, request: Request) -> Reply:
        """Note it, then ask."""
        self.requests.append(request)
        return await self.engine.complete(request)


class Timed(NamedTuple):
    """What a run wrote and took."""

    tokens: int
    seconds: float
    loop_s: float
    """CPU seconds of the event loop's thread."""
    others_s: float
    """CPU seconds of this process's other threads: the local engine's, next to nothing else's."""

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


@contextmanager
def journaled(engine: Engine) -> Iterator[Journaled]:
    """The engine behind a journal of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="utilisation-") as folder:
        journal = Journal(Path(folder, "journal.sqlite"))
        try:
            yield Journaled(engine, journal)
        finally:
            journal.close()


class Work(NamedTuple):
    """Problems and the policy's responses to them."""

    prompts: list[Prompt]
    responses: list[Response]
    seed: int

    @property
    def solutions(self) -> int:
        """How many of the responses are labelled."""
        texts = Counter(prompt for prompt, _ in {(r.prompt_id, r.text) for r in self.responses})
        return sum(min(PER_PROMPT, count) for count in texts.values())


def problems(count: int, seed: int) -> list[Prompt]:
    """Word problems as prompts."""
    from data import word_problems

    return [
        Prompt(
            messages=(Message(role="user", content=problem.text),),
            reference=str(problem.answer),
            task="math",
            verifier="numeric",
            source="word_problems",
        )
        for problem in word_problems.generate(count, seed)
    ]


def respond(engine: Engine, count: int, seed: int) -> Work:
    """Problems that the engine answers now right, now wrong, and its responses."""
    prompts = problems(5 * count, seed)
    config = GenerateConfig(engine="policy", samples=SAMPLES, sampling=SAMPLING)

    async def run() -> list[Response]:
        async with engine:
            return (await generate(prompts, engine, config, seed))[0]

    of: dict[str, list[Response]] = {prompt.id: [] for prompt in prompts}
    for response in asyncio.run(run()):
        of[response.prompt_id].append(response)
    chosen = [prompt for prompt in prompts if _mixed(prompt, of[prompt.id])][:count]
    if len(chosen) < count:
        raise RuntimeError(f"{len(chosen)} of {len(prompts)} problems are now right, now wrong")
    return Work(chosen, [response for prompt in chosen for response in of[prompt.id]], seed)


def _mixed(prompt: Prompt, responses: Sequence[Response]) -> bool:
    graded = grade_all([Solution(prompt, r.text, r.finish_reason == "length") for r in responses])
    return {"right", "wrong"} <= {grade.outcome for grade in graded}


def settings(method: str) -> ProcessConfig:
    """As a plan has it."""
    return ProcessConfig.model_validate(
        {"engine": "policy", "per_prompt": PER_PROMPT, "sampling": SAMPLING, **METHODS[method]}
    )


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        return time.perf_counter(), time.thread_time(), time.process_time()

    def timed(self, tokens: int) -> Timed:
        """What was written since then."""
        wall, loop, cpu = (b - a for a, b in zip(self._began, self._now(), strict=True))
        return Timed(tokens, wall, loop, cpu - loop)


def labelling(engine: Engine, work: Work, config: ProcessConfig) -> tuple[Timed, list[Request]]:
    """Time the stage; the requests that it made."""
    noted = Noted(engine)
    tokens = 0

    def advance(rows: int, written: int) -> None:
        nonlocal tokens
        tokens += written

    async def run() -> Timed:
        with journaled(noted) as asked:
            async with asked:
                clock = Clock()
                await label_steps(
                    work.prompts, work.responses, Engines(asked), config, work.seed, advance
                )
                return clock.timed(tokens)

    return asyncio.run(run()), noted.requests


def plain(engine: Engine, requests: Sequence[Request]) -> Timed:
    """Time one batch of all requests, in their order."""

    async def run() -> Timed:
        with journaled(engine) as asked:
            async with asked:
                clock = Clock()
                replies = await asyncio.gather(*(asked.complete(r) for r in requests))
                tokens = sum(reply.completion_tokens for reply in replies)
                return clock.timed(tokens)

    return asyncio.run(run())


def pair(
    engine: Engine, work: Work, config: ProcessConfig, empty: Callable[[], None]
) -> dict[str, float]:
    """A labelling run and its plain batch; `empty` empties a prefix cache that outlives a run."""
    empty()
    labelled, requests = labelling(engine, work, config)
    empty()
    batch = plain(engine, requests)
    return {
        "utilisation": labelled.rate / batch.rate,
        "requests": len(requests),
        "tokens": labelled.tokens,
        "tokens_plain": batch.tokens,
        "seconds": labelled.seconds,
        "seconds_plain": batch.seconds,
        "loop_share": labelled.loop_s / labelled.seconds,
        "loop_share_plain": batch.loop_s / batch.seconds,
        "other_cpu_s": labelled.others_s,
        "other_cpu_s_plain": batch.others_s,
    }


def rows(
    engine: Engine,
    works: Sequence[Work],
    empty: Callable[[], None] = lambda: None,
    methods: Sequence[str] = tuple(METHODS),
) -> dict[str, list[dict[str, float]]]:
    """Pairs by method, one a piece of work."""
    found: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    # What is loaded and compiled at first use is not to count.
    pair(engine, works[0], settings("monte_carlo"), empty)
    for work in works:
        for method in methods:
            found[method].append(pair(engine, work, settings(method), empty))
            say(f"{engine.identity.kind} seed {work.seed} {method}: {found[method][-1]}")
    return found


@contextmanager
def served() -> Iterator[tuple[Engine, Callable[[], None]]]:
    """The `openai` engine on a vLLM server of the bundled policy, and what empties its cache.

    Raises Unavailable where this machine cannot have vLLM.
    """
    from pipelines.engines.openai import OpenAIConfig, OpenAIEngine
    from tests.servers.vllm_server import VLLMServer, python_with_vllm

    python = python_with_vllm()
    # vLLM lets its prefix cache be emptied in this mode alone.
    mode = {"VLLM_SERVER_DEV_MODE": "1"}
    before = {name: os.environ.get(name) for name in mode}
    with tempfile.TemporaryDirectory(prefix="utilisation-") as folder:
        os.environ.update(mode)
        try:
            server = VLLMServer(python, POLICY, Path(folder, "server.log"))
            server.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        address = f"{server.url.removesuffix('/v1')}/reset_prefix_cache"

        def empty() -> None:
            urllib.request.urlopen(urllib.request.Request(address, method="POST")).close()

        try:
            config = OpenAIConfig(
                kind="openai",
                base_urls=(server.url,),
                endpoint="completions",
                template=str(POLICY),
            )
            engine = OpenAIEngine(config)
            asyncio.run(engine.probe())
            yield engine, empty
        finally:
            server.stop()


def measure(chosen: Options, seeds: Sequence[int]) -> Measured:
    """Pairs on both engines."""
    from pipelines.engines.local import LocalConfig, LocalEngine
    from tests.servers.vllm_server import Unavailable

    engines = {
        dtype: LocalEngine(LocalConfig(model=str(POLICY), dtype=dtype, threads=1))
        for dtype in (DTYPES[:1] if chosen.quick else DTYPES)
    }
    # All engines label the same responses.
    works = [
        respond(engines["float64"], QUICK if chosen.quick else FULL, seed) for seed in seeds[:PAIRS]
    ]
    found = {f"local {dtype}": rows(engine, works) for dtype, engine in engines.items()}
    tables: dict[str, Any] = {
        "problems": len(works[0].prompts),
        "solutions": [work.solutions for work in works],
    }
    if not chosen.quick:  # a server takes longer to start than a first look may
        try:
            with served() as (server, empty):
                found["openai"] = rows(server, works, empty)
        except Unavailable as why:
            tables["openai_left_out"] = str(why)
            say(str(why))
    figures, intervals = summary(found)
    return figures, intervals, {**tables, **found}


def summary(
    found: dict[str, dict[str, list[dict[str, float]]]],
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Medians over seeds and their ranges; an engine's figure is that of its worst method."""
    figures: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for kind in ("local", "openai"):
        worst: tuple[float, tuple[float, float]] | None = None
        for name, methods in found.items():
            if not name.startswith(kind):
                continue
            for method, pairs in methods.items():
                values = [one["utilisation"] for one in pairs]
                own = (median(values), (min(values), max(values)))
                key = f"utilisation_{name.replace(' ', '_')}_{method}"
                figures[key], intervals[key] = own
                figures[f"{key}_loop_share"] = fmean(one["loop_share"] for one in pairs)
                if kind == "local":
                    cpu = [one["other_cpu_s_plain"] / one["other_cpu_s"] for one in pairs]
                    figures[f"{key}_engine_cpu"] = median(cpu)
                if method in APART:
                    continue
                worst = own if worst is None or own[0] < worst[0] else worst
        if worst is not None:
            figures[f"utilisation_{kind}"], intervals[f"utilisation_{kind}"] = worst
    kinds = [f"utilisation_{k}" for k in ("local", "openai") if f"utilisation_{k}" in figures]
    least = min(kinds, key=figures.__getitem__)
    figures["utilisation"], intervals["utilisation"] = figures[least], intervals[least]
    return figures, intervals
