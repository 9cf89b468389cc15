"""What the parts with the bundled policy share: its engine, fresh word problems, its responses."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

from benchmarks.harness import REPO
from pipelines.engines.base import Engine
from pipelines.engines.local import LocalConfig, LocalEngine
from pipelines.generate import GenerateConfig, generate
from pipelines.sampling import SamplingConfig
from schemas.records import Message, Prompt, Response

POLICY = REPO / "data" / "policy"
SAMPLING = SamplingConfig(max_tokens=96)
"""The bundled plan's."""
BATCH = 256


def policy() -> LocalEngine:
    """The bundled policy in float32: what it draws is kept, never drawn again."""
    return LocalEngine(LocalConfig(model=str(POLICY), dtype="float32", batch=BATCH))


@cache
def _shown() -> frozenset[str]:
    from data.make_prompts import demo_problems, eval_problems

    return frozenset(p.text for p in (*demo_problems(), *eval_problems()))


def fresh_prompts(count: int, seed: int, exclude: Collection[str] = ()) -> list[Prompt]:
    """Word problems that neither prompts.jsonl, eval_prompts.jsonl nor `exclude` (texts) holds."""
    from data.word_problems import generate as problems

    return [
        Prompt(
            messages=(Message(role="user", content=p.text),),
            reference=str(p.answer),
            task="math",
            verifier="numeric",
            source="prefinery/word_problems",
        )
        for p in problems(count, seed, exclude=_shown() | set(exclude))
    ]


def text(prompt: Prompt) -> str:
    """The problem's text."""
    return prompt.messages[-1].content


async def respond(
    prompts: Sequence[Prompt], engine: Engine, samples: int, seed: int
) -> list[Response]:
    """Responses in order of prompt and sample."""
    config = GenerateConfig(engine="policy", samples=samples, sampling=SAMPLING)
    responses, rejects = await generate(prompts, engine, config, seed)
    if rejects:
        raise RuntimeError(f"the bundled policy gave no answer: {rejects[0].detail}")
    return responses
