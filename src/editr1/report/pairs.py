"""Who preferred what: the human pairs in one table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from editr1.store import Run


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Answers of one annotator."""

    annotator: str
    a: int
    b: int
    same: int

    @property
    def total(self) -> int:
        return self.a + self.b + self.same


def count_pairs(run: Run) -> list[PairCounts]:
    """The answers by annotator; none when the run has no pairs."""
    if not run.has("07_pairs"):
        return []
    counts = Counter((pair.annotator or "unnamed", pair.label) for pair in run.read("07_pairs"))
    names = sorted({name for name, _ in counts})
    return [PairCounts(name, counts[name, "a"], counts[name, "b"], counts[name, "same"]) for name in names]
