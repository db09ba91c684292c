"""On-policy distillation: a teacher's velocity on the states that the student itself reaches.

    loss = mean||v - v_teacher||^2      at the noisy states of the student's own rollouts

For a cheaper student of a dear teacher: without guidance from one with guidance (two forwards into one), a LoRA on a small editor from a
large one of the same latents and schedule, one editor from several specialists. No judge is needed to learn, and none is heard: the reward
curve only watches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from editr1.algorithms.base import Needs, Rows
from editr1.config import component_of
from editr1.errors import ConfigError


@dataclass(frozen=True)
class Distill:
    """See the module."""

    needs: Needs

    def choose(self, advantages_CG: torch.Tensor, scored_CG: torch.Tensor) -> torch.Tensor:
        """Every sample: a state teaches whatever its edit is worth."""
        return torch.ones_like(scored_CG)

    def loss(self, rows: Rows) -> torch.Tensor:
        return (rows.v - rows.teacher()).square().flatten(1).mean(1)


def build(teacher: dict[str, object] | str) -> Distill:
    """`teacher`: an editor as `edit_rl.editor` names one, `{id: ..., options: {...}}`, with latents, sizes and schedule of the student."""
    try:
        return Distill(Needs(teacher=component_of("editors", teacher), on_policy=True))
    except ConfigError as error:
        raise ConfigError(f"teacher: {error}") from error
