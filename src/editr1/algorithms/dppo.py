"""Flow-DPPO: no clip; a row is dropped where the step has moved far and would move further (arXiv 2606.11025, equations 14 and 18).

    kl   = mean (mu - mu_old)^2 / (2 std^2)          exact: both steps are Gaussians of one std
    drop = kl >= threshold  and  (r > 1 and A > 0  or  r < 1 and A < 0)
    loss = -A r, or 0 where dropped

The ratio that Flow-GRPO clips is one noisy sample of this divergence. With one update a rollout nothing has moved and nothing is dropped:
the loss is then Flow-GRPO's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from editr1.algorithms.base import Needs, Rows, step_kl, with_advantage


@dataclass(frozen=True)
class Dppo:
    """See the module."""

    threshold: float = 1e-5
    """Mean KL an element of one step, from which on a row may only move back. Its authors' recipe: 1e-5."""
    needs = Needs(means=True)
    choose = staticmethod(with_advantage)

    def __post_init__(self) -> None:
        if self.threshold <= 0:
            raise ValueError(f"threshold is {self.threshold}, expected a positive KL an element (1e-5)")

    def loss(self, rows: Rows) -> torch.Tensor:
        log_ratio, mean, mean_old, std = rows.taken()
        ratio, advantages, kl = log_ratio.exp(), rows.advantages, step_kl(mean.detach(), mean_old, std)
        away = ((ratio > 1) & (advantages > 0)) | ((ratio < 1) & (advantages < 0))
        dropped = (kl >= self.threshold) & away
        rows.log("clipped", dropped)
        rows.log("kl_old", kl)
        return torch.where(dropped, torch.zeros_like(ratio), -advantages * ratio)


build = Dppo
