"""Answers of judges of pairs in both orders, and the ranking of K edits of one source.

Judges that see both edits prefer a place: one that always answers "first" has accuracy .5 in the mean of both orders, consistency 0 and
first share 1: `<benchmark>/pairwise/{mean-of-orders,both-right,half,consistency,first-share}`.

Two protocols of K edits must never share a column: a judge of scores sorts K images (chance 1/K!); a judge of pairs must win all C(K,2)
comparisons independently (chance 2^-C(K,2), and 3^-C(K,2) where it may also say "tie"). At K=4 that is 4.2, 1.6 and 0.14 %. Asked in both
orders, a group counts half where it is right in one. A missing answer is wrong, and "same" is right only where people said so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from editr1.bench.base import ComparisonItem, JudgedPair, Outcome
from editr1.measure.metrics import by_kind, to_metric
from editr1.schema import Label, Metric
from editr1.stats import share_estimate
from editr1.stats.agreement import kendall_tau_b
from editr1.stats.pairwise import TIE_TOLERANCE

KWayProtocol = Literal["argsort", "pairs", "pairs-with-ties"]


@dataclass(frozen=True, slots=True)
class OrderReport:
    """Answers of a judge of pairs in both orders, against decisive labels.

    >>> report = order_report(["a", "b"], ["a", "a"], ["b", "b"])  # always the first
    >>> report.consistency, report.first_share
    (0.0, 1.0)
    """

    n: int
    """Decisive pairs."""
    credits: dict[str, list[float]]
    """`[n]` in [0, 1] under each count: `mean-of-orders`, the share of the two answers that are right ("same" and none are wrong; MMRB2
    counts so); `both-right`, right in both orders, the strict figure; `half`, as the first with .5 for "same" and for no answer."""
    consistency: float | None
    """Share of the pairs with two readable answers on which both say the same."""
    first_share: float | None
    """Among pairs with two different sides chosen: how often the image shown first won both times. .5 = no bias; None without one."""
    tie_rate: float | None
    """Share of "same" among the readable answers; None without one."""
    num_unscored: int
    """Pairs without a readable answer in at least one order."""


def order_report(labels: Sequence[Label], forward: Sequence[Label | None], reverse: Sequence[Label | None]) -> OrderReport:
    """The report of `[N]` answers; a and b name the edits, forward showed a first. Pairs labelled "same" are left out.

    Raises ValueError for lengths that differ.
    """
    if not len(labels) == len(forward) == len(reverse):
        raise ValueError(f"{len(labels)} labels, {len(forward)} and {len(reverse)} answers: expected one each")
    rows = [(label, first, second) for label, first, second in zip(labels, forward, reverse, strict=True) if label != "same"]
    n = len(rows)
    said = [answer for _, first, second in rows for answer in (first, second) if answer is not None]
    read = [(first, second) for _, first, second in rows if first is not None and second is not None]
    sided = [(first, second) for first, second in read if {first, second} == {"a", "b"}]
    return OrderReport(
        n=n,
        credits={
            "mean-of-orders": [((first == label) + (second == label)) / 2 for label, first, second in rows],
            "both-right": [float(first == label == second) for label, first, second in rows],
            "half": [(pair_credit(label, first) + pair_credit(label, second)) / 2 for label, first, second in rows],
        },
        consistency=_share([first == second for first, second in read]),
        first_share=_share([first == "a" for first, _ in sided]),
        tie_rate=_share([answer == "same" for answer in said]),
        num_unscored=n - len(read),
    )


def pair_credit(label: Label, answer: Label | None) -> float:
    """1 for the right side, 0 for the wrong one, .5 for "same" and for no answer."""
    return 0.5 if answer in (None, "same") else float(answer == label)


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def pairwise_metrics(name: str, items: Sequence[ComparisonItem], judged: Mapping[str, JudgedPair]) -> list[Metric]:
    """Accuracy in three credits with intervals by cluster, consistency and position bias; a pair without answers is unscored."""
    rows = [(item, *_answers(judged, item.key)) for item in items if item.label != "same"]
    report = order_report([item.label for item, _, _ in rows], [f for _, f, _ in rows], [r for _, _, r in rows])
    protocol = f"{name.replace('_', '-')}/pairwise"
    clusters, kinds = [item.cluster for item, _, _ in rows], [item.category for item, _, _ in rows]
    found = []
    for kind, value in report.credits.items():
        estimate = share_estimate(value, clusters) if rows else None
        by_category = by_kind(np.array(value), kinds) if rows else {}
        metric = to_metric(
            f"{name}_{kind.replace('-', '_')}",
            estimate,
            f"{protocol}/{kind}",
            n=len(rows),
            num_unscored=report.num_unscored,
            tie_rate=report.tie_rate,
            by_category=by_category,
        )
        found.append(metric)
    answered = report.n - report.num_unscored
    return [
        *found,
        Metric(f"{name}_consistency", report.consistency, n=answered, protocol=f"{protocol}/consistency"),
        Metric(f"{name}_first_share", report.first_share, n=answered, protocol=f"{protocol}/first-share"),
    ]


def pairwise_outcomes(items: Sequence[ComparisonItem], judged: Mapping[str, JudgedPair]) -> list[Outcome]:
    """One row a decisive pair: the mean credit of both orders; None where an order has no readable answer."""
    rows = []
    for item in items:
        forward, reverse = _answers(judged, item.key)
        if item.label != "same":
            credit = (
                None if forward is None or reverse is None else (pair_credit(item.label, forward) + pair_credit(item.label, reverse)) / 2
            )
            rows.append(Outcome(item.key, item.cluster, item.category, credit, "credit"))
    return rows


def _answers(judged: Mapping[str, JudgedPair], key: str) -> tuple[Any, Any]:
    found = judged.get(key)
    return (found.forward, found.reverse) if found else (None, None)


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
    k, num_unscored = groups[0].k, sum(group.is_unscored for group in groups)
    estimate = share_estimate([group.credit for group in groups])
    left_out: dict[str, float] = {"groups left out": num_left_out} if num_left_out else {}
    return [
        to_metric(name, estimate, protocol, n=len(groups), num_unscored=num_unscored, by_category=left_out),
        Metric(f"{name}_chance", chance(k, "pairs"), n=len(groups), protocol=f"{protocol}/chance"),
        Metric(f"{name}_chance_with_ties", chance(k, "pairs-with-ties"), n=len(groups), protocol=f"{protocol}/chance-with-ties"),
    ]
