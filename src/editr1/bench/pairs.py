"""A run's own preference pairs as a benchmark: judged with the principles that the people's pairs were made with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from PIL import Image

from editr1.bench.base import ComparisonItem, EditItem, JudgedEdit, Outcome, credit_outcome
from editr1.errors import ConfigError, DataError
from editr1.measure.groups import signal_of_pairs
from editr1.measure.metrics import Scores, decisive, pair_margins, pair_metrics
from editr1.schema import Candidate, EditTask, Metric, PreferencePair, Source
from editr1.store import Run, Split, preference_pairs

SPLITS = ("held_out", "train", "all")


@dataclass(frozen=True)
class OwnPairs:
    """The pairs of one split. Make one with `build`."""

    run: Run
    pairs: tuple[PreferencePair, ...]
    split: str
    name: str = "pairs"

    def edits(self) -> Iterator[EditItem]:
        """Every edit once, however many pairs it stands in."""
        found = {edit.id: (pair, edit) for pair in self.pairs for edit in (pair.a, pair.b)}
        for key, (pair, edit) in found.items():
            yield EditItem(key, pair.task.instruction, partial(self._load, pair.task, edit), pair.principles)

    def comparisons(self) -> Iterator[ComparisonItem]:
        """Every pair, for judges that look at both edits."""
        for pair in self.pairs:
            yield ComparisonItem(pair.id, pair.task.instruction, partial(self._load_both, pair), pair.label, pair.task.id, pair.task.kind)

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        found = pair_metrics("pairs", self.pairs, *self._scores(judged), f"pairs/{self.split.replace('_', '-')}")
        try:
            return [*found, *signal_of_pairs(self.pairs, judged, seed)]
        except DataError:  # no task has two scored edits
            return found

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        rows = [self.pairs[i] for i in decisive(self.pairs)]
        margins = pair_margins(self.pairs, *self._scores(judged)).tolist()
        return [credit_outcome(pair.id, pair.task.id, pair.task.kind, margin) for pair, margin in zip(rows, margins, strict=True)]

    def _scores(self, judged: Mapping[str, JudgedEdit]) -> tuple[Scores, Scores]:
        values = {key: edit.value for key, edit in judged.items()}
        return [values.get(pair.a.id) for pair in self.pairs], [values.get(pair.b.id) for pair in self.pairs]

    def _load(self, task: EditTask, edit: Candidate) -> tuple[Source, Image.Image]:
        return self.run.images.source_of(task), self.run.images.get(edit.image)

    def _load_both(self, pair: PreferencePair) -> tuple[Source, Image.Image, Image.Image]:
        return (*self._load(pair.task, pair.a), self.run.images.get(pair.b.image))


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
