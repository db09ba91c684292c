"""Bradley-Terry on the pairs themselves: a scalar head on the judge's last hidden state, no trace and no reasoning (EditReward's way).

loss = -log sigmoid(s_w - s_l)      (Bradley and Terry, 1952; for reward models Ouyang et al., arXiv 2203.02155, equation 1)

The rival that any reasoning judge has to beat on the same pairs. EditReward (arXiv 2509.26346) has two heads with an uncertainty each;
its published checkpoints are the judge `editreward`, what is trained here is the judge `bradley_terry`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from editr1.pair_learning.base import Needs, refuse_negative


@dataclass(frozen=True)
class BradleyTerry:
    """See the module."""

    centre: float
    needs: Needs

    def loss(self, score_w_P: Tensor, score_l_P: Tensor) -> Tensor:
        return bradley_terry_loss(score_w_P, score_l_P) + self.centre * (score_w_P + score_l_P).square()


def bradley_terry_loss(score_w_P: Tensor, score_l_P: Tensor) -> Tensor:
    """-log sigmoid(s_w - s_l), `[P]`, in nats; log 2 for equal scores.

    >>> bradley_terry_loss(torch.tensor([0.0]), torch.tensor([0.0])).item()
    0.6931471824645996
    """
    return -torch.nn.functional.logsigmoid(score_w_P - score_l_P)


def build(centre: float = 0.0) -> BradleyTerry:
    """The plain loss.

    Args:
        centre: weight of (s_w + s_l)^2, which fixes the free constant of the scores at 0 (arXiv 2312.09244, its value: .01). 0 = none.
    """
    refuse_negative(centre=centre)
    return BradleyTerry(centre, Needs(traces=False))
