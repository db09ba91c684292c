"""Does a score gap mean what it says? From margins to probabilities, and how far these are from what happened.

A judge gives scores, not probabilities: P(the higher-scored side is preferred) = sigmoid(slope * |gap|), and the slope is fitted
on other clusters than those it is tested on. Where people may say "same" there are three classes, and an epsilon below which a gap counts
as a tie. Tuned on the set that it is scored on it has a floor, the share of human ties (45.3 % of GenAI-Bench editing): a judge at chance
reaches it by calling everything a tie. The honest number tunes on some clusters and scores on the others.

Legend: N pairs, F folds.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editr1.stats.clusters import Floats, index_of
from editr1.stats.pairwise import as_margins, half_credit, without_rounding

NUM_BINS = 10  # ours: equal-mass bins; equal-width ones leave most of a sharp judge's bins empty
NUM_FOLDS = 5
MAX_SLOPE = 100.0  # per score point: beyond it every gap of .1 is certain, and perfectly separated data have no finite slope
FLOOR = 1e-12  # keeps the logarithm finite for a forecast of exactly 0 or 1 that was wrong


@dataclass(frozen=True, slots=True)
class Bin:
    """One point of a reliability plot."""

    forecast: float
    """Mean forecast, in [0, 1]."""
    observed: float
    """Share that came true, in [0, 1]."""
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How good a list of forecasts was. Both losses: lower is better, 0 is perfect."""

    n: int
    log_loss: float
    """Mean negative log-likelihood, nats; a coin has log 2 = .693."""
    ece: float
    """Expected calibration error over equal-mass bins."""
    bins: tuple[Bin, ...]
    slope: float | None = None
    """Of the logistic map, per score point, fitted on all pairs (the forecasts used the other folds')."""
    num_unscored: int = 0

    @property
    def temperature(self) -> float | None:
        """1 / slope, in score points; None where the slope is 0 or was not fitted."""
        return 1 / self.slope if self.slope else None


def calibration_of(forecasts: ArrayLike, came_true: ArrayLike, num_bins: int = NUM_BINS) -> Calibration:
    """Losses and reliability of forecasts. forecasts: `[N]` in [0, 1]; came_true: `[N]` in [0, 1], .5 for a tie.

    Raises ValueError for other ranges, lengths that differ, or nothing to judge.
    """
    p_N, y_N = np.asarray(forecasts, dtype=np.float64), np.asarray(came_true, dtype=np.float64)
    if p_N.shape != y_N.shape or not len(p_N):
        raise ValueError(f"{len(p_N)} forecasts and {len(y_N)} outcomes: expected the same number, at least one")
    if not ((p_N >= 0) & (p_N <= 1) & (y_N >= 0) & (y_N <= 1)).all():
        raise ValueError("forecasts and outcomes must lie in [0, 1]")
    safe_N = np.clip(p_N, FLOOR, 1 - FLOOR)
    log_loss = float(-(y_N * np.log(safe_N) + (1 - y_N) * np.log1p(-safe_N)).mean())
    bins = reliability(p_N, y_N, num_bins)
    ece = sum(item.n * abs(item.forecast - item.observed) for item in bins) / len(p_N)
    return Calibration(len(p_N), log_loss, ece, bins)


def reliability(p_N: Floats, y_N: Floats, num_bins: int = NUM_BINS) -> tuple[Bin, ...]:
    """Points of the reliability plot: bins of (nearly) equal mass in order of the forecast.

    Equal forecasts share a bin (their mean rank decides), or the order of the file would change the figure.
    """
    from scipy.stats import rankdata

    bin_N = np.minimum(((rankdata(p_N) - 0.5) / len(p_N) * num_bins).astype(int), num_bins - 1)
    parts = [np.flatnonzero(bin_N == index) for index in range(num_bins)]
    return tuple(Bin(float(p_N[part].mean()), float(y_N[part].mean()), len(part)) for part in parts if len(part))


def fit_slope(margins: ArrayLike) -> float:
    """The slope in [0, MAX_SLOPE] that maximises the likelihood sum log sigmoid(slope * margin), margins = preferred minus other.

    0 for a judge whose gaps point the wrong way more than the right one; nan = unscored, left out. Raises ValueError without a margin.

    >>> round(fit_slope([1.0, 1.0, 1.0, -1.0]), 3)  # right 3 of 4 times: sigmoid(slope) = .75, slope = log 3
    1.099
    >>> fit_slope([-1.0, -1.0, 1.0])
    0.0
    """
    margin_N = np.asarray(margins, dtype=np.float64)
    margin_N = margin_N[~np.isnan(margin_N)]
    if not len(margin_N):
        raise ValueError("no margin to fit a slope on")
    low, high = 0.0, MAX_SLOPE
    for _ in range(60):  # the derivative falls in slope: bisection, to the last bit of interest
        middle = (low + high) / 2
        gradient = float((margin_N * _sigmoid(-middle * margin_N)).sum())
        low, high = (middle, high) if gradient > 0 else (low, middle)
    return (low + high) / 2 if low else 0.0  # never above 0: the search only came near it


