"""Accuracy when people may say "same": three classes, and an epsilon below which a judge's gap counts as a tie.

An epsilon tuned on the set that it is scored on has a floor, the share of human ties (45.3 % of GenAI-Bench editing): a judge
at chance reaches it by calling everything a tie. The honest number tunes on some clusters and scores on the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from editr1.stats.calibration import NUM_FOLDS, folds
from editr1.stats.intervals import Floats
from editr1.stats.pairwise import as_margins

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
    decisive: float | None
    """Accuracy on items that people did not call a tie, no tie predicted but an exact one (wrong); None without such items."""
    epsilon: float
    """The in-sample choice, in score points."""
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
    gap_N, label_N = as_margins(gaps), np.asarray(labels)
    if len(gap_N) != len(label_N) or not set(label_N.tolist()) <= {-1, 0, 1}:
        raise ValueError(f"{len(gap_N)} gaps and {len(label_N)} labels: expected one label of -1, 0 or 1 a gap")
    fold_N = folds(list(range(len(gap_N))) if clusters is None else clusters, num_folds, rng)
    credit_N = np.empty(len(gap_N))
    for fold in range(int(fold_N.max()) + 1):
        inside = fold_N == fold
        epsilon = best_epsilon(gap_N[~inside], label_N[~inside].tolist())
        credit_N[inside] = three_class_credit(gap_N[inside], label_N[inside].tolist(), epsilon)
    epsilon = best_epsilon(gap_N, label_N.tolist())
    decided = label_N != 0
    return ThreeClassReport(
        credit=credit_N,
        in_sample=float(three_class_credit(gap_N, label_N.tolist(), epsilon).mean()),
        always_tie=float((label_N == 0).mean()),
        decisive=float((np.sign(gap_N) == label_N)[decided].mean()) if decided.any() else None,
        epsilon=epsilon,
        num_unscored=int(np.isnan(gap_N).sum()),
    )
