"""From trajectories and advantages to one optimiser step: Flow-GRPO's clipped surrogate, or DiffusionNFT's loss.

A row is one (step of the window, sample); rows of several steps share a forward. Every loss is a SUM over rows divided by the
fixed number of rows of all processes, so gradients add up over micro-batches and processes, and unscored or tied samples
weigh nothing without making the others weigh more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from editr1.editors.base import Conditioning, FlowEditor
from editr1.flow.conditioning import select_rows
from editr1.flow.config import Config
from editr1.flow.policy import Policy, Weights
from editr1.flow.rollout import Trajectory
from editr1.objectives.kl import kl_divergence, kl_weight
from editr1.objectives.nft import nft_loss, optimality
from editr1.objectives.sde import StepRows, log_prob, mean_of
from editr1.objectives.surrogate import clipped_surrogate, guard_log_ratio
from editr1.schema import derive_seed


@dataclass
class UpdateLogs:
    """Per-row figures of one update, kept as tensors so that no step waits for the device."""

    ratio_error: list[torch.Tensor] = field(default_factory=list)
    """|ratio - 1| against the densities of the rollout."""
    clipped: list[torch.Tensor] = field(default_factory=list)
    kl: list[torch.Tensor] = field(default_factory=list)
    loss: list[torch.Tensor] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Means (and the largest ratio error) over the rows that were trained on."""
        found = {"train/ratio_error_max": self.ratio_error, "train/clipped": self.clipped, "train/kl": self.kl, "train/loss_row": self.loss}
        rows = {name: torch.cat(values).float() for name, values in found.items() if values}
        return {name: float(value.max() if name.endswith("_max") else value.mean()) for name, value in rows.items()}


@dataclass(frozen=True)
class Rows:
    """Which rows of a trajectory one forward takes."""

    step: torch.Tensor
    """Place inside the window (grpo) or number of the drawn noise level (nft), [R] int64."""
    sample: torch.Tensor
    """[R] int64."""


def rows_per_sample(config: Config) -> int:
    """Rows that one sample contributes to the denominator."""
    return config.training.nft_times if config.training.algorithm == "nft" else config.sampling.window


def micro_batches(weighs_B: torch.Tensor, num_steps: int, size: int) -> Iterator[Rows]:
    """All (step, sample) of the samples that weigh something, `size` rows at a time (0 = all at once)."""
    useful = weighs_B.nonzero().flatten()
    step = torch.arange(num_steps).repeat_interleave(len(useful))
    sample = useful.repeat(num_steps)
    size = size or max(1, len(sample))
    for begin in range(0, len(sample), size):
        yield Rows(step[begin : begin + size], sample[begin : begin + size])


