"""DGPO: a preference between the good and the bad part of a group, without SDE and ratio (arXiv 2510.08425).

    e    = ||v - (noise - x0)||^2,  e_ref the reference's        one noise and level for the whole group
    s    = sum over the group of  A beta (e - e_ref) / G
    loss = sigmoid(s) A e,           sigmoid(s) detached

The gradient of -log sigmoid(-s), up to beta / G: once the group's good members fit better than its bad ones, against the reference, its
weight falls towards 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from editr1.algorithms.base import Needs, Rows
from editr1.config import at_least, positive


@dataclass(frozen=True)
class Dgpo:
    """See the module."""

    beta: float = 100.0
    """How soon a group that is told apart weighs less. Its public recipe: 100, for errors that are means over elements."""
    levels: int = 2
    """Noise levels drawn a group."""

    def __post_init__(self) -> None:
        at_least(1, self, "levels")
        positive(self, "beta")

    @property
    def needs(self) -> Needs:
        return Needs(levels=self.levels, shared_level=True, groups=True, reference=True, on_policy=True)

    def choose(self, advantages_CG: torch.Tensor, scored_CG: torch.Tensor) -> torch.Tensor:
        """Whole groups in which anything is told apart."""
        return scored_CG & (advantages_CG != 0).any(1, keepdim=True)

    def loss(self, rows: Rows) -> torch.Tensor:
        error = rows.flow_error(rows.v)
        gain = (error - rows.flow_error(rows.reference())).detach()
        _, place = torch.unique(rows.group, return_inverse=True)
        size = torch.zeros(int(place.max()) + 1, device=error.device)
        size.index_add_(0, place, rows.scored.to(size.dtype))
        total = torch.zeros_like(size).index_add_(0, place, rows.advantages * self.beta * gain)
        weight = torch.sigmoid(total / size.clamp(min=1.0))[place]
        rows.log("group_weight", weight)
        return weight * rows.advantages * error


build = Dgpo
