"""Listwise judging: a seeded single-elimination tournament over all responses of a prompt.

After ArenaRL's seeded tournament: an anchor meets every other response, which gives the seeding; then
the best seed meets the worst, round by round, so that good responses meet late. That takes at most
2 (n - 1) matches of n responses. Every match is played in both orders. Where neither response wins
it (a clash, a tie, no usable reply), the better seed goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal, NamedTuple

from pipelines.judge.cases import CLASH, MAX_REASON, Case, Opinions
from pipelines.judge.pairwise import clashes, reversed_
from pipelines.judge.verdicts import Asker, LLMConfig, Opinion, Shown, rejects
from pipelines.pool import bounded
from schemas.record import digest
from schemas.records import Reject, Vote


class ListwiseConfig(LLMConfig):
    """Settings of a judge that ranks all responses of a prompt."""

    kind: Literal["listwise"] = "listwise"
    """Judge kind."""


class Match(NamedTuple):
    """What a match came to: its margin, above 0 where the first won; 0: neither; none: not judged."""

    margin: float | None
    reason: str

    def turned(self) -> Match:
        """The same match, named the other way round."""
        return self._replace(margin=None if self.margin is None else 0.0 - self.margin)


class Tournament:
    """The matches of one prompt's distinct response texts."""

    def __init__(
        self, name: str, asker: Asker, case: Case, texts: Iterable[str], seed: int
    ) -> None:
        self._name = name
        self._asker = asker
        self._case = case
        self._matches: dict[tuple[str, str], Match] = {}
        self.rejects: list[Reject] = []
        # The order is of the texts' content, so it does not tell who wrote them.
        seats = {text: digest("seat", seed, text) for text in texts}
        self._texts = sorted(seats, key=seats.__getitem__)

    async def ranks(self) -> dict[str, int]:
        """Rank of every text, from 1."""
        anchor, *others = self._texts
        await self._play([(text, anchor) for text in others])
        strength = {text: self._margin(text, anchor) for text in others}
        seeding = sorted(self._texts, key=lambda text: -strength.get(text, 0.0))
        field, out = seeding, list[list[str]]()
        while len(field) > 1:
            odd = len(field) % 2  # the best seed goes on unplayed
            rest, half = field[odd:], len(field) // 2
            pairs = list(zip(rest[:half], reversed(rest[half:]), strict=True))
            await self._play(pairs)
            lost = {
                second if self._margin(first, second) >= 0 else first for first, second in pairs
            }
            out.append([text for text in field if text in lost])
            field = [text for text in field if text not in lost]
        ranking = [*field, *(text for losers in reversed(out) for text in losers)]
        return {text: rank for rank, text in enumerate(ranking, start=1)}

    def met(self, first: str, second: str) -> Match | None:
        """The match of two texts, if they had one."""
        if match := self._matches.get((first, second)):
            return match
        match = self._matches.get((second, first))
        return match and match.turned()

    def undecided(self) -> int:
        """Matches that neither won."""
        return sum(not match.margin for match in self._matches.values())

    def played(self) -> int:
        """Matches so far."""
        return len(self._matches)

    def _margin(self, first: str, second: str) -> float:
        """Of a match played; 0 where neither won, for whatever reason."""
        match = self.met(first, second)
        assert match is not None
        return match.margin or 0.0

    async def _play(self, pairs: Sequence[tuple[str, str]]) -> None:
        new = [pair for pair in pairs if self.met(*pair) is None]
        asked = [
            self._asker.shown(self._case, *pair)
            for first, second in new
            for pair in ((first, second), (second, first))
        ]
        found = await self._asker.opinions(asked, 0)
        for (first, second), ab, ba in zip(new, asked[::2], asked[1::2], strict=True):
            for shown in (ab, ba):
                self._reject(shown, found[shown])
            self._matches[first, second] = _match(found[ab], reversed_(found[ba]))

    def _reject(self, shown: Shown, opinion: Opinion) -> None:
        if opinion.failures:
            texts = " against ".join(digest("text", text)[:8] for text in shown.responses)
            self.rejects += rejects(self._name, self._case.prompt.id, f"match {texts}", opinion)


async def votes(name: str, asker: Asker, cases: Sequence[Case], seed: int) -> Opinions:
    """One vote a pair: the difference of the ranks over their range, in [-1, 1].

    A pair whose own match neither won gets a 0 with the reason, or none where it had no usable
    reply. Texts that are equal are one in the tournament.
    """
    groups: dict[Shown, list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault(asker.shown(case), []).append(index)

    async def judged(own: list[int]) -> tuple[list[Vote], list[Reject]]:
        first = cases[own[0]]
        texts = dict.fromkeys(r.text for index in own for r in (cases[index].a, cases[index].b))
        tournament = Tournament(name, asker, first, texts, seed)
        ranks = await tournament.ranks()
        asker.advance(len(own), 0)
        return [_vote(name, cases[index], tournament, ranks) for index in own], tournament.rejects

    found = await bounded(judged, groups.values(), asker.concurrency)
    given = {
        index: vote
        for own, (made, _) in zip(groups.values(), found, strict=True)
        for index, vote in zip(own, made, strict=True)
    }
    return Opinions(
        [given[index] for index in range(len(cases))],
        [reject for _, rejected in found for reject in rejected],
    )


def _match(ab: Opinion, ba: Opinion) -> Match:
    usable = [opinion for opinion in (ab, ba) if opinion.value is not None]
    if not usable:
        return Match(None, ab.reason)
    words = "\n\n".join(opinion.reason for opinion in usable if opinion.reason)
    if clashes(ab, ba):
        return Match(0.0, f"{CLASH}: {words}" if words else CLASH)
    return Match(fmean(opinion.value or 0.0 for opinion in usable), words)


def _vote(name: str, case: Case, tournament: Tournament, ranks: dict[str, int]) -> Vote:
    a, b = case.a.text, case.b.text
    match = tournament.met(a, b)
    value: float | None
    if a == b:
        value, reason = 0.0, "same_text"
    elif match is not None and not match.margin:
        value, reason = match.margin, match.reason or "tie"
    else:
        value = (ranks[b] - ranks[a]) / (len(ranks) - 1)
        reason = f"a: rank {ranks[a]}; b: rank {ranks[b]}; of {len(ranks)}"
        if undecided := tournament.undecided():
            reason += f"; {undecided} of {tournament.played()} matches went by seed"
        if match is not None and match.reason:
            reason += f"; {match.reason}"
    return Vote(
        unit=case.pair.id,
        unit_kind="pair",
        judge=name,
        judge_kind="llm",
        value=value,
        reason=reason[:MAX_REASON],
    )
