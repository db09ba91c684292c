"""Pretrains the embedded editor: flow matching on perfect edits of random scenes.

    v_target = eps - x_0,   x_sigma = (1 - sigma) x_0 + sigma eps,   loss = mean (v - v_target)^2

Command: `python -m research.pretrain_world editor`. The result is meant to be flawed: Flow-GRPO needs something left to win.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from editr1.optimizers import muon_adamw
from editr1.world.scene import Scene, draw, pick, random_scene
from editr1.world.tasks import KINDS, apply_all, instruction, random_edits
from editr1.world.tiny_editor import (
    CHANNELS,
    NUM_PATCHES,
    PATCH,
    WEIGHTS,
    Codec,
    FluxTransformer2DModel,
    predict_velocity,
    to_patches,
    word_rows,
)
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


def fit(pixels_BHWC: np.ndarray) -> Codec:
    """The codec of these pictures."""
    patches = to_patches(pixels_BHWC).reshape(-1, PATCH * PATCH * 3).astype(np.float64)
    mean = patches.mean(axis=0)
    covariance = (patches - mean).T @ (patches - mean) / len(patches)
    values, vectors = np.linalg.eigh(covariance)
    std = np.sqrt(np.maximum(values[::-1][:CHANNELS], 1e-12))
    scale = np.sqrt(std)
    scale *= np.sqrt(np.mean((std / scale) ** 2))  # so that the mean variance of a latent is one
    return Codec(mean.astype(np.float32), vectors[:, ::-1][:, :CHANNELS].T.astype(np.float32).copy(), scale.astype(np.float32))


def new_transformer() -> FluxTransformer2DModel:
    """The shipped architecture with fresh weights (from torch's global generator)."""
    sizes = FluxTransformer2DModel.load_config(WEIGHTS / "transformer")
    return FluxTransformer2DModel.from_config(sizes)


def save(transformer: FluxTransformer2DModel, codec: Codec, path: Path) -> None:
    """Transformer (diffusers layout) and codec, both safetensors, as `tiny_editor.build` reads them."""
    transformer.save_pretrained(path / "transformer")
    save_file({"mean": codec.mean_P, "basis": codec.basis_DP, "scale": codec.scale_D}, path / "codec.safetensors")


def run(config: Config, out: Path) -> None:
    """Train for `config.steps`, writing the weights every 400 steps and a line of log every 50."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    codec = fit(np.stack([draw(random_scene(rng)) for _ in range(4000)]))
    transformer = new_transformer()
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
    fit_steps(transformer, optimizer, loss, config.steps, log, lambda: save(transformer, codec, out), save_every=400)
