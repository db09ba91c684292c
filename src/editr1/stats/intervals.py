"""Intervals for means and shares whose items are not independent.

Pairs of one source image share their difficulty, so a naive standard error is about half as wide as it should be
(VIEScore's pairs: .0088 naive, .0175 clustered by photo). The default everywhere is therefore a bootstrap that draws whole
clusters; `wilson` serves single independent proportions.

Legend: N items, C clusters, B resamples, T strata (the tasks of a macro mean).
Sources: Wilson 1927; Efron 1987 (BCa); Davison and Hinkley 1997, section 5.3 (several samples); Cameron and Miller 2015 (clusters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
IntervalMethod = Literal["percentile", "bca"]

LEVEL = 0.95
NUM_RESAMPLES = 10_000  # ours: the Monte Carlo error of a 95 % bound is then about 2 % of its width
CHUNK = 2_000_000  # ours: indices drawn at once, so that memory stays under 50 MB for any C and B

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    >>> Estimate(0.5, 0.4, 0.6, n=100, num_clusters=50).excludes(0.7)
    True
    """

    value: float
    low: float | None
    """Lower end; None where the data cannot say (a single cluster)."""
    high: float | None
    n: int
    """Items that entered the value."""
    num_clusters: int
    standard_error: float | None = None
    """Standard deviation over the resamples."""
    method: str = ""
    """`percentile`, `bca` or `wilson`."""

    def excludes(self, reference: float) -> bool:
        """Whether the interval exists and leaves `reference` outside."""
        return self.low is not None and self.high is not None and not self.low <= reference <= self.high


def wilson(num_right: int, n: int, level: float = LEVEL) -> Estimate:
    """Wilson's interval of one independent proportion. Raises ValueError for n < 1 or a count outside [0, n].

    >>> estimate = wilson(8, 10)
    >>> round(estimate.low, 4), round(estimate.high, 4)
    (0.4902, 0.9433)
    """
    if n < 1 or not 0 <= num_right <= n:
        raise ValueError(f"wilson needs 0 <= num_right <= n with n >= 1, got {num_right} of {n}")
    z = _NORMAL.inv_cdf(0.5 + level / 2)
    share = num_right / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may push a bound past a share of exactly 0 or 1.
    return Estimate(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)), n, n, method="wilson")


@dataclass(frozen=True, slots=True)
class Clustered:
    """Sums over clusters, the only thing that resampling needs: the value is mean over strata of sum(top) / sum(bottom)."""

    tops: tuple[Floats, ...]
    """One `[C_t]` a stratum: sum of the values that count."""
    bottoms: tuple[Floats, ...]
    """One `[C_t]` a stratum: number of the values that count."""

    @property
    def num_clusters(self) -> int:
        return sum(len(top) for top in self.tops)

    @property
    def n(self) -> int:
        return int(sum(bottom.sum() for bottom in self.bottoms))

    @property
    def value(self) -> float:
        """The plain value. Raises ValueError when a stratum has nothing that counts."""
        if any(bottom.sum() == 0 for bottom in self.bottoms) or not self.tops:
            raise ValueError("nothing to average: a stratum has no item that counts")
        return float(np.mean([top.sum() / bottom.sum() for top, bottom in zip(self.tops, self.bottoms, strict=True)]))


def clustered(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    strata: Sequence[Hashable] | None = None,
    counts: ArrayLike | None = None,
) -> Clustered:
    """Sums of `values` over clusters inside strata.

    values: `[N]` floats. clusters: N keys, None = every item its own cluster. strata: N keys, None = one stratum; clusters
    of the same key in two strata are two clusters, for a macro mean resamples every task by itself. counts: `[N]` bool,
    which items count (None = all), for shares such as accuracy on non-tied pairs.
    Raises ValueError for lengths that differ, for a value that counts and is not finite, and for no item at all.
    """
    value_N = np.asarray(values, dtype=np.float64)
    count_N = np.ones(len(value_N), dtype=bool) if counts is None else np.asarray(counts, dtype=bool)
    _check_lengths(len(value_N), clusters=clusters, strata=strata, counts=count_N)
    if not np.isfinite(value_N[count_N]).all():
        raise ValueError("a value that counts is not finite: unscored items must be left out or given their stated credit first")
    keys = list(range(len(value_N))) if clusters is None else list(clusters)
    stratum_N = np.array(index_of([0] * len(value_N) if strata is None else list(strata)))
    tops: list[Floats] = []
    bottoms: list[Floats] = []
    for stratum in range(int(stratum_N.max()) + 1):
        inside = np.flatnonzero(stratum_N == stratum)
        cluster = np.array(index_of([keys[i] for i in inside]))
        tops.append(np.bincount(cluster, weights=np.where(count_N[inside], value_N[inside], 0.0)).astype(np.float64))
        bottoms.append(np.bincount(cluster, weights=count_N[inside]).astype(np.float64))
    return Clustered(tuple(tops), tuple(bottoms))


