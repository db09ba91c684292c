"""Noise schedules sigma_0 = 1 > ... > sigma_N = 0; sigma is the share of noise in x_sigma = (1 - sigma) x_0 + sigma * noise.

Rollout and replay read sigma BY INDEX from one `Schedule`: a timestep that is looked up and off by a rounding puts a constant bias into
every log-ratio. Each function equals diffusers' `FlowMatchEulerDiscreteScheduler` for that model (tests/objectives).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# FLUX.1 and FLUX.1-Kontext, from the model's scheduler_config.json.
FLUX_BASE_SHIFT, FLUX_MAX_SHIFT, FLUX_BASE_TOKENS, FLUX_MAX_TOKENS = 0.5, 1.15, 256, 4096
# Qwen-Image and Qwen-Image-Edit, from the model's scheduler_config.json.
QWEN_MAX_SHIFT, QWEN_MAX_TOKENS, QWEN_TERMINAL = 0.9, 8192, 0.02


@dataclass(frozen=True, slots=True)
class Schedule:
    """N + 1 noise levels.

    >>> Schedule((1.0, 0.5, 0.0)).pair(1)
    (0.5, 0.0)
    """

    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.sigmas, self.sigmas[1:], strict=False))
        if len(self.sigmas) < 2 or self.sigmas[-1] != 0.0 or not falling or self.sigmas[0] > 1.0:
            raise ValueError(f"a schedule falls strictly from at most 1 to exactly 0, found {self.sigmas}")

    @property
    def num_steps(self) -> int:
        """N, the number of model evaluations of one sample without CFG."""
        return len(self.sigmas) - 1

    def pair(self, index: int) -> tuple[float, float]:
        """(sigma, next sigma) of step `index` in [0, N - 1]."""
        if not 0 <= index < self.num_steps:
            raise IndexError(f"step {index} of a schedule of {self.num_steps} steps")
        return self.sigmas[index], self.sigmas[index + 1]


def flux_mu(
    num_tokens: int,
    base_shift: float = FLUX_BASE_SHIFT,
    max_shift: float = FLUX_MAX_SHIFT,
    base_tokens: int = FLUX_BASE_TOKENS,
    max_tokens: int = FLUX_MAX_TOKENS,
) -> float:
    """mu, linear in the number of packed TARGET tokens (condition tokens are not counted).

    >>> round(flux_mu(1024), 3), round(flux_mu(4096), 3)
    (0.63, 1.15)
    """
    return base_shift + (max_shift - base_shift) * (num_tokens - base_tokens) / (max_tokens - base_tokens)


def flux2_mu(num_tokens: int, num_steps: int) -> float:
    """FLUX.2's fitted mu, which depends on the number of steps too (diffusers: `compute_empirical_mu`)."""
    at_200_steps = 0.00016927 * num_tokens + 0.45666666
    if num_tokens > 4300:  # the fit switches to one line for long sequences
        return at_200_steps
    at_10_steps = 8.73809524e-05 * num_tokens + 1.89833333
    slope = (at_200_steps - at_10_steps) / 190.0
    return slope * (num_steps - 200.0) + at_200_steps


def exponential_shift(sigma: float, mu: float) -> float:
    """e^mu / (e^mu + 1/sigma - 1): pushes the steps towards high noise as mu grows."""
    return math.exp(mu) / (math.exp(mu) + (1.0 / sigma - 1.0))


def stretch_to_terminal(sigmas: Sequence[float], terminal: float) -> list[float]:
    """Scales 1 - sigma so that the last nonzero sigma becomes `terminal` in (0, 1).

    Raises ValueError for a single step: there the last sigma is 1 and no stretch can move it (0 / 0).
    """
    if len(sigmas) < 2:
        raise ValueError("a schedule with a terminal sigma needs at least 2 steps (0 / 0 with one): raise num_steps")
    scale = (1.0 - sigmas[-1]) / (1.0 - terminal)
    return [1.0 - (1.0 - sigma) / scale for sigma in sigmas]


def flux_schedule(num_steps: int, num_tokens: int) -> Schedule:
    """FLUX.1-Kontext: linear sigmas, exponential shift by `flux_mu`.

    >>> [round(s, 3) for s in flux_schedule(6, 1024).sigmas]
    [1.0, 0.904, 0.79, 0.652, 0.484, 0.273, 0.0]
    """
    return exponential_schedule(num_steps, flux_mu(num_tokens))


def qwen_schedule(num_steps: int, num_tokens: int) -> Schedule:
    """Qwen-Image-Edit: as FLUX with its own mu, then stretched to end at .02.

    The last real step (.02 -> 0) is tiny: never put noise on it, nor on the step before.

    >>> [round(s, 3) for s in qwen_schedule(10, 1024).sigmas][-3:]
    [0.183, 0.02, 0.0]
    """
    mu = flux_mu(num_tokens, max_shift=QWEN_MAX_SHIFT, max_tokens=QWEN_MAX_TOKENS)
    return exponential_schedule(num_steps, mu, QWEN_TERMINAL)


def flux2_schedule(num_steps: int, num_tokens: int) -> Schedule:
    """FLUX.2 and klein: linear sigmas, exponential shift by `flux2_mu`."""
    return exponential_schedule(num_steps, flux2_mu(num_tokens, num_steps))


def exponential_schedule(num_steps: int, mu: float, terminal: float | None = None) -> Schedule:
    """Linear sigmas, exponentially shifted by mu, optionally stretched to a terminal sigma."""
    sigmas = [exponential_shift(sigma, mu) for sigma in _linear(num_steps)]
    if terminal is not None:
        sigmas = stretch_to_terminal(sigmas, terminal)
    return Schedule((*sigmas, 0.0))


def static_schedule(num_steps: int, shift: float = 3.0) -> Schedule:
    """shift * sigma / (1 + (shift - 1) sigma), the schedule of SD3 and of DanceGRPO / MixGRPO (shift 3)."""
    return Schedule((*(shift * sigma / (1.0 + (shift - 1.0) * sigma) for sigma in _linear(num_steps)), 0.0))


def _linear(num_steps: int) -> list[float]:
    """linspace(1, 1 / N, N)."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, found {num_steps}")
    return [(num_steps - index) / num_steps for index in range(num_steps)]
