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
`utilisation_openai`. In the table: `loop_share`, CPU seconds of the thread that does everything but
the engine's work, over seconds of the run.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple, Self

from benchmarks.harness import REPO, Options, say
from pipelines.engines.base import Engine, Identity, Reply, Request, Tokens
from pipelines.generate import GenerateConfig, generate
from pipelines.grading import Solution, grade_all
from pipelines.journal import Journal, Journaled
from pipelines.process.config import OmegaConfig, ProcessConfig
from pipelines.process.label import Engines, label_steps
from pipelines.sampling import SamplingConfig
from schemas.records import Message, Prompt, Response

Measured = tuple[dict[str, float], dict[str, tuple[float, float]], dict[str, Any]]
"""Figures, their intervals, tables."""

METHODS = ("changepoint", "monte_carlo", "omega")
SAMPLES, PER_PROMPT = 8, 4
"""Responses a problem, and how many of them are labelled."""
SAMPLING = SamplingConfig(max_tokens=96)
POLICY = REPO / "data" / "policy"


class Size(NamedTuple):
    """How much is labelled: problems, and OmegaPRM's searches of each."""

    problems: int
    searches: int


FULL, QUICK = Size(100, 16), Size(16, 4)


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


def settings(method: str, size: Size) -> ProcessConfig:
    """As a plan has it, with fewer searches: each takes as long as the ones before it."""
    omega = OmegaConfig(searches=size.searches) if method == "omega" else None
    return ProcessConfig.model_validate(
        {
            "engine": "policy",
            "method": method,
            "per_prompt": PER_PROMPT,
            "sampling": SAMPLING,
            "omega": omega,
        }
    )


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
                wall, loop = time.perf_counter(), time.thread_time()
                await label_steps(
                    work.prompts, work.responses, Engines(asked), config, work.seed, advance
                )
                return Timed(tokens, time.perf_counter() - wall, time.thread_time() - loop)

    return asyncio.run(run()), noted.requests


def plain(engine: Engine, requests: Sequence[Request]) -> Timed:
    """Time one batch of all requests, in their order."""

    async def run() -> Timed:
        with journaled(engine) as asked:
            async with asked:
                wall, loop = time.perf_counter(), time.thread_time()
                replies = await asyncio.gather(*(asked.complete(r) for r in requests))
                tokens = sum(reply.completion_tokens for reply in replies)
                return Timed(tokens, time.perf_counter() - wall, time.thread_time() - loop)

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
    }


def rows(
    engine: Engine,
    seeds: Sequence[int],
    size: Size,
    empty: Callable[[], None] = lambda: None,
    methods: Sequence[str] = METHODS,
) -> dict[str, list[dict[str, float]]]:
    """Pairs by method, one a seed."""
    found: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    # What is loaded and compiled at first use is not to count.
    pair(engine, respond(engine, 4, 1), settings("monte_carlo", size), empty)
    for seed in seeds:
        work = respond(engine, size.problems, seed)
        for method in methods:
            found[method].append(pair(engine, work, settings(method, size), empty))
            say(f"seed {seed} {method}: {found[method][-1]}")
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
        with_server = f"{server.url.removesuffix('/v1')}/reset_prefix_cache"

        def empty() -> None:
            urllib.request.urlopen(urllib.request.Request(with_server, method="POST")).close()

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

    size = QUICK if chosen.quick else FULL
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for dtype in ("float64", "float32"):
        local = LocalEngine(LocalConfig(model=str(POLICY), dtype=dtype, threads=1))
        found[f"local {dtype}"] = rows(local, seeds, size)
    tables: dict[str, Any] = {"size": size._asdict()}
    if not chosen.quick:  # a server takes longer to start than a first look may
        try:
            with served() as (engine, empty):
                found["openai"] = rows(engine, seeds, size, empty)
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
                worst = own if worst is None or own[0] < worst[0] else worst
        if worst is not None:
            figures[f"utilisation_{kind}"], intervals[f"utilisation_{kind}"] = worst
    kinds = [f"utilisation_{k}" for k in ("local", "openai") if f"utilisation_{k}" in figures]
    least = min(kinds, key=figures.__getitem__)
    figures["utilisation"], intervals["utilisation"] = figures[least], intervals[least]
    return figures, intervals
