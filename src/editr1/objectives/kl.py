"""KL to the reference policy, in three named conventions.

The step is affine in v, so mean - mean_ref = v_weight * (v - v_ref) and every convention is a number times
mean||v - v_ref||^2. The same beta means different things under each; `kl_weight` is the conversion.

    latent_true    v_weight^2 / (2 std^2)            the Gaussian KL per element and step
    latent_dtfree  v_weight^2 / (2 std^2) * |dt|     Flow-GRPO's code with g^2 in the place of std^2 = g^2 |dt|. ours: the
                                                     natural reading of the paper's beta = .04, which is Flow-GRPO's pair
    velocity       1                                 about 100 x larger numerically: beta near 4e-4
"""

from __future__ import annotations

from typing import Literal

import torch

from editr1.objectives.sde import Step

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
