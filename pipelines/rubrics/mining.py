"""Hard rules mined by code alone: from what a prompt asks for, and from contrasts of labelled pairs.

A mined rule is a candidate. Its limit is chosen on the pairs it is mined from, where a rule of no
worth looks better than it is; whether it is kept is for its value on other pairs to say.

A rule's verifier is `constraint {...}` (see `pipelines.constraints`), `instruction {...}` (see
`pipelines.instructions`) or `feature {"name": ..., "least": ..., "most": ...}`.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from pydantic import ValidationError

from pipelines import constraints, instructions
from pipelines.intervals import wilson
from pipelines.rubrics.features import FEATURES, Reading, asked, measure
from pipelines.rubrics.wishes import wishes
from schemas.record import digest
from schemas.records import Constraint, Criterion, Pair, Prompt, Response

MAX_PAIRS = 5000
"""Most pairs that rules are mined from; of more, a sample is drawn by the seed."""
MIN_SEPARATED = 10
"""Least pairs that a rule must separate to be a candidate: fewer say nothing of it."""
MAX_KEYWORDS = 10
"""Most keyword rules of a data set."""
_ERROR = 0.05

Check = Callable[[str, str], bool | None]
"""From the prompt's text and a response's text to a verdict; none: the rule says nothing of it."""


class BadVerifier(ValueError):
    """A verifier that cannot be carried out; the message says why."""


def verify(verifier: str, prompt: Prompt | str, text: str) -> bool | None:
    """Whether a response satisfies a rule; None where the rule has no meaning for it.

    `prompt` may be its text, the user's turns joined by line breaks. Raises BadVerifier for a
    verifier that is none of ours.
    """
    return _check(verifier)(prompt if isinstance(prompt, str) else asked(prompt), text)


def mine_prompt(prompt: Prompt) -> list[Criterion]:
    """Hard rules of one prompt: its constraints, its instructions, and what its text asks plainly.

    A verifier that cannot be carried out gives no rule: `verify` and the code judge report those.
    """
    found: dict[str, Criterion] = {}
    rules: list[tuple[str, str, str | None]] = [
        (_of_constraint(c), _constraint_text(c), None) for c in prompt.constraints
    ]
    for asked_for in prompt.instructions:
        arguments = _object(asked_for.arguments)
        if arguments is not None:
            verifier = _spell("instruction", {"id": asked_for.id, "arguments": arguments})
            rules.append((verifier, _instruction_text(asked_for.id, arguments), None))
    text = asked(prompt)
    for wish in wishes(text):
        rules.append((_spell(wish.check, wish.arguments), wish.text, wish.evidence))
    for verifier, words, evidence in rules:
        try:
            _check(verifier)(text, "a")
        except BadVerifier:
            continue
        made = Criterion(kind="hard_rule", text=words, verifier=verifier, evidence=evidence)
        found.setdefault(verifier, made)
    return list(found.values())


def mine_pairs(
    prompts: Iterable[Prompt], responses: Iterable[Response], pairs: Iterable[Pair], seed: int
) -> list[Criterion]:
    """Candidate hard rules from labelled pairs, in the order of the features, then keywords.

    A feature gives the limit, least or most, whose wins less losses over the pairs is greatest: a
    win is a pair of which only the better response keeps the rule, a loss one of which only the
    worse does. A word gives a rule where the lower end of its win share's 95% interval (Wilson, with
    Bonferroni's correction for all words looked at) is above one half. Pairs without a side, or whose rows are not given, are left out. The same rows
    and seed give the same rules whatever the rows' order.
    """
    asked_of = {prompt.id: asked(prompt) for prompt in prompts}
    text_of = {response.id: response.text for response in responses}
    sides = {
        pair.id: (
            Reading(asked_of[pair.prompt_id], text_of[better]),
            Reading(asked_of[pair.prompt_id], text_of[worse]),
        )
        for pair in pairs
        for better, worse in [_better_first(pair)]
        if pair.label in ("a", "b")
        and pair.prompt_id in asked_of
        and {better, worse} <= text_of.keys()
    }
    chosen = sorted(sides)
    if len(chosen) > MAX_PAIRS:
        draw = random.Random(digest("mining", seed, len(chosen)))
        chosen = sorted(draw.sample(chosen, MAX_PAIRS))
    contrasts = [sides[pair_id] for pair_id in chosen]
    return [*_feature_rules(contrasts), *_keyword_rules(contrasts)]


def _better_first(pair: Pair) -> tuple[str, str]:
    both = pair.response_a, pair.response_b
    return both if pair.label == "a" else both[::-1]


def _feature_rules(contrasts: Sequence[tuple[Reading, Reading]]) -> Iterator[Criterion]:
    for name, (_, words) in FEATURES.items():
        values = [(measure(name, better), measure(name, worse)) for better, worse in contrasts]
        known = [(b, w) for b, w in values if b is not None and w is not None]
        limit = best_limit(known)
        if limit is None:
            continue
        key, value = limit
        flag = words.startswith("whether ")
        said = words.replace(
            "whether ", "It holds that " if key == "least" else "It is not so that "
        )
        yield Criterion(
            kind="hard_rule",
            text=f"{said}." if flag else f"Keep {words} at {key} {value:g}.",
            category="mined",
            verifier=_spell("feature", {"name": name, key: value}),
        )


def best_limit(values: Sequence[tuple[float, float]]) -> tuple[str, float] | None:
    """The limit on a feature that tells most (better, worse) pairs apart, less those it gets wrong.

    Returns (`least` or `most`, limit); None where no limit is right more often than wrong, or the
    best one separates fewer than MIN_SEPARATED pairs. Of equals, `least` and the lowest.
    """
    points = sorted({value for pair in values for value in pair})
    if len(points) < 2:
        return None
    better = np.searchsorted(points, [b for b, _ in values])
    worse = np.searchsorted(points, [w for _, w in values])
    # Limit i lies below point i + 1: it separates a pair whose lower value is at i or below.
    low, high = np.minimum(better, worse), np.maximum(better, worse)
    gain: np.ndarray = np.zeros(len(points), np.int64)
    apart: np.ndarray = np.zeros(len(points), np.int64)
    for at, sign in ((low, 1), (high, -1)):
        np.add.at(gain, at, sign * np.sign(better - worse))
        np.add.at(apart, at, sign)
    gain, apart = gain.cumsum()[:-1], apart.cumsum()[:-1]
    gain[apart < MIN_SEPARATED] = 0
    best = int(np.abs(gain).argmax())
    if gain[best] == 0:
        return None
    return ("least", points[best + 1]) if gain[best] > 0 else ("most", points[best])


def _keyword_rules(contrasts: Sequence[tuple[Reading, Reading]]) -> list[Criterion]:
    """The words that most surely stand in the better, or the worse, response alone."""
    wins, losses = Counter[str](), Counter[str]()
    for better, worse in contrasts:
        ours, theirs = _vocabulary(better.text), _vocabulary(worse.text)
        wins.update(ours - theirs)
        losses.update(theirs - ours)
    words = [w for w in wins.keys() | losses.keys() if wins[w] + losses[w] >= MIN_SEPARATED]
    # Of a thousand words of no worth, dozens would pass a test made for one.
    z = NormalDist().inv_cdf(1 - _ERROR / 2 / max(1, len(words)))
    ranked = []
    for word in words:
        won, lost = wins[word], losses[word]
        low, _ = wilson(max(won, lost) / (won + lost), won + lost, z)
        if low > 0.5:
            ranked.append((-low, word, won > lost))
    rules = []
    for _, word, good in sorted(ranked)[:MAX_KEYWORDS]:
        constraint = Constraint(kind="includes" if good else "excludes", value=word)
        rules.append(
            Criterion(
                kind="hard_rule",
                text=_constraint_text(constraint),
                category="mined",
                verifier=_of_constraint(constraint),
            )
        )
    return rules


def _vocabulary(text: str) -> set[str]:
    words = {word.strip(".,;:!?()[]\"'*_`") for word in text.lower().split()}
    return {word for word in words if word.isalpha() and 3 <= len(word) <= 20}


@lru_cache(maxsize=1024)
def _check(verifier: str) -> Check:
    name, _, rest = verifier.partition(" ")
    arguments = _object(rest)
    if arguments is None:
        raise BadVerifier(f"{verifier[:80]!r} is not NAME and a JSON object")
    if name == "feature":
        return _feature_check(arguments)
    if name not in ("constraint", "instruction"):
        raise BadVerifier(f"{name[:40]!r} is no verifier: constraint, instruction or feature")
    try:
        if name == "constraint":
            constraint = Constraint.model_validate(arguments)
            constraints.validate(constraint)
            return lambda _, text: constraints.check(constraint, text)[0]
        kind, given = arguments.pop("id", None), arguments.pop("arguments", {})
        if arguments or not isinstance(kind, str) or not isinstance(given, dict):
            raise BadVerifier("instruction takes id and arguments")
        instructions.check(kind, given, "a", "a")
        return lambda asked_for, text: instructions.check(kind, given, text, asked_for)[0]
    except ValidationError as error:
        raise BadVerifier(f"{name}: {error.errors()[0]['msg']}"[:200]) from error
    except (constraints.BadConstraint, instructions.BadInstruction) as error:
        raise BadVerifier(str(error)[:200]) from error


def _feature_check(arguments: dict[str, Any]) -> Check:
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in FEATURES:
        raise BadVerifier(f"feature {str(name)[:40]!r} is none of {', '.join(FEATURES)}")
    unknown = sorted(arguments.keys() - {"least", "most"})
    if unknown or not arguments:
        raise BadVerifier(f"feature {name} takes least and most, not {unknown}")
    for value in arguments.values():
        if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
            raise BadVerifier(f"feature {name}: {str(value)[:40]!r} is no limit")
    least, most = arguments.get("least", -math.inf), arguments.get("most", math.inf)

    def holds(asked_for: str, text: str) -> bool | None:
        value = measure(name, _reading(asked_for, text))
        return None if value is None else least <= value <= most

    return holds


@lru_cache(maxsize=16)
def _reading(asked_for: str, text: str) -> Reading:
    # The rules of a rubric read one response after the other.
    return Reading(asked_for, text)


def _finite(value: float) -> bool:
    return abs(value) <= 10**12


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _spell(name: str, arguments: dict[str, Any]) -> str:
    return f"{name} {json.dumps(arguments, sort_keys=True, ensure_ascii=False)}"


def _of_constraint(constraint: Constraint) -> str:
    return _spell("constraint", constraint.model_dump(mode="json", exclude_none=True))


_CONSTRAINT_TEXTS = {
    "max_words": "Use at most {} words.",
    "min_words": "Use at least {} words.",
    "includes": "Use the words “{}”.",
    "excludes": "Do not use the words “{}”.",
    "json": "Answer with one JSON document.",
    "lowercase": "Use no capital letter.",
    "matches": "Match the pattern {}",
}


def _constraint_text(constraint: Constraint) -> str:
    return _CONSTRAINT_TEXTS[constraint.kind].format(constraint.value)


def _instruction_text(id: str, arguments: dict[str, Any]) -> str:
    given = ", ".join(f"{key} {value}" for key, value in sorted(arguments.items()))
    return f"Follow the instruction {id}{': ' if given else ''}{given[:300]}."
