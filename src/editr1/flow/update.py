"""From trajectories and advantages to gradients: rows of one forward, the algorithm's loss on them, the KL to the reference.

A row is one (step of the window, sample), or one (drawn noise level, sample) for algorithms of the forward process. Every loss is a SUM
over rows divided by the fixed number of rows of all processes, so gradients add up over micro-batches and processes, and unscored or tied
samples weigh nothing without making the others weigh more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from editr1.algorithms.base import Algorithm, Needs, Rows
from editr1.editors.base import FlowEditor
from editr1.flow.config import Config
from editr1.flow.policy import Policy, Weights
from editr1.flow.rollout import Trajectory, select_rows
from editr1.flow.watch import Replay, rounding_bound
from editr1.objectives.sde import StepRows, kl_divergence, kl_weight, log_prob, mean_of
from editr1.schema import derive_seed


@dataclass
class UpdateLogs:
    """Per-row figures of one update, kept as tensors so that no step waits for the device."""

    replay: Replay = field(default_factory=Replay)
    rows: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def figures(self) -> dict[str, float]:
        """Means (and the largest ratio error) over the rows that were trained on."""
        found = {f"train/{name}": float(torch.cat(values).nanmean()) for name, values in self.rows.items() if values}
        if self.replay.log_ratios:
            found["train/ratio_error_max"] = float(torch.cat(self.replay.log_ratios).expm1().abs().max())
        return found


@dataclass(frozen=True)
class Learner:
    """What a loss is computed with; the same for all rows of an update."""

    config: Config
    algorithm: Algorithm
    editor: FlowEditor
    policy: Policy
    old: Weights | None = None
    teacher: FlowEditor | None = None


@dataclass(frozen=True)
class Place:
    """Which rows of a trajectory one forward takes."""

    step: torch.Tensor
    """Place inside the window, or number of the drawn noise level, [R] int64."""
    sample: torch.Tensor
    """[R] int64."""


def rows_per_sample(config: Config, needs: Needs) -> int:
    """Rows that one sample contributes to the denominator."""
    return config.sampling.window if needs.noisy else needs.levels


def micro_batches(weighs_CG: torch.Tensor, num_steps: int, size: int, needs: Needs, *, company: bool = False) -> Iterator[Place]:
    """The rows to train on, one step at a time, at most `size` together (0 = as many as a forward of the rollout had).

    Noisy rollouts are replayed in the shapes of the rollout, for kernels round by shape: rows that weigh nothing are masked by the caller,
    and only forwards without a single weighing row are left out (none, where others count on their `company`). Algorithms of the forward
    process have no ratio that could be off: their rows that weigh nothing are dropped, whole groups staying together where they must;
    of a group that weighs nothing, only company asks for the rows.
    """
    group_size = weighs_CG.shape[1]
    weighs_B = weighs_CG.flatten()
    for step in range(num_steps):
        if needs.groups:
            together = max(1, (size or len(weighs_B)) // (needs.samples_per_group or group_size))
            useful = weighs_CG.any(1)
            rows = torch.arange(len(weighs_B)).view_as(weighs_CG)
            members = [rows[g][weighs_CG[g] | ~useful[g]] for g in range(len(rows)) if useful[g] or company]
            chunks = tuple(torch.cat(members[i : i + together]) for i in range(0, len(members), together))
        elif needs.noisy or company:
            chunks = torch.arange(len(weighs_B)).split(size or len(weighs_B))
        else:
            useful = weighs_B.nonzero().flatten()
            chunks = useful.split(size or max(1, len(useful))) if len(useful) else ()
        for sample in chunks:
            if company or bool(weighs_B[sample].any()):
                yield Place(torch.full_like(sample, step), sample)


def rows_loss(
    learner: Learner, trajectory: Trajectory, advantages_B: torch.Tensor, scored_B: torch.Tensor, place: Place, iteration: int,
    logs: UpdateLogs, weighs_B: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """The algorithm's loss + beta * KL of each row, [R]; their sum is not yet masked and divided.

    `weighs_B`: samples that are learnt from, of which figures are kept; None = all.
    """
    training = learner.config.training
    needs = learner.algorithm.needs
    rows, weights = _noisy_rows(learner, trajectory, place, logs) if needs.noisy else _noised_rows(learner, trajectory, place, iteration)
    rows.advantages = advantages_B[place.sample].to(rows.v.device)
    rows.scored = scored_B[place.sample].to(rows.v.device)
    rows.weighs = None if weighs_B is None else weighs_B[place.sample].to(rows.v.device)
    rows.logs = logs.rows
    loss = learner.algorithm.loss(rows)
    if training.beta > 0:
        divergence = kl_divergence(rows.v, rows.reference(), torch.tensor(weights, device=rows.v.device))
        rows.log("kl", divergence)
        loss = loss + training.beta * divergence
    rows.log("loss_row", loss)
    return loss


def _noisy_rows(learner: Learner, trajectory: Trajectory, place: Place, logs: UpdateLogs) -> tuple[Rows, list[float]]:
    """Rows of the noisy window with their densities, and the KL's weight of each."""
    config = learner.config
    asked, copies = distinct_rows(place, trajectory)
    x_U = trajectory.latents[asked.step, asked.sample].float()
    sigma_U = torch.tensor([trajectory.sigmas[i] for i in asked.step.tolist()], device=x_U.device)
    rows = _forward(learner, trajectory, asked, x_U, sigma_U, copies)
    rows.group = place.step * len(trajectory.context_ids) + place.sample // trajectory.group_size
    steps = [trajectory.steps[i] for i in place.step.tolist()]
    affine = StepRows.of(steps, rows.x)
    rows.mean, rows.std = mean_of(affine, rows.x, rows.v), affine.std.flatten()
    rows.step_weight = rows.std / (sum(step.std for step in trajectory.steps) / len(trajectory.steps))
    density = log_prob(affine, trajectory.latents[place.step + 1, place.sample].float(), rows.mean, config.sampling.log_prob)
    stored = trajectory.log_probs[place.step, place.sample]
    dtype = next(learner.policy.transformer.parameters()).dtype
    bound = rounding_bound(rows.v, affine.v_weight.flatten(), rows.std, dtype, density=config.sampling.log_prob == "normal")
    logs.replay.add(density - stored, bound)
    # on-policy, the old policy IS the current one, so its density is the detached one, exactly and for free
    rows.log_ratio = density - (density.detach() if config.on_policy else stored)
    if learner.algorithm.needs.means:
        assert config.on_policy or trajectory.means is not None, "a rollout that is learnt from off-policy keeps its means"
        kept = None if config.on_policy else trajectory.means
        rows.mean_old = rows.mean.detach() if kept is None else kept[place.step, place.sample]
    beta, kind = config.training.beta, config.training.kl
    return rows, [kl_weight(kind, step) for step in steps] if beta > 0 else []


