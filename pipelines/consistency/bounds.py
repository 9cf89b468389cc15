"""Two ways to choose a threshold so that what lies above it holds a bound on its error.

Both read a population of N pairs, each with a score that was made without its own label, and n
labels on some of them. A pair is accepted at threshold t when its score is t or more, so pairs of
equal score stand or fall together.

**Joint** (`joint_cut`): E[accepted and wrong] <= alpha, by conformal risk control (Angelopoulos et
al. 2022, arXiv 2208.02814). The n labels and one more pair are exchangeable when labels are a
uniform sample of pairs: the loosest threshold with (W + 1) / (n + 1) <= alpha, W the labelled pairs
that are accepted and wrong. When prompts, not pairs, are the independent units, let prompt g have
M_g <= B labels, T_g of them accepted and wrong. l_g = T_g - alpha M_g never grows as the threshold
rises and is at most (1 - alpha) B, so risk control of l at level 0 over prompts reads
(sum T + (1 - alpha) B) <= alpha sum M, that is (W + B) / (n + B) <= alpha: the same rule with B in
the place of 1, and one loss per prompt. It bounds E[T] by alpha E[M]: a share of pairs, not of
prompts. When pair i was drawn by itself with probability q_i, let w_i = 1 / q_i: the loosest
threshold with (sum of w_i over accepted and wrong) + max w <= alpha N. For pair i, put it into the
sample: the threshold of that larger sample is no stricter, and the sample has the law of a sample
given that i is in it, so the sum of expected losses is at most E[sum of w_i L_i] <= alpha N.

**Conditional** (`conditional_cut`): P(share of wrong among accepted > alpha) <= 1 - confidence, by
fixed-sequence testing (Learn then Test, arXiv 2110.01052) from the strictest threshold down. The
grid is made from the population's scores and n alone, never from which labels are wrong or where
they lie. Each test is exact: the Clopper-Pearson bound on k accepted labels with w wrong is at most
alpha when P(Bin(k, alpha) <= w) <= 1 - confidence; sampling without replacement only helps. With
prompts as units k and w are divided by Kish's design effect with an intraclass correlation of 1,
sum M_g^2 / sum M_g over accepted labels: as if all labels of a prompt said the same, which is the
worst that can be. With unequal q_i the test is by betting (Waudby-Smith and Ramdas 2024): the product
of 1 - c w_i (wrong_i - alpha) / max w over accepted labels has an expectation of at most 1 where the
share is above alpha, so it exceeds 1 / (1 - confidence) that rarely; c is averaged over five values.

**People err.** With an error rate e that does not depend on the answer, a share r of wrong labels
is seen as r (1 - 2e) + e. The conditional test puts that of alpha in alpha's place; the joint rule
puts (seen - e) / (1 - 2e) in the place of a loss, with its maximum (1 - e) / (1 - 2e) for 1, and
demands it of every stricter threshold too, as it need not be monotone. Exact at e = 0, which is
conservative (errors make right pairs look wrong, more often than the reverse); for e > 0 the joint
rule holds up to a term of order 1 / n, and either is only as good as e: give no more than the
people's error rate, never an upper estimate of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BETS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Stakes of the betting test, as shares of the largest that cannot lose everything."""

SPARE = 3
"""Wrong labels that the first threshold may have, where labels are many."""
STEP = 1.05
"""How many times more pairs the next threshold accepts: finer steps fail at a passing dip."""


@dataclass(frozen=True)
class Labels:
    """Labelled pairs, [n] each, scores falling. A score of -inf is never accepted."""

    score: Floats
    wrong: npt.NDArray[np.bool_]
    prompt: npt.NDArray[np.int64]
    weight: Floats
    """1 / probability of having been drawn; all 1 where the sample is uniform."""

    @property
    def most(self) -> int:
        """Most labels of one prompt."""
        return int(np.bincount(self.prompt).max()) if len(self.prompt) else 0

    @property
    def design_effect(self) -> Floats:
        """[n]: Kish's design effect of the first 1..n labels at an intraclass correlation of 1."""
        order = np.argsort(self.prompt, kind="stable")
        grouped = self.prompt[order]
        starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
        sizes = np.diff(np.r_[starts, len(grouped)])
        before = np.empty(len(order), np.int64)
        before[order] = np.arange(len(order)) - np.repeat(starts, sizes)
        return np.asarray(np.cumsum(2.0 * before + 1.0) / np.arange(1, len(order) + 1))


def seen(share: float, error: float) -> float:
    """Share of wrong labels that people with this error rate see where `share` are wrong."""
    return share * (1 - 2 * error) + error


def least_joint(alpha: float, error: float, most: int) -> int:
    """Labels, all of them clean and at most `most` a prompt, that a joint bound needs."""
    worst = most * (1 - error) / (1 - 2 * error)
    return math.ceil((worst - alpha * most) / alpha - 1e-9)


