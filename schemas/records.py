"""The records of the refinery, in the order in which a run makes them."""

from __future__ import annotations

from typing import ClassVar, Literal

from schemas.curation import Belief as Belief
from schemas.curation import Decision as Decision
from schemas.curation import ErrorBound as ErrorBound
from schemas.curation import HumanLabel as HumanLabel
from schemas.curation import ReviewItem as ReviewItem
from schemas.judging import Criterion as Criterion
from schemas.judging import JudgeCard as JudgeCard
from schemas.judging import Rubric as Rubric
from schemas.judging import RubricValue as RubricValue
from schemas.judging import Vote as Vote
from schemas.process import Asked as Asked
from schemas.process import Count as Count
from schemas.process import Probability as Probability
from schemas.process import Rollout as Rollout
from schemas.process import StepLabels as StepLabels
from schemas.process import StepPair as StepPair
from schemas.process import Trajectory as Trajectory
from schemas.record import Part, Record


class Message(Part):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    """Who speaks."""
    content: str
    """What is said, as given: untrusted text."""


class Constraint(Part):
    """A requirement of a prompt that code can check."""

    kind: Literal["max_words", "min_words", "includes", "excludes", "json", "lowercase", "matches"]
    """Which check."""
    value: str | None = None
    """The check's argument: a number, a text or a regular expression; none for `json`, `lowercase`."""


class Instruction(Part):
    """A verifiable instruction of a prompt (IFEval, Zhou et al. 2023)."""

    id: str
    """Kind, such as `length_constraints:number_words`."""
    arguments: str = "{}"
    """The kind's arguments as canonical JSON."""


class Prompt(Record):
    """What is asked, and what is known of the right answer."""

    messages: tuple[Message, ...]
    """The conversation up to the turn that is to be answered."""
    reference: str | None = None
    """Reference answer, if one is known."""
    task: str = "chat"
    """Task kind, such as `math` or `chat`: reports and calibration are sliced by it."""
    verifier: Literal["numeric", "choice", "exact", "set", "latex", "code"] | None = None
    """How a final answer is compared with the reference; none: it is not."""
    constraints: tuple[Constraint, ...] = ()
    """Requirements that code checks."""
    instructions: tuple[Instruction, ...] = ()
    """Verifiable instructions of the IFEval kinds, which code checks, strictly and loosely."""
    source: str
    """Where the row came from: a dataset's name or a file's."""
    source_id: str | None = None
    """The row's id at its source."""
    licence: str | None = None
    """Licence of the row, as its source states it."""


class Response(Record):
    """One answer to a prompt by one engine."""

    prompt_id: str
    """The prompt answered."""
    engine: str
    """Digest of the engine's identity (model, revision, template, endpoint)."""
    model: str
    """The engine's model, for people."""
    sample_index: Count
    """Which of the samples of this prompt."""
    text: str
    """The answer: untrusted text."""
    prompt_tokens: Count
    """Tokens read."""
    completion_tokens: Count
    """Tokens written."""
    finish_reason: Literal["stop", "length"]
    """`length`: cut off by the token limit."""
    logprob: float | None = None
    """Sum of the log-probabilities of the tokens written (nats), if the engine gives them."""


class Pair(Record):
    """Two responses to one prompt that are to be compared."""

    prompt_id: str
    """The prompt both answer."""
    response_a: str
    """Response id."""
    response_b: str
    """Response id."""
    label: Literal["a", "b", "tie"] | None = None
    """The label the pair came with: which response is better."""
    label_source: str | None = None
    """What gave that label, such as `verifier`."""


class JudgeVote(Part):
    """A judge's oriented vote as carried in an emitted row."""

    judge: str
    """Judge's name."""
    value: float | None
    """Above 0: it sides with chosen; none: it could not judge."""


