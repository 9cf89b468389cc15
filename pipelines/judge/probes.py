"""Probes: a judge is put to cases whose outcome is known before its votes count.

Each probe is a case as a run has them, so any judge of the panel is probed as it will be used. The
`suspect` is the response that should not win: a wrong answer, a master key, the padded or off-topic
one, the judge's own. What is measured, all by `cards` (ties half, orders averaged, a clash is a tie):

- `usable_share`: votes with a value; a case without any vote counts as one without a value.
- `swap_consistency`: over all probes.
- `position_preference`: over answers that are equally good.
- `accuracy`: right against wrong answers.
- `master_key_false_positives`: texts that answer nothing. A judge that scores responses one by one
  is fooled where a key scores above the middle of the question's right and wrong answer; one that
  only compares, where it sides with the key against the right answer.
- `length_preference`: the same answer, padded with what is true and redundant, against it.
- `off_topic_preference`: a long text about something else against the right answer.
- `contrast_accuracy`: questions of the same words that ask for different things, each with the right
  answer to either.
- `self_preference`: the judge's own model's answers against equal ones of another, of the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Self, get_args

import polars as pl
from pydantic import Field, model_validator

from pipelines.config import Config
from pipelines.judge.cards import as_cards, for_side, oriented, paired, summary
from pipelines.judge.cases import Case, Opinions
from pipelines.judge.probe_set import ITEMS, MASTER_KEYS, OFF_TOPIC
from schemas.record import digest
from schemas.records import JudgeCard, Message, Pair, Prompt, Response, Vote

Measure = Literal[
    "swap_consistency",
    "position_preference",
    "accuracy",
    "master_key_false_positives",
    "length_preference",
    "off_topic_preference",
    "contrast_accuracy",
    "self_preference",
]
Kind = Literal["answer", "rephrased", "master_key", "padded", "off_topic", "contrast", "self"]

KEY_QUESTIONS = 3
"""Questions that each master key is put to."""
MODEL = "probe"
"""The model and engine that the probes' responses name."""

_KINDS: dict[Measure, tuple[Kind, ...]] = {
    "swap_consistency": ("answer", "rephrased"),
    "position_preference": ("rephrased",),
    "accuracy": ("answer",),
    # The middle of right and wrong is what a key's score is held against.
    "master_key_false_positives": ("master_key", "answer"),
    "length_preference": ("padded",),
    "off_topic_preference": ("off_topic",),
    "contrast_accuracy": ("contrast",),
    "self_preference": ("self",),
}
_SAID = {
    "usable_share": "probes: votes with a value",
    "swap_consistency": "probes: pairs judged in both orders that it does not take both sides of",
    "position_preference": "probes: share of votes for the equal answer shown first, less .5",
    "accuracy": "probes: right answers preferred to wrong ones",
    "master_key_false_positives": "probes: texts without an answer that were taken for one",
    "length_preference": "probes: share of padded answers preferred to the same unpadded, less .5",
    "off_topic_preference": "probes: long texts off the topic preferred to the right answer",
    "contrast_accuracy": "probes: answers preferred that the question asked for, not its contrast",
    "self_preference": "probes: share of its own model's answers preferred to equal ones, less .5",
}


class SelfPair(Config):
    """Two answers of equal quality, one of them by a judge's own model."""

    judge: str
    """The judge's name."""
    prompt: str
    """What was asked."""
    own: str
    """The answer that its model wrote."""
    other: str
    """An equally good one that another wrote."""


class ProbesConfig(Config):
    """What judges are probed for, and what they have to keep."""

    measures: Annotated[tuple[Measure, ...], Field(min_length=1)] = get_args(Measure)
    """What is measured, besides the share of usable votes."""
    limits: dict[Measure | Literal["usable_share"], float] = Field(default={})
    """By measure: the least that a share of good votes may be (`usable_share`, `swap_consistency`,
    `accuracy`, `contrast_accuracy`), the most that one of bad votes may be
    (`master_key_false_positives`, `off_topic_preference`), the most by which a preference may differ
    from 0, either way. A judge that breaks one is left out."""
    self_pairs: tuple[SelfPair, ...] = ()
    """Answers to measure `self_preference` by; without any of a judge it is not measured."""

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        if idle := self.limits.keys() - {*self.measures, "usable_share"}:
            raise ValueError(f"limits on what is not measured: {', '.join(sorted(idle))}")
        return self


