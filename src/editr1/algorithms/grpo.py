"""Flow-GRPO: the clipped surrogate over denoising steps. paper, section 3.3; arXiv 2505.05470, equation 5.

loss = w max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)),   r = p_new(x' | x) / p_old(x' | x) an element
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from editr1.algorithms.base import Needs, Rows, with_advantage
from editr1.config import positive
from editr1.objectives.sde import clipped_surrogate


@dataclass(frozen=True)
class Grpo:
    """The paper's algorithm. Clip ranges are those of the ratio per latent ELEMENT.

    ours: 1e-4 is 6.6 nats at 512 pixels, 26 at 1024 (the plan prints it).
    """

    clip_low: float = 1e-4
    clip_high: float = 1e-4
    step_weights: Literal["none", "std"] = "none"
    """`std` weighs each step by its noise over the window's mean noise, which undoes the dominance of late, quiet steps (TempFlow-GRPO,
    arXiv 2508.04324: std x sqrt(-dt), and our std holds the sqrt(-dt)). paper: none."""
    choose = staticmethod(with_advantage)

    def __post_init__(self) -> None:
        positive(self, "clip_low", "clip_high")
        if self.step_weights not in ("none", "std"):
            raise ValueError(f"step_weights is {self.step_weights!r}, expected none or std")

    @property
    def needs(self) -> Needs:
        return Needs(clip=min(self.clip_low, self.clip_high))

    def loss(self, rows: Rows) -> torch.Tensor:
        assert rows.log_ratio is not None
        assert rows.step_weight is not None
        surrogate = clipped_surrogate(rows.log_ratio, rows.advantages, self.clip_low, self.clip_high)
        rows.log("clipped", surrogate.clipped)
        return surrogate.loss * rows.step_weight if self.step_weights == "std" else surrogate.loss


build = Grpo
