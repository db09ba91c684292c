"""Held-out edits without noise, with the averaged weights, and galleries that people look at."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from editr1.flow.contexts import Context
from editr1.flow.rewarding import Score, principle_rates
from editr1.flow.rollout import denoise
from editr1.flow.trainer import Trainer
from editr1.objectives.schedule import Schedule
from editr1.schema import Reward, derive_seed
from editr1.store import Run


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
        values[: len(rewards)] = torch.tensor([math.nan if r.value is None else r.value for r in rewards])
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
