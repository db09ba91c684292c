"""GCPO, the paper's way (arXiv 2604.27505, section 3.2): the share of the other image's traces that a trace stands on the right side of.

r_w[j] = (1/N) sum_k 1{tau_w[j] > tau_l[k]},   r_l[j] = (1/N) sum_k 1{tau_l[j] < tau_w[k]},   A = r - mean over the image's traces

No deviation, no KL. The equations and what is ours in them: `objectives.gcpo`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from editr1.objectives.gcpo import WinRule, loss_ratio, win_ratio
from editr1.pair_learning.base import Needs, refuse_negative


@dataclass(frozen=True)
class Gcpo:
    """See the module."""

    rule: WinRule
    needs: Needs

    def rewards(self, tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[Tensor, Tensor]:
        return win_ratio(tau_w_PN, tau_l_PN, self.rule), loss_ratio(tau_l_PN, tau_w_PN, self.rule)


def build(tie_credit: float = 0.0, margin: float = 0.0, format_reward: float = 0.0) -> Gcpo:
    """The paper's rule; every other value changes the objective.

    Args:
        tie_credit: what both sides earn for an equal score, in [0, 1]; see `objectives.gcpo.WinRule`. paper: 0.
        margin: score points by which a win must be clear; see `objectives.gcpo.WinRule`. paper: 0.
        format_reward: added for a trace that was read. paper: none; its reward is 0 in any case.
    """
    refuse_negative(format_reward=format_reward)
    return Gcpo(WinRule(tie_credit, margin), Needs(format_reward=format_reward))
