"""Pair accuracy, and two judges or editors on the same items.

An accuracy is always five numbers, because ties and unscored pairs decide rankings: on the same stored outputs it is 59.9 % with a tie
counted wrong, 71.8 % with half credit and 78.6 % on the non-tied pairs. Side-by-side studies count good / same / bad (paper, section 4:
GSB = +23.2 %). McNemar does not respect that items of one source go together, and is reported beside the test that does.
Sources: McNemar 1947 (exact form); Holm 1979.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editr1.stats.clusters import Floats, clustered, index_of
from editr1.stats.intervals import LEVEL, Estimate, share_estimate, tested_mean

# ours: two means of the same numbers in another order differ by rounding; scores are read to one decimal or coarser.
TIE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class PairwiseReport:
    """What stands beside every accuracy of decisive pairs.

    >>> report = pairwise_report([2.0, -1.0, 0.0, None])
    >>> report.n, report.num_unscored, report.tie_rate
    (4, 1, 0.3333333333333333)
    """

    n: int
    """All decisive pairs, unscored ones included."""
    num_tied: int
    num_unscored: int
    """At least one side has no score: wrong in strict, half in half credit, never dropped from either."""

    @property
    def tie_rate(self) -> float | None:
        """Share of score ties among the scored pairs; None when none is scored."""
        scored = self.n - self.num_unscored
        return self.num_tied / scored if scored else None


def to_margins(preferred: Sequence[float | None], other: Sequence[float | None]) -> Floats:
    """`[N]` score of the preferred side minus score of the other; nan where a side is unscored."""
    pairs = zip(preferred, other, strict=True)
    return np.array([math.nan if a is None or b is None else a - b for a, b in pairs], dtype=np.float64)


def pairwise_report(margins: Sequence[float | None] | Floats) -> PairwiseReport:
    """Counts of the margins of decisive pairs (None or nan = unscored)."""
    margin_N = as_margins(margins)
    return PairwiseReport(len(margin_N), int(is_tied(margin_N).sum()), int(np.isnan(margin_N).sum()))


def without_rounding(gaps: ArrayLike) -> Floats:
    """Gaps between scores, 0 where these are equal up to rounding."""
    gap = np.asarray(gaps, dtype=np.float64)
    return np.where(np.abs(gap) <= TIE_TOLERANCE, 0.0, gap)


def as_margins(margins: Sequence[float | None] | Floats) -> Floats:
    """Margins as floats with nan for None."""
    return np.array([math.nan if margin is None else margin for margin in margins], dtype=np.float64)


def is_tied(margins: Floats) -> NDArray[np.bool_]:
    """`[N]` bool: scored, and equal up to rounding."""
    return np.abs(margins) <= TIE_TOLERANCE  # nan compares false


def is_decided(margins: Floats) -> NDArray[np.bool_]:
    """`[N]` bool: scored and no tie."""
    return np.abs(margins) > TIE_TOLERANCE


def strict_credit(margins: Floats) -> Floats:
    """`[N]` in {0, 1}: 1 only where the preferred side scored higher."""
    return (margins > TIE_TOLERANCE).astype(np.float64)


def half_credit(margins: Floats) -> Floats:
    """`[N]` in {0, .5, 1}: .5 for ties and unscored pairs."""
    return np.where(is_decided(margins), strict_credit(margins), 0.5)


Credit = Literal["half", "strict", "non_tied"]


def accuracy(
    margins: Sequence[float | None] | Floats,
    clusters: Sequence[Hashable] | None = None,
    *,
    credit: Credit,
    strata: Sequence[Hashable] | None = None,
) -> Estimate | None:
    """Pair accuracy of one kind, in [0, 1], with its interval by cluster; None where nothing counts.

    margins: `[N]`, preferred minus other, None or nan = unscored. clusters: N keys of what pairs share, the source image or
    task. strata: N task names for a macro mean; None where any task has no pair that counts.
    """
    margin_N = as_margins(margins)
    counts = is_decided(margin_N) if credit == "non_tied" else np.ones(len(margin_N), dtype=bool)
    groups = index_of([0] * len(margin_N) if strata is None else list(strata))
    if not len(margin_N) or set(groups) != set(np.array(groups)[counts].tolist()):
        return None
    value_N = half_credit(margin_N) if credit == "half" else strict_credit(margin_N)
    return share_estimate(value_N, clusters, strata=strata, counts=counts)


# --- two judges on the same items ------------------------------------------------------------------------


def paired_difference(
    values_a: ArrayLike,
    values_b: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
) -> Estimate:
    """Mean of `values_b - values_a` (macro over `strata`) with its interval by cluster and p, which cannot contradict each other.

    Raises ValueError for lengths that differ, no items, or values that are not finite.
    """
    a_N, b_N = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if a_N.shape != b_N.shape:
        raise ValueError(f"{len(a_N)} values of a but {len(b_N)} of b: a paired comparison needs the same items")
    return tested_mean(clustered(without_rounding(b_N - a_N), clusters, strata=strata), rng)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Exact McNemar test on discordant items."""

    only_a: int
    """Items that only a has right."""
    only_b: int
    p_value: float


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> McNemar:
    """Exact two-sided McNemar test of two lists of right (True) and wrong; an item with None or nan is missing.

    Raises ValueError for lengths that differ.
    """
    a_N, b_N = np.asarray(right_a, dtype=np.float64), np.asarray(right_b, dtype=np.float64)
    if a_N.shape != b_N.shape:
        raise ValueError(f"{len(a_N)} items of a but {len(b_N)} of b: a paired test needs the same items")
    known = ~(np.isnan(a_N) | np.isnan(b_N))
    a_N, b_N = a_N[known] != 0, b_N[known] != 0
    only_a, only_b = int((a_N & ~b_N).sum()), int((b_N & ~a_N).sum())
    return McNemar(only_a, only_b, binomial_p(only_a, only_b))


def binomial_p(first: int, second: int) -> float:
    """Exact two-sided p of `first` against `second` fair coin flips; 1 for none.

    >>> round(binomial_p(139, 161), 3)
    0.225
    """
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p values, in the order given: reject where they are below the level. None or nan = not tested, and stays None.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    known = {i: p for i, p in enumerate(p_values) if p is not None and not math.isnan(p)}
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, i in enumerate(sorted(known, key=lambda i: known[i])):
        running = max(running, min(1.0, (len(known) - rank) * known[i]))
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
