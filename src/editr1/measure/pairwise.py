"""Answers of judges of pairs in both orders: accuracy, consistency and position bias.

Judges that see both edits prefer a place: one that always answers "first" has accuracy .5 in the mean of both orders, consistency 0 and
first share 1.

Protocols: `<benchmark>/pairwise/{mean-of-orders,both-right,half,consistency,first-share}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from editr1.bench.base import ComparisonItem, JudgedPair, Outcome
from editr1.measure.metrics import by_kind, to_metric
from editr1.schema import Metric
from editr1.stats import share_estimate

Choice = Literal["a", "b", "same"]


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


def order_report(labels: Sequence[Choice], forward: Sequence[Choice | None], reverse: Sequence[Choice | None]) -> OrderReport:
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


def pair_credit(label: Choice, answer: Choice | None) -> float:
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
