"""Group Contrastive Preference Optimization (arXiv 2604.27505, section 3.2): from the scores of two groups of traces to a loss.

Legend: P pairs, N traces an image, K traces of the opponent, G traces in a batch, T tokens of a trace. Scores `tau` lie in [0, 10]; **nan
marks a trace that Phi could not parse**: it compares false with everything, and that it is no opponent either is written out below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class WinRule:
    """How a trace of the winner is compared with a trace of the loser. The defaults are the paper's."""

    tie_credit: float = 0.0
    """What both sides earn for an equal score, in [0, 1]. paper: 0, the comparison is strict. 0.5 rewards a judge that
    cannot tell two images apart as if it flipped a coin; the sums of both sides stay equal."""
    margin: float = 0.0
    """A win needs tau_w > tau_l + margin, in score points. paper: 0. Larger values ask for a clear gap and so spread
    the scores of a pair; a comparison inside the margin counts as lost, not as a tie."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.tie_credit <= 1.0:
            raise ValueError(f"tie_credit is {self.tie_credit}, expected a share in [0, 1]")
        if not self.margin >= 0.0:
            raise ValueError(f"margin is {self.margin}, expected score points >= 0")


PAPER = WinRule()
EPSILON = 1e-4  # added to a standard deviation before it divides, as TRL does
ROUNDING = 1e-5  # ours: score points; 6.9 - 6.8 is not .1 to the last bit, nor the mean of three 6.9 always 6.9: no judge means such a gap


def win_ratio(tau_w_PN: Tensor, tau_l_PK: Tensor, rule: WinRule = PAPER) -> Tensor:
    """Share of the loser's parsed traces that each trace of the winner beats, `[P, N]` in [0, 1].

    r_w[j] = (1/K) * sum_k 1{tau_w[j] > tau_l[k]}   (section 3.2; strict, so a tie earns nothing)

    ours: K counts the *parsed* opponents, for a judge must not profit from an opponent that failed to answer.
    Without a parsed opponent the row is 0; `has_opponent` tells that case from a lost rule.

    >>> win_ratio(torch.tensor([[8.0, 5.0]]), torch.tensor([[5.0, 3.0]])).tolist()
    [[1.0, 0.5]]
    """
    return _credit(tau_w_PN, tau_l_PK, rule).sum(dim=2) / _num_parsed(tau_l_PK)


def loss_ratio(tau_l_PN: Tensor, tau_w_PK: Tensor, rule: WinRule = PAPER) -> Tensor:
    """Share of the winner's parsed traces that each trace of the loser stays below, `[P, N]` in [0, 1].

    r_l[j] = (1/K) * sum_k 1{tau_l[j] < tau_w[k]}   (section 3.2)

    >>> loss_ratio(torch.tensor([[5.0, 3.0]]), torch.tensor([[8.0, 5.0]])).tolist()
    [[0.5, 1.0]]
    """
    return _credit(tau_w_PK, tau_l_PN, rule).sum(dim=1) / _num_parsed(tau_w_PK)


def closeness_ratio(tau_PN: Tensor, tau_other_PK: Tensor, tolerance: float) -> Tensor:
    """Share of the other image's parsed traces within `tolerance` score points of each trace, `[P, N]` in [0, 1].

    ours: a use for pairs that people call "same", which the paper leaves out; off unless a recipe asks for it.

    >>> closeness_ratio(torch.tensor([[5.0]]), torch.tensor([[5.4, 8.0]]), tolerance=0.5).tolist()
    [[0.5]]
    """
    gap_PNK = (tau_PN[:, :, None] - tau_other_PK[:, None, :]).abs()
    return (without_rounding(gap_PNK - tolerance) <= 0).to(tau_PN.dtype).sum(dim=2) / _num_parsed(tau_other_PK)


def has_opponent(tau_other_PK: Tensor) -> Tensor:
    """Whether the other image of a pair has a parsed trace, `[P]` bool. Where not, the group teaches nothing: log it."""
    return ~tau_other_PK.isnan().all(dim=1)


def advantages(ratio_PN: Tensor, scaled: bool = False) -> Tensor:
    """Ratio minus the mean of its own group, `[P, N]`; every row sums to 0.

    paper: no division by the standard deviation, for the ratios share one scale already. scaled: divide by it (n - 1 in its denominator),
    as other ways to learn from pairs do, and as TRL does it.

    >>> advantages(torch.tensor([[1.0, 0.5, 0.0]])).tolist()
    [[0.5, 0.0, -0.5]]
    """
    centred_PN = ratio_PN - ratio_PN.mean(dim=1, keepdim=True)
    return centred_PN / (ratio_PN.std(dim=1, keepdim=True) + EPSILON) if scaled else centred_PN


def gcpo_loss(logp_GT: Tensor, old_logp_GT: Tensor, advantage_G: Tensor, mask_GT: Tensor, clip: float = 0.2) -> Tensor:
    """The negated objective of section 3.2, a scalar: mean over traces of the mean over their tokens.

    Args:
        logp_GT: log-probabilities of the sampled tokens under the policy, in nats.
        old_logp_GT: the same under the policy that sampled them.
        advantage_G: one a trace, from `advantages`.
        mask_GT: 1 for the tokens of a trace, 0 for padding; what lies under 0 cannot matter.
        clip: eps of the PPO clip. There is no KL term (paper).

    This is the reference for what the trainer computes; a test compares the two.
    """
    ratio_GT = (torch.where(mask_GT > 0, logp_GT - old_logp_GT, 0.0)).exp()
    gain_GT = torch.minimum(ratio_GT * advantage_G[:, None], ratio_GT.clamp(1 - clip, 1 + clip) * advantage_G[:, None])
    per_trace_G = (gain_GT * mask_GT).sum(dim=1) / mask_GT.sum(dim=1).clamp(min=1)
    return -per_trace_G.mean()


def weighted_advantage(advantage_G: Tensor, length_G: Tensor) -> float:
    """(1/G) * sum_i A_i / L_i: negative when the better traces are the longer ones (the paper plots it).

    >>> weighted_advantage(torch.tensor([0.5, -0.5]), torch.tensor([100.0, 50.0]))
    -0.0024999999441206455
    """
    return float((advantage_G / length_G.clamp(min=1)).mean())


def pair_accuracy(tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[float, float]:
    """(share of pairs whose winner has the higher mean over parsed traces with ties at half, share of tied pairs), both in [0, 1].

    A pair with a side that never parsed is left out; (nan, nan) when no pair is left.
    """
    gap_P = without_rounding(tau_w_PN.nanmean(dim=1) - tau_l_PN.nanmean(dim=1))
    gap_P = gap_P[~gap_P.isnan()]
    wins, ties = (gap_P > 0).float(), (gap_P == 0).float()
    return float((wins + 0.5 * ties).mean()), float(ties.mean())


def without_rounding(gap: Tensor) -> Tensor:
    """Gaps between scores or means of them, 0 where they are equal up to rounding.

    >>> without_rounding(torch.full((3,), 6.9).mean() - torch.tensor([6.9, 6.8])).sign().tolist()
    [0.0, 1.0]
    """
    return torch.where(gap.abs() < ROUNDING, 0.0, gap)


def tie_share(tau_w_PN: Tensor, tau_l_PK: Tensor) -> float:
    """Share of trace against trace comparisons with equal scores, in [0, 1]; nan when nothing parsed."""
    gap_PNK = tau_w_PN[:, :, None] - tau_l_PK[:, None, :]
    return float((gap_PNK[~gap_PNK.isnan()] == 0).float().mean())


def _credit(tau_w_PN: Tensor, tau_l_PK: Tensor, rule: WinRule) -> Tensor:
    """What the comparison of winner's trace j with loser's trace k earns both of them, `[P, N, K]` in [0, 1]."""
    gap_PNK = tau_w_PN[:, :, None] - tau_l_PK[:, None, :]
    won_PNK = (without_rounding(gap_PNK - rule.margin) > 0).to(tau_w_PN.dtype)
    tied_PNK = (gap_PNK == 0).to(tau_w_PN.dtype)
    return won_PNK + rule.tie_credit * tied_PNK


def _num_parsed(tau_PK: Tensor) -> Tensor:
    """Parsed traces of a group, `[P, 1]`, at least 1: with none every ratio is 0 / 1."""
    return (~tau_PK.isnan()).sum(dim=1, keepdim=True).clamp(min=1).to(tau_PK.dtype)
