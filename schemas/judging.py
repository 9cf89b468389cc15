"""The records of judging: criteria and rubrics, votes, what probes say of a judge, what a rubric is worth."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from schemas.process import Count, Probability
from schemas.record import Record

Signed = Annotated[float, Ge(-1.0), Le(1.0)]


class Criterion(Record):
    """One requirement of a rubric."""

    kind: Literal["hard_rule", "principle", "nugget", "pitfall"]
    """Hard rules gate; principles are weighed; nuggets are facts to be present; pitfalls count against."""
    text: str
    """The requirement."""
    weight: float = 1.0
    """Weight in the rubric's score; under `points` its points, which may be negative."""
    category: str | None = None
    """Group of criteria it belongs to."""
    verifier: str | None = None
    """The code check of a hard rule that code can check, as `NAME {JSON arguments}`."""
    evidence: str | None = None
    """Span of the text that it was drawn from."""
    parent: str | None = None
    """Id of the criterion above it in a tree; none: it stands at the top."""


class Rubric(Record):
    """Criteria to judge a prompt's responses by."""

    prompt_id: str | None = None
    """The prompt it is for; none: for any prompt."""
    criteria: tuple[str, ...]
    """Criterion ids."""
    method: str
    """How it was made."""
    pairs: tuple[str, ...] = ()
    """Ids of the pairs it was made from."""
    scoring: Literal["share", "points", "tree"] = "share"
    """How verdicts become a score: weighted share, points with negatives, or a weighted tree."""
    name: str | None = None
    """A person's name for it."""
    status: Literal["draft", "approved", "retired"] = "draft"
    """Whether a person has approved it."""
    replaces: str | None = None
    """Id of the version that it was edited from."""


class Vote(Record):
    """One judge's value on one unit."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"seconds", "cost"})

    unit: str
    """Id of what is judged."""
    unit_kind: Literal["response", "pair", "criterion", "step"]
    """What kind of thing it is; `criterion`: a response under the criterion that `criterion` names."""
    judge: str
    """Judge's name, unique in a run."""
    judge_kind: Literal["reward_model", "llm", "rubric", "code", "human"]
    """What kind of judge."""
    order: Literal["ab", "ba"] | None = None
    """Order in which a pair was shown; none where order means nothing."""
    value: float | None
    """The judge's value; for a pair above 0 means a is better; none: it could not judge (see reason)."""
    criterion: str | None = None
    """Criterion id, for rubric votes."""
    step: int | None = None
    """Step index, for step votes."""
    span_start: Count | None = None
    """First character that an error was marked on, of such votes; offsets are of the text as shown."""
    span_end: Count | None = None
    """The character after the last one."""
    reason: str = ""
    """Why, in a stable code or in the judge's words."""
    seconds: float | None = None
    """Seconds a person took; machines leave it empty (Parquet holds no clock times of ours)."""
    cost: float | None = None
    """Money paid for it."""


class JudgeCard(Record):
    """One thing that is known of one judge: a probe's figure, or one from votes with known answers."""

    judge: str
    """Judge's name."""
    measure: str
    """What was measured, such as `swap_consistency` or `master_key_false_positives`."""
    value: float | None
    """The figure; none: nothing could be measured (see detail)."""
    low: float | None = None
    """Lower end of its 95% interval."""
    high: float | None = None
    """Upper end of its 95% interval."""
    n: Count
    """Cases behind it."""
    limit: float | None = None
    """The plan's limit; none: none was set."""
    passed: bool | None = None
    """Whether the figure keeps the limit; none: there is no limit."""
    detail: str = ""
    """What was found, in words."""


class RubricValue(Record):
    """What a rubric, or one criterion of it, was worth on held-out pairs."""

    rubric_id: str
    """The rubric."""
    criterion_id: str | None
    """The criterion; none: the rubric as a whole."""
    judge: str
    """Whose verdicts were used."""
    pairs: Count
    """Held-out pairs it was tested on."""
    prompts: Count
    """Prompts of those pairs."""
    separates: Probability
    """Share of the pairs of which it scores the two responses differently."""
    agreement: Probability | None
    """Share of the pairs it separates where the better response scores higher; none: it separates none."""
    value: float | None
    """Mean gain over judging without it; see the stage for the unit. None: not measured."""
    low: float | None
    """Lower end of the value's 95% interval."""
    high: float | None
    """Upper end of the value's 95% interval."""
    action: Literal["keep", "retire", "flip"]
    """What is done with it."""
    reason: str
    """Why, in a stable code."""
