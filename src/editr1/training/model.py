"""The reward model as trainers see it: a checkpoint with its processor, and what of it is trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from editr1.errors import ConfigError
from editr1.generation import plain_generation
from editr1.training.options import Machine, Picture, Trained

_VISION_PARTS = r"(^|\.)(visual|vision_tower|vision_model)\."
_VISION_LAYERS = ("qkv", "proj", "linear_fc1", "linear_fc2", "fc1", "fc2")


def load_processor(path: str | Path, picture: Picture | None = None) -> Any:
    """The checkpoint's processor with the pixel budget set. Raises ConfigError when there is none at `path`."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        raise _unusable("processor", path, error) from error
    picture = picture or Picture()
    size = dict(processor.image_processor.size)
    if picture.min_pixels is not None:
        size["shortest_edge"] = picture.min_pixels
    if picture.max_pixels is not None:
        size["longest_edge"] = picture.max_pixels
    processor.image_processor.size = size
    return processor


def frozen_dtype(machine: Machine) -> torch.dtype:
    """What weights that do not move are kept in: half the memory on a GPU; a CPU reads float32 faster."""
    return torch.bfloat16 if machine.precision == "bfloat16" and torch.accelerator.is_available() else torch.float32


def load_model(path: str | Path, trained: Trained, frozen: torch.dtype = torch.float32) -> Any:
    """The checkpoint's weights, frozen where `trained` says so: what moves in float32, what does not in `frozen`.

    Adapters, which the trainer adds, are float32 too. Raises ConfigError when there are no weights at `path`.
    """
    from transformers import AutoModelForImageTextToText

    try:
        model = AutoModelForImageTextToText.from_pretrained(str(path), dtype=frozen if trained.lora_rank is not None else torch.float32)
    except (OSError, ValueError) as error:
        raise _unusable("model", path, error) from error
    model.generation_config = plain_generation(model)
    if trained.freeze_vision:
        for name, parameter in model.named_parameters():
            if re.search(_VISION_PARTS, name):
                parameter.requires_grad_(False)
    if trained.last_blocks is not None:
        _freeze_but_last(model, trained.last_blocks)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(frozen)
    return model


def _freeze_but_last(model: Any, count: int) -> None:
    """Leaves the last `count` blocks, the final norm and the output layer to train. Raises ConfigError for too many blocks."""
    decoder = model.get_decoder()
    if count > len(decoder.layers):
        raise ConfigError(f"trained.last_blocks is {count}, but the language model has {len(decoder.layers)} blocks")
    model.requires_grad_(False)
    for part in (*decoder.layers[-count:], decoder.norm, model.get_output_embeddings()):
        part.requires_grad_(True)


def lora_config(trained: Trained) -> Any:
    """PEFT's configuration, or None for full fine-tuning. Adapters sit on the linear layers of the language model."""
    if trained.lora_rank is None:
        return None
    from peft import LoraConfig

    where, names = r"(?!.*(visual|vision_tower|vision_model)\.)", trained.lora_layers
    if not trained.freeze_vision:
        where, names = r"", (*names, *_VISION_LAYERS)
    return LoraConfig(
        r=trained.lora_rank,
        lora_alpha=trained.lora_alpha,
        lora_dropout=trained.lora_dropout,
        target_modules=rf"{where}.*\.({'|'.join(names)})",
        task_type="CAUSAL_LM",
    )


def save_checkpoint(model: Any, processor: Any, folder: Path, merge: bool = True) -> None:
    """Weights (safetensors; LoRA merged into them, which ends their training) and processor, as `from_pretrained` reads them."""
    if merge and hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _unusable(what: str, path: str | Path, error: Exception) -> ConfigError:
    reason = str(error).strip().splitlines()[0]
    return ConfigError(f"cannot load a {what} from {str(path)!r}: {reason}; give a checkpoint directory or a hub id")
