"""What a judge is, of single edits (`judge.rrm.RewardModel` is one) or of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from PIL import Image

from editr1.bench.base import JudgedPair
from editr1.judge.item import RewardItem
from editr1.schema import Reward, Source


class Judge(Protocol):
    """Scores edits. Raises BackendError when its machine fails; an answer that says nothing is an unscored Reward."""

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item, in their order, value in [0, 10] or None; with ids, independent of the order."""
        ...


@dataclass(frozen=True, slots=True)
class PairItem:
    """Two edits to compare, with their pictures in memory."""

    id: str
    source: Source
    a: Image.Image
    b: Image.Image
    instruction: str


@runtime_checkable
class ComparesPairs(Protocol):
    """A judge of pairs."""

    def compare(self, items: Sequence[PairItem], seed: int = 0) -> list[JudgedPair]:
        """One JudgedPair an item, in their order; an answer without a readable choice is None."""
        ...