def calibrate(
    margins: Sequence[float | None] | Floats,
    clusters: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    num_folds: int = NUM_FOLDS,
    num_bins: int = NUM_BINS,
) -> Calibration:
    """Cross-fitted calibration of score gaps: each pair's forecast uses a slope from the other folds, folds hold whole clusters.

    margins: `[N]` preferred minus other, None or nan = unscored (left out and counted). Raises ValueError for fewer than two clusters.
    """
    margin_N = as_margins(margins)
    scored = np.flatnonzero(~np.isnan(margin_N))
    keys: list[Hashable] = list(range(len(margin_N))) if clusters is None else list(clusters)
    fold_N = folds([keys[int(i)] for i in scored], num_folds, rng)
    gap_N = margin_N[scored]
    forecast_N = np.empty(len(gap_N))
    for fold in range(int(fold_N.max()) + 1):
        forecast_N[fold_N == fold] = _sigmoid(fit_slope(gap_N[fold_N != fold]) * np.abs(gap_N[fold_N == fold]))
    found = calibration_of(forecast_N, half_credit(gap_N), num_bins)
    slope = fit_slope(gap_N)
    return Calibration(found.n, found.log_loss, found.ece, found.bins, slope, len(margin_N) - len(scored))


def folds(keys: Sequence[Hashable], num_folds: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """`[N]` fold of each item; items of one key share a fold, folds hold (nearly) the same number of keys.

    Raises ValueError for fewer than two keys, where nothing can be held out.
    """
    index_N = np.array(index_of(keys), dtype=np.intp)
    num_keys = int(index_N.max()) + 1 if len(index_N) else 0
    if num_keys < 2:
        raise ValueError(f"{num_keys} cluster(s): cross-fitting needs at least two")
    return np.asarray((rng.permutation(num_keys) % min(num_folds, num_keys))[index_N])


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))  # no overflow at either end


ThreeClass = Sequence[int]
"""+1: a is better, -1: b is better, 0: same."""


@dataclass(frozen=True, slots=True)
class ThreeClassReport:
    """Three-class accuracy under stated ways to choose epsilon, in [0, 1]."""

    credit: Floats
    """`[N]` in {0, 1}, each item under the epsilon of the other folds: the input of an interval."""
    in_sample: float
    """"tie-calibrated (in-sample)": epsilon chosen on the same items; comparable with EditReward's table only."""
    always_tie: float
    """The floor of `in_sample`: share of human ties."""
    num_unscored: int
    """Wrong in every number above."""

    @property
    def n(self) -> int:
        return len(self.credit)


def three_class_credit(gaps: Floats, labels: ThreeClass, epsilon: float) -> Floats:
    """`[N]` in {0, 1}: tie iff |gap| <= epsilon, else the sign; nan (unscored) is wrong.

    >>> three_class_credit(np.array([0.2, -3.0, np.nan]), [0, -1, 1], epsilon=0.5).tolist()
    [1.0, 1.0, 0.0]
    """
    predicted = np.where(np.abs(gaps) <= epsilon, 0.0, np.sign(gaps))
    return (predicted == np.asarray(labels)).astype(np.float64)  # nan equals nothing


def best_epsilon(gaps: Floats, labels: ThreeClass) -> float:
    """The smallest epsilon >= 0 with the highest accuracy; 0 for no item."""
    scored = ~np.isnan(gaps)
    size, label = np.abs(gaps[scored]), np.asarray(labels)[scored]
    order = np.argsort(size, kind="stable")
    tie_right = np.cumsum(label[order] == 0)
    sign_right = np.cumsum((np.sign(gaps[scored]) == label)[order])
    total = sign_right[-1] if len(order) else 0
    candidates = [(0.0, int(((size == 0) & (label == 0)).sum() + (np.sign(gaps[scored]) == label)[size > 0].sum()))]
    for k in range(len(order)):
        last_of_its_size = k + 1 == len(order) or size[order[k + 1]] > size[order[k]]
        if last_of_its_size:
            candidates.append((float(size[order[k]]), int(tie_right[k] + total - sign_right[k])))
    return max(candidates, key=lambda item: (item[1], -item[0]))[0]


def three_class(
    gaps: Sequence[float | None] | Floats,
    labels: ThreeClass,
    clusters: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    num_folds: int = NUM_FOLDS,
) -> ThreeClassReport:
    """Three-class accuracy of gaps a - b (None or nan = unscored) against labels. Folds hold whole clusters.

    Raises ValueError for lengths that differ, labels outside {-1, 0, 1}, or fewer than two clusters.
    """
    gap_N, label_N = without_rounding(as_margins(gaps)), np.asarray(labels)
    if len(gap_N) != len(label_N) or not set(label_N.tolist()) <= {-1, 0, 1}:
        raise ValueError(f"{len(gap_N)} gaps and {len(label_N)} labels: expected one label of -1, 0 or 1 a gap")
    fold_N = folds(list(range(len(gap_N))) if clusters is None else clusters, num_folds, rng)
    credit_N = np.empty(len(gap_N))
    for fold in range(int(fold_N.max()) + 1):
        inside = fold_N == fold
        epsilon = best_epsilon(gap_N[~inside], label_N[~inside].tolist())
        credit_N[inside] = three_class_credit(gap_N[inside], label_N[inside].tolist(), epsilon)
    epsilon = best_epsilon(gap_N, label_N.tolist())
    return ThreeClassReport(
        credit=credit_N,
        in_sample=float(three_class_credit(gap_N, label_N.tolist(), epsilon).mean()),
        always_tie=float((label_N == 0).mean()),
        num_unscored=int(np.isnan(gap_N).sum()),
    )
