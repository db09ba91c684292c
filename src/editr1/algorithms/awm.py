"""AWM, advantage-weighted matching: the loss of pretraining, weighted by advantages (arXiv 2509.25050).

    l    = -w(t) ||v - (noise - x0)||^2             a log-likelihood up to a constant
    loss = -A exp(l - l_old),                       l_old = l in the only update of a rollout

A finished edit x_0 is noised again, as in pretraining; good edits are fitted, bad ones unlearnt. Unlearning has no floor: keep
`training.beta` above 0 (in the convention `velocity`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from editr1.algorithms.base import Needs, Rows, with_advantage

Weight = Literal["uniform", "t", "t2"]


@dataclass(frozen=True)
class Awm:
    """See the module."""

    weight: Weight
    needs: Needs

    def choose(self, advantages_CG: torch.Tensor, scored_CG: torch.Tensor) -> torch.Tensor:
        return with_advantage(advantages_CG, scored_CG)

    def loss(self, rows: Rows) -> torch.Tensor:
        power = {"uniform": 0, "t": 1, "t2": 2}[self.weight]
        fit = -rows.flow_error(rows.v) * rows.sigma**power
        return -rows.advantages * (fit - fit.detach()).exp()


def build(weight: Weight = "uniform", levels: int = 2) -> Awm:
    """AWM.

    Args:
        weight: w(t) = 1, t or t^2; the latter two attend to high noise, where composition is decided.
        levels: noise levels drawn a sample.
    """
    if weight not in ("uniform", "t", "t2"):
        raise ValueError(f"weight is {weight!r}, expected uniform, t or t2")
    return Awm(weight, Needs(levels=levels, on_policy=True))
