"""Pretrains the embedded verifier on lessons of looking and verifying, the stand-in for a pretrained Qwen2.5-VL.

First looking alone, then looking and verifying mixed. A share of the pictures comes from the embedded editor while it
was itself still learning: a judge that has only ever seen clean drawings fails on real outputs.

Command: `python -m research.pretrain_world verifier`; with `--size small` a shallower verifier (the "3B" beside the "7B"), which
inherits layers of the whole one and is then trained on: what a fresh one learns in an hour, a pruned one has after minutes
(Muralidharan et al., arXiv 2407.14679).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from editr1.editors.base import EditRequest
from editr1.optimizers import LOOKUPS, muon_adamw
from editr1.vlm.base import request_images
from editr1.world.lessons import Lesson, Pair, look, observe_pairs, random_pair
from editr1.world.scene import CELL, GRID, split_cells, to_pixels
from editr1.world.tiny_editor import build as build_editor
from editr1.world.tiny_vlm import new_model, new_processor, new_tokenizer
from research.fit import fit_steps
from research.lessons import verify

_PICTURE = "<|vision_start|>" + "<|image_pad|>" * GRID**2 + "<|vision_end|>"
_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)  # the processor's own constants
_STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)


@dataclass(frozen=True)
class Config:
    """ours; weights/verifier/training_log.jsonl shows the runs behind the shipped checkpoint, which had other lengths."""

    size: Literal["base", "small"] = "base"
    """`small` keeps the layers `KEPT` of the whole verifier and learns with the rest of the settings."""
    steps: int = 3300
    batch: int = 32
    lr_matrices: float = 4e-3
    lr_rest: float = 2e-3
    look_only: float = 0.3
    """Share of the run, in [0, 1], that asks for nothing but looking."""
    verify_share: float = 0.6
    """Share of verification lessons afterwards."""
    flawed_share: float = 0.5
    """Share of procedural edits with failures."""
    editor_share: float = 0.25
    """Share of pictures made by the embedded editor."""
    seed: int = 0


SMALL = Config(size="small", steps=900, look_only=0.0, verify_share=0.8)
"""What `--size small` runs: minutes on one core, because looking is inherited and only has to fit into fewer layers."""

KEPT = {"model.language_model.layers.": (0, 2, 3), "model.visual.blocks.": (0,)}
"""Layers of the whole verifier that the small one starts from. ours: with two text layers of four it saw as well as the whole one and
could no longer compare (verdicts right on .86 against .95, and pair accuracy at chance after SFT)."""


def patches(images: Sequence[Image.Image]) -> torch.Tensor:
    """What Qwen2VLImageProcessor makes of 72 x 72 pictures: [9 B, 3 * 2 * 24 * 24], each frame doubled in time."""
    pixels = (np.stack([to_pixels(image) for image in images]) - _MEAN) / _STD
    cells = split_cells(pixels).transpose(0, 1, 4, 2, 3)  # [B, 9, 3, 24, 24]
    return torch.from_numpy(np.repeat(cells[:, :, :, None], 2, axis=3).reshape(-1, 3 * 2 * CELL * CELL))


def principal_filters(rng: np.random.Generator, num: int = 192, num_pictures: int = 3000) -> torch.Tensor:
    """Filters [num, 3 * 2 * 24 * 24] of the patch embedding: principal components of patches, nearly whitened.

    A patch has 3,456 inputs, so one Adam step on their weights moves the output by more than texture contributes to it:
    learnt filters know colours and never stripes. These see both, and stay as they are. The one in `std + 1` keeps
    grain (0.6 a component) from being blown up to the size of a signal.
    """
    pictures = [image for _ in range(num_pictures // 2) for image in random_pair(rng, 0.5)[:2]]
    x = patches(pictures).reshape(len(pictures) * GRID * GRID, 3, 2, CELL * CELL)[:, :, 0].reshape(-1, 3 * CELL * CELL)
    x = x - x.mean(dim=0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    std = values.flip(0)[:num].clamp(min=0).sqrt()
    filters = vectors.flip(1)[:, :num].T / (std + 1)[:, None]
    per_frame = filters.reshape(num, 3, 1, CELL * CELL).expand(num, 3, 2, CELL * CELL) / 2
    return 2 * per_frame.reshape(num, -1)


def set_stem(model: torch.nn.Module, filters: torch.Tensor) -> None:
    """Puts the filters into the patch embedding and freezes it."""
    weight = model.model.visual.patch_embed.proj.weight  # type: ignore[union-attr]
    with torch.no_grad():
        weight.copy_(filters.reshape(weight.shape))  # type: ignore[arg-type]
    weight.requires_grad_(False)  # type: ignore[union-attr]


def pruned(whole: Path) -> Any:
    """The small verifier with the weights of the layers `KEPT` of the whole one, still to be trained; its stem stays as it is.

    Raises OSError for a folder that holds no checkpoint.
    """
    model = new_model(text_layers=len(KEPT["model.language_model.layers."]), vision_layers=len(KEPT["model.visual.blocks."]))
    weights = type(model).from_pretrained(whole, dtype=torch.float32).state_dict()
    for stack, layers in KEPT.items():
        moved = {name: weights.pop(name) for name in list(weights) if name.startswith(stack)}
        for place, layer in enumerate(layers):
            old, new = f"{stack}{layer}.", f"{stack}{place}."
            weights |= {new + name.removeprefix(old): weight for name, weight in moved.items() if name.startswith(old)}
    model.load_state_dict(weights)
    model.model.visual.patch_embed.proj.weight.requires_grad_(False)
    return model


class Batcher:
    """Turns lessons into model inputs with loss on the reply only."""

    def __init__(self) -> None:
        self.tokenizer = new_tokenizer()
        self.image_id = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")

    def __call__(self, lessons: Sequence[Lesson]) -> dict[str, torch.Tensor]:
        prompts = [f"<|im_start|>user\n{_PICTURE}{x.request.parts[1]}{_PICTURE}<|im_end|>\n<|im_start|>assistant\n" for x in lessons]
        prompt_ids = self.tokenizer(prompts)["input_ids"]
        reply_ids = self.tokenizer([f"{lesson.completion}<|im_end|>" for lesson in lessons])["input_ids"]
        width = max(len(p) + len(r) for p, r in zip(prompt_ids, reply_ids, strict=True))
        ids = torch.full((len(lessons), width), self.tokenizer.pad_token_id)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for row, (prompt, reply) in enumerate(zip(prompt_ids, reply_ids, strict=True)):
            end = len(prompt) + len(reply)
            ids[row, :end] = torch.tensor(prompt + reply)
            labels[row, len(prompt) : end] = torch.tensor(reply)
            mask[row, :end] = 1
        images = [image for lesson in lessons for image in request_images(lesson.request)]
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "mm_token_type_ids": (ids == self.image_id).long(),
            "pixel_values": patches(images),
            "image_grid_thw": torch.tensor([[1, GRID, GRID]] * len(images)),
        }


class EditorPictures:
    """A growing pool of the embedded editor's own edits, made with whatever its weights are at the time."""

    def __init__(self, path: Path | None, limit: int = 8192) -> None:
        self.path, self.limit = path, limit
        self.pool: list[Pair] = []

    def refresh(self, rng: np.random.Generator, num: int = 384) -> None:
        """Add `num` edits of the current weights; nothing happens while there are none."""
        if self.path is None or not (self.path / "codec.safetensors").exists():
            return
        editor = build_editor(str(self.path))
        tasks = [random_pair(rng, 0.0) for _ in range(num)]
        edited: list[Image.Image] = []
        for start in range(0, num, 64):
            chunk = tasks[start : start + 64]
            edited += editor.edit([EditRequest(source, text, int(rng.integers(2**31))) for source, _, text in chunk])
        self.pool += observe_pairs([(source, image, text) for (source, _, text), image in zip(tasks, edited, strict=True)])
        self.pool = self.pool[-self.limit :]


