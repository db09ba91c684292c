"""The reward model as trainers see it: a checkpoint with its processor, what of it is trained, and what it may never emit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from editr1.errors import ConfigError
from editr1.training.options import Picture, Trained

# Tokens that stand for pictures. A policy that samples one dies in the next forward pass: features and tokens no longer match.
_VISION_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>")

_NEVER = -1e4
"""Logit of a token that cannot occur: exp is 0 in every float type, and unlike -inf it leaves the entropy finite."""

_VISION_PARTS = r"(^|\.)(visual|vision_tower|vision_model)\."


def load_processor(path: str | Path, picture: Picture | None = None) -> Any:
    """The checkpoint's processor with the pixel budget set. Raises ConfigError when there is none at `path`."""
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(str(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load a processor from {str(path)!r}: {_first_line(error)}; give a checkpoint directory or a hub id") from error
    picture = picture or Picture()
    size = dict(processor.image_processor.size)
    if picture.min_pixels is not None:
        size["shortest_edge"] = picture.min_pixels
    if picture.max_pixels is not None:
        size["longest_edge"] = picture.max_pixels
    processor.image_processor.size = size
    return processor


def load_model(path: str | Path, trained: Trained) -> Any:
    """The checkpoint's weights in float32 (the trainer casts), frozen where `trained` says so. Raises ConfigError when there are none at `path`."""
    from transformers import AutoModelForImageTextToText

    try:
        model = AutoModelForImageTextToText.from_pretrained(str(path), dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load a model from {str(path)!r}: {_first_line(error)}; give a checkpoint directory or a hub id") from error
    if trained.freeze_vision:
        for name, parameter in model.named_parameters():
            if re.search(_VISION_PARTS, name):
                parameter.requires_grad_(False)
    return model


def lora_config(trained: Trained) -> Any:
    """PEFT's configuration, or None for full fine-tuning. Adapters sit on the linear layers of the language model."""
    if trained.lora_rank is None:
        return None
    from peft import LoraConfig

    where = r"" if not trained.freeze_vision else r"(?!.*(visual|vision_tower|vision_model)\.)"
    return LoraConfig(
        r=trained.lora_rank,
        lora_alpha=trained.lora_alpha,
        lora_dropout=trained.lora_dropout,
        target_modules=rf"{where}.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj|qkv|proj)",
        task_type="CAUSAL_LM",
    )


def forbidden_tokens(model: Any, processor: Any) -> list[int]:
    """Ids that no trace may contain: stand-ins for pictures, and padding unless it also ends a reply."""
    tokenizer = processor.tokenizer
    vocabulary = tokenizer.get_vocab()
    ids = {vocabulary[token] for token in _VISION_TOKENS if token in vocabulary}
    ends = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    return sorted((ids | {tokenizer.pad_token_id}) - ends - {None})


def forbid_tokens(model: Any, token_ids: list[int]) -> None:
    """Makes the tokens impossible for the model itself: in sampling and in the log-probabilities alike.

    A suppression list of `generate` masks the sampler only; the policy whose ratio is clipped would still put mass there. A
    constant bias of the output layer is one mask for both. It is no parameter and is not saved.
    """
    head = model.get_output_embeddings()
    assert head.bias is None, "the output layer of a reward model has no bias of its own"
    del head.bias  # a registered None would shadow the buffer
    bias = torch.zeros(head.weight.shape[0], dtype=head.weight.dtype, device=head.weight.device)
    bias[token_ids] = _NEVER
    head.register_buffer("bias", bias, persistent=False)


def allow_tokens(model: Any) -> None:
    """Undoes `forbid_tokens`."""
    head = model.get_output_embeddings()
    del head.bias
    head.register_parameter("bias", None)


def save_checkpoint(model: Any, processor: Any, folder: Path) -> None:
    """Weights (safetensors; LoRA merged into them) and processor, as `from_pretrained` reads them."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