def index_of(keys: Sequence[Hashable]) -> list[int]:
    """The position of each key in order of first appearance.

    >>> index_of(["b", "a", "b"])
    [0, 1, 0]
    """
    seen: dict[Hashable, int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
    counts: ArrayLike | None = None,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
    method: IntervalMethod = "percentile",
) -> Estimate:
    """Mean of `values` (macro mean over `strata` if given) with a cluster bootstrap interval.

    Arguments as in `clustered`. One cluster says nothing about its fellows: then the bounds are None.

    >>> estimate = bootstrap_mean([0.0, 1.0] * 50, rng=np.random.default_rng(0))
    >>> estimate.value, estimate.low < 0.5 < estimate.high
    (0.5, True)
    """
    return _bootstrap(clustered(values, clusters, strata=strata, counts=counts), rng, num_resamples, level, method)


def bootstrap_share(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    strata: Sequence[Hashable] | None = None,
    counts: ArrayLike | None = None,
    num_resamples: int = NUM_RESAMPLES,
    method: IntervalMethod = "percentile",
) -> Estimate:
    """As `bootstrap_mean` for credits in [0, 1], with Wilson's interval where all of them are 0 or all are 1.

    ours: resampling equal values gives an interval without width, which claims certainty. Wilson's n is the number of clusters with
    an item that counts.

    >>> estimate = bootstrap_share([1.0] * 60, [0, 1, 2] * 20, rng=np.random.default_rng(0))
    >>> estimate.value, round(estimate.low, 4), estimate.high, estimate.method  # 3 of 3
    (1.0, 0.4385, 1.0, 'wilson')
    """
    data = clustered(values, clusters, strata=strata, counts=counts)
    estimate = _bootstrap(data, rng, num_resamples, LEVEL, method)
    if estimate.value not in (0.0, 1.0):
        return estimate
    num_counting = sum(int((bottom > 0).sum()) for bottom in data.bottoms)
    bounds = wilson(round(estimate.value) * num_counting, num_counting)
    return replace(estimate, low=bounds.low, high=bounds.high, method="wilson")


def bootstrap_sums(
    tops: ArrayLike, bottoms: ArrayLike, *, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES, level: float = LEVEL
) -> Estimate:
    """As `bootstrap_mean`, from what was added up a cluster: `[C]` sums of values and `[C]` numbers of values.

    For tables too large to hold all values of. Raises ValueError for lengths that differ and for no cluster.

    >>> bootstrap_sums([1.0, 2.0], [2, 2], rng=np.random.default_rng(0)).value
    0.75
    """
    top_C, bottom_C = np.asarray(tops, dtype=np.float64), np.asarray(bottoms, dtype=np.float64)
    _check_lengths(len(top_C), bottoms=bottom_C)
    return _bootstrap(Clustered((top_C,), (bottom_C,)), rng, num_resamples, level, "percentile")


def _bootstrap(data: Clustered, rng: np.random.Generator, num_resamples: int, level: float, method: IntervalMethod) -> Estimate:
    if data.num_clusters <= len(data.tops):
        return Estimate(data.value, None, None, data.n, data.num_clusters, method=method)
    resampled_B = resample(data, rng, num_resamples)
    low, high = bounds(data, resampled_B, level, method)
    return Estimate(data.value, low, high, data.n, data.num_clusters, float(resampled_B.std(ddof=1)), method)


def clustered_standard_error(values: ArrayLike, clusters: Sequence[Hashable] | None = None) -> float | None:
    """Standard error of a mean of clustered values, without resampling; None for a single cluster.

    sqrt(C/(C-1) * sum_c (sum_{i in c} (x_i - mean))^2) / N, the sandwich with its small-sample factor. Has no Monte Carlo noise,
    so that its last digit can be compared. Arguments as in `clustered`.

    >>> round(clustered_standard_error([0.0, 1.0] * 50), 4)  # sqrt(.25 / 99)
    0.0503
    """
    data = clustered(values, clusters)
    (top_C,), (bottom_C,) = data.tops, data.bottoms
    if data.num_clusters < 2:
        return None
    residual_C = top_C - data.value * bottom_C
    return math.sqrt(data.num_clusters / (data.num_clusters - 1) * float((residual_C**2).sum())) / data.n


