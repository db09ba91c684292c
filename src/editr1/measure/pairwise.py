"""Judges of pairs on any benchmark that has comparisons: both orders, accuracy, consistency and position bias.

Protocols: `<benchmark>/pairwise/{mean-of-orders,both-right,half,consistency,first-share}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from editr1.bench.base import ComparisonItem, JudgedPair, Outcome
from editr1.errors import DataError
from editr1.judges.pairwise import PairItem
from editr1.measure.metrics import by_kind, to_metric
from editr1.schema import Metric
from editr1.stats import share_estimate
from editr1.stats.position import order_report, pair_credit
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work


@runtime_checkable
class HasComparisons(Protocol):
    """A benchmark whose pairs can be shown to a judge of pairs."""

    def comparisons(self) -> Iterator[ComparisonItem]: ...


@runtime_checkable
class HasPairMetrics(Protocol):
    """A benchmark with numbers of its own for judges of pairs, beside those that every benchmark has."""

    def pair_metrics(self, judged: Mapping[str, JudgedPair], seed: int = 0) -> list[Metric]: ...


@runtime_checkable
class ComparesPairs(Protocol):
    """A judge of pairs."""

    def compare(self, items: Sequence[PairItem], seed: int = 0) -> list[JudgedPair]: ...


@dataclass(frozen=True)
class PairAsker:
    """The function that the store runs over batches of comparisons."""

    judge: ComparesPairs
    seed: int
    say: Callable[[], str]

    def status(self) -> str:
        return self.say()

    def __call__(self, batch: Sequence[ComparisonItem]) -> list[JudgedPair | Drop]:
        loaded: list[PairItem | Drop] = [_load(item) for item in batch]
        items = [item for item in loaded if isinstance(item, PairItem)]
        judged = iter(self.judge.compare(items, self.seed) if items else [])
        return [next(judged) if isinstance(item, PairItem) else item for item in loaded]


def _load(item: ComparisonItem) -> PairItem | Drop:
    try:
        source, a, b = item.load()
    except DataError as error:
        return Drop(f"image: {' '.join(str(error).split())}"[:500])
    return PairItem(item.key, source, a, b, item.instruction)


def judge_pairs(
    run: Run,
    table: str,
    benchmark: HasComparisons,
    judge: ComparesPairs,
    *,
    settings: Mapping[str, Any],
    seed: int = 0,
    lane: Lane | None = None,
    say: Callable[[], str] = lambda: "",
) -> tuple[dict[str, JudgedPair], StageCounts]:
    """The judge's answers by key, continuing what an earlier process left."""
    work = Work(make=lambda: PairAsker(judge, seed, say), lanes={"": lane or Lane()}, timed=True)
    items = ((item.key, item) for item in benchmark.comparisons())
    counts = run.process(table, items, work, settings={**settings, "seed": seed}, record=JudgedPair, engine=Engine(shard_size=256))
    return dict(run.keyed(table, JudgedPair)), counts


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
