"""Who gets which pair next. State is rebuilt from the votes, so a killed server forgets nothing but leases."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from editr1.annotate.items import Item
from editr1.annotate.votes import ADJUDICATOR, Vote
from editr1.schema import derive_seed, stable_id

LEASE_SECONDS = 600.0  # ours: longer than anyone looks at a pair, short enough that a closed browser frees its pairs


@dataclass(frozen=True)
class Overlap:
    """How many answers an item needs: one, or `raters` for a share of the items, so that agreement can be measured."""

    share: float = 0.1
    """In [0, 1]."""
    raters: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.raters < 1:
            raise ValueError("overlap is a share in [0, 1] and raters at least 1")

    def wanted(self, item: Item) -> int | None:
        """Answers that the item needs; None = one from everybody (a control question)."""
        if item.gold is not None:
            return None
        return self.raters if int(stable_id("overlap", item.id)[:8], 16) < self.share * 2**32 else 1


PACE_OF = 20  # ours: recent enough to follow a change of pace, many enough not to jump


@dataclass(frozen=True, slots=True)
class _Lease:
    end: float
    firm: bool
    """Whether its holder has answered anything. Others are given what a mere visitor holds, once nothing else is open."""


class Queue:
    """Hands out items in their order; one lease an annotator and item, so that two people share the work.

    Votes about items of other studies are not noticed.
    """

    def __init__(self, items: Sequence[Item], votes: Iterable[Vote], overlap: Overlap, clock: Callable[[], float] = time.monotonic) -> None:
        self.items = {item.id: item for item in items}
        self._wanted = {item.id: overlap.wanted(item) for item in items}
        self._clock = clock
        self._done: dict[str, set[str]] = defaultdict(set)
        self._skipped: dict[str, set[str]] = defaultdict(set)
        self._leases: dict[str, dict[str, _Lease]] = defaultdict(dict)
        self._seconds: dict[str, dict[str, float]] = defaultdict(dict)
        self._start = 0
        for vote in votes:
            self.answered(vote)

    def answered(self, vote: Vote) -> None:
        """Notes a stored vote. A skip asks somebody else."""
        if vote.item not in self.items or vote.annotator == ADJUDICATOR:
            return
        self._forget(vote)
        (self._skipped if vote.label is None else self._done)[vote.item].add(vote.annotator)
        self._leases[vote.item].pop(vote.annotator, None)
        if not vote.imported:
            self._seconds[vote.annotator][vote.item] = vote.seconds

    def undone(self, vote: Vote) -> None:
        """Notes that a vote was taken back: its item is the annotator's again."""
        self._forget(vote)
        self._leases[vote.item][vote.annotator] = _Lease(self._clock() + LEASE_SECONDS, firm=True)
        self._start = 0

    def _forget(self, vote: Vote) -> None:
        self._done[vote.item].discard(vote.annotator)
        self._skipped[vote.item].discard(vote.annotator)
        self._seconds.get(vote.annotator, {}).pop(vote.item, None)

    def next(self, annotator: str, count: int) -> list[Item]:
        """The next items for a person, leased to them: first what they hold already, so a reload shows the same pair."""
        chosen: list[Item] = []
        visited: list[Item] = []  # held by people who only looked in
        for position, (key, item) in enumerate(self.items.items()):
            if position < self._start:
                continue
            if position == self._start and self._is_complete(key):
                self._start += 1
            elif self._is_open(key, annotator):
                (visited if self._is_visited(key, annotator) else chosen).append(item)
                if len(chosen) == count:
                    break
        chosen = chosen or visited[:count]
        for item in chosen:
            self._leases[item.id][annotator] = _Lease(self._clock() + LEASE_SECONDS, firm=bool(self._seconds.get(annotator)))
        return chosen

    def remaining(self, annotator: str) -> int:
        """Items that this person could still answer."""
        return sum(self._is_open(key, annotator) for key in self.items)

    def pace(self, annotator: str) -> tuple[int, float | None]:
        """(own answers in this study, mean seconds of the last PACE_OF of them); None before the first."""
        seconds = list(self._seconds.get(annotator, {}).values())
        recent = seconds[-PACE_OF:]
        return len(seconds), sum(recent) / len(recent) if recent else None

    def last(self, annotator: str) -> str | None:
        """The item that this person answered last, which an undo takes back."""
        return next(reversed(self._seconds.get(annotator, {})), None)

    def is_answered(self, key: str, annotator: str) -> bool:
        return annotator in self._done[key] or annotator in self._skipped[key]

    def _is_complete(self, key: str) -> bool:
        wanted = self._wanted[key]
        return wanted is not None and len(self._done[key]) >= wanted

    def _is_open(self, key: str, annotator: str) -> bool:
        if self.is_answered(key, annotator):
            return False
        wanted = self._wanted[key]
        if wanted is None:
            return True
        now = self._clock()
        held = sum(lease.firm and lease.end > now for who, lease in self._leases[key].items() if who != annotator)
        return len(self._done[key]) + held < wanted

    def _is_visited(self, key: str, annotator: str) -> bool:
        """Whether visitors hold all that is open of an item, and this person is none of them."""
        leases, wanted, now = self._leases[key], self._wanted[key], self._clock()
        if wanted is None or annotator in leases:
            return False
        for who in [who for who, lease in leases.items() if lease.end <= now]:
            del leases[who]
        return len(self._done[key]) + len(leases) >= wanted


def is_swapped(item: Item, annotator: str, secret: str) -> bool:
    """Whether b stands on the left for this person: drawn by the run's secret, item and person, so that a reload moves nothing."""
    return derive_seed(0, "sides", secret, item.id, annotator) % 2 == 1
