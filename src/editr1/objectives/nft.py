"""DiffusionNFT: policy improvement on the forward process, without SDE, log-density or ratio (arXiv 2509.16117).

A finished image x_0 is noised again to a level t; the policy is pulled towards it in proportion to its optimality
r and an implicit negative policy is pulled in proportion to 1 - r. Only x_0 is stored and any sampler may make it.
"""

from __future__ import annotations

import torch

from editr1.objectives.advantages import MAX_ADVANTAGE


def optimality(advantages: torch.Tensor, max_advantage: float = MAX_ADVANTAGE) -> torch.Tensor:
    """clip(A, -m, m) / (2 m) + 1/2, in [0, 1]; A = 0 gives 1/2, the value at which both pulls cancel at v = v_old."""
    return advantages.clamp(-max_advantage, max_advantage) / (2.0 * max_advantage) + 0.5


def nft_loss(
    v_BLD: torch.Tensor, v_old_BLD: torch.Tensor, x_BLD: torch.Tensor, x0_BLD: torch.Tensor, t_B: torch.Tensor,
    optimality_B: torch.Tensor, beta: float = 1.0, max_advantage: float = MAX_ADVANTAGE,
) -> torch.Tensor:  # fmt: skip
    """Per-sample loss, [B].

        v+ = beta v + (1 - beta) v_old            v- = (1 + beta) v_old - beta v
        loss = [ r ||x - t v+  - x0||^2 / w+  +  (1 - r) ||x - t v-  - x0||^2 / w- ] * m / beta

    x = (1 - t) x0 + t * noise; w = the detached mean absolute error of that prediction, which makes every t weigh alike;
    norms are means over L * D. `beta` in (0, 1] sets how far v+ may lean on the old policy.
    """
    v_old_BLD = v_old_BLD.detach()
    positive = beta * v_BLD + (1.0 - beta) * v_old_BLD
    negative = (1.0 + beta) * v_old_BLD - beta * v_BLD
    t_B11 = t_B.view(-1, 1, 1)
    pulls = [_weighted_error(x_BLD - t_B11 * v, x0_BLD) for v in (positive, negative)]
    return (optimality_B * pulls[0] + (1.0 - optimality_B) * pulls[1]) * max_advantage / beta


def _weighted_error(predicted_BLD: torch.Tensor, x0_BLD: torch.Tensor) -> torch.Tensor:
    """mean((x0^ - x0)^2) / detached mean(|x0^ - x0|), [B]; the weight in float64 because it is a divisor."""
    difference = predicted_BLD - x0_BLD
    weight = difference.detach().double().abs().flatten(1).mean(1).clamp(min=1e-5)
    return difference.square().flatten(1).mean(1) / weight.float()
