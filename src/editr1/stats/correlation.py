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

from editr1.stats.intervals import Floats
from editr1.stats.pairwise import TIE_TOLERANCE


def ranks(values: ArrayLike) -> Floats:
    """`[N]` ranks from 1; values that are equal up to rounding share their mean rank.

    Exact equality would let the last bit rank: the mean of three raters' (1, .7, 0) depends on the order of the raters.

    >>> ranks([0.1 + 0.2, 20.0, 0.3]).tolist()
    [1.5, 3.0, 1.5]
    """
    value_N = np.asarray(values, dtype=np.float64)
    order = np.argsort(value_N, kind="stable")
    group_N = np.empty(len(value_N), dtype=np.intp)
    group_N[order] = np.cumsum(np.diff(value_N[order], prepend=-np.inf) > TIE_TOLERANCE) - 1
    count_G = np.bincount(group_N)
    return np.asarray((np.cumsum(count_G) - (count_G - 1) / 2)[group_N], dtype=np.float64)


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Spearman's rho in [-1, 1]; None where a side is constant or has fewer than two values. Raises ValueError for other lengths."""
    x_N, y_N = _same_length(x, y)
    rank_x, rank_y = ranks(x_N), ranks(y_N)
    if len(x_N) < 2 or np.ptp(rank_x) == 0 or np.ptp(rank_y) == 0:
        return None
    return float(np.clip(np.corrcoef(rank_x, rank_y)[0, 1], -1.0, 1.0))


def kendall_tau_b(x: ArrayLike, y: ArrayLike) -> float | None:
    """Kendall's tau-b in [-1, 1], which accounts for ties on either side; None where a side is constant. O(N^2) memory.

    >>> kendall_tau_b([1, 2, 3], [1, 2, 3])
    1.0
    """
    x_N, y_N = _same_length(x, y)
    upper = np.triu_indices(len(x_N), k=1)
    dx, dy = (np.sign(rank_N[:, None] - rank_N)[upper] for rank_N in (ranks(x_N), ranks(y_N)))
    scale = math.sqrt(float((dx != 0).sum()) * float((dy != 0).sum()))
    return float((dx * dy).sum()) / scale if scale else None


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
    """Plain and Fisher mean of the groups' correlations (None = a constant group, counted and left out).

    >>> mean_correlation([0.5, 0.5, None]).num_dropped
    1
    """
    known = np.array([rho for rho in rhos if rho is not None], dtype=np.float64)
    num_dropped = len(rhos) - len(known)
    if not len(known):
        return MeanCorrelation(None, None, 0, num_dropped)
    perfect = bool((np.abs(known) >= 1).any())
    fisher = None if perfect else float(np.tanh(np.arctanh(known).mean()))
    return MeanCorrelation(float(known.mean()), fisher, len(known), num_dropped)


def _same_length(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    x_N, y_N = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x_N.shape != y_N.shape:
        raise ValueError(f"{len(x_N)} and {len(y_N)} values: a correlation needs pairs")
    return x_N, y_N
