"""The clipped surrogate of PPO.

Log-ratios are per ELEMENT (see sde.log_prob), so a clip range epsilon allows epsilon * L * D nats of trajectory
likelihood: the same epsilon is four times looser when width and height double. `clip_in_nats` says it in words.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Surrogate(NamedTuple):
    """Per-sample loss [B], the ratio [B], and where the clip was the active branch [B] (bool)."""

    loss: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def clipped_surrogate(log_ratio_B: torch.Tensor, advantages_B: torch.Tensor, clip_low: float, clip_high: float) -> Surrogate:
    """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), not yet averaged. paper, section 3.3; arXiv 1707.06347, equation 7.

    Mean, mask and denominator are the caller's: unscored samples come with A = 0 and keep their place in the mean.
    """
    ratio = log_ratio_B.exp()
    plain = -advantages_B * ratio
    bounded = -advantages_B * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return Surrogate(torch.maximum(plain, bounded), ratio, bounded > plain)


def clip_in_nats(clip: float, num_elements: int) -> float:
    """Nats of one step's likelihood that a clip range allows; num_elements = L * D.

    >>> round(clip_in_nats(1e-4, 65_536), 2), round(clip_in_nats(1e-4, 262_144), 1)
    (6.55, 26.2)
    """
    return clip * num_elements
