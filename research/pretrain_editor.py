"""Pretrains the embedded editor: flow matching on perfect edits of random scenes.

    v_target = eps - x_0,   x_sigma = (1 - sigma) x_0 + sigma eps,   loss = mean (v - v_target)^2

Command: `python -m research.pretrain_world editor`. The result is meant to be flawed: Flow-GRPO needs something left to win.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from editr1.training.trainer import muon_adamw
from editr1.world.edits import KINDS, apply_all, instruction, random_edits
from editr1.world.render import draw
from editr1.world.scene import Scene, pick, random_scene
from editr1.world.tiny_editor import CHANNELS, NUM_PATCHES, Codec, TinyEditor, fit, new_transformer, predict_velocity, word_rows

_LOOKUPS = r"^(x_embedder|context_embedder|time_text_embed|proj_out)\."


@dataclass(frozen=True)
class Config:
    """ours: long enough that every edit kind succeeds sometimes, short enough that RL has something left to win."""

    steps: int = 1250
    batch: int = 32
    lr_matrices: float = 4e-3
    lr_rest: float = 2e-3
    compound_share: float = 0.15
    seed: int = 0


def random_example(rng: np.random.Generator, compound_share: float) -> tuple[Scene, Scene, str]:
    """(source, perfect result, instruction); rare kinds are as likely as common ones."""
    while True:
        kind = pick(rng, KINDS)
        scene = random_scene(rng)
        edits = random_edits(rng, scene, kind, compound=rng.random() < compound_share)
        if edits is not None:
            return scene, apply_all(scene, edits), instruction(scene, edits)


def _batch(rng: np.random.Generator, config: Config, codec: Codec) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    examples = [random_example(rng, config.compound_share) for _ in range(config.batch)]
    source = codec.encode(np.stack([draw(scene) for scene, _, _ in examples]))
    target = codec.encode(np.stack([draw(result) for _, result, _ in examples]))
    return torch.from_numpy(source), torch.from_numpy(target), word_rows([text for _, _, text in examples])


def cosine_after_hold(progress: float, step: int, warmup_steps: int = 40, hold: float = 0.4, floor: float = 0.03) -> float:
    """Learning-rate factor in (0, 1]: linear warm-up by steps, constant until `hold` of the run, cosine to `floor`."""
    warm = min(1.0, (step + 1) / warmup_steps)
    fall = max(0.0, (progress - hold) / (1 - hold))
    return warm * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(fall, 1.0))))


def run(config: Config, out: Path) -> None:
    """Train for `config.steps`, writing the weights every 400 steps and a line of log every 50."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    codec = fit(np.stack([draw(random_scene(rng)) for _ in range(4000)]))
    transformer = new_transformer()
    editor = TinyEditor(transformer, codec)
    transformer.train()
    optimizer = muon_adamw(transformer, config.lr_matrices, config.lr_rest, _LOOKUPS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: cosine_after_hold((done + 1) / config.steps, done + 1))
    out.mkdir(parents=True, exist_ok=True)
    log = (out / "training_log.jsonl").open("w")
    start, losses = time.monotonic(), []
    for step in range(1, config.steps + 1):
        source, target, words = _batch(rng, config, codec)
        noise = torch.randn(config.batch, NUM_PATCHES, CHANNELS)
        sigma = torch.rand(config.batch)
        x = (1 - sigma[:, None, None]) * target + sigma[:, None, None] * noise
        loss = (predict_velocity(transformer, x, sigma, source, words) - (noise - target)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0:
            row = {"step": step, "minutes": round((time.monotonic() - start) / 60, 2), "loss": round(float(np.mean(losses[-50:])), 5)}
            log.write(json.dumps(row) + "\n")
            log.flush()
        if step % 400 == 0 or step == config.steps:
            editor.save(out)
