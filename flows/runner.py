"""Run a stage unless it is published: the store is the only truth about what is done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flows.plan import Plan
from flows.progress import Reporter
from pipelines.config import Advance, Config
from pipelines.journal import Journaled
from pipelines.store import Draft, Key, Output, Published, Store
from schemas.errors import EngineError, UserError
from schemas.records import Reject

Result = TypeVar("Result")
Call = Callable[[str, Callable[[], None]], None]
"""Runs a named piece of work: plainly, or as a Prefect task."""


def plainly(name: str, work: Callable[[], None]) -> None:
    """The `Call` that just calls."""
    work()


@dataclass
class Run:
    """What every stage of one run shares, and what has been published so far."""

    plan: Plan
    store: Store
    engines: dict[str, Journaled]
    reporter: Reporter
    call: Call = plainly
    published: dict[str, Published] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)
    dry: bool = False
    """Only look: `stage` raises Missing at the first output that is not published."""


class Missing(Exception):
    """An output is not published yet."""


@dataclass(frozen=True)
class Step:
    """One stage of a run: what it is made from, and how many units of work it has."""

    name: str
    """Its name in this run, such as `eval.generate.0`."""
    stage: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]
    engine: Journaled | None = None
    others: tuple[Journaled, ...] = ()
    """Further engines that are asked; their identities are among the inputs."""


def stage(
    run: Run,
    step: Step,
    work: Callable[[Draft, Advance], int],
    total: Callable[[], int],
    seed: int | None = None,
) -> Published:
    """The step's published output, made now if it is not there.

    `work` fills the draft and returns the number of its units; `total` tells how many rows that is,
    for the progress bar.
    """
    key = Key(
        stage=step.stage,
        version=step.version,
        config=step.config,
        inputs=step.inputs,
        seed=run.plan.seed if seed is None else seed,
        engine=step.engine.identity.as_dict() if step.engine else None,
    )
    output = run.store.find(key.stage, key.digest)
    if output is None and run.dry:
        raise Missing(step.name)
    if output is None:
        with run.store.draft(key) as draft:
            if isinstance(draft, Published):
                output = draft
            else:
                with run.reporter.stage(
                    step.name, total(), _spent((step.engine, *step.others))
                ) as advance:
                    output = draft.publish(work(draft, advance))
                run.computed.append(step.name)
    run.published[step.name] = output
    return output


def _spent(engines: Sequence[Journaled | None]) -> Callable[[], float] | None:
    """What the engines cost from now on."""
    used = [engine for engine in engines if engine is not None]
    if not used:
        return None
    before = sum(engine.spent for engine in used)
    return lambda: sum(engine.spent for engine in used) - before


def units(
    run: Run,
    step: Step,
    count: int,
    work: Callable[[int, Advance], tuple[Output, dict[str, Any]]],
) -> Callable[[Draft, Advance], int]:
    """Work that comes in `count` units, each kept as soon as it is done."""

    def fill(draft: Draft, advance: Advance) -> int:
        for unit in range(count):
            note = draft.done(unit)
            if note is not None:
                advance(note["facts"].get("rows", 0), 0)
                continue

            def one(unit: int = unit) -> None:
                output, facts = work(unit, advance)
                draft.write(unit, output, facts)

            run.call(f"{step.name}-{unit:05d}", one)
        return count

    return fill


def whole(
    run: Run, step: Step, work: Callable[[Draft, Advance], tuple[Output, dict[str, Any]]]
) -> Callable[[Draft, Advance], int]:
    """Work that is one unit, and may put files into the draft's folder."""

    def fill(draft: Draft, advance: Advance) -> int:
        def one() -> None:
            output, facts = work(draft, advance)
            draft.write(0, output, facts)

        if draft.done(0) is None:
            run.call(step.name, one)
        return 1

    return fill


def ask(engines: Sequence[Journaled], work: Callable[[], Awaitable[Result]]) -> Result:
    """Run a coroutine that asks engines, with the engines open.

    Where an engine turns out to be of no use, what was not answered before is asked again by the
    next try.
    """

    found: list[Result] = []

    async def opened() -> None:
        # asyncio.run makes the text of what it returns, which takes long for a hundred thousand rows.
        async with AsyncExitStack() as stack:
            for engine in engines:
                await stack.enter_async_context(engine)
            found.append(await work())

    try:
        asyncio.run(opened())
        return found[0]
    except EngineError:
        _forget_failures(engines)
        raise


def _forget_failures(engines: Sequence[Journaled]) -> None:
    for engine in engines:
        engine.journal.forget_failures(engine.identity.digest)


def check_failures(
    run: Run,
    engines: Sequence[Journaled],
    stage_name: str,
    rejects: Sequence[Reject],
    requests: int,
) -> None:
    """Stop the run where too many requests of one unit got no usable answer.

    The unusable replies are forgotten, so that the same command asks them again once the engine
    is mended; usable ones are kept.
    """
    failed = [r for r in rejects if r.code not in _NOT_THE_ENGINE]
    if requests < 1 or len(failed) / requests <= run.plan.failure_limit:
        return
    code, count = Counter(r.code for r in failed).most_common(1)[0]
    example = next(r.detail for r in failed if r.code == code)
    _forget_failures(engines)
    raise UserError(
        f"{stage_name}: {len(failed)} of {requests} requests got no usable answer, {count} times "
        f"{code} ({example[:120]}); mend the engine or raise failure_limit, then run again: usable "
        "answers are kept"
    )


_NOT_THE_ENGINE = frozenset(
    {
        *("no_reference", "no_steps", "same_text", "over_limit", "not_selected"),
        *("too_hard", "too_easy", "over_budget", "no_answer"),
        *("missing_prompt", "missing_response", "empty_criterion", "names_a_response"),
        *("evidence_not_found", "one_annotator", "annotators_disagree", "duplicate_criterion"),
    }
)


def settings(config: Config, *without: str) -> dict[str, Any]:
    """A config as a digest sees it: without addresses, whose content is an input of its own."""
    return config.model_dump(mode="json", exclude=set(without))


def digests(**outputs: Published | None) -> dict[str, str]:
    """Inputs of a step by name; an input that this plan does not have is left out."""
    return {name: output.manifest.digest for name, output in outputs.items() if output is not None}
