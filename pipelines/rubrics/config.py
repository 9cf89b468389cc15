"""Settings of making rubrics, and which prompts are kept for their proof."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config import Config
from pipelines.sampling import SamplingConfig
from schemas.record import digest

Method = Literal["contrastive", "extraction", "feedback", "nuggets", "person", "mined"]
"""How a rubric is made."""

_ASKING = {"contrastive", "extraction", "feedback", "nuggets"}
_DIGITS = 13  # 52 bits: exact as a float


class RubricsConfig(Config):
    """How rubrics are made."""

    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("contrastive", "mined")
    """`contrastive`: requirements drawn from how better and worse responses differ (OpenRubrics).
    `extraction`: rules drawn from a model's explanations of preferences (AutoRule). `feedback`:
    principles drawn from what people wrote on responses ([humans], such as marked errors; RLBFF).
    `nuggets`: facts of the reference answer (Search-Gen-V). `person`: a person's file. `mined`: hard
    rules that code finds and checks."""
    engine: str | None = None
    """Name of the engine that writes rubrics; `person` and `mined` need none."""
    judge: str | None = None
    """Name of the engine that gives verdicts on the criteria; none: code checks alone."""
    scope: Literal["prompt", "general"] = "prompt"
    """Whether `contrastive` and `feedback` make a rubric a prompt, or one for all prompts."""
    contrast: Literal["pairs", "lists"] = "pairs"
    """`lists`: where a prompt's pairs rank all their responses, these are shown at once, best first."""
    paths: tuple[str, ...] = ()
    """TOML files, or globs, of rubrics that people wrote or approved, for `person`."""
    max_criteria: Annotated[int, Field(ge=1, le=100)] = 12
    """Most criteria of a reply, and of a rubric that is made from replies."""
    max_pairs: Annotated[int, Field(ge=1)] = 256
    """Most pairs that `extraction` explains, drawn by hash."""
    samples: Annotated[int, Field(ge=1, le=100)] = 1
    """Replies asked for each time; what they state is merged."""
    sampling: SamplingConfig = SamplingConfig(max_tokens=2048)
    """How the writing engine's tokens are drawn."""
    weights: Literal["importance", "fitted", "policy"] = "importance"
    """`importance`: as the writer rates each criterion. `fitted`: to human labels. `policy`: by how
    much a criterion tells today's responses apart. Rubrics are made with the first; the others
    replace it once there are verdicts."""
    similar: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Cosine from which two criteria of a rubric are one."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the prompts whose pairs no rubric is made from: they are kept for the proof."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        asking = [method for method in self.methods if method in _ASKING]
        if asking and self.engine is None:
            raise ValueError(f"method {asking[0]!r} needs an engine; set rubrics.engine")
        if "person" in self.methods and not self.paths:
            raise ValueError("method 'person' needs a file; set rubrics.paths")
        return self


def is_held_out(prompt_id: str, seed: int, share: float) -> bool:
    """Whether a prompt's pairs are kept for the proof: by a hash of its id and the seed alone."""
    number: float = int(digest("held_out", seed, prompt_id)[:_DIGITS], 16) / 2.0 ** (4 * _DIGITS)
    return number < share
