"""What the report says of each judge: how it voted, what is known of it, and why it was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from flows.frames import frame
from flows.report_counts import sides
from pipelines.judge.cards import DIRECTIONS, cards, failing
from pipelines.store import Published
from schemas.records import JudgeCard, Vote

SHARE = ("usable_share", "swap_consistency", "tie_share")
"""Measures in [0, 1]; shares less a half, and differences of shares, are in [-1, 1]."""
MEASURED = 50_000
"""Pairs of the run that judges' figures are measured on at most; counts of votes are of all."""
SAID = {
    "usable_share": "votes with a value",
    "swap_consistency": "pairs seen in both orders on which it does not change sides",
    "position_preference": "share of votes for the response shown first, less .5",
    "tie_share": "pairs without a side, position clashes among them",
    "agreement": "pairs on which it sides with the label that the pair came with",
    "human_agreement": "pairs on which it sides with people",
    "length_preference": "share of pairs on which it sides with the longer response, less .5",
    "length_bias": "the same, less the share of labels that are for the longer response",
}
"""What is measured of a judge on the run's own pairs, in the order shown."""


@dataclass(frozen=True)
class JudgeFigure:
    """A figure of a judge with its 95% interval; `passed` is none where no limit was set."""

    measure: str
    meaning: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    limit: float | None = None
    passed: bool | None = None

    @property
    def signed(self) -> bool:
        """Whether 0 is the middle of its scale."""
        return self.measure.endswith(("_preference", "_bias")) and not self.measure.startswith(
            "off_topic"
        )


@dataclass(frozen=True)
class JudgeShown:
    """One judge: its votes on pairs, and its figures on the probes and on the run's own pairs."""

    name: str
    kind: str
    votes: int
    usable: int
    sides: Mapping[str, int]
    """Pairs by the side that it takes: for A, for B, no side, position clash."""
    both: int
    """Pairs that it judged in both orders."""
    left_out: str = ""
    """Why its votes do not count; empty: they do."""
    probes: tuple[JudgeFigure, ...] = ()
    own: tuple[JudgeFigure, ...] = ()

    @property
    def clashes(self) -> int:
        """Pairs on which its two orders side with different responses."""
        return self.sides.get("position clash", 0)


_TONES = {"for A": "s0", "no side": "mute", "position clash": "bad", "for B": "s4"}


def side_parts(judge: JudgeShown) -> list[tuple[str, int, str]]:
    """The judge's sides as (name, pairs, colour), for a bar."""
    return [(name, n, _TONES.get(name, "s5")) for name, n in judge.sides.items()]


def limit_words(figure: JudgeFigure) -> str:
    """A figure's limit in words."""
    way = DIRECTIONS.get(figure.measure)
    words = {"least": "at least {:g}", "most": "at most {:g}", "size": "at most {:g} either way"}
    return words[way].format(figure.limit) if way and figure.limit is not None else ""


def voters(made: Mapping[str, Published], people: bool = True) -> list[Published]:
    """The outputs that hold the votes on pairs that count: of rounds' models, the last alone."""
    models = [name for name in made if name.startswith("round.") and name.endswith(".reward")]
    return [
        out
        for name, out in made.items()
        if name in ("judge", "rubric", *models[-1:])
        or name.startswith("panel.")
        or (name.startswith("round.") and name.endswith(".relabel"))
        or (name == "humans" and people)
    ]


def pair_votes(outputs: Iterable[Published]) -> pa.Table:
    """All votes of these outputs."""
    tables = [out.table("votes") for out in outputs]
    return pa.concat_tables(tables) if tables else Vote.arrow_schema().empty_table()


def judges(made: Mapping[str, Published]) -> tuple[JudgeShown, ...]:
    """Every machine judge of the run, those that were left out last."""
    kinds = {
        name.partition(".")[2]: str(out.manifest.config.get("kind", ""))
        for name, out in made.items()
        if name.startswith(("panel.", "probes."))
    }
    probed = {
        name.partition(".")[2]: out for name, out in made.items() if name.startswith("probes.")
    }
    found = []
    known = set()
    if "pairs" in made:
        votes = pair_votes(voters(made, people=False))
        own = _own(made, votes)
        for judge, row in _counts(votes).items():
            known.add(judge)
            how = kinds.get(judge, "")
            said = str(row["judge_kind"]).replace("_", " ")
            found.append(
                JudgeShown(
                    name=judge,
                    kind=how.replace("_", " ") or said,
                    votes=row["votes"],
                    usable=row["usable"],
                    sides=row["sides"],
                    both=row["both"],
                    probes=_figures(probed.get(judge)),
                    own=own.get(judge, ()),
                )
            )
    for judge, out in probed.items():
        if judge not in known and (why := failing(out.table("cards"))):
            kind = kinds[judge].replace("_", " ")
            found.append(JudgeShown(judge, kind, 0, 0, {}, 0, why[judge], _figures(out)))
    return tuple(found)


