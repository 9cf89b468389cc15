"""Engines of a plan, each behind the journal."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from flows.plan import EngineConfig, Plan
from pipelines.durable import write_durably
from pipelines.engines.base import Engine, Identity
from pipelines.engines.local import LocalConfig, LocalEngine
from pipelines.engines.openai import OpenAIConfig, OpenAIEngine
from pipelines.engines.scripted import ScriptedConfig, ScriptedEngine
from pipelines.engines.vllm import VLLMEngine
from pipelines.journal import Journal, Journaled
from pipelines.judge import panel
from pipelines.store import Store
from schemas.errors import EngineDown
from schemas.record import digest

log = logging.getLogger(__name__)


def build(plan: Plan, store: Store, journal: Journal) -> dict[str, Journaled]:
    """The engines that the plan asks. Servers are asked who they are; nothing else is started."""
    used = {plan.generate.engine}
    if plan.process is not None:
        asked = (plan.process.engine, plan.process.prover, plan.process.judge)
        used.update(name for name in asked if name is not None)
    for judge in plan.judge.panel.values():
        used.update(panel.engines_of(judge))
    if plan.rubrics is not None:
        both = (plan.rubrics.engine, plan.rubrics.judge)
        used.update(name for name in both if name is not None)
    if plan.evaluate is not None:
        used.add(plan.evaluate.generate.engine)
    return {
        name: Journaled(_engine(config, store.root / "engines"), journal, _prices(config))
        for name, config in plan.engines.items()
        if name in used
    }


def _prices(config: EngineConfig) -> tuple[float, float]:
    if isinstance(config, OpenAIConfig):
        return config.price_prompt, config.price_completion
    return 0.0, 0.0


def _engine(config: EngineConfig, memory: Path) -> Engine:
    if isinstance(config, ScriptedConfig):
        return ScriptedEngine(config)
    if isinstance(config, LocalConfig):
        return LocalEngine(config)
    if isinstance(config, OpenAIConfig):
        return OpenAIEngine(config, _who(config, memory))
    return VLLMEngine(config)


def identify(config: EngineConfig) -> Identity:
    """Who answers under this config, asked now. Raises EngineError where nobody does."""
    if isinstance(config, OpenAIConfig):
        return asyncio.run(OpenAIEngine(config).probe())
    return _engine(config, Path()).identity


def _who(config: OpenAIConfig, memory: Path) -> Identity:
    """Ask the servers who they are; if none answers, what they said last.

    A run that has all its answers then still ends while the server is away; one that has not
    stops at its first request with the server's name.
    """
    place = memory / f"{digest(config.model_dump(mode='json'))}.json"
    try:
        identity = asyncio.run(OpenAIEngine(config).probe())
    except EngineDown as error:
        if not place.exists():
            raise
        log.warning("%s; going on with what is known of it", error)
        return Identity(**json.loads(place.read_text()))
    memory.mkdir(exist_ok=True)
    write_durably(place, json.dumps(identity.as_dict(), sort_keys=True).encode())
    return identity
