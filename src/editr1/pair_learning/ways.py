"""The paper's way to learn from pairs and its rivals, each with its equation, source and defaults. Legend: see `base`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from editr1.objectives.gcpo import WinRule, loss_ratio, win_ratio, without_rounding
from editr1.pair_learning.base import Needs


@dataclass(frozen=True)
class Gcpo(WinRule):
    """GCPO, the paper's way (arXiv 2604.27505, section 3.2): on the right side of which share of the other image's traces a trace stands.

    r_w[j] = (1/N) sum_k 1{tau_w[j] > tau_l[k]},   r_l[j] = (1/N) sum_k 1{tau_l[j] < tau_w[k]},   A = r - mean over the image's traces

    No deviation, no KL. The equations and what is ours in them: `objectives.gcpo`. Every other value of an option changes the objective.
    """

    format_reward: float = 0.0
    """Added for a trace that was read. paper: none; its reward is 0 in any case."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_negative(format_reward=self.format_reward)

    @property
    def needs(self) -> Needs:
        return Needs(format_reward=self.format_reward)

    def rewards(self, tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[Tensor, Tensor]:
        return win_ratio(tau_w_PN, tau_l_PN, self), loss_ratio(tau_l_PN, tau_w_PN, self)


@dataclass(frozen=True)
class PdGrpo:
    """PD-GRPO of the Thinking Reward Model (arXiv 2609.37372): a hard margin to the mean of the other image's traces.

    r_w[j] = 1{tau_w[j] - mean(tau_l) > m},   r_l[j] = 1{mean(tau_w) - tau_l[j] > m},   R = r + format reward of a read trace
    A = (R - mean) / (std + eps), both over the 2N traces of the pair

    Beyond the margin nothing is gained, so scores are not driven to the ends of the scale. The group of 2N gives a pair that is judged
    wrongly on one side a gradient even where all traces of an image agree. KL weight .003 and N 8 (`gcpo.num_traces`) for image editing.

    >>> w, l = PdGrpo().rewards(torch.tensor([[8.0, 5.0]]), torch.tensor([[6.0, 4.0]]))  # means 6.5 and 5
    >>> w.tolist(), l.tolist()
    ([[1.0, 0.0]], [[1.0, 1.0]])
    """

    margin: float = 0.0
    """Score points. source: 0 for editing (.05 for text to image)."""
    format_reward: float = 0.1
    """source: .1."""

    def __post_init__(self) -> None:
        _refuse_negative(margin=self.margin, format_reward=self.format_reward)

    @property
    def needs(self) -> Needs:
        return Needs(group="pair", scaled=True, kl=0.003, format_reward=self.format_reward)

    def rewards(self, tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[Tensor, Tensor]:
        gap_w, gap_l = _gaps(tau_w_PN, tau_l_PN, self.margin)
        return (gap_w > 0).to(gap_w.dtype), (gap_l > 0).to(gap_l.dtype)


@dataclass(frozen=True)
class Irpo:
    """IRPO (IRPM in its second version, arXiv 2601.00677): the Bradley-Terry probability between two groups of traces as their reward.

    r_w[j] = (1/N) sum_k sigmoid((tau_w[j] - tau_l[k]) / t),   r_l[j] = (1/N) sum_k sigmoid((tau_w[k] - tau_l[j]) / t)
    A = (r - mean) / (std + eps) over the image's traces

    Graded where GCPO counts: a larger gap always earns more, which drives scores to the ends of the scale. Its public code has KL weight
    .001, N 4 (`gcpo.num_traces`) and a second reward, +-1 by the other group's mean (its scripts call that one, with a margin that our
    pairs do not have).

    >>> w, l = Irpo().rewards(torch.tensor([[5.0, 5.0]]), torch.tensor([[5.0, float("nan")]]))
    >>> w.tolist(), l.tolist()
    ([[0.5, 0.5]], [[0.5, 0.0]])
    """

    kind: Literal["bradley_terry", "mean"] = "bradley_terry"
    """Which of the two rewards."""
    temperature: float = 1.0
    """Score points that count as one unit of log odds; only for `bradley_terry`. source: 1."""
    format_reward: float | None = None
    """None = the source's: an unread trace has .5 less, and counts as the worst score of its side, which costs about .5 (`bradley_terry`)
    or 1 (`mean`) more. ours: it is no opponent, and so earns 0 while a read one earns this on top."""

    def __post_init__(self) -> None:
        if self.kind not in ("bradley_terry", "mean"):
            raise ValueError(f"kind is {self.kind!r}, expected bradley_terry or mean")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}, expected more than 0")
        _refuse_negative(format_reward=self.needs.format_reward)

    @property
    def needs(self) -> Needs:
        added = 0.5 + (self.kind == "mean") if self.format_reward is None else self.format_reward
        return Needs(scaled=True, kl=0.001, format_reward=added)

    def rewards(self, tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind == "mean":  # 1 on the right side of the other mean, -1 for a read trace that is not, 0 for the others
            gap_w, gap_l = _gaps(tau_w_PN, tau_l_PN)
            return _sign(gap_w), _sign(gap_l)
        right_PNN = torch.sigmoid((tau_w_PN[:, :, None] - tau_l_PN[:, None, :]) / self.temperature)
        return right_PNN.nanmean(dim=2).nan_to_num(0.0), right_PNN.nanmean(dim=1).nan_to_num(0.0)


@dataclass(frozen=True)
class BradleyTerry:
    """Bradley-Terry on the pairs themselves: a scalar head on the judge's last hidden state, no trace and no reasoning (EditReward's way).

    loss = -log sigmoid(s_w - s_l) + centre (s_w + s_l)^2      (Bradley and Terry, 1952; Ouyang et al., arXiv 2203.02155, equation 1)

    The rival that any reasoning judge has to beat on the same pairs. EditReward (arXiv 2509.26346) has two heads with an uncertainty each;
    its published checkpoints are the judge `editreward`, what is trained here is the judge `bradley_terry`.

    >>> BradleyTerry().loss(torch.tensor([0.0]), torch.tensor([0.0])).item()
    0.6931471824645996
    """

    centre: float = 0.0
    """Weight of (s_w + s_l)^2, which fixes the free constant of the scores at 0 (arXiv 2312.09244, its value: .01). 0 = none."""
    needs = Needs(traces=False)

    def __post_init__(self) -> None:
        _refuse_negative(centre=self.centre)

    def loss(self, score_w_P: Tensor, score_l_P: Tensor) -> Tensor:
        return -logsigmoid(score_w_P - score_l_P) + self.centre * (score_w_P + score_l_P).square()


bradley_terry, gcpo, irpo, pd_grpo = BradleyTerry, Gcpo, Irpo, PdGrpo


def _gaps(tau_w_PN: Tensor, tau_l_PN: Tensor, margin: float = 0.0) -> tuple[Tensor, Tensor]:
    """By how much more than `margin` each trace is on the right side of the mean of the other image's read traces; nan without one, which
    no comparison passes."""
    gap_w_PN, gap_l_PN = tau_w_PN - tau_l_PN.nanmean(dim=1, keepdim=True), tau_w_PN.nanmean(dim=1, keepdim=True) - tau_l_PN
    return without_rounding(gap_w_PN - margin), without_rounding(gap_l_PN - margin)


def _sign(gap_PN: Tensor) -> Tensor:
    return torch.where(gap_PN.isnan(), 0.0, torch.where(gap_PN > 0, 1.0, -1.0))


def _refuse_negative(**options: float) -> None:
    """Raises ValueError for the first option below 0 (or nan)."""
    for name, value in options.items():
        if not value >= 0:
            raise ValueError(f"{name} is {value}, expected at least 0")
