"""Answers of judges of pairs in both orders: accuracy, consistency and position bias.

Protocols: `<benchmark>/pairwise/{mean-of-orders,both-right,half,consistency,first-share}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from editr1.bench.base import ComparisonItem, JudgedPair, Outcome
from editr1.measure.metrics import by_kind, to_metric
from editr1.schema import Metric
from editr1.stats import share_estimate
from editr1.stats.position import order_report, pair_credit


def pairwise_metrics(name: str, items: Sequence[ComparisonItem], judged: Mapping[str, JudgedPair]) -> list[Metric]:
    """Accuracy in three credits with intervals by cluster, consistency and position bias; a pair without answers is unscored."""
    rows = [(item, *_answers(judged, item.key)) for item in items if item.label != "same"]
    report = order_report([item.label for item, _, _ in rows], [f for _, f, _ in rows], [r for _, _, r in rows])
    values = {
        "mean-of-orders": [((f == item.label) + (r == item.label)) / 2 for item, f, r in rows],
        "both-right": [float(f == item.label == r) for item, f, r in rows],
        "half": [(pair_credit(item.label, f) + pair_credit(item.label, r)) / 2 for item, f, r in rows],
    }
    protocol = f"{name.replace('_', '-')}/pairwise"
    clusters, kinds = [item.cluster for item, _, _ in rows], [item.category for item, _, _ in rows]
    found = []
    for kind, value in values.items():
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
