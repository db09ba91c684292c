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
from editr1.config import at_least

POWERS = {"uniform": 0, "t": 1, "t2": 2}


@dataclass(frozen=True)
class Awm:
    """See the module."""

    weight: Literal["uniform", "t", "t2"] = "uniform"
    """w(t) = 1, t or t^2; the latter two attend to high noise, where composition is decided."""
    levels: int = 2
    """Noise levels drawn a sample."""
    choose = staticmethod(with_advantage)

    def __post_init__(self) -> None:
        at_least(1, self, "levels")
        if self.weight not in POWERS:
            raise ValueError(f"weight is {self.weight!r}, expected uniform, t or t2")

    @property
    def needs(self) -> Needs:
        return Needs(levels=self.levels, on_policy=True)

    def loss(self, rows: Rows) -> torch.Tensor:
        fit = -rows.flow_error(rows.v) * rows.sigma ** POWERS[self.weight]
        return -rows.advantages * (fit - fit.detach()).exp()


build = Awm
