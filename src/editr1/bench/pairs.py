"""A run's own preference pairs as a benchmark: judged with the principles that the people's pairs were made with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from PIL import Image

from editr1.bench.base import JudgedEdit
from editr1.errors import ConfigError, DataError
from editr1.measure.groups import signal_of_pairs
from editr1.measure.metrics import accuracy_metrics
from editr1.measure.rows import Pair, PairBench
from editr1.schema import Metric, PreferencePair, Source
from editr1.store import Run, Split, preference_pairs

SPLITS = ("held_out", "train", "all")


@dataclass(frozen=True)
class OwnPairs(PairBench):
    """The pairs of one split. Make one with `build`."""

    run: Run
    pairs: tuple[PreferencePair, ...]
    split: str
    name: str = "pairs"

    @property
    def rows(self) -> Sequence[Pair]:  # type: ignore[override]
        return [
            Pair(p.id, (p.a.id, p.b.id), p.task.instruction, p.label, p.task.id, p.task.kind, partial(self._load, p), p.principles)
            for p in self.pairs
        ]

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        chosen, protocol = [row for row in self.rows if row.sign], f"pairs/{self.split.replace('_', '-')}"
        tasks, kinds = [row.cluster for row in chosen], [row.category for row in chosen]
        found = accuracy_metrics("pairs", self.margins(chosen, judged), tasks, protocol, kinds=kinds)
        try:
            return [*found, *signal_of_pairs(self.pairs, judged, seed)]
        except DataError:  # no task has two scored edits
            return found

    def _load(self, pair: PreferencePair, side: int) -> tuple[Source, Image.Image]:
        return self.run.images.source_of(pair.task), self.run.images.get((pair.a, pair.b)[side].image)


def build(run: Path | str, split: str = "held_out", limit: int | None = None) -> OwnPairs:
    """The pairs of a run directory as a benchmark: `held_out` pairs that no training saw, `train`, or `all`.

    limit: only the first so many. Raises DataError for a run without such pairs, ConfigError for another split or limit.
    """
    if split not in SPLITS:
        raise ConfigError(f"pairs: split is {split!r}; expected one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise ConfigError(f"pairs: limit is {limit}; expected at least 1")
    opened = Run.open(run, create=False)
    found = preference_pairs(opened, None if split == "all" else cast(Split, split))
    pairs = tuple(itertools.islice(found, limit))
    if not any(pair.label != "same" for pair in pairs):
        raise DataError(f"{opened.dir} holds no decisive pair of split {split}; make pairs first (editr1 pairs), or give --set split=all")
    return OwnPairs(opened, pairs, split)
