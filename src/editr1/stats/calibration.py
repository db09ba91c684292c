"""Does a score gap mean what it says? From margins to probabilities, and how far these are from what happened.

A judge gives scores, not probabilities: P(the higher-scored side is preferred) = sigmoid(slope * |gap|), and the slope is fitted
on other clusters than those it is tested on. Legend: N pairs, F folds.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from editr1.stats.intervals import Floats, index_of
from editr1.stats.pairwise import as_margins, half_credit

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
    """How good a list of forecasts was. All three losses: lower is better, 0 is perfect."""

    n: int
    log_loss: float
    """Mean negative log-likelihood, nats; a coin has log 2 = .693."""
    brier: float
    """Mean squared error; a coin has .25."""
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
    return Calibration(len(p_N), log_loss, float(((p_N - y_N) ** 2).mean()), ece, bins)


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

    0 for a judge whose gaps point the wrong way more than the right one. Raises ValueError without a margin.

    >>> round(fit_slope([1.0, 1.0, 1.0, -1.0]), 3)  # right 3 of 4 times: sigmoid(slope) = .75, slope = log 3
    1.099
    >>> fit_slope([-1.0, -1.0, 1.0])
    0.0
    """
    margin_N = np.asarray(margins, dtype=np.float64)
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
    return Calibration(found.n, found.log_loss, found.brier, found.ece, found.bins, slope, len(margin_N) - len(scored))


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
