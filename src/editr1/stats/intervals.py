"""Intervals for means and shares whose items are not independent.

Items of one source image share their difficulty, so a naive standard error is about half as wide as it should be (VIEScore's pairs:
.0088 naive, .0175 clustered by photo). Two methods, chosen by how often they cover the truth from 8 sources on
(`benchmarks/coverage.py`); neither assumes clusters of equal size, and neither claims certainty where all values are equal:

- **means and differences**: the values that a sign-flip test of whole clusters (Hartigan 1969) or Student's t does not reject; p is the
  larger of both, so interval and p cannot contradict each other. Sign flips hold where clusters are of unequal size, t where most of a
  few differences are 0 and the rest of one sign: there flips alone end at 0 (coverage .85 at 8 sources). On single right / wrong answers
  the p is exact McNemar's, which is never below t's; that of a macro mean also flips what each cluster adds to it, for a stratum without
  differences tells nothing. Below MIN_CLUSTERS no pattern of signs is rarer than 5 %: t alone, and no p.
- **shares** in [0, 1], and means of scores with known ends: Wilson's interval for the sample size that independent answers would need for
  the clustered standard error, with a quantile of Student's t for what is not known about that error. One right or wrong answer a
  cluster is Wilson's own interval.

Legend: N items, C clusters, S sign patterns.
Sources: Wilson 1927; Hartigan 1969, "Using subsample values as typical values".
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from editr1.stats.clusters import Clustered, Floats, check_lengths, clustered, from_sums

LEVEL = 0.95
MIN_CLUSTERS = 6  # 2 / 2^6 = .031 is the first sign pattern under 5 %: no p below this number of sources
FEW_CLUSTERS = 30  # ours: below it intervals are printed with a warning
NUM_FLIPS = 10_000  # ours: the Monte Carlo error of a 95 % bound is then about 2 % of its width
CHUNK = 2_000_000  # ours: signs drawn at once, so that memory stays under 50 MB for any C and S


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    >>> Estimate(0.5, 0.4, 0.6, n=100, num_clusters=50).excludes(0.7)
    True
    """

    value: float
    low: float | None
    """Lower end of the 95 % interval; None where the data cannot say: a single cluster (in a stratum), or a mean of equal values."""
    high: float | None
    n: int
    """Items that entered the value."""
    num_clusters: int
    """Sources with an item that counts: what the interval rests on."""
    standard_error: float | None = None
    p_value: float | None = None
    """Of a difference: two-sided, of the tests whose inversion the interval is; None for fewer than MIN_CLUSTERS clusters."""

    def excludes(self, reference: float) -> bool:
        """Whether the interval exists and leaves `reference` outside."""
        return self.low is not None and self.high is not None and not self.low <= reference <= self.high


# --- means ------------------------------------------------------------------------------------------


def mean_estimate(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
    counts: ArrayLike | None = None,
    top: float | None = None,
) -> Estimate:
    """Mean of `values` (macro mean over `strata` if given) with its 95 % interval by cluster. Arguments as in `clustered`.

    top: where all values lie in [0, top], and then so does the interval. Raises ValueError for a value outside.

    >>> estimate = mean_estimate([0.0, 1.0] * 50, rng=np.random.default_rng(0))
    >>> estimate.value, estimate.low < 0.5 < estimate.high
    (0.5, True)
    """
    data = clustered(values, clusters, strata=strata, counts=counts)
    if top is None:
        return replace(tested_mean(data, rng), p_value=None)
    _check_range(values, counts, top)
    return _bounded(data, top, data.degrees_of_freedom)


def _check_range(values: ArrayLike, counts: ArrayLike | None, top: float) -> None:
    value_N = np.asarray(values, dtype=np.float64)
    counted_N = value_N if counts is None else value_N[np.asarray(counts, dtype=bool)]
    if counted_N.min() < 0 or counted_N.max() > top:
        raise ValueError(f"values from {counted_N.min():g} to {counted_N.max():g}, expected [0, {top:g}]")


def tested_mean(data: Clustered, rng: np.random.Generator) -> Estimate:
    """The mean with its interval, and the two-sided p of a mean of 0; None for fewer than MIN_CLUSTERS clusters."""
    from scipy.special import stdtr

    value, n, num_clusters, error = data.value, data.n, data.num_clusters, data.standard_error
    if not error:  # a stratum of one cluster, or no two values that differ
        num_moved = int(np.count_nonzero(np.abs(data.effect_C) > 1e-12))
        one_way = 2.0 ** (1 - num_moved) if num_moved else 1.0
        return Estimate(value, None, None, n, num_clusters, error, one_way if error == 0 and num_clusters >= MIN_CLUSTERS else None)
    half = _t_quantile(data.degrees_of_freedom) * error
    if num_clusters < MIN_CLUSTERS:
        return Estimate(value, value - half, value + half, n, num_clusters, error)
    above_S, below_S, flipped_S = _reach(data, rng)
    ends = value - max(half, _kept(above_S)), value + max(half, _kept(below_S))
    low, high = (0.0 if abs(end) < 1e-12 * (1 + abs(value)) else end for end in ends)  # rounding must not leave 0 out
    beyond_S = above_S if value > 0 else below_S
    flipped = max(float(np.mean(reach_S >= abs(value) * (1 - 1e-9))) for reach_S in (beyond_S, np.abs(flipped_S)))
    p_value = max(flipped, float(2 * stdtr(data.degrees_of_freedom, -abs(value / error))))
    return Estimate(value, low, high, n, num_clusters, error, p_value)