def _lessons(rng: np.random.Generator, config: Config, progress: float, editor: EditorPictures) -> list[Lesson]:
    num_editor = round(config.batch * config.editor_share) if editor.pool else 0
    pairs = observe_pairs([random_pair(rng, config.flawed_share) for _ in range(config.batch - num_editor)])
    pairs += [editor.pool[int(rng.integers(len(editor.pool)))] for _ in range(num_editor)]
    verify_share = config.verify_share if progress >= config.look_only else 0.0
    return [verify(rng, pair) if rng.random() < verify_share else look(rng, pair) for pair in pairs]


def run(config: Config, out: Path, editor_path: Path | None, init: Path | None = None) -> None:
    """Train for `config.steps`, writing the checkpoint every 200 steps and a line of log every 50.

    Args:
        config: the settings.
        out: folder of the checkpoint and its training log.
        editor_path: embedded editor whose pictures are shown, too; None for none.
        init: size `base`: checkpoint whose language model is taken over, None for fresh weights; its vision tower is always new.
            size `small`: the whole verifier that it is cut from.

    Raises ValueError for a small verifier without `init`.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = _start(config, rng, init)
    model.train()
    processor, batcher, editor = new_processor(), Batcher(), EditorPictures(editor_path)
    for layer in model.model.language_model.layers:
        layer.compile(dynamic=True)  # with bfloat16 products a third faster on a CPU

    def loss(step: int) -> torch.Tensor:
        if step % 250 == 1:
            editor.refresh(rng)
        with torch.autocast("cpu", torch.bfloat16):
            return model(**batcher(_lessons(rng, config, step / config.steps, editor))).loss  # type: ignore[no-any-return]

    optimizer = muon_adamw(model.named_parameters(), config.lr_matrices, config.lr_rest, LOOKUPS)
    out.mkdir(parents=True, exist_ok=True)
    log, save = out / "training_log.jsonl", lambda: _save(model, processor, out, config.size)
    fit_steps(model, optimizer, loss, config.steps, log, save, save_every=200)


def _save(model: Any, processor: Any, out: Path, size: str) -> None:
    """The small one in bfloat16: it is shipped beside the whole one, and stages load float32 whatever lies there."""
    with torch.no_grad():
        weights = {name: weight.to(torch.bfloat16) if size == "small" else weight for name, weight in model.state_dict().items()}
    model.save_pretrained(out, state_dict=weights)
    processor.save_pretrained(out)


def _start(config: Config, rng: np.random.Generator, init: Path | None) -> Any:
    """The verifier before its first step."""
    if config.size == "small":
        if init is None:
            raise ValueError("the small verifier is cut from a whole one: name its checkpoint as init")
        return pruned(init)
    model = new_model()
    if init is not None:
        trained = type(model).from_pretrained(init)
        model.model.language_model.load_state_dict(trained.model.language_model.state_dict())
        model.lm_head.load_state_dict(trained.lm_head.state_dict())
    set_stem(model, principal_filters(rng))
    return model
