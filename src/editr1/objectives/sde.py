"""One denoising step as a Gaussian, for five samplers; its log-density, the clipped surrogate of PPO and the KL to the reference policy.

Every sampler of the field is affine in the latent x and the velocity v = dx/dsigma, so a step is three numbers (`Step`):

    mean = x_weight * x + v_weight * v,        x' = mean + std * e,   e ~ N(0, I)

s = sigma, s' = next sigma, dt = s' - s < 0, a = noise level, x0 = x - s v (clean estimate), x1 = x + (1 - s) v (noise estimate).

Which one is right? None dominates (tests/objectives/test_sde.py holds the exact figures). flow_sde over-disperses where the data have no
spread (visible grain: noise 1.33 x too large at 10 steps, a = .7); cps and ddim leave no grain but narrow the spread, and cps keeps
narrowing however many steps are taken. A window of few, early noisy steps makes the choice matter little.

Shape legend: B samples, L tokens, D channels. All tensors float32. Log-densities are MEANS over L * D (nats per element), so a clip range
epsilon allows epsilon * L * D nats of trajectory likelihood: the same epsilon is four times looser when width and height double.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from editr1.schema import derive_seed

StepKind = Literal["ode", "flow_sde", "dance_sde", "cps", "ddim"]
LogProbKind = Literal["normal", "squared_error"]


@dataclass(frozen=True, slots=True)
class Step:
    """x' ~ N(x_weight * x + v_weight * v, std^2): one affine Gaussian step."""

    x_weight: float
    v_weight: float
    std: float
    """0 = deterministic."""
    dt: float
    """s' - s, negative."""


def make_step(kind: StepKind, s: float, s_next: float, level: float, s_second: float | None = None) -> Step:
    """The step from s to s' of sampler `kind` at noise level a = `level` >= 0; a = 0 is the Euler step for every kind.

    `s_second` is sigmas[1], needed by flow_sde when s = 1, where its 1 / (1 - s) would be infinite.
    Raises ValueError when it is missing, or when cps is asked for a > 1 (its noise would exceed s').
    """
    if kind == "ode" or level == 0.0:
        return Step(1.0, s_next - s, 0.0, s_next - s)
    if kind == "flow_sde":
        return _reverse_sde(s, s_next, _flow_diffusion(s, level, s_second))
    if kind == "dance_sde":
        return _reverse_sde(s, s_next, level)
    if kind == "cps":
        return _keep_coefficients(s, s_next, _cps_std(s_next, level))
    if kind == "ddim":
        return _keep_coefficients(s, s_next, _ddim_std(s, s_next, level))
    raise ValueError(f"unknown step kind {kind!r}, expected ode, flow_sde, dance_sde, cps or ddim")


def _flow_diffusion(s: float, level: float, s_second: float | None) -> float:
    """Flow-GRPO: g = a sqrt(s / (1 - s)); at s = 1 the denominator takes sigmas[1], as every public trainer does.

    The patched first step is O(1) wrong for any N: the schedule's start does not converge to the SDE.
    Source: arXiv 2505.05470, equation 9.
    """
    if s >= 1.0 and s_second is None:
        raise ValueError("flow_sde at sigma = 1 divides by zero: pass s_second = sigmas[1], or start the window at step 1")
    s_denominator = s_second if s >= 1.0 and s_second is not None else s
    return level * math.sqrt(s / (1.0 - s_denominator))


def _reverse_sde(s: float, s_next: float, diffusion: float) -> Step:
    """Euler-Maruyama of dx = [v + g^2 / (2 s) (x + (1 - s) v)] ds + g dw; DanceGRPO (arXiv 2505.07818): g = const."""
    dt = s_next - s
    half = diffusion**2 / (2.0 * s)
    return Step(1.0 + half * dt, (1.0 + half * (1.0 - s)) * dt, diffusion * math.sqrt(-dt), dt)


