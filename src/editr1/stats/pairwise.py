"""Pair accuracy: always five numbers, because ties and unscored pairs decide rankings.

On the same stored judge outputs one accuracy is 59.9 % with a tie counted wrong, 71.8 % with half credit and 78.6 % on the
non-tied pairs. A report that prints one of them without the tie rate cannot be compared with anything.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from editr1.stats.clusters import Floats, index_of
from editr1.stats.intervals import Estimate, share_estimate

# ours: two means of the same numbers in another order differ by rounding; scores are read to one decimal or coarser.
TIE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class PairwiseReport:
    """How often the preferred side of a decisive pair scored higher.

    >>> report = pairwise_report([2.0, -1.0, 0.0, None])
    >>> report.strict, report.half_credit, report.non_tied, report.tie_rate
    (0.25, 0.5, 0.5, 0.3333333333333333)
    """

    n: int
    """All decisive pairs, unscored ones included."""
    num_right: int
    num_tied: int
    num_unscored: int
    """At least one side has no score: wrong in `strict`, half in `half_credit`, never dropped from either."""

    @property
    def num_wrong(self) -> int:
        return self.n - self.num_right - self.num_tied - self.num_unscored

    @property
    def strict(self) -> float | None:
        """Share right of all pairs, in [0, 1]; ties and unscored are wrong. None without pairs."""
        return self.num_right / self.n if self.n else None

    @property
    def half_credit(self) -> float | None:
        """As `strict` with .5 for a tie and for an unscored pair: a judge that says nothing sits at chance."""
        return (self.num_right + 0.5 * (self.num_tied + self.num_unscored)) / self.n if self.n else None

    @property
    def non_tied(self) -> float | None:
        """Share right of the scored pairs that are no ties; None when there is none."""
        decided = self.num_right + self.num_wrong
        return self.num_right / decided if decided else None

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
    scored = ~np.isnan(margin_N)
    return PairwiseReport(
        n=len(margin_N),
        num_right=int((margin_N > TIE_TOLERANCE).sum()),
        num_tied=int(is_tied(margin_N).sum()),
        num_unscored=int((~scored).sum()),
    )


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
