"""Rank correlations, and how to average them over groups.

Averaging needs care: `tanh(mean(rho))`, found in published scripts, applies the way back of Fisher's transform without the way
there and lowers every figure (GPT-4o on VIEScore's study: 40.3 became 38.2). Here the mean is either plain or
tanh(mean(atanh(rho))), and constant groups are dropped by name, not in silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from editr1.stats.clusters import Floats
from editr1.stats.pairwise import TIE_TOLERANCE


def merge_ties(values: ArrayLike) -> Floats:
    """`[N]` values in which those that are equal up to rounding are equal.

    Exact equality would let the last bit rank: the mean of three raters' (1, .7, 0) depends on the order of the raters.

    >>> merge_ties([0.1 + 0.2, 20.0, 0.3]).tolist()
    [0.3, 20.0, 0.3]
    """
    value_N = np.asarray(values, dtype=np.float64)
    order = np.argsort(value_N, kind="stable")
    sorted_N = value_N[order]
    starts_N = np.diff(sorted_N, prepend=-np.inf) > TIE_TOLERANCE
    merged_N = np.empty_like(value_N)
    merged_N[order] = sorted_N[starts_N][np.cumsum(starts_N) - 1] if len(value_N) else sorted_N
    return merged_N


def spearman(x: ArrayLike, y: ArrayLike, exact: bool = False) -> float | None:
    """Spearman's rho in [-1, 1]; None where a side is constant or has fewer than two values. Pairs with a nan are missing.

    exact: values that differ in the last bit have different ranks, as in published notebooks. Raises ValueError for other lengths.
    """
    from scipy.stats import spearmanr

    sides = _known(x, y, exact)
    return None if sides is None else float(spearmanr(*sides).statistic)


def kendall_tau_b(x: ArrayLike, y: ArrayLike) -> float | None:
    """Kendall's tau-b in [-1, 1], which accounts for ties on either side; None where a side is constant. Pairs with a nan are missing.

    >>> kendall_tau_b([1, 2, 3], [1, 2, 3])
    1.0
    """
    from scipy.stats import kendalltau

    sides = _known(x, y, exact=False)
    return None if sides is None else float(kendalltau(*sides).statistic)


def _known(x: ArrayLike, y: ArrayLike, exact: bool) -> tuple[Floats, Floats] | None:
    """Both sides of the pairs without a nan; None where a side has no two different values."""
    x_N, y_N = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x_N.shape != y_N.shape:
        raise ValueError(f"{len(x_N)} and {len(y_N)} values: a correlation needs pairs")
    known = ~(np.isnan(x_N) | np.isnan(y_N))
    sides = [side[known] if exact else merge_ties(side[known]) for side in (x_N, y_N)]
    return None if any(len(side) < 2 or np.ptp(side) == 0 for side in sides) else (sides[0], sides[1])


@dataclass(frozen=True, slots=True)
class MeanCorrelation:
    """Correlations of several groups in one number, three times."""

    plain: float | None
    """Arithmetic mean of the groups' rho; None without a group that has one."""
    fisher: float | None
    """tanh(mean(atanh(rho))); None as well where a group is at exactly +-1, whose transform is infinite."""
    num_groups: int
    """Groups that entered."""
    num_dropped: int
    """Groups with a constant side: no rho exists."""

    @property
    def tanh_of_mean(self) -> float | None:
        """What VIEScore's notebook and EditReward's table print, biased low; here to compare with those tables only."""
        return None if self.plain is None else math.tanh(self.plain)


def mean_correlation(rhos: Sequence[float | None]) -> MeanCorrelation:
    """Plain and Fisher mean of the groups' correlations (None or nan = a constant group, counted and left out).

    >>> mean_correlation([0.5, 0.5, None]).num_dropped
    1
    """
    known = np.array([rho for rho in rhos if rho is not None and not math.isnan(rho)], dtype=np.float64)
    num_dropped = len(rhos) - len(known)
    if not len(known):
        return MeanCorrelation(None, None, 0, num_dropped)
    perfect = bool((np.abs(known) >= 1).any())
    fisher = None if perfect else float(np.tanh(np.arctanh(known).mean()))
    return MeanCorrelation(float(known.mean()), fisher, len(known), num_dropped)
