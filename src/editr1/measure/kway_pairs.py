"""Groups of K edits under a judge of pairs, which must be right on all C(K,2) comparisons of a group.

The other protocol, a judge of scores that sorts K edits, has other chance levels and is never printed under the same name. A judge is
asked in both orders; a group counts half where it is right in one of them. An answer that is missing is wrong, and "same" is right only
where people said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from editr1.bench.base import JudgedPair
from editr1.measure.metrics import to_metric
from editr1.schema import Label, Metric
from editr1.stats import share_estimate
from editr1.stats.kway import chance, pairs_right


@dataclass(frozen=True, slots=True)
class AnsweredGroup:
    """All comparisons of one group, each with its label and what the judge said (None = nothing)."""

    k: int
    labels: tuple[Label, ...]
    answers: tuple[JudgedPair | None, ...]

    @property
    def credit(self) -> float:
        """Share of the two orders in which every comparison is right, in {0, .5, 1}."""
        forward = [found.forward if found else None for found in self.answers]
        reverse = [found.reverse if found else None for found in self.answers]
        return sum(self._right(order) for order in (forward, reverse)) / 2

    @property
    def is_unscored(self) -> bool:
        """Whether an answer of either order is missing."""
        return any(found is None or found.forward is None or found.reverse is None for found in self.answers)

    def _right(self, said: Sequence[Label | None]) -> bool:
        return pairs_right([answer == label for answer, label in zip(said, self.labels, strict=True)], self.k)


def kway_pair_metrics(groups: Sequence[AnsweredGroup], name: str, protocol: str, num_left_out: int = 0) -> list[Metric]:
    """Share of right groups of one size, beside the chance of a coin and of a die that may also say "same"; nothing for no group."""
    if not groups:
        return []
    k = groups[0].k
    estimate = share_estimate([group.credit for group in groups])
    return [
        to_metric(
            name,
            estimate,
            protocol,
            n=len(groups),
            num_unscored=sum(group.is_unscored for group in groups),
            by_category={"groups left out": num_left_out} if num_left_out else {},
        ),
        Metric(f"{name}_chance", chance(k, "pairs"), n=len(groups), protocol=f"{protocol}/chance"),
        Metric(f"{name}_chance_with_ties", chance(k, "pairs-with-ties"), n=len(groups), protocol=f"{protocol}/chance-with-ties"),
    ]
