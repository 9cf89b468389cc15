"""Which judges vote: those of what a run knows already, and a panel that is asked."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipelines.judge.code import CodeConfig
from pipelines.judge.derived import DerivedConfig, DerivedName
from pipelines.judge.likelihood import LikelihoodConfig
from pipelines.judge.llm import ListwiseConfig, PairwiseConfig, PointwiseConfig
from pipelines.judge.probes import ProbesConfig
from pipelines.judge.reward_model import RewardModelConfig
from pipelines.judge.reward_server import RewardServerConfig

PanelJudge = Annotated[
    PairwiseConfig
    | PointwiseConfig
    | ListwiseConfig
    | LikelihoodConfig
    | RewardModelConfig
    | RewardServerConfig
    | CodeConfig,
    Field(discriminator="kind"),
]


class JudgeConfig(DerivedConfig):
    """Who votes."""

    judges: tuple[DerivedName, ...] = DerivedConfig.model_fields["judges"].default
    """Judges of what the run knows already. `verifier`: the checked final answer. `step_values`: the
    lowest step value. `agreement`: the share of the prompt's other samples with the same final answer
    (self-consistency, Wang et al. 2023). `likelihood`: the policy's log-probability a token, squashed by tanh."""
    panel: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")], PanelJudge] = Field(
        default={}
    )
    """Judges that are asked, by name."""
    probes: ProbesConfig | None = None
    """What the panel is probed for before its votes count; none: it is not."""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.judges and not self.panel:
            raise ValueError("nobody judges; name some judges, or a panel")
        taken = {*DerivedName.__args__, "rubric"} & self.panel.keys()  # type: ignore[attr-defined]
        if taken:
            raise ValueError(f"panel: {min(taken)!r} is a judge of that name already; take another")
        return self