def _counts(votes: pa.Table) -> dict[str, dict[str, Any]]:
    """Votes, usable ones, sides and pairs seen in both orders, by judge in the order they voted."""
    every = pl.DataFrame(pl.from_arrow(votes)).filter(pl.col("unit_kind") == "pair")
    rows = every.group_by("judge", maintain_order=True).agg(
        pl.col("judge_kind").first(), votes=pl.len(), usable=pl.col("value").count()
    )
    both = (
        every.drop_nulls(["order", "value"])
        .group_by("judge", "unit")
        .agg(pl.col("order").n_unique())
        .filter(pl.col("order") == 2)
        .group_by("judge")
        .len("both")
    )
    taken: dict[str, dict[str, int]] = {}
    names = ("for A", "no side", "position clash", "for B")
    for judge, side, n in sides(votes).group_by("judge", "side").len().iter_rows():
        taken.setdefault(judge, {})[side] = n
    return {
        row["judge"]: {
            **row,
            "both": row["both"] or 0,
            "sides": {s: taken[row["judge"]][s] for s in names if s in taken.get(row["judge"], {})},
        }
        for row in rows.join(both, on="judge", how="left", maintain_order="left").to_dicts()
    }


def _figures(out: Published | None) -> tuple[JudgeFigure, ...]:
    """The probes' figures."""
    if out is None:
        return ()
    return tuple(
        JudgeFigure(
            card.measure,
            card.detail.removeprefix("probes: "),
            *(card.value, card.low, card.high, card.n, card.limit, card.passed),
        )
        for card in JudgeCard.from_table(out.table("cards"))
    )


def _own(made: Mapping[str, Published], votes: pa.Table) -> dict[str, tuple[JudgeFigure, ...]]:
    """What the run's own votes tell of each judge, by name.

    Length preference is over all pairs, as if all were ties: a longer response may well be better,
    so it tells judges apart and proves nothing alone.
    """
    pairs = frame(made["pairs"], "pairs")
    if not len(votes) or not len(pairs):
        return {}
    if len(pairs) > MEASURED:
        # Ids are hashes: the first by id are a random sample, the same one every time.
        pairs = pairs.sort("id").head(MEASURED)
        votes = votes.filter(pc.is_in(votes["unit"], pairs["id"].to_arrow().cast(pa.string())))
    long = frame(made["generate"], "responses").select(
        response="id", size=pl.col("text").str.len_chars()
    )
    lengths = (
        pairs.select(unit="id", response_a="response_a", response_b="response_b")
        .join(long.rename({"size": "a"}), left_on="response_a", right_on="response")
        .join(long.rename({"size": "b"}), left_on="response_b", right_on="response")
        .select("unit", "a", "b")
        .to_arrow()
    )
    told = pairs.select("id", "prompt_id", "label")
    equal = told.with_columns(label=pl.lit("tie"))
    plain = _by_measure(cards(votes, equal.to_arrow(), lengths))
    given = _by_measure(cards(votes, told.to_arrow(), lengths))
    found = {
        **{m: plain.get(m, {}) for m in (*SHARE, "position_preference", "length_preference")},
        "length_bias": given.get("length_bias", {}),
        "agreement": given.get("accuracy", {}),
    }
    if "humans" in made:
        people = frame(made["humans"], "labels").select(
            id="pair_id",
            label=pl.when(pl.col("value") > 0)
            .then(pl.lit("a"))
            .when(pl.col("value") < 0)
            .then(pl.lit("b")),
        )
        asked = told.drop("label").join(people, on="id", how="left")
        found["human_agreement"] = _by_measure(cards(votes, asked.to_arrow())).get("accuracy", {})
    names = dict.fromkeys(judge for by_judge in found.values() for judge in by_judge)
    return {
        judge: tuple(
            JudgeFigure(measure, meaning, card.value, card.low, card.high, card.n)
            for measure, meaning in SAID.items()
            if (card := found.get(measure, {}).get(judge)) is not None and card.n
        )
        for judge in names
    }


def _by_measure(table: pa.Table) -> dict[str, dict[str, JudgeCard]]:
    found: dict[str, dict[str, JudgeCard]] = {}
    for card in JudgeCard.from_table(table):
        found.setdefault(card.measure, {})[card.judge] = card
    return found