def _reach(data: Clustered, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """`[S]` each: how far below and above the value a hypothesis may lie for a sign pattern to be at least as extreme as the data, and the
    value under the pattern.

    With a hypothesis at distance x the clusters' sums are r_c + x w_c, and flipping them by s gives |sum s r + x sum s w| against |x|.
    """
    above, below, flipped = [], [], []
    for sign_SC in _signs(data.num_clusters, rng):
        moved_S, balance_S = sign_SC @ data.residual_C, sign_SC @ data.weight_C
        # The data's own pattern is as extreme as itself under every hypothesis.
        is_own_S = np.abs(balance_S) > 1 - 1e-12
        tilt_S = np.where(is_own_S, 0.0, np.sign(moved_S) * balance_S)
        moved_S = np.where(is_own_S, np.inf, np.abs(moved_S))
        above.append(moved_S / (1 - tilt_S))
        below.append(moved_S / (1 + tilt_S))
        flipped.append(sign_SC @ data.effect_C)
    return np.concatenate(above), np.concatenate(below), np.concatenate(flipped)


def _signs(num_clusters: int, rng: np.random.Generator) -> Iterator[Floats]:
    """All patterns of signs up to a common one where there are few, else the data's own and random ones."""
    if 2 ** (num_clusters - 1) <= NUM_FLIPS:
        index_S = np.arange(2 ** (num_clusters - 1))[:, None]
        yield np.asarray(1 - 2 * (index_S >> np.arange(num_clusters) & 1), dtype=np.float64)
        return
    yield np.ones((1, num_clusters))
    rows = max(1, CHUNK // num_clusters)
    for start in range(0, NUM_FLIPS - 1, rows):
        shape = (min(rows, NUM_FLIPS - 1 - start), num_clusters)
        yield np.asarray(2 * rng.integers(0, 2, size=shape, dtype=np.int8) - 1, dtype=np.float64)


def _kept(reach_S: Floats) -> float:
    """The distance up to which more than 5 % of the patterns are as extreme as the data."""
    rank = math.floor((1 - LEVEL) * len(reach_S) + 1e-9) + 1
    return float(np.partition(reach_S, len(reach_S) - rank)[len(reach_S) - rank])


# --- shares -----------------------------------------------------------------------------------------


def share_estimate(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    strata: Sequence[Hashable] | None = None,
    counts: ArrayLike | None = None,
) -> Estimate:
    """Mean of credits in [0, 1] with its 95 % interval by cluster. Arguments as in `clustered`; raises ValueError for other values.

    Where all credits are 0 or all are 1 nothing is known about the clusters' likeness, and each cluster counts as one answer.

    >>> estimate = share_estimate([1.0] * 60, [0, 1, 2] * 20)
    >>> estimate.value, round(estimate.low, 2), estimate.high  # 3 of 3
    (1.0, 0.28, 1.0)
    """
    data = clustered(values, clusters, strata=strata, counts=counts)
    _check_range(values, counts, 1.0)
    return _share(data)


def share_of_sums(tops: ArrayLike, bottoms: ArrayLike) -> Estimate:
    """As `share_estimate`, from what was added up a cluster: `[C]` sums of credits and `[C]` numbers of items, none of them 0.

    For tables too large to hold all values of. Raises ValueError for lengths that differ and for no cluster.

    >>> share_of_sums([1.0, 2.0], [2, 2]).value
    0.75
    """
    top_C, bottom_C = np.asarray(tops, dtype=np.float64), np.asarray(bottoms, dtype=np.float64)
    check_lengths(len(top_C), bottoms=bottom_C)
    return _share(from_sums(top_C, bottom_C, np.zeros(len(top_C), dtype=np.intp)))


def _share(data: Clustered) -> Estimate:
    if data.is_single:  # independent answers: Wilson's own interval
        return _bounded(data, 1.0, math.inf)
    # ours: twice the degrees of freedom, for only the design effect is unknown; the spread of a share follows from its value
    return _bounded(data, 1.0, 2 * data.degrees_of_freedom)


def _bounded(data: Clustered, top: float, degrees_of_freedom: float) -> Estimate:
    """Wilson's interval of a mean of values in [0, top]; one whose values are all 0 or all top has the size of its clusters."""
    value, num_clusters, error = data.value, data.num_clusters, data.left_out_error
    share = min(1.0, max(0.0, value / top))
    if (error is None and num_clusters > 1) or (num_clusters == 1 and not data.is_single) or (not error and 0 < share < 1):
        return Estimate(value, None, None, data.n, num_clusters, error)
    size = share * (1 - share) * (top / error) ** 2 if error else float(num_clusters)
    if error and math.isinf(degrees_of_freedom):
        size *= num_clusters / (num_clusters - 1)
    low, high = score_bounds(share, size, _t_quantile(degrees_of_freedom))
    return Estimate(value, top * low, top * high, data.n, num_clusters, data.standard_error)


def score_bounds(share: float, size: float, quantile: float) -> tuple[float, float]:
    """Wilson's bounds for a sample size that need not be whole: the p with |share - p| <= quantile sqrt(p (1 - p) / size)."""
    square = quantile**2 / size
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    # Rounding may push a bound past a share of exactly 0 or 1.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def _t_quantile(degrees_of_freedom: float) -> float:
    from scipy.special import ndtri, stdtrit

    tail = 0.5 + LEVEL / 2
    return float(ndtri(tail) if math.isinf(degrees_of_freedom) else stdtrit(degrees_of_freedom, tail))


def within(found: Estimate, low: float, high: float = 1.0) -> Estimate:
    """The estimate cut off at the ends of its scale."""
    ends = [None if end is None else min(high, max(low, end)) for end in (found.value, found.low, found.high)]
    return Estimate(ends[0] or 0.0, ends[1], ends[2], found.n, found.num_clusters)
