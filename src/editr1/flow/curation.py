"""Which tasks and groups are worth training on: a first pass before training, and what is done with groups that teach nothing.

All of it is a function of seeds and rewards, so that a run resumes and splits over processes; all of it is logged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from editr1.errors import DataError
from editr1.flow.config import Curation
from editr1.flow.contexts import Context
from editr1.flow.evaluate import sampled_images
from editr1.flow.policy import Weights
from editr1.flow.rewarding import Score, reward_table
from editr1.flow.rollout import Trajectory
from editr1.flow.trainer import Trainer, iteration_window
from editr1.flow.watch import Clock
from editr1.schema import Reward, derive_seed


@dataclass
class Drawn:
    """The groups of one iteration on this process; group i has G edits and G rewards of each judge."""

    contexts: list[Context]
    trajectories: list[Trajectory]
    edits: list[tuple[Context, Image.Image]]
    rewards: list[list[Reward]]
    """One list a judge."""


def ask(trainer: Trainer, contexts: Sequence[Context], iteration: int, clock: Clock, weights: Weights | None = None) -> Drawn:
    """Samples groups by `weights` (None = those that sample now) and asks for their rewards, without waiting for them."""
    drawn, window = Drawn([], [], [], []), iteration_window(trainer.config, trainer.algorithm.needs, iteration)
    for plan, batch in trainer.batches(contexts, trainer.config.contexts_per_batch):
        drawn.contexts += batch
        if trainer.config.source == "pairs":
            drawn.trajectories.append(trainer.stored(batch, plan, clock))
            drawn.edits += [(context, image) for context in batch for image in context.preferred()]
        else:
            drawn.trajectories.append(trainer.sample(batch, plan, window, iteration, clock, weights))
            drawn.edits += trainer.submit(drawn.trajectories[-1], batch, iteration, clock)
    return drawn


def answer(trainer: Trainer, drawn: Drawn, clock: Clock) -> Drawn:
    """Waits for the rewards of the oldest groups that were asked for, and puts them in."""
    if trainer.config.source == "pairs":
        verdicts = [Reward(float(1 - index % 2), 1, 1) for index in range(len(drawn.edits))]  # preferred or not: no points of tau
        drawn.rewards = [list(verdicts) for _ in trainer.collectors]
    else:
        with clock.phase("wait_for_rewards"):
            drawn.rewards = [collector.collect(len(drawn.trajectories)) for collector in trainer.collectors]
    return drawn


def teaches(table_CG: torch.Tensor, curation: Curation, min_std: float) -> torch.Tensor:
    """Groups from which something can be learnt, [C] bool: two scored edits that differ, and a mean inside the wanted range.

    >>> teaches(torch.tensor([[1.0, 3.0], [2.0, 2.0], [9.0, 10.0]]), Curation(max_mean=9.0), 0.0).tolist()
    [True, False, False]
    """
    scored, count, mean = _scored_mean(table_CG)
    std = (torch.where(scored, table_CG - mean[:, None], 0.0).square().sum(1) / count).sqrt()
    # 1e-6 of the reward's own size is rounding
    differs = (scored.sum(1) >= 2) & (std > torch.clamp(1e-6 * mean.abs(), min=min_std))
    return differs & in_range(table_CG, curation)


def in_range(table_CG: torch.Tensor, curation: Curation) -> torch.Tensor:
    """Groups whose mean reward is neither hopeless nor solved, [C] bool."""
    mean = _scored_mean(table_CG)[2]
    low = -math.inf if curation.min_mean is None else curation.min_mean
    high = math.inf if curation.max_mean is None else curation.max_mean
    return (mean > low) & (mean < high)


def _scored_mean(table_CG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(which are scored [C, G], how many [C], their mean [C])."""
    scored = ~table_CG.isnan()
    count = scored.sum(1).clamp(min=1)
    return scored, count, table_CG.nan_to_num(0.0).sum(1) / count