def _cps_std(s_next: float, level: float) -> float:
    """Flow-CPS: s' sin(a pi / 2), a in [0, 1] (arXiv 2509.05952)."""
    if level > 1.0:
        raise ValueError(f"cps takes a noise level in [0, 1], found {level}: beyond 1 its noise would exceed s'")
    return s_next * math.sin(level * math.pi / 2.0)


def _ddim_std(s: float, s_next: float, level: float) -> float:
    """DDIM's eta in flow coordinates: eta s' sqrt(1 - (s' (1 - s) / (s (1 - s')))^2); 0 on the last step."""
    share = s_next * (1.0 - s) / (s * (1.0 - s_next))
    return level * s_next * math.sqrt(max(0.0, 1.0 - share**2))


def _keep_coefficients(s: float, s_next: float, std: float) -> Step:
    """mean = (1 - s') x0 + sqrt(s'^2 - std^2) x1: total noise stays s' exactly. Raises ValueError when std > s'."""
    if std > s_next:
        raise ValueError(f"noise {std:.3f} exceeds sigma' = {s_next:.3f}: lower the noise level to at most 1")
    noise_weight = math.sqrt(s_next**2 - std**2)
    return Step((1.0 - s_next) + noise_weight, -(1.0 - s_next) * s + noise_weight * (1.0 - s), std, s_next - s)