@dataclass(frozen=True)
class Probe:
    """A case with its known outcome."""

    case: Case
    kind: Kind
    item: int
    """Which question; probes of one are no independent evidence."""
    expected: Literal["a", "b", "tie"]
    """What a good judge says."""
    suspect: Literal["a", "b"]
    """The response that should not win."""
    judge: str | None = None
    """The judge that it says something of; none: any."""


def probe_cases(config: ProbesConfig) -> list[Probe]:
    """The probes of a panel, in a fixed order; which response is a follows from their texts."""
    kinds = {kind for measure in config.measures for kind in _KINDS[measure]}
    drafts = [*_drafts(), *_self_drafts(config.self_pairs)]
    return [_probe(draft) for draft in drafts if draft.kind in kinds]


def card_of(
    name: str, probes: Sequence[Probe], opinions: Opinions, config: ProbesConfig
) -> list[JudgeCard]:
    """A judge's cards: `usable_share` and the config's measures, with its limits applied.

    A measure that means nothing to the judge (order to one that knows none, self-preference
    without pairs) has no value and neither passes nor fails. Where the judge was asked and gave no
    usable vote, a limit is not kept. `cards.failing` says who is left out, and why.
    """
    probes = [probe for probe in probes if probe.judge in (None, name)]
    votes = [vote for vote in opinions.votes if vote.judge == name]
    every = pl.DataFrame(
        [(p.case.pair.id, p.kind, p.item, p.expected, p.suspect) for p in probes],
        schema=["unit", "kind", "item", "expected", "suspect"],
        orient="row",
    )
    table = Vote.to_table(vote for vote in votes if vote.unit_kind == "pair")
    orders = oriented(table)
    known = every.join(paired(orders).drop("judge"), on="unit", how="left")
    usable = every.join(
        pl.DataFrame(pl.from_arrow(table.select(["unit", "value"]))), on="unit", how="left"
    )
    # A judge that answers and never names an order knows none; one that is silent may.
    orderless = orders["order"].is_null().all() and orders["value"].is_not_null().any()
    value = pl.col("value")
    to_suspect = for_side(pl.when(pl.col("suspect") == "a").then(value).otherwise(-value))
    found = [_rows(usable, "usable_share", value.is_not_null())]
    notes: dict[str, str] = {}
    for measure in config.measures:
        asked = known.filter(pl.col("kind") == _KINDS[measure][0])
        if measure == "swap_consistency":
            held = pl.when(pl.col("both")).then(~pl.col("clash"))
            made = _rows(known, measure, held).filter(not orderless)
        elif measure == "position_preference":
            first = pl.when(pl.col("order") == "ab").then(value).otherwise(-value)
            units = every.filter(pl.col("kind") == "rephrased")
            shown = units.join(orders.drop("judge"), on="unit", how="left")
            made = _rows(shown, measure, for_side(first)).filter(not orderless)
        elif measure in ("accuracy", "contrast_accuracy"):
            made = _rows(asked, measure, 1 - to_suspect)
        elif measure == "master_key_false_positives":
            keys = _fooled(probes, votes, asked.select("unit", hit=to_suspect))
            hits = asked.join(keys.select("unit", "hit"), on="unit", how="left")
            made = _rows(hits, measure, pl.col("hit"))
            notes[measure] = _worst(keys)
        else:
            made = _rows(asked, measure, to_suspect)
        if made.is_empty():
            missing = "the plan gives no self_pairs of this judge"
            notes[measure] = f"; {missing if measure == 'self_preference' else 'it knows no order'}"
        found.append(made)
    figures = summary(pl.concat(found).with_columns(judge=pl.lit(name)))
    absent = set(config.measures) - set(figures["measure"])
    if absent:
        empty = {
            "judge": [name] * len(absent),
            "measure": sorted(absent),
            "asked": [0] * len(absent),
        }
        figures = pl.concat([figures, pl.DataFrame(empty)], how="diagonal_relaxed")
    noted = pl.col("measure").replace_strict(notes, default="", return_dtype=pl.String)
    shown_as = as_cards(
        figures.with_columns(note=noted), {k: v for k, v in config.limits.items()}, _SAID
    )
    return list(JudgeCard.from_table(shown_as))


def _rows(frame: pl.DataFrame, measure: str, hit: pl.Expr) -> pl.DataFrame:
    return frame.select(
        measure=pl.lit(measure), cluster=pl.col("item").cast(pl.String), hit=hit.cast(pl.Float64)
    )


