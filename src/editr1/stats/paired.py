"""Two judges or two editors on the same items: is the difference more than chance?

Sources: McNemar 1947 (exact form); Holm 1979. The cluster bootstrap and the sign-flip test respect that items of one source
image go together; McNemar and the sign test do not, and are reported beside them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from editr1.stats.intervals import CHUNK, LEVEL, NUM_RESAMPLES, Estimate, IntervalMethod, bounds, clustered, resample


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of b - a on the same items."""

    estimate: Estimate
    """Difference with its interval, in the unit of the values."""
    p_value: float | None
    """Two-sided, from the same resamples as the interval; None with a single cluster."""


def paired_difference(
    values_a: ArrayLike,
    values_b: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
    method: IntervalMethod = "percentile",
) -> Difference:
    """Mean of `values_b - values_a` (macro over `strata`), cluster bootstrap interval and p.

    p = 2 min(share of resamples <= 0, share >= 0), at least 1 / (B + 1): the smallest level at which the percentile interval
    still covers 0, so interval and p cannot contradict each other.
    Raises ValueError for lengths that differ, no items, or values that are not finite.
    """
    a_N, b_N = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a_N.shape != b_N.shape:
        raise ValueError(f"{len(a_N)} values of a but {len(b_N)} of b: a paired comparison needs the same items")
    data = clustered(b_N - a_N, clusters, strata=strata)
    if data.num_clusters <= len(data.tops):
        return Difference(Estimate(data.value, None, None, data.n, data.num_clusters, method=method), None)
    resampled_B = resample(data, rng, num_resamples)
    low, high = bounds(data, resampled_B, level, method)
    tail = min(int((resampled_B <= 0).sum()), int((resampled_B >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (len(resampled_B) + 1))
    spread = float(resampled_B.std(ddof=1))
    return Difference(Estimate(data.value, low, high, data.n, data.num_clusters, spread, method), p_value)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact McNemar test on discordant items."""

    only_a: int
    """Items that only a has right."""
    only_b: int
    p_value: float


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """Exact two-sided McNemar test of two lists of right (True) and wrong. Raises ValueError for lengths that differ."""
    a_N, b_N = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a_N.shape != b_N.shape:
        raise ValueError(f"{len(a_N)} items of a but {len(b_N)} of b: a paired test needs the same items")
    only_a, only_b = int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())
    return McNemar(only_a, only_b, binomial_p(only_a, only_b))


def binomial_p(first: int, second: int) -> float:
    """Two-sided p of `first` against `second` fair coin flips: 2 * BinomCDF(min; sum, .5), at most 1.

    >>> round(binomial_p(139, 161), 3)
    0.225
    """
    total = first + second
    ways = tail = 1  # ways of k heads, and of at most k heads
    for k in range(min(first, second)):
        ways = ways * (total - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**total)  # whole numbers to the last step: no underflow at any size


@dataclass(frozen=True, slots=True)
class SignTest:
    """How many differences point each way."""

    positive: int
    negative: int
    zero: int
    p_value: float


def sign_test(differences: ArrayLike) -> SignTest:
    """Exact two-sided sign test; zeros say nothing and are counted apart.

    >>> sign_test([1.0, 2.0, 0.0, 3.0]).p_value
    0.25
    """
    difference_N = np.asarray(differences, dtype=np.float64)
    positive, negative = int((difference_N > 0).sum()), int((difference_N < 0).sum())
    return SignTest(positive, negative, int((difference_N == 0).sum()), binomial_p(positive, negative))


def sign_flip_p(
    differences: ArrayLike, clusters: Sequence[Hashable] | None = None, *, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> float:
    """Two-sided p of a paired permutation test: all differences of a cluster change sign together, mean difference as statistic."""
    sum_C = clustered(differences, clusters).tops[0]
    rows = max(1, CHUNK // len(sum_C))
    # Sums of the same numbers with other signs agree only up to rounding.
    threshold = abs(float(sum_C.sum())) - 1e-9 * float(np.abs(sum_C).sum())
    as_large = 0
    for start in range(0, num_resamples, rows):
        flips = rng.integers(0, 2, size=(min(rows, num_resamples - start), len(sum_C)), dtype=np.int8)
        as_large += int((np.abs((2.0 * flips - 1.0) @ sum_C) >= threshold).sum())
    return (1 + as_large) / (1 + num_resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: reject where they are below the level.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