def resample(data: Clustered, rng: np.random.Generator, num_resamples: int) -> Floats:
    """`[B]` values of resampled clusters, each stratum by itself. Resamples in which a stratum has nothing that counts are left out."""
    value_B = np.zeros(num_resamples)
    for top_C, bottom_C in zip(data.tops, data.bottoms, strict=True):
        num_clusters = len(top_C)
        rows = max(1, CHUNK // num_clusters)
        for start in range(0, num_resamples, rows):
            stop = min(start + rows, num_resamples)
            index = rng.integers(0, num_clusters, size=(stop - start, num_clusters), dtype=np.int32)
            bottom = _summed(bottom_C, index)
            with np.errstate(invalid="ignore"):
                value_B[start:stop] += _summed(top_C, index) / np.where(bottom > 0, bottom, np.nan)
    return value_B[np.isfinite(value_B)] / len(data.tops)


def _summed(sum_C: Floats, index: NDArray[np.int32]) -> Floats:
    """Row sums of `sum_C[index]`; equal entries need no gathering, which is the common case of one item a cluster."""
    if (sum_C == sum_C[0]).all():
        return np.full(len(index), sum_C[0] * index.shape[1])
    return np.asarray(sum_C.take(index).sum(axis=1))


def bounds(data: Clustered, resampled_B: Floats, level: float, method: IntervalMethod) -> tuple[float, float]:
    """The interval's ends from the resamples."""
    tails = np.array([0.5 - level / 2, 0.5 + level / 2])
    if method == "bca":
        tails = _bca_tails(data, resampled_B, tails)
    low, high = np.quantile(resampled_B, tails)
    return float(low), float(high)


def _bca_tails(data: Clustered, resampled_B: Floats, tails: Floats) -> Floats:
    """Percentile ranks corrected for bias and skew (Efron 1987, equation 2.3)."""
    value = data.value
    # Ties of a discrete statistic count half, or the bias of a share would be overstated.
    below = float(np.mean(resampled_B < value) + 0.5 * np.mean(resampled_B == value))
    if not 0.0 < below < 1.0:
        return tails  # all resamples on one side: there is no bias estimate to correct with
    bias, skew = _NORMAL.inv_cdf(below), _acceleration(data)
    z = np.array([bias + _NORMAL.inv_cdf(float(tail)) for tail in tails])
    return np.array([_NORMAL.cdf(float(rank)) for rank in bias + z / (1 - skew * z)])


def _acceleration(data: Clustered) -> float:
    """The BCa acceleration from leave-one-cluster-out values, over strata as in Davison and Hinkley, equation 5.29."""
    cubes, squares = 0.0, 0.0
    for top_C, bottom_C in zip(data.tops, data.bottoms, strict=True):
        rest = bottom_C.sum() - bottom_C
        if (rest <= 0).any():
            return 0.0  # one cluster holds everything that counts: skew cannot be estimated
        left_out = (top_C.sum() - top_C) / rest
        influence = (len(top_C) - 1) * (left_out.mean() - left_out) / len(top_C)
        cubes += float((influence**3).sum())
        squares += float((influence**2).sum())
    return cubes / (6 * squares**1.5) if squares > 0 else 0.0


def bootstrap_statistic(
    statistic: Callable[[NDArray[np.intp]], float | None],
    num_clusters: int,
    *,
    rng: np.random.Generator,
    num_resamples: int = 2_000,
    level: float = LEVEL,
) -> Estimate:
    """Any statistic of cluster indices with a percentile interval; for what is no mean (correlations, best-of-N, epsilon).

    statistic: takes `[C]` indices with repetitions, gives a float or None (undefined on that resample, left out).
    Raises ValueError when the statistic is undefined on the data itself.
    """
    value = statistic(np.arange(num_clusters))
    if value is None:
        raise ValueError("the statistic is undefined on the data itself")
    if num_clusters < 2:
        return Estimate(value, None, None, num_clusters, num_clusters, method="percentile")
    drawn = (statistic(rng.integers(0, num_clusters, size=num_clusters)) for _ in range(num_resamples))
    resampled_B = np.array([item for item in drawn if item is not None])
    low, high = np.quantile(resampled_B, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value, float(low), float(high), num_clusters, num_clusters, float(resampled_B.std(ddof=1)), "percentile")


def _check_lengths(n: int, **others: Sequence[Hashable] | NDArray[np.bool_] | Floats | None) -> None:
    if n == 0:
        raise ValueError("no items: a mean of nothing has no value")
    for name, other in others.items():
        if other is not None and len(other) != n:
            raise ValueError(f"{n} values but {len(other)} {name}")