def _fooled(probes: Sequence[Probe], votes: Sequence[Vote], compared: pl.DataFrame) -> pl.DataFrame:
    """Columns unit, key, hit of the master keys: by the responses' own scores where there are any."""
    scores: dict[str, list[float]] = {}
    for vote in votes:
        if vote.unit_kind == "response" and vote.value is not None:
            scores.setdefault(vote.unit, []).append(vote.value)
    mean = {unit: sum(sorted(values)) / len(values) for unit, values in scores.items()}
    middle: dict[int, float] = {}
    for probe in probes:
        a, b = mean.get(probe.case.a.id), mean.get(probe.case.b.id)
        if probe.kind == "answer" and a is not None and b is not None:
            middle[probe.item] = (a + b) / 2
    beaten = dict(compared.iter_rows())
    rows = []
    for probe in (probe for probe in probes if probe.kind == "master_key"):
        key = probe.case.a if probe.suspect == "a" else probe.case.b
        hit = beaten[probe.case.pair.id]
        if key.id in mean and probe.item in middle:
            above = mean[key.id] - middle[probe.item]
            hit = (above > 0) + 0.5 * (above == 0)
        rows.append((probe.case.pair.id, key.text, hit))
    columns = {"unit": pl.String, "key": pl.String, "hit": pl.Float64}
    return pl.DataFrame(rows, schema=columns, orient="row")


def _worst(keys: pl.DataFrame) -> str:
    """The keys that worked most often, in words."""
    by = keys.group_by("key").agg(pl.col("hit").sum(), n=pl.len())
    fooled = by.filter(pl.col("hit") > 0).sort(
        pl.col("hit") / pl.col("n"), "key", descending=[True, False]
    )
    said = [f"{key!r} {hit:g} of {n}" for key, hit, n in fooled.head(5).iter_rows()]
    return f"; most by {', '.join(said)}" if said else ""


# --- the probes ------------------------------------------------------------------------------------


class _Draft(NamedTuple):
    """A probe's texts: the right (or equal) answer and the suspect one."""

    kind: Kind
    item: int
    prompt: str
    reference: str | None
    good: str
    suspect: str
    judge: str | None = None


def _drafts() -> Iterator[_Draft]:
    for i, item in enumerate(ITEMS):
        asked = (i, item.prompt, item.reference, item.good)
        yield _Draft("answer", *asked, item.wrong)
        yield _Draft("rephrased", *asked, item.rephrased)
        yield _Draft("padded", *asked, f"{item.good} {item.padding}")
        yield _Draft("off_topic", *asked, OFF_TOPIC[i % len(OFF_TOPIC)])
        yield _Draft("contrast", *asked, item.contrast_good)
        other = (i, item.contrast, item.contrast_reference, item.contrast_good)
        yield _Draft("contrast", *other, item.good)
    for k, key in enumerate(MASTER_KEYS):
        for j in range(KEY_QUESTIONS):
            i = (k * KEY_QUESTIONS + j) % len(ITEMS)
            item = ITEMS[i]
            yield _Draft("master_key", i, item.prompt, item.reference, item.good, key)


def _self_drafts(pairs: Sequence[SelfPair]) -> Iterator[_Draft]:
    for i, pair in enumerate(pairs, start=len(ITEMS)):
        yield _Draft("self", i, pair.prompt, None, pair.other, pair.own, pair.judge)


def _probe(draft: _Draft) -> Probe:
    prompt = Prompt(
        messages=(Message(role="user", content=draft.prompt),),
        reference=draft.reference,
        source="prefinery-probes",
        source_id=str(draft.item),
    )
    good, suspect = (
        Response(
            prompt_id=prompt.id,
            engine=MODEL,
            model=MODEL,
            sample_index=index,
            text=text,
            prompt_tokens=0,
            completion_tokens=0,
            finish_reason="stop",
        )
        for index, text in enumerate((draft.good, draft.suspect))
    )
    # A judge that always says a, or always the same response, is to be right half of the time.
    ahead = int(digest("probe", *draft)[0], 16) % 2 == 0
    a, b = (suspect, good) if ahead else (good, suspect)
    side: Literal["a", "b"] = "a" if ahead else "b"
    other: Literal["a", "b"] = "b" if ahead else "a"
    equal = draft.kind in ("rephrased", "padded", "self")
    return Probe(
        case=Case(prompt, Pair(prompt_id=prompt.id, response_a=a.id, response_b=b.id), a, b),
        kind=draft.kind,
        item=draft.item,
        expected="tie" if equal else other,
        suspect=side,
        judge=draft.judge,
    )
