"""The steps of one iteration, in the order in which `stages/edit_rl.py` calls them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from editr1.algorithms.base import Algorithm, Needs
from editr1.config import create
from editr1.editors.base import Conditioning, FlowEditor, Plan
from editr1.errors import ConfigError
from editr1.flow.config import Config
from editr1.flow.contexts import Context, EncodingCache, choose_contexts, share_of_process, size_of
from editr1.flow.policy import Weights, follow, whole
from editr1.flow.rewarding import RewardCollector
from editr1.flow.rollout import Engine, Trajectory, rollout, start_seeds
from editr1.flow.state import State
from editr1.flow.update import Learner, UpdateLogs, micro_batches, rows_loss, rows_per_sample
from editr1.flow.watch import Clock, check_finite
from editr1.objectives.advantages import MAX_ADVANTAGE, cautious_rewards, combine_rewards, group_advantages
from editr1.objectives.sde import window_steps
from editr1.pictures import to_rgb
from editr1.schema import derive_seed

Edit = tuple[Context, Image.Image]

logger = logging.getLogger(__name__)

EMA_WARMUP = 10.0  # decay = min((1 + n) / (10 + n), ema_decay), so that early averages forget the start
MAX_OTHER = 0.1  # ours: far above the rounding of one VAE, far below what another makes of a picture


@dataclass(frozen=True)
class Trainer:
    """What stays the same over iterations, and the `State` that does not."""

    config: Config
    algorithm: Algorithm
    editor: FlowEditor
    state: State
    collectors: tuple[RewardCollector, ...]
    """One a judge, the main one first."""
    accelerator: Any
    """accelerate.Accelerator: processes, device, reductions."""
    encodings: EncodingCache | None = None
    teacher: FlowEditor | None = None
    """The editor that a distilling algorithm learns from."""
    engine: Engine | None = None
    """The server that samples; None = this process does."""

    def chosen(self, tasks: Sequence[Context], iteration: int) -> list[Context]:
        """The iteration's tasks, over all processes."""
        return [tasks[i] for i in choose_contexts(len(tasks), self.config.contexts, seed=self.config.seed, iteration=iteration)]

    def own_contexts(self, tasks: Sequence[Context], iteration: int) -> list[Context]:
        """This process' whole groups of them."""
        chosen = self.chosen(tasks, iteration)
        own = share_of_process(range(len(chosen)), self.accelerator.process_index, self.accelerator.num_processes)
        return [chosen[i] for i in own]

    def encode(self, contexts: Sequence[Context], plan: Plan) -> Conditioning:
        """One row a context, each encoded once a run where encodings are kept."""
        if self.encodings is not None:
            return self.encodings.read(self.editor, contexts)
        return self.editor.encode([c.source() for c in contexts], [c.task.instruction for c in contexts], plan)

    def batches(self, contexts: Sequence[Context], size: int) -> Iterator[tuple[Plan, list[Context]]]:
        """At most `size` contexts that share their sizes, at a time; every context once."""
        by_sizes: dict[tuple[Plan, tuple[tuple[int, int], ...]], list[Context]] = {}
        for context in contexts:
            plan = self.editor.plan(*size_of(context, self.config))
            by_sizes.setdefault((plan, context.further_sizes()), []).append(context)
        for (plan, _), same in by_sizes.items():
            for begin in range(0, len(same), size):
                yield plan, same[begin : begin + size]

    def sample(
        self, contexts: Sequence[Context], plan: Plan, window: tuple[int, ...], iteration: int, clock: Clock, weights: Weights | None = None
    ) -> Trajectory:  # fmt: skip
        """Encodes each context once and denoises G edits of it, by `weights` (None = those that sample now)."""
        config, state = self.config, self.state
        if self.engine is not None:
            seeds = start_seeds(config.seed, iteration, [c.id for c in contexts], config.group_size)
            with clock.phase("sample"):
                images = self.engine.sample(contexts, plan, seeds)
            return dataclasses.replace(self.finished(contexts, plan, images, clock), images=tuple(images))
        with clock.phase("encode"), torch.no_grad():
            cond = self.encode(contexts, plan)
            taught = None
            if self.teacher is not None:
                taught = self.teacher.encode([c.source() for c in contexts], [c.task.instruction for c in contexts], plan)
        keep_means = self.algorithm.needs.means and not config.on_policy
        with clock.phase("sample"), state.policy.using(state.old if weights is None else weights):
            path = rollout(
                self.editor, cond, plan, [c.id for c in contexts], window, config.sampling,
                group_size=config.group_size, seed=config.seed, iteration=iteration, keep_means=keep_means,
                keep_graphs=config.keep_graphs,
            )  # fmt: skip
        return dataclasses.replace(path, teacher_cond=taught)

    def stored(self, contexts: Sequence[Context], plan: Plan, clock: Clock) -> Trajectory:
        """People's pairs in the place of a rollout: groups of two, the preferred edit first."""
        return self.finished(contexts, plan, [image for context in contexts for image in context.preferred()], clock)

    def finished(self, contexts: Sequence[Context], plan: Plan, images: Sequence[Image.Image], clock: Clock) -> Trajectory:
        """Edits that are there already as a rollout without steps, equally many a context."""
        with clock.phase("encode"), torch.no_grad():
            cond = self.encode(contexts, plan)
            final = self.editor.latents(images, plan)
        nothing = final.new_zeros(0)
        ids = tuple(c.id for c in contexts)
        return Trajectory(plan, ids, cond, len(images) // len(contexts), (), (), (), nothing, nothing, final)

    def push(self, iteration: int, clock: Clock) -> dict[str, float]:
        """Hands a server the weights that sample now, when that is due. Returns how many iterations old those are that it has."""
        if self.engine is None:
            return {}
        if self.engine.due(iteration):
            with clock.phase("push"):
                self.engine.push(self.state.policy, self.state.old or dict(self.state.policy.params), iteration, self.accelerator)
        return {"rollout/staleness": float(iteration - self.engine.pushed)}

    def submit(self, trajectory: Trajectory, contexts: Sequence[Context], iteration: int, clock: Clock) -> list[Edit]:
        """Decodes the edits and asks for their rewards; scoring goes on while the next batch is sampled."""
        with clock.phase("decode"), torch.no_grad():
            images = trajectory.images or self.editor.decode(trajectory.final, trajectory.plan)
        owners = [context for context in contexts for _ in range(self.config.group_size)]
        edits = list(zip(owners, images, strict=True))
        for collector in self.collectors:
            collector.submit(edits, derive_seed(self.config.seed, "reward", iteration, contexts[0].id))
        return edits

    def advantages(self, tables_KCG: torch.Tensor) -> torch.Tensor:
        """[C, G] of all processes; a sample that any judge left unscored gets 0."""
        training, further = self.config.training, self.config.further_rewards
        weights, cautions = [judge.weight for judge in further], [judge.caution for judge in further]
        if any(cautions):
            tables_KCG = cautious_rewards(tables_KCG, weights, cautions)[None]
        if len(tables_KCG) == 1:
            return group_advantages(tables_KCG[0], training.std, min_std=training.min_std)
        combined_CG = combine_rewards(tables_KCG, (1.0, *weights), training.std, min_std=training.min_std)
        return combined_CG.nan_to_num(0.0).clamp(-MAX_ADVANTAGE, MAX_ADVANTAGE)

    def keep_sampler(self) -> None:
        """Keeps the weights that drew the rollout ahead, before an update: a resumed run draws it again from them."""
        if self.state.behind is not None:
            self.state.behind = {n: w.detach().clone() for n, w in (self.state.old or self.state.policy.params).items()}

    def rest(self) -> None:
        """Waits until no judge is at work."""
        for collector in self.collectors:
            collector.rest()

    def close(self) -> None:
        """Ends the threads of the judges."""
        for collector in self.collectors:
            collector.close()

    def gather(self, rewards_CG: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, in the order of the processes."""
        return self.accelerator.gather(rewards_CG.to(self.accelerator.device)).cpu()

    def update(
        self, trajectories: Sequence[Trajectory], advantages: torch.Tensor, scored: torch.Tensor, iteration: int, *, check: bool
    ) -> dict[str, float]:
        """All optimiser steps of this rollout, each on its share of the groups. `advantages`, `scored`: [C, G] of all processes."""
        config, logs, needs = self.config, UpdateLogs(), self.algorithm.needs
        grad_norm = 0.0
        for number in range(config.training.updates_per_rollout):
            share_C = torch.arange(advantages.shape[0]) % config.training.updates_per_rollout == number
            weighs_CG = self.weighing(advantages, scored) & share_C[:, None]
            if not bool(weighs_CG.any()):
                continue  # nothing to learn anywhere: momentum alone must not move the weights
            process, processes = self.accelerator.process_index, self.accelerator.num_processes
            own = [table.chunk(processes)[process] for table in (advantages, scored, weighs_CG)]
            self._backward(trajectories, own[0], own[1], own[2], int(share_C.sum()), iteration, logs)
            if check and number == 0 and logs.replay.log_ratios:
                warning = logs.replay.check(config.limits.max_ratio_error, needs.clip)
                if warning and self.accelerator.is_main_process:
                    logger.warning(warning)
            grad_norm = self._step(iteration)
        self._follow(iteration)
        return logs.figures() | {"train/grad_norm": grad_norm}

    def weighing(self, advantages_CG: torch.Tensor, scored_CG: torch.Tensor) -> torch.Tensor:
        """Samples that need a forward: those that the algorithm chooses, and with a KL term every scored one that it may train on."""
        chosen = self.algorithm.choose(advantages_CG, scored_CG)
        everyone = self.config.training.beta > 0 and self.algorithm.needs.samples_per_group is None
        return chosen | scored_CG if everyone else chosen

    def _backward(
        self, trajectories: Sequence[Trajectory], advantages: torch.Tensor, scored: torch.Tensor, weighs: torch.Tensor, num_groups: int,
        iteration: int, logs: UpdateLogs,
    ) -> None:  # fmt: skip
        """Adds up gradients over micro-batches; the denominator counts the rows of all processes, trained on or not."""
        config, state, needs = self.config, self.state, self.algorithm.needs
        learner = Learner(config, self.algorithm, self.editor, state.policy, state.old, self.teacher)
        per_sample = rows_per_sample(config, needs)
        denominator = num_groups * (needs.samples_per_group or config.group_size) * per_sample
        groups = 0
        for trajectory in trajectories:
            size = trajectory.num_samples // trajectory.group_size
            part = slice(groups, groups + size)
            groups += size
            advantages_B, scored_B, weighs_B = (table[part].flatten() for table in (advantages, scored, weighs))
            # sharded weights are gathered from all processes: none may skip a forward that another makes
            company = config.training.shard
            for place in micro_batches(weighs[part], per_sample, config.training.micro_batch, needs, company=company):
                loss = rows_loss(learner, trajectory, advantages_B, scored_B, place, iteration, logs, weighs_B)
                weight = weighs_B[place.sample].to(loss.device)
                (loss.masked_fill(~weight, 0.0).sum() / denominator).backward()

    def _step(self, iteration: int) -> float:
        """Sums gradients over processes, clips, steps. Returns the gradient's norm before clipping."""
        params = list(self.state.policy.params.values())
        if not self.state.policy.is_sharded:  # else FSDP2 has summed them
            sum_gradients(self.accelerator, params)
        grad_norm = float(whole(torch.nn.utils.clip_grad_norm_(params, self.config.training.max_grad_norm)))
        check_finite(grad_norm, iteration)
        for group in self.state.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * lr_share(self.config, iteration)
        self.state.optimizer.step()
        self.state.optimizer.zero_grad(set_to_none=True)
        self.state.policy.refresh()
        return grad_norm

    def _follow(self, iteration: int) -> None:
        training, state = self.config.training, self.state
        if state.ema is not None:
            follow(state.ema, state.policy, min((1.0 + iteration) / (EMA_WARMUP + iteration), training.ema_decay))
        needs = self.algorithm.needs
        if state.old is not None and needs.old_decay is not None:
            follow(state.old, state.policy, min(needs.old_decay_rate * iteration, needs.old_decay))


def iteration_window(config: Config, needs: Needs, iteration: int) -> tuple[int, ...]:
    """Steps that are noisy and trained in this iteration; none for algorithms of the forward process."""
    if not needs.noisy:
        return ()
    s = config.sampling
    return window_steps(
        s.window_kind, s.window, s.first, s.last, seed=config.seed, iteration=iteration, num_steps=s.steps, hold=s.hold
    )  # fmt: skip


def sum_gradients(accelerator: Any, params: Sequence[torch.nn.Parameter]) -> None:
    """One reduction over all processes. A process whose samples weighed nothing contributes zeros."""
    if accelerator.num_processes == 1:
        return
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in params]
    flat = accelerator.reduce(torch.cat([g.flatten() for g in grads]), reduction="sum")
    for param, grad in zip(params, flat.split([p.numel() for p in params]), strict=True):
        param.grad = grad.view_as(param)


def lr_share(config: Config, iteration: int) -> float:
    """Share of the rates at an iteration: linear up, then linear down. No scheduler has a state that a resumed run would need."""
    training, last = config.training, config.iterations - 1
    if iteration + 1 < training.warmup:
        return (iteration + 1) / training.warmup
    done = (iteration - training.warmup) / max(last - training.warmup, 1)
    return 1.0 - (1.0 - training.final_lr_share) * min(max(done, 0.0), 1.0)


def teacher_of(config: Config, needs: Needs, student: FlowEditor) -> FlowEditor | None:
    """The editor that is learnt from, if any. Raises ConfigError where its sizes or latents (another VAE's) are not the student's."""
    if needs.teacher is None:
        return None
    teacher: FlowEditor = create("editors", needs.teacher)
    plans = [editor.plan(config.height, config.width) for editor in (teacher, student)]
    if plans[0] != plans[1]:
        raise ConfigError(f"a teacher's latents must be the student's: {teacher.name} has {plans[0]}, {student.name} {plans[1]}")
    picture = to_rgb(Image.effect_mandelbrot((plans[0].width, plans[0].height), (-2.0, -1.5, 1.0, 1.5), 50))
    taught, own = (editor.latents([picture], plans[0]).float() for editor in (teacher, student))
    if (share := float((taught - own.to(taught.device)).norm() / own.norm())) > MAX_OTHER:
        raise ConfigError(
            f"a teacher's latents must be the student's: of one picture {teacher.name} makes others than {student.name}, by {share:.0%}"
        )
    return teacher
