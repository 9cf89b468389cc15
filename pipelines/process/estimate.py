"""What k draws say about a success probability, also where sampling stopped early."""

from __future__ import annotations

from scipy.special import betaincinv


def value(successes: int, n: int, stop_at: int) -> float:
    """Unbiased estimate of the success probability from `n` counted draws.

    Where sampling stopped at the `stop_at`-th success (inverse binomial sampling), (r-1)/(n-1)
    (Girshick, Mosteller and Savage 1946); where it ran to its cap, the share. `stop_at` 0: no
    stopping, the share. `stop_at` 1 leaves no unbiased estimate but 1 at the first draw and 0
    else: the share is given, which leans high.
    """
    if n < 1:
        raise ValueError("a value needs at least one draw")
    if stop_at >= 2 and successes >= stop_at and n > 1:
        return (successes - 1) / (n - 1)
    return successes / n


def interval(successes: int, n: int, stop_at: int, coverage: float = 0.9) -> tuple[float, float]:
    """Clopper-Pearson interval, exact also under stopping at the `stop_at`-th success.

    With stopping at draw n: P(N <= n | p) is the chance of at least r successes in n draws, and
    P(N >= n | p) that of at most r-1 in n-1: the same beta quantiles with those counts.
    """
    tail = (1 - coverage) / 2
    stopped = stop_at >= 1 and successes >= stop_at
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    above, draws = (successes - 1, n - 1) if stopped else (successes, n)
    high = float(betaincinv(above + 1, draws - above, 1 - tail)) if above < draws else 1.0
    return low, high
