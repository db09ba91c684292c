"""The protocol of a way to learn from pairs: one file in this folder (or `package.module:build`) with a function `build(**options)`.

It knows no model and no trainer: it turns the scores of two groups of traces into a reward a trace, and says how rewards become advantages.

Legend: P pairs, N traces an image. Scores lie in [0, 10]; **nan marks a trace that Phi could not read**.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Needs:
    """What a way asks of the trainer."""

    traces: bool = True
    """False: it learns from the pairs themselves, nothing is sampled."""
    group: Literal["image", "pair"] = "image"
    """Whose traces a trace is compared with: those of its image (N), or of both images of the pair (2N)."""
    scaled: bool = False
    """Whether advantages are divided by the standard deviation of their group (n - 1 in its denominator)."""
    kl: float = 0.0
    """Weight of the KL term to the checkpoint that training starts from; 0 = none. `gcpo.loss.kl` overrides it."""
    format_reward: float = 0.0
    """Added to the reward of every trace that Phi could read."""


class Way(Protocol):
    """A way to learn from pairs: a `Method`, or a `Head` where `needs.traces` is False."""

    @property
    def needs(self) -> Needs: ...


class Method(Way, Protocol):
    """A way that learns from sampled traces."""

    def rewards(self, tau_w_PN: Tensor, tau_l_PN: Tensor) -> tuple[Tensor, Tensor]:
        """What each trace of the preferred and of the other image earns, two `[P, N]`; 0 for unread traces and without a read opponent."""
        ...


class Head(Way, Protocol):
    """A way without traces: a loss on the scalar scores of both images."""

    def loss(self, score_w_P: Tensor, score_l_P: Tensor) -> Tensor:
        """`[P]`."""
        ...
