"""Do raters agree beyond chance? Cohen's kappa for two, Krippendorff's alpha for any number with gaps.

Sources: Cohen 1960; Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from editr1.stats.clusters import Floats, index_of

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
        observed = (self.both_yes + self.both_no) / self.n
        return None if expected == 1.0 else (observed - expected) / (1 - expected)
