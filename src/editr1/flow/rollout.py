"""Sampling edits: with a noisy window for training, without noise for evaluation.

Legend: S steps of the window, C contexts of a batch, G samples a context, B = C * G samples (a a a b b b), L tokens, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from editr1.editors.base import Conditioning, FlowEditor, Plan
from editr1.flow.config import Sampling
from editr1.objectives.schedule import Schedule
from editr1.objectives.sde import Step, advance, log_prob, make_step
from editr1.schema import derive_seed


@dataclass(frozen=True)
class Trajectory:
    """What training needs of one batch of rollouts: the window's S + 1 latents and none of the discarded steps."""

    plan: Plan
    context_ids: tuple[str, ...]
    cond: Conditioning
    """One row a CONTEXT; sample b belongs to row b // G."""
    group_size: int
    window: tuple[int, ...]
    sigmas: tuple[float, ...]
    """Noise level of each step of the window, S numbers."""
    steps: tuple[Step, ...]
    """S affine steps."""
    latents: torch.Tensor
    """[S + 1, B, L, D], in the storage dtype; empty for algorithms without a window."""
    log_probs: torch.Tensor
    """[S, B] float32, nats per element, under the policy that sampled."""
    final: torch.Tensor
    """x at sigma 0, [B, L, D] float32."""
    means: torch.Tensor | None = None
    """Mean of each step, [S, B, L, D]; kept only where an algorithm that asks for them meets several updates a rollout."""
    teacher_cond: Conditioning | None = None
    """The same contexts as a teacher reads them, one row a context."""
    images: tuple[Image.Image, ...] = ()
    """The finished edits, where a server made them; else they are decoded from `final`."""
    shared_start: bool = False
    """The members of a group are equal at the window's first step: one forward serves them all."""

    @property
    def num_samples(self) -> int:
        return self.final.shape[0]


def select_rows(cond: Conditioning, index_B: torch.Tensor) -> Conditioning:
    """The conditioning of the given rows, in that order; an index may repeat. Plain values are shared."""
    return {name: value[index_B.to(value.device)] if isinstance(value, torch.Tensor) else value for name, value in cond.items()}


def start_seeds(seed: int, iteration: int, context_ids: Sequence[str], num_starts: int) -> list[int]:
    """One seed of x_T a start; a group has G of them, or one that it shares."""
    return [derive_seed(seed, "start", iteration, context, member) for context in context_ids for member in range(num_starts)]


def step_seeds(seed: int, iteration: int, context_ids: Sequence[str], group_size: int, step: int) -> list[int]:
    """One seed of a step's noise a sample."""
    return [derive_seed(seed, "step", iteration, context, member, step) for context in context_ids for member in range(group_size)]


@torch.no_grad()
def rollout(
    editor: FlowEditor, cond: Conditioning, plan: Plan, context_ids: Sequence[str], window: tuple[int, ...], sampling: Sampling,
    *, group_size: int, seed: int, iteration: int, keep_means: bool = False,
) -> Trajectory:  # fmt: skip
    """Denoises G edits a context: Gaussian steps inside the window, Euler steps elsewhere.

    Members of a group that share their start are one and the same until the first noisy step, so they are computed once until then.
    """
    shared = sampling.same_start
    schedule = Schedule(editor.sigmas(plan, sampling.steps))
    storage: torch.dtype = getattr(torch, sampling.storage)
    samples = cond if shared else editor.expand(cond, group_size)
    x = editor.noise(plan, start_seeds(seed, iteration, context_ids, 1 if shared else group_size)).float()
    latents: list[torch.Tensor] = []
    log_probs: list[torch.Tensor] = []
    means: list[torch.Tensor] = []
    for index in range(schedule.num_steps):
        if window and index == window[0]:  # the first trained step starts from what will be replayed: the stored latents
            x = x.to(storage).float()
        v = editor.velocity(x, schedule.sigmas[index], samples).float()
        if index not in window:
            x = x + (schedule.sigmas[index + 1] - schedule.sigmas[index]) * v
            continue
        if index == window[0]:
            if shared:
                x, v, samples = x.repeat_interleave(group_size, 0), v.repeat_interleave(group_size, 0), editor.expand(cond, group_size)
            latents.append(x.to(storage))
        step = window_step(schedule, index, sampling)
        noise = editor.noise(plan, step_seeds(seed, iteration, context_ids, group_size, index)).to(x.device)
        x, mean = advance(step, x, v, noise, storage)
        latents.append(x.to(storage))
        log_probs.append(log_prob(step, x, mean, sampling.log_prob))
        if keep_means:
            means.append(mean)
    steps = tuple(window_step(schedule, index, sampling) for index in window)
    return Trajectory(
        plan=plan,
        context_ids=tuple(context_ids),
        cond=cond,
        group_size=group_size,
        window=window,
        sigmas=tuple(schedule.sigmas[index] for index in window),
        steps=steps,
        latents=torch.stack(latents) if latents else x.new_zeros(0),
        log_probs=torch.stack(log_probs) if log_probs else x.new_zeros(0),
        final=x,
        means=torch.stack(means) if means else None,
        shared_start=shared,
    )


def window_step(schedule: Schedule, index: int, sampling: Sampling) -> Step:
    """The Gaussian step at `index`; sigmas[1] repairs flow_sde's first step."""
    return make_step(sampling.kind, *schedule.pair(index), sampling.level, schedule.sigmas[1])


@torch.no_grad()
def denoise(editor: FlowEditor, x_BLD: torch.Tensor, schedule: Schedule, cond: Conditioning) -> torch.Tensor:
    """Euler steps from x_T to x_0, [B, L, D] float32."""
    for index in range(schedule.num_steps):
        sigma, sigma_next = schedule.pair(index)
        x_BLD = x_BLD + (sigma_next - sigma) * editor.velocity(x_BLD, sigma, cond).float()
    return x_BLD
