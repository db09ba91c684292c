"""Judges that know the answer, for tests of what is made of a judge's answers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editr1.bench.base import PartedReward
from editr1.judge.item import RewardItem
from editr1.schema import Reward
from editr1.store import Run


class ByName:
    """Gives the edits that people preferred in the run at `folder` a 9 and every other a 4."""

    folder: ClassVar[Path]
    seen: ClassVar[list[RewardItem]] = []

    def __init__(self) -> None:
        run = Run.open(self.folder, create=False)
        self.better = {pair.winner.id for pair in run.read("07_pairs")}

    def score(self, items: list[RewardItem], seed: int = 0) -> list[Reward]:
        self.seen.extend(items)
        return [PartedReward(9.0 if item.id in self.better else 4.0, 1, 1) for item in items]