def least_conditional(alpha: float, confidence: float, error: float) -> int:
    """Clean accepted labels that a conditional bound needs: ln(delta) / ln(1 - alpha)."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-seen(alpha, error)) - 1e-9)


def joint_cut(
    labels: Labels, alpha: float, error: float, *, pairs: int, most: int, weighted: bool
) -> float | None:
    """The score above which (not at which) pairs are accepted; -inf: all; None: no threshold holds.

    `pairs` is N, `most` is B: 1 where labels are a uniform sample of pairs.
    """
    worst = (1 - error) / (1 - 2 * error)
    if weighted:
        room = alpha * pairs - worst * float(labels.weight.max(initial=1.0))
    else:
        room = alpha * (len(labels.score) + most) - worst * most
    if room < -1e-9:
        return None
    able = np.isfinite(labels.score)
    score = labels.score[able]
    loss = labels.weight[able] * (labels.wrong[able] - error) / (1 - 2 * error)
    last = np.r_[score[1:] != score[:-1], True][: len(score)]  # the last of its tie
    broken = (np.cumsum(loss) > room + 1e-9) & last
    return float(score[np.argmax(broken)]) if broken.any() else -math.inf


def conditional_cut(
    labels: Labels,
    population: Floats,
    alpha: float,
    confidence: float,
    error: float,
    *,
    pairs: int,
    by_prompt: bool,
    weighted: bool,
) -> float | None:
    """The least score that is accepted; None: not even the first threshold passes.

    `population`: the scores of all acceptable pairs, falling; `pairs` is N, at least their number.
    """
    n = len(labels.score)
    level = seen(alpha, error)
    worth = float(n)
    if by_prompt:
        worth = n / float(labels.design_effect[-1])
    if weighted:
        worth = float(labels.weight.sum() ** 2 / (labels.weight**2).sum())
    needed = _first(alpha, confidence, error, worth)
    if weighted:
        needed = math.ceil(needed * 1.5)  # what averaging over stakes costs
    # Two deviations more than the least, so that a draw with few labels up there does not end it.
    first = min(1.0, (needed + 2 * math.sqrt(needed)) / worth)
    steps = math.ceil(-math.log(first) / math.log(STEP) - 1e-9)
    shares = np.geomspace(first, 1.0, steps + 1)
    index = np.minimum(np.ceil(shares * pairs - 1e-9).astype(np.int64) - 1, len(population) - 1)
    grid = population[index]
    grid = grid[np.r_[True, grid[1:] != grid[:-1]]]
    # Labels accepted at each threshold: scores fall, so their negatives rise.
    accepted = np.searchsorted(-labels.score, -grid, side="right")
    wrong = np.r_[0, np.cumsum(labels.wrong)][accepted]
    if weighted:
        passed = _betting(labels, accepted, level, 1 - confidence)
    else:
        effect = np.r_[1.0, labels.design_effect][accepted] if by_prompt else 1.0
        passed = _clopper_pearson(accepted / effect, wrong / effect, level, 1 - confidence)
    failed = np.flatnonzero(~passed)
    passes = int(failed[0]) if len(failed) else len(grid)
    return float(grid[passes - 1]) if passes else None


def _first(alpha: float, confidence: float, error: float, worth: float) -> int:
    """Labels that the strictest threshold is given, by the number of labels alone.

    Enough to pass with people's errors and `SPARE` wrong ones, or as many fewer as keeps it to a
    third of the labels: one unlucky label up there would end the sequence.
    """
    from scipy.stats import binom

    level = seen(alpha, error)
    found = 0
    for spare in range(SPARE + 1):
        count = least_conditional(alpha, confidence, error)
        while binom.cdf(spare + math.ceil(count * error), count, level) > 1 - confidence:
            count = math.ceil(count * 1.02)
        if spare and count > worth / 3:
            break
        found = count
    return found


def _clopper_pearson(k: Floats, wrong: Floats, level: float, delta: float) -> npt.NDArray[np.bool_]:
    """Whether the upper bound on the share of wrong is at most `level`; fractions count as more wrong."""
    from scipy.stats import binom

    whole = np.floor(k + 1e-9)
    return np.asarray(binom.cdf(np.ceil(wrong - 1e-9), whole, level) <= delta)


def _betting(
    labels: Labels, accepted: npt.NDArray[np.int64], level: float, delta: float
) -> npt.NDArray[np.bool_]:
    share = labels.weight / labels.weight.max()
    gains = np.stack([np.log1p(-c * share * (labels.wrong - level)) for c in BETS])
    total = np.concatenate([np.zeros((len(BETS), 1)), np.cumsum(gains, axis=1)], axis=1)
    wealth = np.logaddexp.reduce(total[:, accepted], axis=0) - math.log(len(BETS))
    return np.asarray(wealth >= -math.log(delta))