class Preference(Record):
    """An emitted preference: TRL's conversational format, with where it came from."""

    prompt: tuple[Message, ...]
    """Messages of the prompt."""
    chosen: tuple[Message, ...]
    """The better response, as an assistant message."""
    rejected: tuple[Message, ...]
    """The worse response, as an assistant message."""
    probability: Probability
    """Probability that chosen is better than rejected: also the soft training target."""
    margin: float
    """Mean oriented vote in [-1, 1]."""
    votes: tuple[JudgeVote, ...]
    """The votes behind the label."""
    label_source: str | None
    """What gave the pair's first label."""
    rule: str
    """Rule that decided."""
    accepted: bool | None = None
    """Whether it lies within the bound that the dataset's card states; none: no bound was asked for."""
    pair_id: str
    """The pair."""
    prompt_id: str
    """The prompt."""
    chosen_id: str
    """Response id of chosen."""
    rejected_id: str
    """Response id of rejected."""
    model: str
    """Model that wrote the responses."""
    source: str
    """The prompt's source."""
    licence: str | None
    """The prompt's licence."""


class StepExample(Record):
    """Emitted step labels: TRL's stepwise format (prompt, completions, labels), with soft values."""

    version: ClassVar[int] = 2

    prompt: tuple[Message, ...]
    """Messages of the prompt."""
    completions: tuple[str, ...]
    """The steps, in order, each with the separator that follows it: joined they are the solution."""
    labels: tuple[int, ...]
    """1 right, 0 wrong, -100 not labelled."""
    values: tuple[float | None, ...]
    """Estimated chance that the policy ends right after the step: the soft target; none: not known."""
    sound: tuple[float | None, ...]
    """Probability that no step so far is wrong."""
    advantages: tuple[float | None, ...]
    """Change of value that the step makes."""
    n: tuple[int, ...]
    """Rollouts behind each value."""
    first_error: int | None
    """Index of the first wrong step; none: no step is labelled wrong."""
    no_error: float | None
    """Probability that no step is wrong."""
    resolved: bool
    """Whether the labelling method reached its own goal."""
    final_right: bool | None
    """Whether the solution's final answer is right; none: it could not be checked."""
    method: str
    """Labelling method and its settings."""
    trajectory_id: str
    """The split solution labelled."""
    response_id: str | None
    """The response; none: a path that a search grew."""
    prompt_id: str
    """The prompt."""
    model: str
    """Model that wrote the solution."""
    source: str
    """The prompt's source."""
    licence: str | None
    """The prompt's licence."""
    rests_on: tuple[str, ...] = ()
    """What each label rests on: rollouts, answer, judge, human, inferred or none (StepLabels.source)."""


class Reject(Record):
    """A row that stopped, and why."""

    unit: str
    """Id of the row, or `file:line` where it never became one."""
    stage: str
    """Stage that stopped it."""
    code: str
    """Stable reason code."""
    detail: str
    """What was found, in words; cut to 500 characters."""


class Figure(Record):
    """One measured number of an evaluation."""

    name: str
    """Its name, such as `best_of_8_accuracy`."""
    sampling: int | None
    """Which sampling of the fresh prompts it is of; none: the mean over all samplings."""
    value: float
    """The number."""
    low: float | None = None
    """Lower end of its interval; over samplings: the lowest."""
    high: float | None = None
    """Upper end of its interval; over samplings: the highest."""


class CurvePoint(Record):
    """One point of a best-of-n curve, as a mean over the samplings."""

    scorer: str
    """What chose among the n samples: a model, `policy` (chance) or `oracle`."""
    n: Count
    """Samples chosen from."""
    accuracy: Probability
    """Share of prompts whose chosen sample is right."""
    low: float
    """Lower end of its interval."""
    high: float
    """Upper end of its interval."""


class ReliabilityBin(Record):
    """One bin of a reliability diagram."""

    of: str
    """Which probabilities: `steps` or `pairs`."""
    confidence: Probability
    """Mean probability stated in the bin."""
    share: Probability
    """Share of the bin's cases that were so."""
    count: Count
    """Cases in the bin."""


ALL: tuple[type[Record], ...] = (
    Prompt,
    Response,
    Pair,
    Criterion,
    Rubric,
    Vote,
    JudgeCard,
    RubricValue,
    Trajectory,
    Rollout,
    StepLabels,
    StepPair,
    Belief,
    HumanLabel,
    Decision,
    ErrorBound,
    ReviewItem,
    Preference,
    StepExample,
    Reject,
    Figure,
    CurvePoint,
    ReliabilityBin,
)
