"""Good / same / bad counts of a side-by-side study (paper, section 4: GSB = +23.2 % in the human evaluation)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from editr1.stats.intervals import LEVEL
from editr1.stats.paired import binomial_p


@dataclass(frozen=True, slots=True)
class GSB:
    """(G - B) / (G + S + B), in [-1, 1]; the paper prints it times 100.

    >>> study = GSB(good=45, same=30, bad=25)
    >>> study.value, round(study.variance, 4), round(study.win_rate, 3)
    (0.2, 0.0066, 0.643)
    """

    good: int
    same: int
    bad: int

    def __post_init__(self) -> None:
        if min(self.good, self.same, self.bad) < 0 or self.n == 0:
            raise ValueError(f"GSB needs counts >= 0 and at least one vote, got {self.good}/{self.same}/{self.bad}")

    @property
    def n(self) -> int:
        return self.good + self.same + self.bad

    @property
    def value(self) -> float:
        return (self.good - self.bad) / self.n

    @property
    def variance(self) -> float:
        """((G + B)/n - GSB^2) / n, for independent votes."""
        return ((self.good + self.bad) / self.n - self.value**2) / self.n

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Normal interval, cut at [-1, 1]. Votes that share sources need `mean_estimate` of +1 / 0 / -1 instead."""
        half = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt(self.variance)
        return max(-1.0, self.value - half), min(1.0, self.value + half)

    @property
    def win_rate(self) -> float | None:
        """G / (G + B); None when every vote is "same"."""
        return self.good / (self.good + self.bad) if self.good + self.bad else None

    @property
    def p_value(self) -> float:
        """Exact two-sided sign test of G against B."""
        return binomial_p(self.good, self.bad)
