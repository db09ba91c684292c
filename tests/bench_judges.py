"""Judges that know the answer, for tests of what is made of a judge's answers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from editr1.bench.base import JudgedPair, PartedReward
from editr1.bench.judges.pairwise import PairItem
from editr1.judge.item import RewardItem
from editr1.schema import Reward, derive_seed
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


class Oracle:
    """Knows that the better edit is the brighter one (`bench_files.dot`)."""

    def score(self, items: list[RewardItem], seed: int = 0) -> list[Reward]:
        return [PartedReward(9.0 if item.edited.getpixel((0, 0))[0] > 150 else 4.0, 1, 1) for item in items]


class Coin:
    """A score that knows nothing of the edit, and hardly ever the same one twice."""

    def score(self, items: list[RewardItem], seed: int = 0) -> list[Reward]:
        return [PartedReward(derive_seed(seed, item.id) % 10_007 / 1001, 1, 1) for item in items]


class Constant:
    """Finds every edit fair."""

    def score(self, items: list[RewardItem], seed: int = 0) -> list[Reward]:
        return [PartedReward(5.0, 1, 1) for _ in items]


class PairOracle:
    """As `Oracle`, of two edits at once."""

    def compare(self, items: list[PairItem], seed: int = 0) -> list[JudgedPair]:
        return [self._judge(item.id, item.a.getpixel((0, 0))[0], item.b.getpixel((0, 0))[0]) for item in items]

    def _judge(self, key: str, a: int, b: int) -> JudgedPair:
        choice = "same" if (a > 150) == (b > 150) else "a" if a > 150 else "b"
        return JudgedPair(key, choice, choice)


class PairCoin:
    """Throws a coin for each order."""

    def compare(self, items: list[PairItem], seed: int = 0) -> list[JudgedPair]:
        return [JudgedPair(item.id, *("ab"[derive_seed(seed, item.id, order) % 2] for order in ("forward", "reverse"))) for item in items]


class PairConstant:
    """Always says that both are the same."""

    def compare(self, items: list[PairItem], seed: int = 0) -> list[JudgedPair]:
        return [JudgedPair(item.id, "same", "same") for item in items]
