"""Do two lists agree: raters beyond chance (Cohen's kappa, Krippendorff's alpha), scores by their ranks, scores inside groups.

Averaging rank correlations over groups needs care: `tanh(mean(rho))`, found in published scripts, applies the way back of Fisher's
transform without the way there and lowers every figure (GPT-4o on VIEScore's study: 40.3 became 38.2). Here the mean is either plain or
tanh(mean(atanh(rho))), and constant groups are dropped by name. Sources: Cohen 1960; Krippendorff 2011.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from editr1.stats.clusters import Clustered, Floats, index_of
from editr1.stats.intervals import Estimate, tested_mean, within
from editr1.stats.pairwise import TIE_TOLERANCE

Scale = Literal["nominal", "ordinal", "interval"]


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Agreement of two raters on the same items beyond chance, at most 1; None where chance agreement is complete.

    An item with None or nan is missing. Raises ValueError for lengths that differ or no item.

    >>> cohen_kappa("yyyn", "yynn")
    0.5
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} ratings: kappa needs two ratings an item and at least one item")
    rated = [pair for pair in zip(first, second, strict=True) if not any(map(_is_missing, pair))]
    if not rated:
        return None
    codes = np.array(index_of([rating for pair in rated for rating in pair])).reshape(-1, 2)
    a, b = codes[:, 0], codes[:, 1]
    size = int(codes.max()) + 1
    observed = float(np.mean(a == b))
    expected = float(np.bincount(a, minlength=size) @ np.bincount(b, minlength=size)) / len(a) ** 2
    return _beyond_chance(observed, expected)


def _beyond_chance(observed: float, expected: float) -> float | None:
    return None if expected == 1.0 else (observed - expected) / (1 - expected)


def krippendorff_alpha(ratings: Sequence[Sequence[float | None]], scale: Scale = "nominal") -> float | None:
    """Krippendorff's alpha of `[units][raters]` values (None or nan = not rated), at most 1.

    Units with fewer than two ratings say nothing and are left out. None where nothing is pairable or all values are equal.
    """
    units = [[value for value in unit if value is not None and not _is_missing(value)] for unit in ratings]
    units = [unit for unit in units if len(unit) >= 2]
    if not units:
        return None
    values = np.unique(np.concatenate([np.asarray(unit, dtype=np.float64) for unit in units]))
    coincidence_VV = np.zeros((len(values), len(values)))
    for unit in units:
        count_V = np.bincount(np.searchsorted(values, unit), minlength=len(values)).astype(np.float64)
        coincidence_VV += (np.outer(count_V, count_V) - np.diag(count_V)) / (len(unit) - 1)
    total_V = coincidence_VV.sum(axis=1)
    distance_VV = _distance(values, total_V, scale)
    observed = float((coincidence_VV * distance_VV).sum())
    expected = float((np.outer(total_V, total_V) * distance_VV).sum()) / (total_V.sum() - 1)
    return None if expected == 0 else 1 - observed / expected


def _is_missing(rating: Hashable) -> bool:
    return rating is None or (isinstance(rating, float) and math.isnan(rating))


def _distance(values: Floats, total_V: Floats, scale: Scale) -> Floats:
    """`[V, V]` squared difference function of the scale."""
    if scale == "nominal":
        return 1.0 - np.eye(len(values))
    if scale == "interval":
        return np.asarray((values[:, None] - values) ** 2)
    # Ordinal: half of both ends plus everything between them.
    position_V = np.cumsum(total_V) - total_V / 2
    return np.asarray((position_V[:, None] - position_V) ** 2)


@dataclass(frozen=True, slots=True)
class VerdictAgreement:
    """Yes/no verdicts of a judge against people's, one principle at a time. The finding looked for is "no": a violated principle."""

    both_yes: int
    only_judge_yes: int
    """Violations that the judge passed."""
    only_human_yes: int
    """False alarms."""
    both_no: int

    @property
    def n(self) -> int:
        return self.both_yes + self.only_judge_yes + self.only_human_yes + self.both_no

    @property
    def accuracy(self) -> float | None:
        return (self.both_yes + self.both_no) / self.n if self.n else None

    @property
    def violated_recall(self) -> float | None:
        """Share of the violations that the judge found."""
        violated = self.both_no + self.only_judge_yes
        return self.both_no / violated if violated else None

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa from the four counts; None where chance agreement is complete or nothing was compared."""
        if not self.n:
            return None
        judge_yes, human_yes = self.both_yes + self.only_judge_yes, self.both_yes + self.only_human_yes
        expected = (judge_yes * human_yes + (self.n - judge_yes) * (self.n - human_yes)) / self.n**2
        return _beyond_chance((self.both_yes + self.both_no) / self.n, expected)


# --- rank correlations ----------------------------------------------------------------------------------


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


# --- curves over time, step -> value ------------------------------------------------------------------

SPAN = 5  # ours: points averaged at either end; single ones draw other tasks and say little


def finite_mean(values: Sequence[float]) -> float | None:
    """The mean of what is finite; None where nothing is."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def hacked(training: Mapping[int, float], held_out: Mapping[int, float], falls: int) -> bool:
    """Whether the held-out reward fell in each of the last `falls` evaluations while the training reward rose over them.

    >>> training, held_out = {0: 6.0, 1: 7.0, 2: 8.0}, {0: 7.0, 1: 6.0, 2: 5.0}
    >>> hacked(training, held_out, 2), hacked(training, held_out, 3)
    (True, False)
    """
    times = sorted(held_out)[-falls - 1 :]
    if len(times) <= falls:
        return False
    before = finite_mean([training[step] for step in sorted(training) if step <= times[0]][-SPAN:])
    after = finite_mean([training[step] for step in sorted(training)][-SPAN:])
    falling = all(held_out[late] < held_out[early] for early, late in pairwise(times))
    return falling and before is not None and after is not None and after > before


