"""What the report says of rounds: what each changed, and what it was worth by people's labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from pipelines.store import Published


@dataclass(frozen=True)
class RoundShown:
    """One round; round 0 is before any model was trained."""

    number: int
    settled: int
    """Pairs kept, flipped or softened."""
    changed: int
    """Pairs decided otherwise than in the round before."""
    expected_wrong: float | None
    """Mean of 1 - probability of what is settled; none: nothing is."""
    log_loss: float | None
    """Of the calibration, on prompts it was not fitted to, in nats; none: no human labels."""
    against: int
    """Settled pairs that the round's model sides against."""
    relabelled: int
    """Pairs put to the dearer judge."""


def rounds(made: Mapping[str, Published]) -> tuple[RoundShown, ...]:
    """The rounds of a run, in order; nothing for a run without."""
    numbers = sorted({int(m[1]) for name in made if (m := re.match(r"round\.(\d+)\.", name))})
    found: list[RoundShown] = []
    before: pl.DataFrame | None = None
    for number in numbers:
        # The last round's decisions are the run's.
        prefix = f"round.{number}." if f"round.{number}.decide" in made else ""
        if f"{prefix}decide" not in made or f"{prefix}calibrate" not in made:
            continue
        now = pl.DataFrame(pl.from_arrow(made[f"{prefix}decide"].table("decisions")))
        facts = made[f"{prefix}calibrate"].manifest.facts
        settled = now.filter(pl.col("action").is_in(["keep", "flip", "soften"]))
        wrong = (1 - settled["probability"]).mean() if len(settled) else None
        reward = made.get(f"round.{number}.reward")
        relabel = made.get(f"round.{number}.relabel")
        found.append(
            RoundShown(
                number=number,
                settled=len(settled),
                changed=_changed(before, now) if before is not None else 0,
                expected_wrong=float(wrong) if isinstance(wrong, float) else None,
                log_loss=facts.get("log_loss"),
                against=_against(settled, reward) if reward else 0,
                relabelled=relabel.manifest.facts.get("rows", 0) if relabel else 0,
            )
        )
        before = now
    return tuple(found)


def _changed(before: pl.DataFrame, now: pl.DataFrame) -> int:
    """Pairs whose action, or the side of whose target, differs."""
    both = now.join(before.select("pair_id", "action", "target"), on="pair_id", suffix="_before")
    side = (pl.col("target") > 0.5) != (pl.col("target_before") > 0.5)
    return both.filter((pl.col("action") != pl.col("action_before")) | side).height


def _against(settled: pl.DataFrame, reward: Published) -> int:
    votes = pl.DataFrame(pl.from_arrow(reward.table("votes"))).select(pair_id="unit", vote="value")
    both = settled.join(votes, on="pair_id").drop_nulls("vote")
    return both.filter((pl.col("vote") > 0) != (pl.col("target") > 0.5)).height
