"""Settings of step labels: one stage, many methods."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.config import Config
from pipelines.process.splitting import Splitter
from pipelines.sampling import SamplingConfig

Method = Literal[
    "monte_carlo",
    "omega",
    "omega_mm",
    "advantage",
    "sorm",
    "reference",
    "ensemble",
    "tree",
    "consensus",
    "epic",
    "scan",
    "changepoint",
]

Share = Annotated[float, Field(ge=0, le=1)]


class OmegaConfig(Config):
    """OmegaPRM's search (arXiv 2406.06592); the defaults are the paper's."""

    searches: Annotated[int, Field(ge=1)] = 100
    """Most binary searches of a question; `omega_mm` takes 200 where this is not set."""
    rollouts: Annotated[int, Field(ge=1)] | None = None
    """Most rollouts of a question; none: no limit, but 1,000 for `omega_mm`."""
    alpha: Share = 0.5
    """Base of the preference for rollouts from states of high value."""
    beta: Share = 0.9
    """Base of the preference for short rollouts."""
    length: Annotated[float, Field(gt=0)] | None = None
    """Rollout length L in tokens at which beta counts once; none: 500, but 2,000 for `omega_mm`."""
    exploration: Annotated[float, Field(ge=0)] = 0.125
    """Weight c of the exploration term."""


class TreeConfig(Config):
    """PUCT tree search over steps."""

    simulations: Annotated[int, Field(ge=1)] = 32
    """Expansions of a question."""
    width: Annotated[int, Field(ge=2)] = 4
    """Most children of a node."""
    depth: Annotated[int, Field(ge=1)] = 16
    """Most steps of a path."""
    exploration: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the exploration term."""
    min_gap: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Least difference in value of two siblings that are exported as a pair."""


class PriorsConfig(Config):
    """What `changepoint` believes before any rollout; fitted to the corpus where `fit` is on."""

    solve_rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Chance that the policy finishes a question right from its beginning, on average."""
    recovery: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Chance that it still finishes right after an error, on average."""
    repeat: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Chance that a rollout after the error ends in the solution's own wrong answer."""
    chance_repeat: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Chance that a wrong rollout from before the error ends in that same answer."""


class ChangepointConfig(Config):
    """A posterior over the first error, sampled where it informs most per token."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    """Stop once one first error (or none) is this probable."""
    min_gain: Annotated[float, Field(ge=0)] = 0.05
    """Stop where the best next rollout is expected to tell less than this about the steps' labels, in
    nats per 1,000 tokens."""
    wave: Annotated[int, Field(ge=1, le=64)] = 4
    """Rollouts asked for at once for a solution."""
    max_rollouts: Annotated[int, Field(ge=1)] = 256
    """Most rollouts for a solution; it is left unresolved there."""
    answers: bool = True
    """Whether a wrong rollout that ends in the solution's own wrong answer counts as a sign of error."""
    fit: bool = True
    """Whether priors are fitted to the corpus, shard by shard, by EM."""
    pilot: Annotated[int, Field(ge=1)] = 64
    """Solutions that are labelled before the priors are first fitted."""
    priors: PriorsConfig = PriorsConfig()
    """Where the fit begins; without `fit`, what is believed throughout."""


class EnsembleConfig(Config):
    """How many judge prompts vote on a step."""

    samples: Annotated[int, Field(ge=1, le=64)] = 1
    """Verdicts of each judge prompt."""
    reverse: bool = True
    """Also ask in reverse: with the reference answer known, which step leaves the way to it."""


class FilterConfig(Config):
    """Which questions are worth labelling, by how often the policy solves them."""

    rollouts: Annotated[int, Field(ge=1)] = 32
    """Rollouts of the bare question; they are its root's data afterwards."""
    above: Share = 0.0
    """Drop questions of which no more than this share is right."""
    below: Share = 1.0
    """Drop questions of which this share or more is right."""


_TABLES: dict[str, tuple[str, ...]] = {
    "omega": ("omega", "omega_mm"),
    "tree": ("tree",),
    "changepoint": ("changepoint",),
    "ensemble": ("ensemble", "consensus"),
}
_PROVER = ("advantage",)
_JUDGE = ("reference", "ensemble", "consensus")


class ProcessConfig(Config):
    """Settings of step labels."""

    engine: str
    """Name of the engine that continues prefixes: the policy."""
    method: Method = "monte_carlo"
    """How steps are labelled."""
    k: Annotated[int, Field(ge=1, le=1024)] = 8
    """Most continuations of a prefix, for the methods that draw a fixed number."""
    stop_at: Annotated[int, Field(ge=0)] = 2
    """Curtailment of such methods: stop sampling a prefix at this many successes, or where no further
    draw can change its hard label; 0: always draw k. 1 makes values lean high."""
    splitter: Splitter = "lines"
    """What ends a step."""
    per_prompt: Annotated[int, Field(ge=1)] = 8
    """Most responses of a prompt that are labelled, first samples first."""
    prover: str | None = None
    """Engine under which `advantage` takes values; none: the best of `best_of` policy samples."""
    best_of: Annotated[int, Field(ge=1)] = 4
    """K of that best-of-K prover: Q = 1 - (1 - V)^K."""
    judge: str | None = None
    """Engine that reads steps and gives verdicts: `reference`, `ensemble`, `consensus` need one."""
    judge_tokens: Annotated[int, Field(ge=16)] = 1024
    """Longest verdict of the judge, in tokens."""
    budget_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of rollouts, the prover's too, that the whole run may take for labels, shared evenly by its questions; what
    one leaves is given to those of its shard that need more. None: no limit."""
    question_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of rollouts that one question may take; none: no limit."""
    filter: FilterConfig | None = None
    """Leave out questions that are too hard or too easy; none: label all."""
    omega: OmegaConfig | None = None
    """For `omega` and `omega_mm`."""
    tree: TreeConfig | None = None
    """For `tree`."""
    changepoint: ChangepointConfig | None = None
    """For `changepoint`."""
    ensemble: EnsembleConfig | None = None
    """For `ensemble` and `consensus`."""
    sampling: SamplingConfig = SamplingConfig()
    """How continuations are drawn."""

    @model_validator(mode="after")
    def _fits_its_method(self) -> Self:
        for table, methods in _TABLES.items():
            if getattr(self, table) is not None and self.method not in methods:
                raise ValueError(
                    f"{table}: is for method {' or '.join(methods)}, not {self.method}"
                )
        if self.prover is not None and self.method not in _PROVER:
            raise ValueError(f"prover: is for method advantage, not {self.method}")
        if self.method in _JUDGE and self.judge is None:
            raise ValueError(f"judge: method {self.method} needs one; name an engine")
        if self.judge is not None and self.method not in _JUDGE:
            raise ValueError(f"judge: is for methods {', '.join(_JUDGE)}, not {self.method}")
        return self

    def described(self) -> str:
        """The method and its settings, as a label states them."""
        fixed = {"k": self.k, "stop_at": self.stop_at}
        shown: dict[str, Any] = {} if self.method in ("changepoint", "reference") else fixed
        for table, methods in _TABLES.items():
            if self.method in methods and (own := getattr(self, table)) is not None:
                shown |= own.model_dump(exclude_defaults=True, exclude={"priors"})
        if self.method == "advantage":
            shown |= {"prover": self.prover} if self.prover else {"best_of": self.best_of}
        return f"{self.method}({','.join(f'{k}={v}' for k, v in shown.items())})"
