"""Two judges or two editors on the same items: is the difference more than chance?

Sources: McNemar 1947 (exact form); Holm 1979. The sign-flip test respects that items of one source image go together; McNemar does
not, and is reported beside it. Side-by-side studies count good / same / bad (paper, section 4: GSB = +23.2 % in the human evaluation).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from editr1.stats.clusters import clustered
from editr1.stats.intervals import LEVEL, Estimate, estimate_and_p


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of b - a on the same items."""

    estimate: Estimate
    """Difference with its interval, in the unit of the values."""
    p_value: float | None
    """Two-sided, of the tests whose inversion the interval is; None for fewer than MIN_CLUSTERS clusters."""


def paired_difference(
    values_a: ArrayLike,
    values_b: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
) -> Difference:
    """Mean of `values_b - values_a` (macro over `strata`) with its interval by cluster and p, which cannot contradict each other.

    Raises ValueError for lengths that differ, no items, or values that are not finite.
    """
    a_N, b_N = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a_N.shape != b_N.shape:
        raise ValueError(f"{len(a_N)} values of a but {len(b_N)} of b: a paired comparison needs the same items")
    return Difference(*estimate_and_p(clustered(b_N - a_N, clusters, strata=strata), rng))


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
    """Exact two-sided p of `first` against `second` fair coin flips; 1 for none.

    >>> round(binomial_p(139, 161), 3)
    0.225
    """
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


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


@dataclass(frozen=True, slots=True)
class GSB:
    """(G - B) / (G + S + B), in [-1, 1]; the paper prints it times 100.

    >>> study = GSB(good=45, same=30, bad=25)
    >>> study.value, round(study.variance, 4), round(study.win_rate, 3)
    (0.2, 0.0066, 0.643)
    """

    good: int
    same: int
    bad: int

    def __post_init__(self) -> None:
        if min(self.good, self.same, self.bad) < 0 or self.n == 0:
            raise ValueError(f"GSB needs counts >= 0 and at least one vote, got {self.good}/{self.same}/{self.bad}")

    @property
    def n(self) -> int:
        return self.good + self.same + self.bad

    @property
    def value(self) -> float:
        return (self.good - self.bad) / self.n

    @property
    def variance(self) -> float:
        """((G + B)/n - GSB^2) / n, for independent votes."""
        return ((self.good + self.bad) / self.n - self.value**2) / self.n

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Normal interval, cut at [-1, 1]. Votes that share sources need `mean_estimate` of +1 / 0 / -1 instead."""
        half = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt(self.variance)
        return max(-1.0, self.value - half), min(1.0, self.value + half)

    @property
    def win_rate(self) -> float | None:
        """G / (G + B); None when every vote is "same"."""
        return self.good / (self.good + self.bad) if self.good + self.bad else None

    @property
    def p_value(self) -> float:
        """Exact two-sided sign test of G against B."""
        return binomial_p(self.good, self.bad)
