"""The records of step labels: split solutions, rollouts, labels, preferences between steps."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from schemas.record import Part, Record

Probability = Annotated[float, Ge(0.0), Le(1.0)]
Count = Annotated[int, Ge(0)]


class Trajectory(Record):
    """A solution split into steps: a response, or a path that a search grew."""

    version: ClassVar[int] = 2

    prompt_id: str
    """The prompt answered."""
    response_id: str | None
    """The response that was split; none: a path of a search tree, whose text is `text`."""
    text: str | None
    """The whole text of a grown path; none: it is the response's."""
    steps: tuple[str, ...]
    """The steps' texts, in order; with what lies between them they make up the whole."""
    starts: tuple[int, ...]
    """Offset of each step's first character in the text."""
    ends: tuple[int, ...]
    """Offset after each step, separator included: text[:ends[t]] is the prefix that keeps steps 0..t. Where
    it falls inside a token it is moved behind that token."""
    token_ends: tuple[int, ...]
    """The same in tokens of the policy's tokenizer, after which a prefix is continued token for token;
    empty: the engine has no tokenizer here, and prefixes are continued as text."""
    prefixes: tuple[str, ...]
    """Prefix ids, by how many steps are kept, from none to all: the `prefix_id` of their rollouts."""


class Rollout(Record):
    """One sampled continuation of a prefix. Solutions with equal prefixes share its rollouts."""

    version: ClassVar[int] = 2

    prompt_id: str
    """The prompt answered."""
    prefix_id: str
    """Digest of the prompt's id and the prefix's text."""
    position: Count
    """How many steps the prefix keeps."""
    prover: bool
    """Drawn from the prover, not from the policy."""
    draw: Count
    """Which of the continuations of this prefix by this engine."""
    text: str
    """The continuation: untrusted text."""
    outcome: Literal["right", "wrong", "unparsed", "truncated"]
    """What its final answer was; an unparsed or truncated rollout is neither right nor wrong."""
    answer: str | None = None
    """The final answer found."""
    completion_tokens: Count
    """Tokens written."""


class Asked(Part):
    """One thing that a labelling method asked."""

    position: Count
    """How many steps the prefix kept."""
    count: Count
    """Rollouts asked for, or verdicts of a judge."""
    of: Literal["policy", "prover", "judge"]
    """Who was asked."""
    why: str
    """What for, in the method's words, such as `binary search 0..8`."""


class StepLabels(Record):
    """Labels of a trajectory's steps; per-step lists have one item a step.

    Four targets are kept apart: local validity (`judge_label`), soundness of the prefix (`sound`,
    `error`), value under the policy (`value`) and advantage (`advantage`). None: not known.
    """

    version: ClassVar[int] = 2

    prompt_id: str
    """The prompt answered."""
    response_id: str | None
    """The response; none: a path that a search grew."""
    trajectory_id: str
    """The split solution."""
    method: str
    """Labelling method and its settings, such as `monte_carlo(k=8,stop_at=2)`."""
    steps: tuple[str, ...]
    """The steps' texts."""
    n: tuple[int, ...]
    """Rollouts after each step that the label rests on; 0: not sampled."""
    successes: tuple[int, ...]
    """Rollouts that ended right."""
    truncated: tuple[int, ...]
    """Rollouts cut off by the token limit."""
    unparsed: tuple[int, ...]
    """Rollouts with no final answer to be found."""
    value: tuple[float | None, ...]
    """Estimated chance that the policy ends right from here."""
    low: tuple[float | None, ...]
    """Lower end of the value's 90% interval."""
    high: tuple[float | None, ...]
    """Upper end of the value's 90% interval."""
    sound: tuple[float | None, ...]
    """Probability that no step so far is wrong."""
    error: tuple[float | None, ...]
    """Probability that this step is the first wrong one."""
    advantage: tuple[float | None, ...]
    """Change of value that the step makes, under the prover where there is one, in [-1, 1]."""
    judge_label: tuple[Literal["right", "wrong"] | None, ...]
    """A judge's verdict on the step alone."""
    judge_probability: tuple[float | None, ...]
    """Share of the judge's verdicts that hold the step right."""
    label: tuple[Literal["right", "wrong"] | None, ...]
    """Hard label; none: not labelled."""
    source: tuple[Literal["rollouts", "answer", "judge", "inferred", "human", "none"], ...]
    """What the hard label rests on: rollouts after the step, the checked final answer, a judge, people,
    inference from what was found at other steps, or nothing."""
    first_error: int | None
    """Index of the first wrong step; none: no step is labelled wrong."""
    no_error: float | None
    """Probability that no step is wrong."""
    resolved: bool
    """Whether the method reached its own goal; false: it says what it knows and no more."""
    stopped: str
    """Why the method stopped: `complete`, `confident`, `cap`, `budget` or another stable code."""
    asked: tuple[Asked, ...]
    """What was asked for this solution, in order."""
    tokens: tuple[int, ...]
    """Tokens of the rollouts after each step; those shared between solutions count in each."""
    final_right: bool | None
    """Whether the solution's own final answer is right; none: it could not be checked."""


class StepPair(Record):
    """Two steps after the same prefix, one better: a preference between siblings of a tree."""

    prompt_id: str
    """The prompt answered."""
    prefix: str
    """The solution before the step: untrusted text."""
    chosen: str
    """The better step, with the separator that follows it."""
    rejected: str
    """The worse step, with the separator that follows it."""
    chosen_value: Probability
    """Estimated chance that the policy ends right after it."""
    rejected_value: Probability
    """The same of the worse one."""
    chosen_n: Count
    """Rollouts behind it."""
    rejected_n: Count
    """Rollouts behind it."""
    probability: Probability
    """Probability that chosen has the higher value: the preference's strength."""
    method: str
    """Labelling method and its settings."""
