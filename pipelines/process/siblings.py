"""Siblings of a search tree: steps after the same prefix, as preferences with their strength."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from math import exp, lgamma, log
from typing import NamedTuple

from schemas.records import StepPair


class Child(NamedTuple):
    """A step after a prefix, with its separator, and how the rollouts after it ended."""

    prefix: str
    step: str
    right: int
    wrong: int

    @property
    def value(self) -> float:
        """Share of the rollouts that ended right; there must be one."""
        return self.right / (self.right + self.wrong)


def step_pairs(
    prompt_id: str, children: Iterable[Child], min_gap: float, method: str
) -> tuple[StepPair, ...]:
    """Pairs of siblings whose values differ by `min_gap` or more, in the order of the children.

    Steps without a checked rollout, and steps that differ in white space alone, make no pair.
    """
    families: dict[str, list[Child]] = {}
    for child in children:
        if child.right + child.wrong:
            families.setdefault(child.prefix, []).append(child)
    return tuple(
        _pair(prompt_id, one, other, method)
        for family in families.values()
        for one, other in itertools.combinations(family, 2)
        if one.value != other.value
        # The tolerance keeps a gap that rounding made a little smaller.
        and abs(one.value - other.value) >= min_gap - 1e-9
        and one.step.strip() != other.step.strip()
    )


def _pair(prompt_id: str, one: Child, other: Child, method: str) -> StepPair:
    better, worse = (one, other) if one.value > other.value else (other, one)
    return StepPair(
        prompt_id=prompt_id,
        prefix=better.prefix,
        chosen=better.step,
        rejected=worse.step,
        chosen_value=better.value,
        rejected_value=worse.value,
        chosen_n=better.right + better.wrong,
        rejected_n=worse.right + worse.wrong,
        probability=probability_better(better.right, better.wrong, worse.right, worse.wrong),
        method=method,
    )


def probability_better(right: int, wrong: int, other_right: int, other_wrong: int) -> float:
    """P(V > V') for V ~ Beta(1 + right, 1 + wrong) and V' likewise, independent: exact.

    The posteriors of two values under a uniform prior, also where sampling stopped early. With
    whole-numbered shapes the survival function of V at x is a sum over binomial terms; its mean
    over V' is a sum of ratios of beta functions, all positive.
    """
    a, b = 1 + right, 1 + wrong
    c, d = 1 + other_right, 1 + other_wrong
    # P(V > x) = sum over i < a of C(a+b-1, i) x^i (1-x)^(a+b-1-i).
    n = a + b - 1
    terms = (
        -log(n + 1) - _log_beta(i + 1, n - i + 1) + _log_beta(c + i, d + n - i) - _log_beta(c, d)
        for i in range(a)
    )
    return min(1.0, sum(exp(term) for term in terms))


def _log_beta(a: int, b: int) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
