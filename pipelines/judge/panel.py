"""The panel: every kind of judge that is asked, behind one function."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

from pipelines.config import Advance
from pipelines.judge import code, likelihood, llm, probes, reward_model
from pipelines.judge.cases import Case, Engines, Opinions
from pipelines.judge.config import PanelJudge
from pipelines.judge.probes import ProbesConfig
from pipelines.judge.reward_model import Held as Held
from pipelines.judge.reward_model import RewardModelConfig
from schemas.records import JudgeCard, Reject

VERSION = 1

_MODULES: dict[str, ModuleType] = {
    **dict.fromkeys(("pairwise", "pointwise", "listwise"), llm),
    "likelihood": likelihood,
    **dict.fromkeys(("reward_model", "reward_server"), reward_model),
    "code": code,
}
_ROLES = ("engine", "against")
"""Keys of a judge's config that name an engine."""


def roles(config: PanelJudge) -> list[tuple[str, str]]:
    """The engines that a judge asks: role and name."""
    found = ((role, getattr(config, role, None)) for role in _ROLES)
    return [(role, name) for role, name in found if name is not None]


def engines_of(config: PanelJudge) -> list[str]:
    """Names of the engines that a judge asks, each once."""
    return list(dict.fromkeys(name for _, name in roles(config)))


def material(config: PanelJudge) -> str | None:
    """Digest of what else decides a judge's votes: its prompt templates, or its model's folder."""
    found: str | None = _MODULES[config.kind].material(config)
    return found


def holding(config: PanelJudge) -> AbstractContextManager[Held | None]:
    """Keeps from call to call what a judge loads: a reward model in this process, or nothing."""
    return Held(config) if isinstance(config, RewardModelConfig) else nullcontext()


async def judge(
    name: str,
    config: PanelJudge,
    cases: Sequence[Case],
    engines: Engines,
    seed: int,
    advance: Advance,
    held: Held | None = None,
) -> Opinions:
    """One judge's votes on some cases; see `cases` for the contract."""
    if isinstance(config, RewardModelConfig):
        return await reward_model.judge(name, config, cases, engines, seed, advance, held)
    found: Opinions = await _MODULES[config.kind].judge(name, config, cases, engines, seed, advance)
    return found


async def probe(
    name: str,
    config: PanelJudge,
    probing: ProbesConfig,
    engines: Engines,
    seed: int,
    advance: Advance,
    held: Held | None = None,
) -> tuple[list[JudgeCard], list[Reject]]:
    """A judge's card: what it says of the probe set."""
    asked = probes.probe_cases(probing)
    done = await judge(name, config, [p.case for p in asked], engines, seed, advance, held)
    return probes.card_of(name, asked, done, probing), done.rejects
