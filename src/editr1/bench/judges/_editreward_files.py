"""Loads an EditReward checkpoint: a Qwen2.5-VL backbone with a token more, and two heads in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from editr1.errors import ConfigError

_OLD_NAMES = (
    ("visual.", "visual."),
    ("model.visual.", "visual."),
    ("model.language_model.", "language_model."),
    ("model.", "language_model."),
)


def new_head(hidden: int) -> Any:
    """An untrained head: hidden -> 1024 -> 16 -> (mu, log sigma)."""
    from torch import nn

    return nn.Sequential(nn.Linear(hidden, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2))


def load(checkpoint: Path, base: str, device: str, pixels: int) -> tuple[Any, list[Any], Any]:
    """(backbone, heads, processor), ready to read. Raises ConfigError when a file is missing or a tensor does not fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoProcessor

    from editr1.bench.judges.editreward import HEADS, REWARD_TOKEN

    path = checkpoint / "model.safetensors"
    if not path.is_file():
        raise ConfigError(f"editreward: {checkpoint} holds no model.safetensors; give the folder of an EditReward checkpoint")
    try:
        processor = AutoProcessor.from_pretrained(base, min_pixels=pixels, max_pixels=pixels)
        model = AutoModel.from_pretrained(base, dtype=torch.bfloat16 if device.startswith("cuda") else torch.float32)
        tensors = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"editreward: cannot load {base!r} with {path}: {str(error).strip().splitlines()[0]}") from error
    processor.tokenizer.add_special_tokens({"additional_special_tokens": [REWARD_TOKEN]}, replace_extra_special_tokens=False)
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    heads = [new_head(model.get_input_embeddings().embedding_dim) for _ in HEADS]
    for number, head in enumerate(heads):
        _fill(head, _below(tensors, f"rm_heads.head_{number}."), f"{path}: rm_heads.head_{number}")
    backbone = {_modern(key): value for key, value in tensors.items() if not key.startswith(("rm_heads.", "lm_head."))}
    _fill(model, backbone, f"{path}: backbone")
    return model.to(device).eval(), [head.float().to(device).eval() for head in heads], processor


def _below(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _modern(key: str) -> str:
    """A tensor's name in the bare backbone; checkpoints of older transformers keep the decoder under `model.`."""
    for old, new in _OLD_NAMES:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _fill(module: Any, tensors: dict[str, Any], where: str) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise ConfigError(f"editreward: {where} does not fit: {detail}") from error