def grpo_loss(
    editor: FlowEditor, policy: Policy, trajectory: Trajectory, advantages_B: torch.Tensor, rows: Rows, config: Config, logs: UpdateLogs
) -> torch.Tensor:
    """Clipped surrogate + beta * KL (paper, section 4) of each row, [R]; their sum is not yet divided."""
    training = config.training
    x_next = trajectory.latents[rows.step + 1, rows.sample].float()
    asked, copies = distinct_rows(rows, trajectory)
    x_U = trajectory.latents[asked.step, asked.sample].float()
    cond = select_rows(trajectory.cond, asked.sample // trajectory.group_size)
    sigma_U = torch.tensor([trajectory.sigmas[i] for i in asked.step.tolist()], device=x_U.device)

    v_U = editor.velocity(x_U, sigma_U, cond).float()
    x, v = x_U[copies], v_U[copies]
    affine = StepRows.of([trajectory.steps[i] for i in rows.step.tolist()], x)
    mean = mean_of(affine, x, v)
    density = log_prob(affine, x_next, mean, config.sampling.log_prob)
    stored = trajectory.log_probs[rows.step, rows.sample]
    logs.ratio_error.append((density.detach() - stored).expm1().abs())
    # one update a rollout: the old policy IS the current one, so its density is the detached one, exactly and for free
    single = training.updates_per_rollout == 1
    log_ratio = density - (density.detach() if single else stored)
    if training.guard:
        mean_old = mean.detach() if single else _kept_means(trajectory)[rows.step, rows.sample]
        log_ratio = guard_log_ratio(log_ratio, mean, mean_old, affine.std)
    surrogate = clipped_surrogate(log_ratio, advantages_B[rows.sample].to(x.device), training.clip_low, training.clip_high)
    logs.clipped.append(surrogate.clipped)
    weights = [kl_weight(training.kl, trajectory.steps[i]) for i in asked.step.tolist()] if training.beta > 0 else []
    loss = surrogate.loss + _kl_term(editor, policy, v_U, x_U, sigma_U, cond, weights, training.beta, logs, copies)
    logs.loss.append(loss.detach())
    return loss


def distinct_rows(rows: Rows, trajectory: Trajectory) -> tuple[Rows, torch.Tensor | slice]:
    """(rows that need a forward, where each row finds its own among them).

    A group that shares its start is one point at the window's first step: its gradient is that of one forward, its velocity all members'.
    """
    if not trajectory.shared_start:
        return rows, slice(None)
    leader = torch.where(rows.step == 0, rows.sample // trajectory.group_size * trajectory.group_size, rows.sample)
    key, copies = torch.unique(rows.step * trajectory.num_samples + leader, return_inverse=True)
    return Rows(key // trajectory.num_samples, key % trajectory.num_samples), copies


def nft_rows_loss(
    editor: FlowEditor, policy: Policy, old: Weights, trajectory: Trajectory, advantages_B: torch.Tensor, rows: Rows, config: Config,
    iteration: int, logs: UpdateLogs,
) -> torch.Tensor:  # fmt: skip
    """DiffusionNFT's loss + beta * KL on the velocity of each row, [R]; their sum is not yet divided."""
    training = config.training
    x0 = trajectory.final[rows.sample]
    t, noise = _forward_noise(editor, trajectory, rows, config.seed, iteration)
    t, noise = t.to(x0.device), noise.to(x0.device)
    x = (1.0 - t.view(-1, 1, 1)) * x0 + t.view(-1, 1, 1) * noise
    cond = select_rows(trajectory.cond, rows.sample // trajectory.group_size)
    with policy.using(old), torch.no_grad():
        v_old = editor.velocity(x, t, cond).float()
    v = editor.velocity(x, t, cond).float()
    wanted = optimality(advantages_B[rows.sample].to(x.device))
    weights = [1.0] * len(rows.sample) if training.beta > 0 else []
    loss = nft_loss(v, v_old, x, x0, t, wanted, training.nft_beta)
    loss = loss + _kl_term(editor, policy, v, x, t, cond, weights, training.beta, logs)
    logs.loss.append(loss.detach())
    return loss


def _kl_term(
    editor: FlowEditor, policy: Policy, v: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor, cond: Conditioning, weights: list[float],
    beta: float, logs: UpdateLogs, copies: torch.Tensor | slice = slice(None),
) -> torch.Tensor | float:  # fmt: skip
    """beta * KL to the reference, one a row of `copies`; nothing is computed at beta = 0."""
    if beta == 0:
        return 0.0
    with policy.reference():
        v_ref = editor.velocity(x, sigma, cond)
    divergence = kl_divergence(v, v_ref, torch.tensor(weights, device=x.device))[copies]
    logs.kl.append(divergence.detach())
    return beta * divergence


def _forward_noise(editor: FlowEditor, trajectory: Trajectory, rows: Rows, seed: int, iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(t [R], noise [R, L, D]) of each row, from its own seed. ours: t uniform in (0, 1), so every level is trained."""
    seeds = []
    for draw, sample in zip(rows.step.tolist(), rows.sample.tolist(), strict=True):
        context = trajectory.context_ids[sample // trajectory.group_size]
        seeds.append(derive_seed(seed, "nft", iteration, context, sample % trajectory.group_size, draw))
    t = torch.cat([torch.rand(1, generator=torch.Generator().manual_seed(s)) for s in seeds])
    noise = editor.noise(trajectory.plan, [derive_seed(s, "noise") for s in seeds])
    return t.clamp(1e-3, 1.0 - 1e-3), noise


def _kept_means(trajectory: Trajectory) -> torch.Tensor:
    assert trajectory.means is not None, "the rollout keeps means whenever guard meets several updates"
    return trajectory.means
