"""Asks a judge of pairs about every pair of a benchmark that has comparisons, into a table that survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from editr1.bench.base import ComparisonItem, JudgedPair
from editr1.bench.judges.pairwise import PairItem
from editr1.errors import DataError
from editr1.schema import Metric
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
        loaded: list[PairItem | Drop] = [_load_pair(item) for item in batch]
        items = [item for item in loaded if isinstance(item, PairItem)]
        judged = iter(self.judge.compare(items, self.seed) if items else [])
        return [next(judged) if isinstance(item, PairItem) else item for item in loaded]


def _load_pair(item: ComparisonItem) -> PairItem | Drop:
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
