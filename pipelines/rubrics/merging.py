"""One rubric of many drafts: like criteria are merged, and those that speak for most are selected."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from pipelines.rubrics.drafting import Draft, reject
from schemas.records import Criterion, Reject, Rubric

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts to vectors of length 1, float32 [texts, dimensions]."""

_BLOCK = 256
_KINDS = ("hard_rule", "principle", "nugget", "pitfall")
_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_QUOTED = re.compile(r"[\"“«]([^\"”»]+)[\"”»]")
# Texts that differ in these mean something else, and yet their vectors are close.
_NEGATIONS = frozenset(
    ["not", "no", "never", "without", "none", "nor", "cannot", "free", "omits", "lacks", "avoids"]
)
_UPPER = frozenset(["most", "maximum", "max", "fewer", "less", "below", "under", "before"])
_LOWER = frozenset(["least", "minimum", "min", "more", "above", "over", "after"])


def select(
    drafts: Sequence[Draft], limit: int, threshold: float, embed: Embed | None
) -> tuple[list[Draft], list[Reject]]:
    """The drafts of one rubric, merged and cut to the limit; the order of the drafts is of no account.

    Those left out are Rejects of their criteria: `duplicate_criterion`, `not_selected`.
    """
    merged, rejects = merge(drafts, threshold, embed)
    by_id = {draft.criterion.id: draft for draft in merged}
    chosen = cover(list(by_id), {id: draft.covers for id, draft in by_id.items()}, limit)
    for left in sorted(by_id.keys() - set(chosen)):
        said = f"the rubric has its {limit} criteria; left out: {by_id[left].criterion.text}"
        rejects.append(reject(left, "not_selected", said))
    kept = [by_id[id] for id in chosen]
    return sorted(kept, key=lambda draft: _shown_order(draft.criterion)), rejects


def merge(
    drafts: Sequence[Draft], threshold: float, embed: Embed | None
) -> tuple[list[Draft], list[Reject]]:
    """Drafts with like ones merged into the first of them, by preference; it covers what they cover.

    Preferred is what more units speak for, then hard rules, heavy ones and short ones. A draft that
    is like two kept ones joins the nearer.
    """
    whole, rejects = _same_words(drafts)
    ordered = sorted(whole, key=_preference)
    near = alike([draft.criterion for draft in ordered], threshold, embed)
    kept: dict[int, Draft] = {}
    for index, draft in enumerate(ordered):
        homes = [(-likeness, other) for other, likeness in near[index].items() if other in kept]
        if not homes:
            kept[index] = draft
            continue
        likeness, home = min(homes)
        kept[home] = _joined([kept[home], draft])
        rejects.append(_duplicate(draft, kept[home], -likeness))
    return list(kept.values()), rejects


def _same_words(drafts: Sequence[Draft]) -> tuple[list[Draft], list[Reject]]:
    """Drafts of the same words as one: a data set's most drawn criteria are drawn thousands of times."""
    groups: dict[tuple[object, ...], dict[str, Draft]] = {}
    for draft in drafts:
        key = (draft.criterion.text.casefold(), draft.criterion.parent, _sign(draft.criterion))
        own = groups.setdefault(key, {})
        id = draft.criterion.id
        own[id] = _joined([own[id], draft]) if id in own else draft
    whole, rejects = [], []
    for own in groups.values():
        first, *others = sorted(own.values(), key=_preference)
        whole.append(_joined([first, *others]))
        rejects += [_duplicate(draft, first, 1.0) for draft in others]
    return whole, rejects


def _joined(drafts: Sequence[Draft]) -> Draft:
    """The first draft, which speaks for all of them."""
    pairs = frozenset[str]().union(*(draft.pairs for draft in drafts))
    covers = frozenset[str]().union(*(draft.covers for draft in drafts))
    return replace(drafts[0], pairs=pairs, covers=covers)


def _duplicate(draft: Draft, first: Draft, likeness: float) -> Reject:
    said = f"like {first.criterion.id} ({likeness:.2f}): {draft.criterion.text}"
    return reject(draft.criterion.id, "duplicate_criterion", said)


