"""The records of curation: how probable a label is, what was decided, with what bound, who is asked."""

from __future__ import annotations

from typing import Literal

from schemas.process import Count, Probability
from schemas.record import Record


class Belief(Record):
    """How probable it is that a pair's label is right."""

    pair_id: str
    """The pair."""
    label: Literal["a", "b", "tie"] | None
    """The label that is judged: the pair's own, or the one proposed where it had none."""
    probability: Probability
    """Probability that the label is right, before any human vote on this very pair."""
    strength: float
    """Mean oriented vote of the judges, in [-1, 1]."""
    judges: Count
    """Judges that took a side."""
    slice: str
    """Slice it was calibrated in."""
    calibrated: bool
    """Whether human labels stand behind the probability; else it rests on agreement alone."""
    human: float | None
    """Mean oriented human vote on this pair, in [-1, 1]; none: nobody was asked."""
    humans: Count
    """People who voted on it."""


class HumanLabel(Record):
    """What people said of a pair, put together."""

    pair_id: str
    """The pair."""
    value: float
    """Mean of their votes, each in [-1, 1]: above 0, response a is better."""
    people: Count
    """How many voted."""
    error: Probability
    """Probability that the side they are on is the wrong one."""
    purpose: Literal["value", "audit", "gold"]
    """Why the pair was asked (see ReviewItem): only `audit` labels are a random sample."""
    propensity: Probability
    """Probability with which it was chosen."""


class Decision(Record):
    """What was decided about a pair, and how sure we are."""

    pair_id: str
    """The pair."""
    action: Literal["keep", "flip", "soften", "drop", "route"]
    """`keep` the label, `flip` it, keep it `soften`ed, `drop` the pair, or `route` it to people."""
    probability: Probability
    """Probability that the label after the action is right."""
    target: Probability
    """Training target: probability that response a is better."""
    margin: float
    """Mean oriented vote in [-1, 1]: how strongly the judges side with the label."""
    reason: str
    """Stable reason code."""
    rule: str
    """Rule and version that decided."""
    accepted: bool | None = None
    """Whether it lies within the stated error bound; none: no bound was asked for."""


class ErrorBound(Record):
    """A statement about the share of wrong labels among what was accepted."""

    slice: str
    """What it is about: a slice, or `all`."""
    kind: Literal["joint", "conditional"]
    """`joint`: wrong and accepted, of all pairs, in expectation (conformal risk control).
    `conditional`: wrong among the accepted, with the stated confidence (Clopper-Pearson)."""
    alpha: Probability
    """The bound that was asked for."""
    confidence: Probability | None
    """Confidence of a conditional bound; none: a joint one holds in expectation."""
    threshold: float | None
    """Least probability of the final label that is accepted; none: nothing is."""
    accepted: Count
    """Pairs accepted."""
    pairs: Count
    """Pairs of the slice."""
    bound: Probability | None
    """The bound that holds; none: nothing is accepted."""
    labels: Count
    """Human-labelled pairs behind it."""
    prompts: Count
    """Prompts of those pairs: labels of one prompt are no independent evidence."""
    reason: str
    """`holds`, or why nothing is accepted."""


class ReviewItem(Record):
    """A pair that people are to be asked about."""

    pair_id: str
    """The pair."""
    round: Count
    """Round of routing."""
    rank: Count
    """Order in which they are to be asked, from 0."""
    purpose: Literal["value", "audit", "gold"]
    """`value`: its label is worth its cost. `audit`: drawn uniformly, for calibration and bounds.
    `gold`: its answer is known; it measures the annotator."""
    value: float
    """Expected gain less cost, in the plan's money."""
    propensity: Probability
    """Probability with which it was chosen, for weighting: 1 where the choice was forced."""
    overlap: Count
    """How many people are to answer it."""
    seconds: float
    """Seconds that one answer is expected to take."""
    why: str
    """Why it is asked, in words."""
