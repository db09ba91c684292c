"""Group-relative advantages that know about unscored samples. Legend: C contexts (groups), G samples a group.

NaN marks an unscored sample: it enters no mean and no std, its own advantage is 0, and the loss keeps the FIXED denominator C * G, so that
a missing score changes nobody else's weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

AdvantageStd = Literal["group", "batch", "none"]

MAX_ADVANTAGE = 5.0  # the field's common clamp; beyond it one outlier decides the step


def group_advantages(
    rewards_CG: torch.Tensor,
    std: AdvantageStd = "group",
    *,
    epsilon: float = 1e-4,
    min_std: float = 0.0,
    max_advantage: float = MAX_ADVANTAGE,
) -> torch.Tensor:
    """A_i = (r_i - mean of its group) / (std + epsilon), clamped, [C, G] float32. paper, section 3.3: group std.

    `std`: "group" = the group's own population std, "batch" = one std over all samples of the iteration (gather first
    when there are several processes), "none" = 1. A group whose std is <= `min_std` (in reward units) or that has fewer than
    two scored samples teaches nothing and gets 0.

    >>> group_advantages(torch.tensor([[1.0, 3.0, float("nan")]]), epsilon=0.0)
    tensor([[-1.,  1.,  0.]])
    """
    rewards_CG = rewards_CG.float()
    scored = ~rewards_CG.isnan()
    values = rewards_CG.nan_to_num(0.0)
    count_C1 = scored.sum(1, keepdim=True).clamp(min=1)
    centred_CG = torch.where(scored, values - values.sum(1, keepdim=True) / count_C1, 0.0)
    group_std_C1 = (centred_CG.square().sum(1, keepdim=True) / count_C1).sqrt()
    # 1e-6 of the reward's own size is rounding: dividing by it would blow noise up to the clamp
    rounding_C1 = 1e-6 * values.abs().amax(1, keepdim=True)
    teaches_C1 = (scored.sum(1, keepdim=True) >= 2) & (group_std_C1 > torch.clamp(rounding_C1, min=min_std))
    if std == "group":
        scale = group_std_C1
    elif std == "batch":
        scale = values[scored].std(unbiased=False) if bool(scored.any()) else torch.tensor(0.0)
    elif std == "none":
        return torch.where(teaches_C1, centred_CG, 0.0).clamp(-max_advantage, max_advantage)
    else:
        raise ValueError(f"unknown advantage std {std!r}, expected group, batch or none")
    divided_CG = torch.where(teaches_C1, centred_CG / torch.where(teaches_C1, scale + epsilon, 1.0), 0.0)
    return divided_CG.clamp(-max_advantage, max_advantage)


def combine_rewards(
    rewards_KCG: torch.Tensor, weights: tuple[float, ...], std: AdvantageStd = "group", *, epsilon: float = 1e-4, min_std: float = 0.0
) -> torch.Tensor:
    """Several rewards as one advantage: each is normalised as by `group_advantages` first, then weighted and summed, [C, G].

    Summing raw rewards lets the one with the widest scale swamp the others. A sample that any reward left unscored is NaN in the result,
    and enters no mean of the others either. Raises ValueError when the number of weights differs from K.
    """
    if len(weights) != rewards_KCG.shape[0]:
        raise ValueError(f"{rewards_KCG.shape[0]} rewards but {len(weights)} weights")
    unscored_CG = rewards_KCG.isnan().any(0)
    total = torch.zeros_like(rewards_KCG[0], dtype=torch.float32)
    for reward_CG, weight in zip(rewards_KCG.masked_fill(unscored_CG, float("nan")), weights, strict=True):
        total = total + weight * group_advantages(reward_CG, std, epsilon=epsilon, min_std=min_std)
    return total.masked_fill(unscored_CG, float("nan"))


def cautious_rewards(rewards_KCG: torch.Tensor, weights: Sequence[float], cautions: Sequence[float]) -> torch.Tensor:
    """Several rewards of one scale as one, where disagreement counts against an edit, [C, G]: r_0 + sum_k w_k (r_k - c_k |r_k - r_0|).

    weights and cautions are those of the further rewards. For two judges of equal weight that is 2 (mean - c std): twice their mean at c
    = 0, twice the smaller at c = 1 (pessimistic ensembles, arXiv 2310.02743). ours: of raw rewards, since a reward normalised in its
    group has lost by how much one judge is above the other, which is what tells that it is being deceived. A sample that any left
    unscored is NaN.

    >>> cautious_rewards(torch.tensor([[[9.0, 4.0]], [[5.0, 4.0]]]), [1.0], [1.0])
    tensor([[10.,  8.]])
    """
    main_CG, *further = rewards_KCG.float()
    parts = [w * (r_CG - c * (r_CG - main_CG).abs()) for r_CG, w, c in zip(further, weights, cautions, strict=True)]
    return main_CG + torch.stack(parts).sum(0)
