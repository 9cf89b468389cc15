"""The parts of a plan that put several stages' settings together."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from annotation.aggregate import AggregateConfig
from annotation.questions import QuestionConfig
from pipelines.config import Config
from pipelines.consistency.calibrate import CalibrateConfig
from pipelines.consistency.decide import DecideConfig, PosteriorConfig
from pipelines.embedding import EmbedConfig
from pipelines.engines.local import LocalConfig
from pipelines.engines.openai import OpenAIConfig
from pipelines.engines.scripted import ScriptedConfig
from pipelines.engines.vllm import VLLMConfig
from pipelines.evaluation.evaluate import EvaluateConfig
from pipelines.generate import GenerateConfig
from pipelines.humans import HumansConfig
from pipelines.ingest import Config as IngestConfig
from pipelines.routing import RoutingConfig
from pipelines.rubrics.config import RubricsConfig
from pipelines.rubrics.scoring import ScoringConfig
from pipelines.rubrics.value import ValueConfig
from pipelines.rubrics.verdicts import VerdictsConfig
from pipelines.training.config import RewardConfig, StepsConfig

EngineConfig = Annotated[
    LocalConfig | OpenAIConfig | ScriptedConfig | VLLMConfig, Field(discriminator="kind")
]


class RubricsPlan(RubricsConfig):
    """How rubrics are made, judged by and proven."""

    embed: EmbedConfig | None = None
    """Model that tells criteria of the same meaning; none: by their words."""
    verdicts: VerdictsConfig = VerdictsConfig()
    """How the judge is asked whether a response meets a criterion."""
    scoring: ScoringConfig = ScoringConfig()
    """How verdicts become a score."""
    value: ValueConfig = ValueConfig()
    """When a rubric or a criterion has shown that it predicts."""


class CalibratePlan(CalibrateConfig):
    """How sure a label is."""

    slices: Literal["none", "task", "source"] = "task"
    """Of what kinds of prompts the probabilities are corrected apart, where there are labels enough."""


class DecidePlan(DecideConfig):
    """How votes become decisions: with [calibrate] by `costs`, else by majority and margin."""

    costs: PosteriorConfig = PosteriorConfig()
    """Costs of the actions, with [calibrate]."""


class HumansPlan(HumansConfig):
    """What people said."""

    aggregate: AggregateConfig | None = None
    """How the votes of several people on a pair are put together: calibration and decisions follow it.
    None: their mean, each as likely wrong as `error` says."""
    without: tuple[str, ...] = ()
    """Annotators, as votes name them, whose votes count for nothing."""


class ReviewPlan(Config):
    """A campaign that a run takes votes from, and puts its queue to."""

    campaign: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,37}$")]
    """The campaign's name: it is made where it is not there."""
    url: str | None = None
    """A Label Studio server, its token in LABEL_STUDIO_API_KEY; none: this store's own, which
    `prefinery review serve` runs."""
    question: QuestionConfig = QuestionConfig()
    """What is asked beside the main answer."""
    instruction: str = ""
    """What annotators read before they begin, as plain text; the guide shows it, too."""
    show_predictions: bool = False
    """Show people what the machine believes, as an answer that is chosen already. They follow what they
    are shown: their votes are then no independent evidence, least of all for a bound."""


class RoundsPlan(Config):
    """Rounds of training on what is decided, judging by what was trained, and deciding anew."""

    count: Annotated[int, Field(ge=1, le=20)] = 1
    """How many."""
    folds: Annotated[int, Field(ge=2, le=20)] = 3
    """Parts of the prompts: each is judged by a model that was trained on the others."""
    reward: RewardConfig
    """The reward model that is trained."""
    min_pairs: Annotated[int, Field(ge=1)] = 32
    """Decided pairs below which no model is trained."""
    judge: str | None = None
    """A judge of the panel that is asked about no pair but those near the model's errors; none: nobody."""
    neighbours: Annotated[int, Field(ge=1)] = 8
    """Most neighbours of one error; needs [embed]."""
    most: Annotated[int, Field(ge=1)] = 1000
    """Most pairs that a round puts to that judge."""
    error_below: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A settled pair counts as an error where the model gives its label less than this."""
    sure: Annotated[float, Field(ge=0.5, le=1)] = 0.95
    """Settled pairs that are at least this probable are not put to that judge."""


class RoutePlan(RoutingConfig):
    """Whom to ask about what."""

    round: Annotated[int, Field(ge=0)] = 0
    """Which round of asking; pairs that people have answered are not asked again."""
    known: tuple[str, ...] = ()
    """Parquet, JSON lines or CSV files, or globs, of pairs whose answer is known (`pair_id` with
    `preference` or `value`): of them the share `gold` is drawn."""

    @model_validator(mode="after")
    def _gold_is_known(self) -> Self:
        if self.gold > 0 and not self.known:
            raise ValueError(
                "`gold` needs pairs whose answer is known; name their files in `known`"
            )
        if self.known and self.gold == 0:
            raise ValueError(
                "`known` is there, but no share of the budget for it; set `gold` above 0"
            )
        return self


class TrainPlan(Config):
    """What is trained on the emitted dataset."""

    reward: RewardConfig | None = None
    """A scalar reward model, Bradley-Terry with soft targets."""
    steps: StepsConfig | None = None
    """A process reward model: a head on every step's end, with soft targets."""


class EvaluatePlan(Config):
    """How what was trained is tested on fresh prompts."""

    prompts: IngestConfig
    """Fresh prompts; none of them may be among the plan's own."""
    generate: GenerateConfig
    """How the policy answers them."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    """How many times the policy answers them all, each time with other randomness."""
    step_checker: Literal["word_problems"] | None = None
    """Checker that knows the true first error of the bundled word problems; none: no step figures."""
    metrics: EvaluateConfig = EvaluateConfig()
    """What is computed."""
