"""PD-GRPO, the way of the Thinking Reward Model (arXiv 2609.37372): a hard margin to the mean of the other image's traces.

r_w[j] = 1{tau_w[j] - mean(tau_l) > m},   r_l[j] = 1{mean(tau_w) - tau_l[j] > m},   R = r + format reward of a read trace
A = (R - mean) / (std + eps), both over the 2N traces of the pair

Beyond the margin nothing is gained, so scores are not driven to the ends of the scale. The group of 2N gives a pair that is judged
wrongly on one side a gradient even where all traces of an image agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from editr1.pair_learning.base import Needs, mean_read, refuse_negative


@dataclass(frozen=True)
class PdGrpo:
    """See the module."""

    margin: float
    needs: Needs

    def rewards(self, tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[Tensor, Tensor]:
        return margin_rewards(tau_w_PN, tau_l_PN, self.margin)


def margin_rewards(tau_w_PN: Tensor, tau_l_PN: Tensor, margin: float = 0.0) -> tuple[Tensor, Tensor]:
    """1 for each trace that is more than `margin` on the right side of the mean of the other image's read traces, else 0.

    >>> import torch
    >>> w, l = margin_rewards(torch.tensor([[8.0, 5.0]]), torch.tensor([[6.0, 4.0]]))  # means 6.5 and 5
    >>> w.tolist(), l.tolist()
    ([[1.0, 0.0]], [[1.0, 1.0]])
    """
    right_w = tau_w_PN - mean_read(tau_l_PN) > margin
    right_l = mean_read(tau_w_PN) - tau_l_PN > margin
    return right_w.to(tau_w_PN.dtype), right_l.to(tau_l_PN.dtype)


def build(margin: float = 0.0, format_reward: float = 0.1) -> PdGrpo:
    """PD-GRPO with its source's values for image editing, where the KL weight is .003 and N is 8 (`gcpo.num_traces`).

    Args:
        margin: score points. source: 0 for editing (.05 for text to image).
        format_reward: source: .1.
    """
    refuse_negative(margin=margin, format_reward=format_reward)
    return PdGrpo(margin, Needs(group="pair", scaled=True, kl=0.003, format_reward=format_reward))
