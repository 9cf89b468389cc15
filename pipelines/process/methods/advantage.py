"""What a step changes: the chance to end right after it, less that before it, under a prover.

Process advantage verifiers (Setlur et al. 2024, "Rewarding Progress", arXiv 2410.08146):
A^mu = Q^mu(after) - Q^mu(before), with a prover mu other than the policy. The prover is an engine,
or the best of K policy samples: Q^mu = 1 - (1 - V)^K.

With a prover engine the counts are of its rollouts, and `value`, which is the policy's, is not
known. The hard label is of the step's progress, so an idle step after an error is right: `right`
where the advantage is 0 or more, `wrong` where its 90% interval lies below 0, else none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pipelines.process.config import ProcessConfig
from pipelines.process.estimate import interval, value
from pipelines.process.methods.asking import Log, draw, step_of
from pipelines.process.search import (
    Book,
    BudgetSpent,
    Drawn,
    Found,
    Label,
    Question,
    Search,
    Solo,
    Solution,
    Step,
    final_step,
    parallel,
    tally,
)


class Chance(NamedTuple):
    """An estimate with its interval."""

    value: float
    low: float
    high: float


def search(question: Question, config: ProcessConfig) -> Search:
    """Label a question's solutions."""
    return parallel(question, [label(s, question.book, config) for s in question.solutions])


def label(solution: Solution, book: Book, config: ProcessConfig) -> Solo:
    """Label one solution by rollouts at every position, that before the first step included.

    Those before the first step are in no step's counts.
    """
    log, stopped = Log(), "complete"
    prover = config.prover is not None
    root, *prefixes = (solution.prefix(position) for position in range(solution.last + 1))
    try:
        # Uncurtailed: it is every first step's comparison, and all solutions share it.
        yield from draw(book, [root], config.k, 0, log, "before the first step", prover=prover)
        why = "after every step"
        yield from draw(book, prefixes, config.k, config.stop_at, log, why, prover=prover)
    except BudgetSpent:
        stopped = "budget"
    drawn = [book.drawn(prefix, config.k, prover) for prefix in prefixes]
    chances = [chance(book.drawn(root, prover=prover), config, 0)]
    chances += [chance(own, config, config.stop_at) for own in drawn]
    steps = [_counted(own, config) for own in drawn]
    if solution.ended:
        known = solution.final_right
        steps.append(final_step(known))
        chances.append(None if known is None else Chance(float(known), float(known), float(known)))
    labelled = [
        _progress(step, before, after)
        for step, before, after in zip(steps, chances, chances[1:], strict=False)
    ]
    return Found(
        solution,
        tuple(labelled),
        stopped,
        resolved=stopped == "complete",
        asked=tuple(log.asked),
    )


def chance(drawn: Sequence[Drawn], config: ProcessConfig, stop_at: int) -> Chance | None:
    """Q^mu of a prefix from its rollouts; None where none of them had an answer."""
    seen = tally(drawn)
    if not seen.counted:
        return None
    low, high = interval(seen.right, seen.counted, stop_at)
    if config.prover is not None:
        return Chance(value(seen.right, seen.counted, stop_at), low, high)
    best = best_of(seen.right, seen.counted, stop_at, config.k, config.best_of)
    return Chance(best, *(1 - (1 - end) ** config.best_of for end in (low, high)))


def best_of(successes: int, n: int, stop_at: int, k: int, best: int) -> float:
    """Estimate of 1 - (1 - V)^K, K = `best`, from `n` counted draws of at most `k`.

    Unbiased where k >= K. Draws up to the cap: the U-statistic, the share of the K-subsets of the
    draws that hold a success (Chen et al. 2021, arXiv 2107.03374). Stopped at the `stop_at`-th
    success: of the orders in which the draws can have come, the share that does not begin with K
    failures (Girshick, Mosteller and Savage 1946). With fewer than K draws there is no unbiased
    estimate, and V's is put in, which is too low on average.
    """
    if stop_at and successes >= stop_at and k >= best:
        # The last draw is a success in every order.
        rest = stop_at - 1
        return 1 - math.comb(max(0, n - 1 - best), rest) * (n > best) / math.comb(n - 1, rest)
    if n >= best:
        return 1 - math.comb(n - successes, best) / math.comb(n, best)
    return 1 - (1 - value(successes, n, stop_at)) ** best


def _counted(drawn: Sequence[Drawn], config: ProcessConfig) -> Step:
    step = step_of(drawn, config.stop_at)._replace(label=None, source="none")
    if config.prover is None:
        return step
    return step._replace(value=None, low=None, high=None)


def _progress(step: Step, before: Chance | None, after: Chance | None) -> Step:
    """The step with its advantage and label.

    The interval's upper end is MOVER's, from the two intervals (Zou and Donner 2008).
    """
    if before is None or after is None:
        return step._replace(label=None, source="none")
    change = after.value - before.value
    above, below = max(0.0, after.high - after.value), max(0.0, before.value - before.low)
    high = change + math.hypot(above, below)
    label: Label | None = "right" if change >= 0 else "wrong" if high < 0 else None
    return step._replace(
        advantage=change, label=label, source="none" if label is None else "rollouts"
    )
