"""The clipped surrogate of PPO, and KL to the reference policy in three named conventions.

Log-ratios are per ELEMENT (see sde.log_prob), so a clip range epsilon allows epsilon * L * D nats of trajectory
likelihood: the same epsilon is four times looser when width and height double. `clip_in_nats` says it in words.

The step is affine in v, so mean - mean_ref = v_weight * (v - v_ref) and every convention of KL is a number times
mean||v - v_ref||^2. The same beta means different things under each; `kl_weight` is the conversion.

    latent_true    v_weight^2 / (2 std^2)            the Gaussian KL per element and step
    latent_dtfree  v_weight^2 / (2 std^2) * |dt|     Flow-GRPO's code with g^2 in the place of std^2 = g^2 |dt|. ours: the
                                                     natural reading of the paper's beta = .04, which is Flow-GRPO's pair
    velocity       1                                 about 100 x larger numerically: beta near 4e-4
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from editr1.objectives.sde import Step


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


KLKind = Literal["latent_dtfree", "latent_true", "velocity"]


def kl_weight(kind: KLKind, step: Step) -> float:
    """What mean||v - v_ref||^2 is multiplied with. Raises ValueError for a deterministic step, where the KL is infinite."""
    if kind == "velocity":
        return 1.0
    if step.std == 0.0:
        raise ValueError("a deterministic step has no finite latent KL: use a noisy step or kl kind 'velocity'")
    true = step.v_weight**2 / (2.0 * step.std**2)
    return true * abs(step.dt) if kind == "latent_dtfree" else true


def kl_divergence(v_BLD: torch.Tensor, v_ref_BLD: torch.Tensor, weight_B: torch.Tensor | float) -> torch.Tensor:
    """weight * mean over L * D of (v - v_ref)^2, [B], >= 0.

    The reference gets no gradient here, whatever the caller did; the policy's v must NOT come from under no_grad.
    """
    return (v_BLD.float() - v_ref_BLD.detach().float()).square().flatten(1).mean(1) * weight_B
