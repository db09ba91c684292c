"""Ranking K edits of one source: two protocols that must never share a column.

A judge of scores sorts K images (chance 1/K!); a judge of pairs must win all C(K,2) comparisons independently
(chance 2^-C(K,2), and 3^-C(K,2) where it may also say "tie"). At K=4 that is 4.2, 1.6 and 0.14 %.

A judge of pairs is asked in both orders; a group counts half where it is right in one of them. An answer that is missing is wrong, and
"same" is right only where people said so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from editr1.bench.base import JudgedPair
from editr1.measure.metrics import to_metric
from editr1.schema import Label, Metric
from editr1.stats import share_estimate
from editr1.stats.agreement import kendall_tau_b
from editr1.stats.pairwise import TIE_TOLERANCE

KWayProtocol = Literal["argsort", "pairs", "pairs-with-ties"]


def chance(k: int, protocol: KWayProtocol) -> float:
    """Probability that a blind judge gets a group of k right. Raises ValueError for k < 2.

    >>> chance(3, "argsort"), chance(3, "pairs"), chance(4, "pairs")
    (0.16666666666666666, 0.125, 0.015625)
    """
    if k < 2:
        raise ValueError(f"a group of {k} has no ranking")
    if protocol == "argsort":
        return 1 / math.factorial(k)
    return (2 if protocol == "pairs" else 3) ** -float(math.comb(k, 2))


def argsort_right(scores: Sequence[float | None], places: Sequence[int]) -> bool:
    """Whether the scores fall strictly from place to place (1 = best); an unscored image or a tie across places is wrong.

    Images that share a place may score anything among themselves. Raises ValueError for lengths that differ.

    >>> argsort_right([9.0, 5.0, 7.0], [1, 3, 2]), argsort_right([9.0, 7.0, 7.0], [1, 3, 2])
    (True, False)
    """
    if len(scores) != len(places):
        raise ValueError(f"{len(scores)} scores for {len(places)} places")
    if any(score is None or math.isnan(score) for score in scores):
        return False
    known = [float(score) for score in scores if score is not None]
    pairs = [(i, j) for i in range(len(places)) for j in range(len(places)) if places[i] < places[j]]
    return all(known[i] > known[j] + TIE_TOLERANCE for i, j in pairs)


def pairs_right(outcomes: Sequence[bool | None], k: int) -> bool:
    """Whether all C(k,2) comparisons of a group are right (None = unscored, wrong). Raises ValueError for another number of rows."""
    if len(outcomes) != math.comb(k, 2):
        raise ValueError(f"a group of {k} has {math.comb(k, 2)} comparisons, found {len(outcomes)}")
    return all(outcome is True for outcome in outcomes)


def group_tau(scores: Sequence[float | None], places: Sequence[int]) -> float | None:
    """Kendall's tau-b between scores and places, 1 = the label's order; None where a score is missing or a side is constant.

    Beside exact match, which is very noisy at K = 4.
    """
    if any(score is None or math.isnan(score) for score in scores):
        return None
    return kendall_tau_b([float(score) for score in scores if score is not None], [-place for place in places])


@dataclass(frozen=True, slots=True)
class AnsweredGroup:
    """All comparisons of one group, each with its label and what the judge said (None = nothing)."""

    k: int
    labels: tuple[Label, ...]
    answers: tuple[JudgedPair | None, ...]

    @property
    def credit(self) -> float:
        """Share of the two orders in which every comparison is right, in {0, .5, 1}."""
        forward = [found.forward if found else None for found in self.answers]
        reverse = [found.reverse if found else None for found in self.answers]
        return sum(self._right(order) for order in (forward, reverse)) / 2

    @property
    def is_unscored(self) -> bool:
        """Whether an answer of either order is missing."""
        return any(found is None or found.forward is None or found.reverse is None for found in self.answers)

    def _right(self, said: Sequence[Label | None]) -> bool:
        return pairs_right([answer == label for answer, label in zip(said, self.labels, strict=True)], self.k)


def kway_pair_metrics(groups: Sequence[AnsweredGroup], name: str, protocol: str, num_left_out: int = 0) -> list[Metric]:
    """Share of right groups of one size, beside the chance of a coin and of a die that may also say "same"; nothing for no group."""
    if not groups:
        return []
    k = groups[0].k
    estimate = share_estimate([group.credit for group in groups])
    return [
        to_metric(
            name,
            estimate,
            protocol,
            n=len(groups),
            num_unscored=sum(group.is_unscored for group in groups),
            by_category={"groups left out": num_left_out} if num_left_out else {},
        ),
        Metric(f"{name}_chance", chance(k, "pairs"), n=len(groups), protocol=f"{protocol}/chance"),
        Metric(f"{name}_chance_with_ties", chance(k, "pairs-with-ties"), n=len(groups), protocol=f"{protocol}/chance-with-ties"),
    ]
