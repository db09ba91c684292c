"""Ranking K edits of one source: two protocols that must never share a column.

A judge of scores sorts K images (chance 1/K!); a judge of pairs must win all C(K,2) comparisons independently
(chance 2^-C(K,2), and 3^-C(K,2) where it may also say "tie"). At K=4 that is 4.2, 1.6 and 0.14 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from editr1.stats.correlation import kendall_tau_b
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