@dataclass(frozen=True, slots=True)
class StepRows:
    """The same three numbers for a batch whose rows stand at different steps, each [B, 1, 1] float32."""

    x_weight: torch.Tensor
    v_weight: torch.Tensor
    std: torch.Tensor

    @staticmethod
    def of(steps: list[Step], like: torch.Tensor) -> StepRows:
        """One row a step, on the device of `like`."""

        def column(values: list[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=like.device).view(-1, 1, 1)

        return StepRows(column([s.x_weight for s in steps]), column([s.v_weight for s in steps]), column([s.std for s in steps]))


def mean_of(step: Step | StepRows, x_BLD: torch.Tensor, v_BLD: torch.Tensor) -> torch.Tensor:
    """E[x' | x, v], [B, L, D] float32."""
    return step.x_weight * x_BLD.float() + step.v_weight * v_BLD.float()


def advance(
    step: Step, x_BLD: torch.Tensor, v_BLD: torch.Tensor, noise_BLD: torch.Tensor, storage: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x', mean), both float32, x' already rounded to the dtype it will be stored in.

    Rounding comes BEFORE any log-density is taken from x': rounded afterwards, the first replay of an unchanged policy
    is off by up to 5e-4, more than the usual clip range.
    """
    mean = mean_of(step, x_BLD, v_BLD)
    return (mean + step.std * noise_BLD).to(storage).float(), mean


def log_prob(step: Step | StepRows, x_next_BLD: torch.Tensor, mean_BLD: torch.Tensor, kind: LogProbKind = "normal") -> torch.Tensor:
    """log-density of x' per element, [B].

    normal:         mean over L * D of  -(x' - mean)^2 / (2 std^2) - log std - log sqrt(2 pi)
    squared_error:  mean over L * D of  -(x' - mean)^2, the convention of Flow-CPS' own code; its units differ, so clip
                    ranges do not carry over.
    """
    squared = (x_next_BLD.float() - mean_BLD).square()
    if kind == "squared_error":
        return -squared.flatten(1).mean(1)
    std = torch.as_tensor(step.std, dtype=torch.float32, device=squared.device)
    density = -squared / (2.0 * std.square()) - std.log() - 0.5 * math.log(2.0 * math.pi)
    return density.flatten(1).mean(1)


# --- what a trainer makes of log-densities ------------------------------------------------------------


class Surrogate(NamedTuple):
    """Per-sample loss [B], the ratio [B], and where the clip was the active branch [B] (bool)."""

    loss: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def clipped_surrogate(log_ratio_B: torch.Tensor, advantages_B: torch.Tensor, clip_low: float, clip_high: float) -> Surrogate:
    """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), not yet averaged. paper, section 3.3; arXiv 1707.06347, equation 7.

    Mean, mask and denominator are the caller's: unscored samples come with A = 0 and keep their place in the mean.
    """
    ratio = log_ratio_B.exp()
    plain = -advantages_B * ratio
    bounded = -advantages_B * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return Surrogate(torch.maximum(plain, bounded), ratio, bounded > plain)


def clip_in_nats(clip: float, num_elements: int) -> float:
    """Nats of one step's likelihood that a clip range allows; num_elements = L * D.

    >>> round(clip_in_nats(1e-4, 65_536), 2), round(clip_in_nats(1e-4, 262_144), 1)
    (6.55, 26.2)
    """
    return clip * num_elements


KLKind = Literal["latent_dtfree", "latent_true", "velocity"]
"""The step is affine in v, so mean - mean_ref = v_weight * (v - v_ref) and every convention of KL is a number times
mean||v - v_ref||^2. The same beta means different things under each; `kl_weight` is the conversion.

    latent_true    v_weight^2 / (2 std^2)            the Gaussian KL per element and step
    latent_dtfree  v_weight^2 / (2 std^2) * |dt|     Flow-GRPO's code with g^2 in the place of std^2 = g^2 |dt|. ours: the
                                                     natural reading of the paper's beta = .04, which is Flow-GRPO's pair
    velocity       1                                 about 100 x larger numerically: beta near 4e-4
"""


def kl_weight(kind: KLKind, step: Step) -> float:
    """What mean||v - v_ref||^2 is multiplied with. Raises ValueError for a deterministic step, where the KL is infinite."""
    if kind == "velocity":
        return 1.0
    if step.std == 0.0:
        raise ValueError("a deterministic step has no finite latent KL: use a noisy step or kl kind 'velocity'")
    true = step.v_weight**2 / (2.0 * step.std**2)
    return true * abs(step.dt) if kind == "latent_dtfree" else true


def kl_divergence(v_BLD: torch.Tensor, v_ref_BLD: torch.Tensor, weight_B: torch.Tensor | float) -> torch.Tensor:
    """weight * mean over L * D of (v - v_ref)^2, [B], >= 0.

    The reference gets no gradient here, whatever the caller did; the policy's v must NOT come from under no_grad.
    """
    return (v_BLD.float() - v_ref_BLD.detach().float()).square().flatten(1).mean(1) * weight_B


WindowKind = Literal["random", "fixed", "progressive"]


def window_steps(
    kind: WindowKind, size: int, first: int, last: int, *, seed: int, iteration: int, num_steps: int, hold: int = 25
) -> tuple[int, ...]:
    """`size` neighbouring step indices inside [first, last).

    All ranks and all members of all groups share it, a pure function of (seed, iteration): windows that differ inside a group collapse
    training, since their log-densities are not comparable. The last step is never in it (noise on it stays in the image).

    fixed: always [first, first + size). random: the start is drawn anew each iteration. progressive (MixGRPO, arXiv
    2507.21802): the start moves on by one every `hold` iterations and returns to `first` at the end.
    Raises ValueError when the window does not fit or would contain the last step.

    >>> window_steps("fixed", 2, 0, 5, seed=0, iteration=7, num_steps=10)
    (0, 1)
    """
    if not (first >= 0 and size >= 1 and first + size <= last <= num_steps - 1):
        raise ValueError(
            f"a window of {size} steps in [{first}, {last}) does not fit a schedule of {num_steps} steps whose last step stays "
            f"noise-free: need 0 <= first, first + size <= last <= {num_steps - 1}"
        )
    num_starts = last - first - size + 1
    if kind == "fixed":
        start = first
    elif kind == "progressive":
        start = first + (iteration // hold) % num_starts
    elif kind == "random":
        generator = torch.Generator().manual_seed(derive_seed(seed, "window", iteration))
        start = first + int(torch.randint(num_starts, (1,), generator=generator))
    else:
        raise ValueError(f"unknown window kind {kind!r}, expected random, fixed or progressive")
    return tuple(range(start, start + size))
