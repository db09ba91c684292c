"""Pretrains the embedded editor: flow matching on perfect edits of random scenes.

    v_target = eps - x_0,   x_sigma = (1 - sigma) x_0 + sigma eps,   loss = mean (v - v_target)^2

Command: `python -m research.pretrain_world editor`. The result is meant to be flawed: Flow-GRPO needs something left to win.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from editr1.optimizers import muon_adamw
from editr1.world.scene import Scene, draw, pick, random_scene
from editr1.world.tasks import KINDS, apply_all, instruction, random_edits
from editr1.world.tiny_editor import CHANNELS, NUM_PATCHES, Codec, TinyEditor, fit, new_transformer, predict_velocity, word_rows
from research.fit import fit_steps

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


def run(config: Config, out: Path) -> None:
    """Train for `config.steps`, writing the weights every 400 steps and a line of log every 50."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    codec = fit(np.stack([draw(random_scene(rng)) for _ in range(4000)]))
    transformer = new_transformer()
    editor = TinyEditor(transformer, codec)
    transformer.train()

    def loss(step: int) -> torch.Tensor:
        source, target, words = _batch(rng, config, codec)
        noise = torch.randn(config.batch, NUM_PATCHES, CHANNELS)
        sigma = torch.rand(config.batch)
        x = (1 - sigma[:, None, None]) * target + sigma[:, None, None] * noise
        return (predict_velocity(transformer, x, sigma, source, words) - (noise - target)).square().mean()

    optimizer = muon_adamw(transformer.named_parameters(), config.lr_matrices, config.lr_rest, _LOOKUPS)
    out.mkdir(parents=True, exist_ok=True)
    (log := out / "training_log.jsonl").unlink(missing_ok=True)
    fit_steps(transformer, optimizer, loss, config.steps, log, lambda: editor.save(out), save_every=400)
