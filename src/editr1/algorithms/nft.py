"""DiffusionNFT: policy improvement on the forward process, without SDE, log-density or ratio (arXiv 2509.16117).

A finished edit x_0 is noised again to a level t; the policy is pulled towards it in proportion to its optimality q and an implicit
negative policy in proportion to 1 - q:

    q  = clip(A, -5, 5) / 10 + 1/2
    v+ = beta v + (1 - beta) v_old            v- = (1 + beta) v_old - beta v
    loss = [ q ||x - t v+  - x0||^2 / w+  +  (1 - q) ||x - t v-  - x0||^2 / w- ] * 5 / beta

w is the detached mean absolute error of that prediction, which makes every t weigh alike. Any sampler may make x_0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from editr1.algorithms.base import Needs, Rows, with_advantage
from editr1.config import at_least
from editr1.objectives.advantages import MAX_ADVANTAGE


@dataclass(frozen=True)
class Nft:
    """See the module."""

    beta: float = 1.0
    """In (0, 1]."""
    levels: int = 2
    """Noise levels drawn a sample."""
    max_old_decay: float = 0.5
    """The sampling policy follows by decay min(rate n, this) after n iterations."""
    old_decay_rate: float = 0.001
    """That rate; .001 is the paper's, for runs of hundreds of iterations."""
    choose = staticmethod(with_advantage)

    def __post_init__(self) -> None:
        at_least(1, self, "levels")
        at_least(0, self, "max_old_decay", "old_decay_rate")
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta is {self.beta}, expected a number in (0, 1]")

    @property
    def needs(self) -> Needs:
        return Needs(levels=self.levels, old_decay=self.max_old_decay, old_decay_rate=self.old_decay_rate)

    def loss(self, rows: Rows) -> torch.Tensor:
        assert rows.x0 is not None
        return nft_loss(rows.v, rows.old(), rows.x, rows.x0, rows.sigma, optimality(rows.advantages), self.beta)


def optimality(advantages: torch.Tensor) -> torch.Tensor:
    """q in [0, 1]; A = 0 gives 1/2, the value at which both pulls cancel at v = v_old."""
    return advantages.clamp(-MAX_ADVANTAGE, MAX_ADVANTAGE) / (2.0 * MAX_ADVANTAGE) + 0.5


def nft_loss(
    v_RLD: torch.Tensor, v_old_RLD: torch.Tensor, x_RLD: torch.Tensor, x0_RLD: torch.Tensor, t_R: torch.Tensor,
    optimality_R: torch.Tensor, beta: float = 1.0,
) -> torch.Tensor:  # fmt: skip
    """The loss of the module, [R]. `beta` in (0, 1] sets how far v+ may lean on the old policy."""
    v_old_RLD = v_old_RLD.detach()
    positive = beta * v_RLD + (1.0 - beta) * v_old_RLD
    negative = (1.0 + beta) * v_old_RLD - beta * v_RLD
    t_R11 = t_R.view(-1, 1, 1)
    pulls = [_weighted_error(x_RLD - t_R11 * v, x0_RLD) for v in (positive, negative)]
    return (optimality_R * pulls[0] + (1.0 - optimality_R) * pulls[1]) * MAX_ADVANTAGE / beta


def _weighted_error(predicted_RLD: torch.Tensor, x0_RLD: torch.Tensor) -> torch.Tensor:
    """mean((x0^ - x0)^2) / detached mean(|x0^ - x0|), [R]; the weight in float64 because it is a divisor."""
    difference = predicted_RLD - x0_RLD
    weight = difference.detach().double().abs().flatten(1).mean(1).clamp(min=1e-5)
    return difference.square().flatten(1).mean(1) / weight.float()


build = Nft