def combine(
    rubrics: Sequence[Rubric],
    criteria: Mapping[str, Criterion],
    limit: int,
    threshold: float,
    embed: Embed | None = None,
    covers: Mapping[str, Collection[str]] | None = None,
) -> tuple[Rubric, list[Reject]]:
    """Rubrics of one prompt (or of all) as one rubric; `method` joins their methods by `+`.

    `covers`: by criterion id, what it speaks for, such as the pairs that its verdicts separate; none:
    the pairs of its rubrics. Criteria of a tree, and rubrics scored in other ways, cannot be pooled:
    ValueError.
    """
    if len({(rubric.prompt_id, rubric.scoring) for rubric in rubrics}) != 1:
        raise ValueError("rubrics of different prompts or scorings cannot be combined")
    if any(criteria[id].parent is not None for rubric in rubrics for id in rubric.criteria):
        raise ValueError("criteria of a tree cannot be combined")
    drafts = []
    for rubric in rubrics:
        for id in rubric.criteria:
            own = rubric.pairs if covers is None else covers.get(id, ())
            pairs = frozenset(rubric.pairs)
            drafts.append(Draft(criteria[id], rubric.prompt_id, pairs, frozenset(own)))
    kept, rejects = select(drafts, limit, threshold, embed)
    made = Rubric(
        prompt_id=rubrics[0].prompt_id,
        criteria=tuple(draft.criterion.id for draft in kept),
        method="+".join(sorted({rubric.method for rubric in rubrics})),
        pairs=tuple(sorted({pair for rubric in rubrics for pair in rubric.pairs})),
        scoring=rubrics[0].scoring,
    )
    return made, rejects


def cover(order: Sequence[str], covers: Mapping[str, Collection[str]], limit: int) -> list[str]:
    """Up to `limit` ids, greedily: each time the one that covers most of what none before it covers.

    Once all is covered it starts anew with the rest, so that a rubric is filled by what covers most
    again. Ties go to the earlier in `order`.
    """
    left = list(dict.fromkeys(order))
    chosen: list[str] = []
    open_units: set[str] = set()
    while left and len(chosen) < limit:
        best = max(left, key=lambda id: len(open_units.intersection(covers[id])))
        if not open_units.intersection(covers[best]):
            open_units = {unit for id in left for unit in covers[id]}
            best = max(left, key=lambda id: len(open_units.intersection(covers[id])))
        open_units.difference_update(covers[best])
        chosen.append(best)
        left.remove(best)
    return chosen


def alike(
    criteria: Sequence[Criterion], threshold: float, embed: Embed | None
) -> list[dict[int, float]]:
    """For each criterion the others, by index, whose cosine is at least the threshold.

    Criteria that differ in numbers, quoted words, negation or the side of a bound are never alike,
    nor are those of another code check, or a mistake and a merit. Without an embedder the vectors
    are of the words in a text: 1 for each that is in it.
    """
    texts = [criterion.text for criterion in criteria]
    near: list[dict[int, float]] = [{} for _ in texts]
    if not texts:
        return near
    vectors = embed(texts) if embed is not None else word_vectors(texts)
    signs = [_sign(criterion) for criterion in criteria]
    for start in range(0, len(texts), _BLOCK):
        found: Any = vectors[start : start + _BLOCK] @ vectors.T
        block = np.asarray(found.toarray() if isinstance(found, sparse.sparray) else found)
        # A cosine of 1 may be a little less in float32.
        for row, other in zip(*np.nonzero(block >= threshold - 1e-6), strict=True):
            index, other = start + int(row), int(other)
            if index != other and signs[index] == signs[other]:
                near[index][other] = round(float(block[row, other]), 6)
    return near


def word_vectors(texts: Sequence[str]) -> sparse.csr_array:
    """Rows of length 1 with equal weight on each different word of a text."""
    columns: dict[str, int] = {}
    rows = [
        sorted({columns.setdefault(word, len(columns)) for word in _WORD.findall(text.casefold())})
        for text in texts
    ]
    starts = np.cumsum([0, *(len(row) for row in rows)])
    values = [len(row) ** -0.5 for row in rows for _ in row]
    flat = [column for row in rows for column in row]
    return sparse.csr_array((values, flat, starts), shape=(len(texts), max(1, len(columns))))


def _sign(criterion: Criterion) -> tuple[object, ...]:
    """What two criteria must have in common to mean the same."""
    text = criterion.text.casefold().replace("n't", " not")
    words = _WORD.findall(text)
    group = "merit" if criterion.kind in ("hard_rule", "principle") else criterion.kind
    return (
        group,
        criterion.verifier,
        criterion.weight < 0,
        tuple(sorted(_NUMBER.findall(text))),
        tuple(sorted(_QUOTED.findall(text))),
        sum(word in _NEGATIONS for word in words) % 2,
        any(word in _UPPER for word in words),
        any(word in _LOWER for word in words),
    )


def _preference(draft: Draft) -> tuple[object, ...]:
    row = draft.criterion
    heavy = -abs(row.weight)
    return (-len(draft.covers), _KINDS.index(row.kind), heavy, len(row.text), row.text, row.id)


def _shown_order(row: Criterion) -> tuple[object, ...]:
    return (_KINDS.index(row.kind), -row.weight, row.text, row.id)
