"""Values whose items are not independent, as clusters: weights, residuals and standard errors, which intervals are made of.

Legend: N items, C clusters, T strata (the tasks of a macro mean). Sources: Kish 1965 (design effect); Cameron and Miller 2015.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clustered:
    """What an interval needs of N values: for each cluster its weight in the value and its residual, in units of the value.

    The value is the mean over strata of sum(top) / sum(bottom).
    """

    value: float
    n: int
    weight_C: Floats
    """Shares of the value that clusters have; they add up to 1."""
    effect_C: Floats
    """What each cluster adds to the value; they add up to it."""
    residual_C: Floats
    """What each cluster adds to the value beyond its stratum's mean; they add up to 0."""
    stratum_C: NDArray[np.intp]
    is_single: bool
    """No cluster has two items that count."""

    @property
    def num_clusters(self) -> int:
        return len(self.weight_C)

    @property
    def standard_error(self) -> float | None:
        """The sandwich with its small-sample factor, sqrt(C/(C-1) sum r_c^2) in each stratum; None where one has a single cluster."""
        size_T, square_T = np.bincount(self.stratum_C), np.bincount(self.stratum_C, weights=self.residual_C**2)
        return None if size_T.min() < 2 else math.sqrt(float((size_T / (size_T - 1) * square_T).sum()))

    @property
    def left_out_error(self) -> float | None:
        """As `standard_error`, of leaving each cluster out in turn (jackknife): larger where clusters are of unequal size."""
        total_T = np.bincount(self.stratum_C, weights=self.weight_C)
        size_C = np.bincount(self.stratum_C)[self.stratum_C]
        if size_C.min() < 2:
            return None
        left_out_C = self.residual_C / (1 - self.weight_C / total_T[self.stratum_C])
        return math.sqrt(float(((size_C - 1) / size_C * left_out_C**2).sum()))

    @property
    def degrees_of_freedom(self) -> float:
        """Clusters that the standard error rests on, less one: fewer where some are much larger than others (Kish)."""
        share = float((self.weight_C**2).sum())
        return max(1.0, min(self.num_clusters - int(self.stratum_C.max()) - 1.0, 1 / share))


def clustered(
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    strata: Sequence[Hashable] | None = None,
    counts: ArrayLike | None = None,
) -> Clustered:
    """The clusters of `values`.

    values: `[N]` floats. clusters: N keys, None = every item its own cluster. strata: N keys, None = one stratum; clusters of the same
    key in two strata are two clusters. counts: `[N]` bool, which items count (None = all), for shares such as accuracy on non-tied pairs.
    Raises ValueError for lengths that differ, for a value that counts and is not finite, and for a stratum without an item that counts.
    """
    value_N = np.asarray(values, dtype=np.float64)
    count_N = np.ones(len(value_N), dtype=bool) if counts is None else np.asarray(counts, dtype=bool)
    check_lengths(len(value_N), clusters=clusters, strata=strata, counts=count_N)
    if not np.isfinite(value_N[count_N]).all():
        raise ValueError("a value that counts is not finite: unscored items must be left out or given their stated credit first")
    keys = list(range(len(value_N))) if clusters is None else list(clusters)
    groups = [0] * len(value_N) if strata is None else list(strata)
    if len(set(groups)) > len({group for group, counted in zip(groups, count_N.tolist(), strict=True) if counted}):
        raise ValueError("nothing to average: a stratum has no item that counts")
    counted = np.flatnonzero(count_N).tolist()
    cluster_M = np.array(index_of([(groups[i], keys[i]) for i in counted]), dtype=np.intp)
    top_C = np.bincount(cluster_M, weights=value_N[counted]).astype(np.float64)
    bottom_C = np.bincount(cluster_M).astype(np.float64)
    stratum_C = np.zeros(len(bottom_C), dtype=np.intp)
    stratum_C[cluster_M] = index_of([groups[i] for i in counted])
    return from_sums(top_C, bottom_C, stratum_C)


def from_sums(top_C: Floats, bottom_C: Floats, stratum_C: NDArray[np.intp]) -> Clustered:
    """The clusters of what was added up: `[C]` sums of values, numbers of items, and the stratum of each cluster."""
    top_T, bottom_T = np.bincount(stratum_C, weights=top_C), np.bincount(stratum_C, weights=bottom_C)
    mean_T = top_T / bottom_T
    scale_C = 1 / (bottom_T * len(bottom_T))[stratum_C]
    residual_C = (top_C - mean_T[stratum_C] * bottom_C) * scale_C
    # Rounding leaves a trace of 1e-17 where every value is the mean.
    residual_C[np.abs(residual_C) < 1e-12 * (1 + np.abs(mean_T[stratum_C])) * bottom_C * scale_C] = 0.0
    single = bool(bottom_C.max() <= 1)
    return Clustered(float(mean_T.mean()), int(bottom_C.sum()), bottom_C * scale_C, top_C * scale_C, residual_C, stratum_C, single)


def index_of(keys: Sequence[Hashable]) -> list[int]:
    """The position of each key in order of first appearance.

    >>> index_of(["b", "a", "b"])
    [0, 1, 0]
    """
    seen: dict[Hashable, int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]


def clustered_standard_error(values: ArrayLike, clusters: Sequence[Hashable] | None = None) -> float | None:
    """Standard error of a mean of clustered values; None for a single cluster. Arguments as in `clustered`.

    >>> round(clustered_standard_error([0.0, 1.0] * 50), 4)  # sqrt(.25 / 99)
    0.0503
    """
    return clustered(values, clusters).standard_error


def check_lengths(n: int, **others: Sequence[Hashable] | NDArray[np.bool_] | Floats | None) -> None:
    """Raises ValueError for n = 0 and for a list of another length than n."""
    if n == 0:
        raise ValueError("no items: a mean of nothing has no value")
    for name, other in others.items():
        if other is not None and len(other) != n:
            raise ValueError(f"{n} values but {len(other)} {name}")
