"""Diffusion-DPO in flow coordinates: the judge's best edit of a group against its worst (arXiv 2311.12908, equation 14).

    e    = ||v - (noise - x0)||^2,  e_ref the reference's        one noise and level for both
    loss = -log sigmoid( -beta / 2 [ (e_w - e_w_ref) - (e_l - e_l_ref) ] )

Only the order of a group counts, not by how much: the choice where a judge ranks well and scores badly.
Offline (`edit_rl.source: pairs`) the same loss learns from people's pairs in 07_pairs, without a rollout and without a judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from editr1.algorithms.base import Needs, Rows
from editr1.config import at_least, positive


@dataclass(frozen=True)
class Dpo:
    """See the module."""

    beta: float = 2000.0
    """How far the policy may leave the reference; small = far. Its authors: 2000 to 5000, for errors that are means over elements."""
    levels: int = 2
    """Noise levels drawn a pair."""

    def __post_init__(self) -> None:
        at_least(1, self, "levels")
        positive(self, "beta")

    @property
    def needs(self) -> Needs:
        return Needs(levels=self.levels, shared_level=True, groups=True, samples_per_group=2, reference=True, on_policy=True)

    def choose(self, advantages_CG: torch.Tensor, scored_CG: torch.Tensor) -> torch.Tensor:
        """The best and the worst scored sample of each group in which anything is told apart."""
        best = advantages_CG.masked_fill(~scored_CG, -torch.inf).argmax(1, keepdim=True)
        worst = advantages_CG.masked_fill(~scored_CG, torch.inf).argmin(1, keepdim=True)
        chosen = torch.zeros_like(scored_CG).scatter(1, best, True).scatter(1, worst, True)
        return chosen & scored_CG & (advantages_CG != 0).any(1, keepdim=True)

    def loss(self, rows: Rows) -> torch.Tensor:
        """A pair's loss stands on both its rows, half each."""
        gain = rows.flow_error(rows.v) - rows.flow_error(rows.reference())
        sign = rows.advantages.sign()
        _, place = torch.unique(rows.group, return_inverse=True)
        difference = torch.zeros(int(place.max()) + 1, device=gain.device).index_add(0, place, sign * gain)
        rows.log("preferred", (difference < 0)[place])
        return -logsigmoid(-0.5 * self.beta * difference)[place] / 2.0


build = Dpo