Deviations = Sequence[tuple[Floats, Floats]]
"""(scores, truths) of each group, less the group's means."""


def deviations(values: ArrayLike) -> Floats:
    """`[N]` values of one group less their mean: exactly 0 where all are equal up to rounding, for rounding correlates with nothing."""
    value_N = np.asarray(values, dtype=np.float64)
    return np.zeros(len(value_N)) if np.ptp(value_N) <= TIE_TOLERANCE else value_N - value_N.mean()


def pooled_correlation(groups: Deviations, rng: np.random.Generator) -> Estimate | None:
    """Correlation of deviations from each group's means over all groups, with the interval of its linear part by group; None where one
    side never deviates."""
    found = _linear_correlation(groups)
    return None if found is None else within(_of_linear(*found, groups, rng), -1.0)


def correlation_gain(first: Deviations, second: Deviations, rng: np.random.Generator) -> Estimate | None:
    """Pooled correlation of the second judge less that of the first on the same groups, paired by group; None where either has none."""
    before, after = _linear_correlation(first), _linear_correlation(second)
    return None if before is None or after is None else _of_linear(after[0] - before[0], after[1] - before[1], second, rng)


def _linear_correlation(groups: Deviations) -> tuple[float, Floats] | None:
    """The correlation, and how much each group moves it."""
    sums_G3 = np.array([(value @ truth, value @ value, truth @ truth) for value, truth in groups])
    joint, squares, truths = sums_G3.sum(axis=0)
    if min(squares, truths) <= 0:
        return None
    rho = joint / math.sqrt(squares * truths)
    return float(rho), sums_G3 @ np.array([1 / math.sqrt(squares * truths), -rho / (2 * squares), -rho / (2 * truths)])


def _of_linear(value: float, residual_G: Floats, groups: Deviations, rng: np.random.Generator) -> Estimate:
    size, n = len(groups), sum(len(scores) for scores, _ in groups)
    weight_G = np.full(size, 1 / size)
    data = Clustered(value, n, weight_G, value * weight_G + residual_G, residual_G, np.zeros(size, dtype=np.intp), is_single=False)
    return tested_mean(data, rng)