def distinct_rows(place: Place, trajectory: Trajectory) -> tuple[Place, torch.Tensor | slice]:
    """(rows that need a forward, where each row finds its own among them).

    A group that shares its start is one point at the window's first step: its gradient is that of one forward, its velocity all members'.
    """
    if not trajectory.shared_start:
        return place, slice(None)
    leader = torch.where(place.step == 0, place.sample // trajectory.group_size * trajectory.group_size, place.sample)
    key, copies = torch.unique(place.step * trajectory.num_samples + leader, return_inverse=True)
    return Place(key // trajectory.num_samples, key % trajectory.num_samples), copies


def _noised_rows(learner: Learner, trajectory: Trajectory, place: Place, iteration: int) -> tuple[Rows, list[float]]:
    """Finished edits noised again, each row from its own seed (or its group's). ours: t uniform in (0, 1), so every level is trained."""
    needs, seeds = learner.algorithm.needs, []
    for draw, sample in zip(place.step.tolist(), place.sample.tolist(), strict=True):
        member = 0 if needs.shared_level else sample % trajectory.group_size
        context = trajectory.context_ids[sample // trajectory.group_size]
        seeds.append(derive_seed(learner.config.seed, "level", iteration, context, member, draw))
    x0 = trajectory.final[place.sample]
    t = torch.cat([torch.rand(1, generator=torch.Generator().manual_seed(s)) for s in seeds]).clamp(1e-3, 1.0 - 1e-3).to(x0.device)
    noise = learner.editor.noise(trajectory.plan, [derive_seed(s, "noise") for s in seeds]).to(x0.device)
    x = (1.0 - t.view(-1, 1, 1)) * x0 + t.view(-1, 1, 1) * noise
    rows = _forward(learner, trajectory, place, x, t, slice(None))
    rows.group = place.step * len(trajectory.context_ids) + place.sample // trajectory.group_size
    rows.x0, rows.noise = x0, noise
    return rows, [1.0] * len(x)


def _forward(
    learner: Learner, trajectory: Trajectory, asked: Place, x: torch.Tensor, sigma: torch.Tensor, copies: torch.Tensor | slice
) -> Rows:
    """The policy's velocity at the asked points, handed out to all rows, and how to ask others for theirs."""
    editor, policy = learner.editor, learner.policy
    context = asked.sample // trajectory.group_size
    cond = select_rows(trajectory.cond, context)
    kept: dict[str, torch.Tensor] = {}

    def reference() -> torch.Tensor:
        if "reference" not in kept:
            with policy.reference():
                kept["reference"] = editor.velocity(x, sigma, cond).float()[copies]
        return kept["reference"]

    def old() -> torch.Tensor:
        with policy.using(learner.old), torch.no_grad():
            return editor.velocity(x, sigma, cond).float()[copies]

    def teacher() -> torch.Tensor:
        assert learner.teacher is not None
        assert trajectory.teacher_cond is not None
        with torch.no_grad():
            return learner.teacher.velocity(x, sigma, select_rows(trajectory.teacher_cond, context)).float()[copies]

    empty = torch.empty(0)
    v = trajectory.velocities[int(asked.step[0])] if trajectory.velocities else editor.velocity(x, sigma, cond).float()
    return Rows(v[copies], x[copies], sigma[copies], empty, empty, empty, reference, old, teacher)
