"""The protocol of a judge of single edits; `judge.rrm.RewardModel` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from editr1.judge.item import RewardItem
from editr1.schema import Reward


class Judge(Protocol):
    """Scores edits. Raises BackendError when its machine fails; an answer that says nothing is an unscored Reward."""

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item, in their order, value in [0, 10] or None; with ids, independent of the order."""
        ...
