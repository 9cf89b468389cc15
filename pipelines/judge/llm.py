"""LLM judges: pairwise, pointwise and listwise, by words or by log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.config import Advance, silent
from pipelines.judge import listwise, pairwise, pointwise
from pipelines.judge.cases import Case, Engines, Opinions
from pipelines.judge.listwise import ListwiseConfig as ListwiseConfig
from pipelines.judge.pairwise import PairwiseConfig as PairwiseConfig
from pipelines.judge.pointwise import PointwiseConfig as PointwiseConfig
from pipelines.judge.verdicts import TEMPLATES, Asker
from pipelines.prompting import load
from schemas.errors import UserError
from schemas.record import digest

NAME = "llm"
VERSION = 1

Judge = PairwiseConfig | PointwiseConfig | ListwiseConfig


async def judge(
    name: str,
    config: Judge,
    cases: Sequence[Case],
    engines: Engines,
    seed: int,
    advance: Advance = silent,
) -> Opinions:
    """The votes on some cases, in their order (see pipelines/judge/cases.py).

    Requests that show the same are sent once. A request without a usable reply after two repeats is
    a Reject; a vote that rests on such requests alone has no value and their code as its reason.
    `advance` is told of every case once, and of the tokens of all replies but those whose
    log-probabilities alone are read. Raises UserError where the plan names no such engine or prompt.
    """
    engine = engines.get(config.engine)
    if engine is None:
        raise UserError(f"judge {name}: the plan has no engine {config.engine!r}")
    if isinstance(config, PointwiseConfig):
        return await pointwise.votes(
            name, Asker(pointwise.FORM, config, engine, seed, advance), cases
        )
    asker = Asker(pairwise.FORM, config, engine, seed, advance)
    if isinstance(config, PairwiseConfig):
        return await pairwise.votes(name, asker, cases)
    return await listwise.votes(name, asker, cases, seed)


def material(config: Judge) -> str:
    """Digest of what else decides the votes: the prompt templates."""
    return templates_digest()


def templates_digest() -> str:
    """Digest of the judges' prompt templates: other words are another stage."""
    names = sorted(path.stem for path in TEMPLATES.glob("*.md"))
    return digest("templates", [load(TEMPLATES, name).digest for name in names])
