"""The protocol of an algorithm of editor RL, and what its loss is given.

A new algorithm is one file in this folder (or `package.module:build`) with `build(**options)`: a function, or the class itself. It knows
no model, no judge and no trainer: it says what it needs, and turns rows of numbers into a loss a row.

Legend: R rows of one forward, L tokens, D channels of a packed token, C groups, G samples a group. Means are over L * D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch


@dataclass(frozen=True)
class Needs:
    """What an algorithm asks of the rollout and of the machine."""

    levels: int = 0
    """0: the rollout is noisy in its window and a row is (step of the window, sample). n: the rollout is noise-free, and a row is one of n
    drawn noise levels t in (0, 1) to which a finished edit is noised again."""
    shared_level: bool = False
    """All members of a group are noised by the same noise to the same level."""
    groups: bool = False
    """The loss of a row depends on its group: a group is never cut."""
    samples_per_group: int | None = None
    """How many samples of a group are trained on; None = all."""
    reference: bool = False
    """Each row costs a pass of the policy at the start, with or without a KL term."""
    old_decay: float | None = None
    """The rollout is drawn by a slow copy of the policy that follows by decay min(rate n, this), and each row costs a pass of it."""
    old_decay_rate: float = 0.001
    """That rate, per finished iteration."""
    means: bool = False
    """The means of the rollout's steps are kept where several updates are made from it."""
    clip: float | None = None
    """The smallest clip range, in units of |ratio - 1|; rounding should be small beside it."""
    on_policy: bool = False
    """Only for edits of the very policy that learns: one update a rollout, and none drawn ahead."""
    teacher: Any = None
    """An `editors` component whose velocity each row asks for."""

    @property
    def noisy(self) -> bool:
        """Whether the rollout has a noisy window, and with it densities."""
        return self.levels == 0

    def passes(self, kl: bool) -> int:
        """Forwards without gradient a row, beside the trained one; `kl`: there is a KL term, whose pass is the reference's."""
        return (self.reference or kl) + (self.old_decay is not None) + (self.teacher is not None)


@dataclass
class Rows:
    """One forward of the policy and what belongs to its rows."""

    v: torch.Tensor
    """Velocity of the policy at (x, sigma), with gradient, [R, L, D] float32."""
    x: torch.Tensor
    """[R, L, D] float32."""
    sigma: torch.Tensor
    """[R]."""
    advantages: torch.Tensor
    """[R]; 0 for unscored samples."""
    group: torch.Tensor
    """Number of the row's (group, step or level), [R] int64: rows of equal number compete."""
    scored: torch.Tensor
    """[R] bool."""
    reference: Callable[[], torch.Tensor]
    """Velocity of the policy at the start, without gradient."""
    old: Callable[[], torch.Tensor]
    """Velocity of the slow copy that sampled; only with `Needs.old_decay`."""
    teacher: Callable[[], torch.Tensor]
    """Velocity of the teacher; only with `Needs.teacher`."""
    # noisy rollouts
    mean: torch.Tensor | None = None
    """Mean of the step under the policy, [R, L, D]."""
    mean_old: torch.Tensor | None = None
    """The same under the policy that sampled; equal to `mean` (detached) in the only update of a rollout."""
    std: torch.Tensor | None = None
    """Noise of each row's step, [R]."""
    step_weight: torch.Tensor | None = None
    """The row's std over the mean std of the window, [R]."""
    log_ratio: torch.Tensor | None = None
    """log density of the taken step, new minus old, nats an element, [R]."""
    # noise-free rollouts
    x0: torch.Tensor | None = None
    """The finished edit, [R, L, D]; x = (1 - sigma) x0 + sigma noise."""
    noise: torch.Tensor | None = None
    weighs: torch.Tensor | None = None
    """Rows that are learnt from, [R] bool; others are there for the shape of the forward. None = all."""
    logs: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def log(self, name: str, values: torch.Tensor) -> None:
        """Keeps figures a row; their mean over the rows that are learnt from appears as `train/<name>`."""
        values = values.detach().float()
        self.logs.setdefault(name, []).append(values if self.weighs is None else values.masked_fill(~self.weighs, torch.nan))

    def taken(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(log_ratio, mean, mean_old, std) of the steps of a noisy rollout."""
        parts = (self.log_ratio, self.mean, self.mean_old, self.std)
        assert all(part is not None for part in parts)
        return cast(tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], parts)

    def flow_error(self, v: torch.Tensor) -> torch.Tensor:
        """mean||v - (noise - x0)||^2, [R]: how far a velocity is from the straight line to the edit."""
        assert self.x0 is not None
        assert self.noise is not None
        return (v - (self.noise - self.x0)).square().flatten(1).mean(1)


class Algorithm(Protocol):
    """A loss and its needs."""

    @property
    def needs(self) -> Needs: ...

    def choose(self, advantages_CG: torch.Tensor, scored_CG: torch.Tensor) -> torch.Tensor:
        """Which samples teach, [C, G] bool; the others cost nothing where their group teaches nothing."""
        ...

    def loss(self, rows: Rows) -> torch.Tensor:
        """[R], not averaged: the trainer masks, sums and divides by the fixed number of rows."""
        ...


def step_kl(mean_RLD: torch.Tensor, mean_old_RLD: torch.Tensor, std_R: torch.Tensor) -> torch.Tensor:
    """KL of a step to the one that sampled, nats an element, [R]: mean (mu - mu_old)^2 / (2 std^2), exact for Gaussians of one std."""
    return (mean_RLD - mean_old_RLD).square().flatten(1).mean(1) / (2.0 * std_R.square())


def with_advantage(advantages_CG: torch.Tensor, scored_CG: torch.Tensor) -> torch.Tensor:
    """The usual choice: scored samples whose advantage is not 0."""
    return scored_CG & (advantages_CG != 0)
