"""GRPO-Guard: Flow-GRPO with a centred log-ratio (arXiv 2510.22319).

    log r' = (log r + mean||mu - mu_old||^2 / (2 std^2)) std  =  mean(e (mu - mu_old)),   then clipped as in Flow-GRPO

The plain log-ratio has expectation -mean||mu - mu_old||^2 / (2 std^2) under the old policy, so its upper clip hardly ever acts; this one
has expectation 0, and late steps do not blow up with 1 / std.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from editr1.algorithms.base import Needs, Rows, step_kl, with_advantage
from editr1.config import positive
from editr1.objectives.sde import clipped_surrogate


@dataclass(frozen=True)
class Guard:
    """Its ratio has another unit than Flow-GRPO's. ours: clip ranges between the 2e-6 and 4e-6 of its authors' recipes."""

    clip_low: float = 4e-6
    clip_high: float = 4e-6
    needs = Needs(means=True)
    choose = staticmethod(with_advantage)

    def __post_init__(self) -> None:
        positive(self, "clip_low", "clip_high")

    def loss(self, rows: Rows) -> torch.Tensor:
        centred = guard_log_ratio(*rows.taken())
        surrogate = clipped_surrogate(centred, rows.advantages, self.clip_low, self.clip_high)
        rows.log("clipped", surrogate.clipped)
        return surrogate.loss


def guard_log_ratio(
    log_ratio_R: torch.Tensor, mean_RLD: torch.Tensor, mean_old_RLD: torch.Tensor, std: torch.Tensor | float
) -> torch.Tensor:
    """The centred log-ratio of the module, [R]. Valid for normal log-densities only."""
    std_R = torch.as_tensor(std, dtype=torch.float32, device=log_ratio_R.device).reshape(-1)
    return (log_ratio_R + step_kl(mean_RLD, mean_old_RLD, std_R)) * std_R


build = Guard
