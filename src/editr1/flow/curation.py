"""Which tasks and groups are worth training on, and whether it helps: first pass, dead groups, held-out edits, galleries.

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
from editr1.flow.policy import Weights
from editr1.flow.rewarding import Score, principle_rates, reward_table
from editr1.flow.rollout import Trajectory, denoise
from editr1.flow.trainer import Trainer, iteration_window
from editr1.flow.watch import Clock
from editr1.objectives.schedule import Schedule
from editr1.schema import Reward, derive_seed
from editr1.store import Run
from editr1.text import lines_of

# --- held-out edits without noise, with the averaged weights -------------------------------------------


def evaluate(trainer: Trainer, contexts: Sequence[Context], score: Score, run: Run) -> dict[str, float]:
    """Mean tau of the held-out judge over all processes, the same seeds every time; writes the gallery of this process' part."""
    config, accelerator = trainer.config, trainer.accelerator
    own = list(contexts[accelerator.process_index :: accelerator.num_processes])
    per_process = -(-len(contexts) // accelerator.num_processes)
    values = torch.full((per_process,), math.nan)
    shard = config.training.shard  # then processes stay in step: equally many batches of one, the last ones perhaps for company only
    asked = [*own, *contexts[: per_process - len(own)]] if shard else own
    if asked:
        with trainer.state.policy.using(trainer.state.ema):
            images = sampled_images(trainer, asked)[: len(own)]
    if own:
        edits = list(zip(own, images, strict=True))
        rewards = score(edits, derive_seed(config.seed, "evaluation"))
        values[: len(rewards)] = reward_table(rewards, 1)[:, 0]
        write_gallery(run, edits, rewards, Path(f"evaluation_{trainer.state.iteration:06d}_{accelerator.process_index}.jsonl"))
    gathered = trainer.gather(values)
    scored = gathered[~gathered.isnan()]
    return {
        "evaluation/reward": float(scored.mean()) if scored.numel() else math.nan,
        "evaluation/unscored": 1.0 - scored.numel() / max(1, len(contexts)),
    }


@torch.no_grad()
def sampled_images(trainer: Trainer, contexts: Sequence[Context], seed: Sequence[str | int] = ("evaluation",)) -> list[Image.Image]:
    """One ODE edit a context with the weights in place, in their order; the noise belongs to the seed and the context."""
    config = trainer.config
    images: dict[str, Image.Image] = {}
    for plan, batch in trainer.batches(contexts, 1 if config.training.shard else config.evaluation.batch):
        noise = trainer.editor.noise(plan, [derive_seed(config.seed, *seed, c.id) for c in batch]).float()
        schedule = Schedule(trainer.editor.sigmas(plan, config.evaluation.steps))
        final = denoise(trainer.editor, noise, schedule, trainer.encode(batch, plan))
        images |= {context.id: image for context, image in zip(batch, trainer.editor.decode(final, plan), strict=True)}
    return [images[context.id] for context in contexts]


def note_best(trainer: Trainer, value: float) -> bool:
    """Records an evaluation; True when it is the best so far. An evaluation without scores is no evaluation."""
    state = trainer.state
    if math.isnan(value):
        return False
    if state.best is None or value > state.best:
        state.best, state.num_without_best = value, 0
        return True
    state.num_without_best += 1
    return False


def write_gallery(run: Run, edits: Sequence[tuple[Context, Image.Image]], rewards: Sequence[Reward], name: Path) -> None:
    """One JSON line an edit: task, pictures by hash, tau, and the verdict rate of each principle."""
    folder = run.dir / "09_editor" / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", encoding="utf-8") as out:
        for (context, image), reward in zip(edits, rewards, strict=True):
            row = {
                "task_id": context.id,
                "instruction": context.task.instruction,
                "source": context.task.source.digest,
                "edited": run.images.put(image).digest,
                "score": reward.value,
                "unscored": reward.reason,
                "principles": [p.question for p in reward.principles or context.principles],
                "rates": list(reward.rates),
            }
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def note_principles(folder: Path, iteration: int, rewards: Sequence[Reward]) -> None:
    """A point of each principle of this process' groups, to `folder/principles.jsonl`; after a resume an iteration's last rows count."""
    rows = principle_rates(rewards)
    if rows:
        folder.mkdir(exist_ok=True)
        with (folder / "principles.jsonl").open("a", encoding="utf-8") as out:
            out.writelines(json.dumps({"iteration": iteration, **row}, ensure_ascii=False) + "\n" for row in rows)


def due(every: int, iteration: int) -> bool:
    """Whether something that happens every `every` iterations (0 = never) happens after this one."""
    return every > 0 and iteration % every == 0


# --- tasks and groups ----------------------------------------------------------------------------------


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


def in_range(table_CG: torch.Tensor, curation: Curation) -> torch.Tensor:
    """Groups whose mean reward is neither hopeless nor solved, [C] bool."""
    mean = table_CG.nanmean(1)
    low = -math.inf if curation.min_mean is None else curation.min_mean
    high = math.inf if curation.max_mean is None else curation.max_mean
    return (mean > low) & (mean < high)


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
        tables_KCG = torch.stack([reward_table(judged, size) for judged in drawn.rewards])
        teaches_C = (trainer.advantages(tables_KCG) != 0).any(1) & in_range(tables_KCG[0], config.curation)
        dead = (~teaches_C).nonzero().flatten().tolist()[: len(own)]
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
    lines = [line for path in sorted(folder.glob("first_pass_*.jsonl")) for line in lines_of(path.read_text(encoding="utf-8"))]
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