def redraw(trainer: Trainer, drawn: Drawn, tasks: Sequence[Context], iteration: int, clock: Clock) -> int:
    """Replaces this process' groups that teach nothing by groups of other tasks, as often as `curation.redraw` allows. Returns how many.

    Tasks that the iteration has not chosen take their place, in an order of (seed, iteration).
    """
    config, accelerator = trainer.config, trainer.accelerator
    taken = {context.id for context in trainer.chosen(tasks, iteration)}
    spare = [context for context in tasks if context.id not in taken]
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "redraw", iteration))
    order = [spare[i] for i in torch.randperm(len(spare), generator=generator).tolist()]
    own = order[accelerator.process_index :: accelerator.num_processes]
    size, replaced = config.group_size, 0
    for _ in range(config.curation.redraw):
        table = reward_table(drawn.rewards[0], size)
        dead = (~teaches(table, config.curation, config.training.min_std)).nonzero().flatten().tolist()[: len(own)]
        if not dead:
            break
        fresh, own = own[: len(dead)], own[len(dead) :]
        new = answer(trainer, ask(trainer, fresh, iteration, clock), clock)
        for place, group in zip(dead, range(len(dead)), strict=True):
            old, made = slice(place * size, (place + 1) * size), slice(group * size, (group + 1) * size)
            drawn.contexts[place], drawn.trajectories[place] = new.contexts[group], new.trajectories[group]
            drawn.edits[old] = new.edits[made]
            for judged, found in zip(drawn.rewards, new.rewards, strict=True):
                judged[old] = found[made]
        replaced += len(dead)
    return replaced


def curated(trainer: Trainer, advantages_CG: torch.Tensor, table_CG: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Advantages with groups outside the wanted range at 0, and each kind of task at its weight, [C, G] of all processes."""
    curation = trainer.config.curation
    weights = torch.tensor([curation.weights.get(context.task.kind, 1.0) for context in drawn.contexts])
    return advantages_CG * (trainer.gather(weights) * in_range(table_CG, curation))[:, None]


def first_pass(trainer: Trainer, tasks: Sequence[Context], score: Score, folder: Path) -> tuple[list[Context], dict[str, float]]:
    """Tasks whose first edits are neither all good nor all bad, and how many were left out.

    Each task is edited `curation.first_pass` times without noise before training, once a run: the rewards lie in `folder`. Raises DataError
    when no task is left.
    """
    curation, accelerator = trainer.config.curation, trainer.accelerator
    own = folder / f"first_pass_{accelerator.process_index}.jsonl"
    if not own.exists():
        _judge_first(trainer, tasks[accelerator.process_index :: accelerator.num_processes], score, own)
    accelerator.wait_for_everyone()
    lines = [line for path in sorted(folder.glob("first_pass_*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]
    rewards = {row["task_id"]: [value for value in row["rewards"] if value is not None] for row in map(json.loads, lines)}
    good = {name for name, values in rewards.items() if values and min(values) >= curation.all_good}
    bad = {name for name, values in rewards.items() if values and max(values) <= curation.all_bad}
    kept = [context for context in tasks if context.id not in good | bad]
    if not kept:
        raise DataError(f"the first pass left no task: {len(good)} all good, {len(bad)} all bad; widen curation.all_good and all_bad")
    return kept, {"curation/tasks": float(len(kept)), "curation/all_good": float(len(good)), "curation/all_bad": float(len(bad))}


def _judge_first(trainer: Trainer, tasks: Sequence[Context], score: Score, target: Path) -> None:
    copies = trainer.config.curation.first_pass
    rewards: dict[str, list[float | None]] = {context.id: [] for context in tasks}
    for number in range(copies):
        images = sampled_images(trainer, tasks, ("first", number))
        for context, reward in zip(tasks, score(list(zip(tasks, images, strict=True)), number), strict=True):
            rewards[context.id].append(reward.value)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    rows = [json.dumps({"task_id": name, "rewards": values}) + "\n" for name, values in rewards.items()]
    partial.write_text("".join(rows), encoding="utf-8")
    partial.replace(target)
