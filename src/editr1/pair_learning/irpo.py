"""IRPO (IRPM in its second version, arXiv 2601.00677): the Bradley-Terry probability between two groups of traces as their reward.

r_w[j] = (1/N) sum_k sigmoid((tau_w[j] - tau_l[k]) / t),   r_l[j] = (1/N) sum_k sigmoid((tau_w[k] - tau_l[j]) / t)
A = (r - mean) / (std + eps) over the image's traces

Graded where GCPO counts: a larger gap always earns more, which drives scores to the ends of the scale. The authors' public code has a
second reward, +-1 by the other group's mean (`kind: mean`; its scripts call that one, with a margin that our pairs do not have).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from editr1.pair_learning.base import Needs, mean_read, refuse_negative


@dataclass(frozen=True)
class Irpo:
    """See the module."""

    kind: Literal["bradley_terry", "mean"]
    temperature: float
    needs: Needs

    def rewards(self, tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "mean":
            return sign_rewards(tau_w_PN, tau_l_PN)
        return bradley_terry_rewards(tau_w_PN, tau_l_PN, self.temperature)


def bradley_terry_rewards(tau_w_PN: Tensor, tau_l_PN: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean over the other image's read traces of the probability that the pair is ordered as people say, in [0, 1].

    >>> w, l = bradley_terry_rewards(torch.tensor([[5.0, 5.0]]), torch.tensor([[5.0, float("nan")]]))
    >>> w.tolist(), l.tolist()
    ([[0.5, 0.5]], [[0.5, 0.0]])
    """
    right_PNN = torch.sigmoid((tau_w_PN[:, :, None] - tau_l_PN[:, None, :]) / temperature)
    return right_PNN.nanmean(dim=2).nan_to_num(0.0), right_PNN.nanmean(dim=1).nan_to_num(0.0)


def sign_rewards(tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[Tensor, Tensor]:
    """1 for a trace on the right side of the mean of the other image's read traces, -1 for a read one that is not, 0 for the others."""
    gap_w, gap_l = tau_w_PN - mean_read(tau_l_PN), mean_read(tau_w_PN) - tau_l_PN
    return tuple(torch.where(gap.isnan(), 0.0, torch.where(gap > 0, 1.0, -1.0)) for gap in (gap_w, gap_l))  # type: ignore[return-value]


def build(kind: Literal["bradley_terry", "mean"] = "bradley_terry", temperature: float = 1.0, format_reward: float | None = None) -> Irpo:
    """IRPO with the values of its public code: KL weight .001, N 4 (`gcpo.num_traces`).

    Args:
        kind: which of the two rewards.
        temperature: score points that count as one unit of log odds; only for `bradley_terry`. source: 1.
        format_reward: None = the source's: an unread trace has .5 less, and counts as the worst score of its side, which costs
            about .5 (`bradley_terry`) or 1 (`mean`) more. ours: it is no opponent, and so earns 0 while a read one earns this on top.
    """
    if kind not in ("bradley_terry", "mean"):
        raise ValueError(f"kind is {kind!r}, expected bradley_terry or mean")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, expected more than 0")
    added = 0.5 + (kind == "mean") if format_reward is None else format_reward
    refuse_negative(format_reward=added)
    return Irpo(kind, temperature, Needs(scaled=True, kl=0.001, format_reward=added))
