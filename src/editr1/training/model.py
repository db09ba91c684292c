"""The reward model as trainers see it: what of a checkpoint is trained, tokens that it never says, the policy as one process can generate
with it, the checkpoint that is written, and a scalar head on it."""

from __future__ import annotations

import contextlib
import functools
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from editr1.errors import ConfigError
from editr1.training.options import Machine, Picture, Trained
from editr1.vlm.base import plain_generation, token_mask, vocabulary

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
    budget = {"shortest_edge": picture.min_pixels, "longest_edge": picture.max_pixels}
    known = {key: pixels for key, pixels in budget.items() if pixels is not None}
    processor.image_processor.size = dict(processor.image_processor.size) | known
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


# --- forbidden tokens in the log-probabilities --------------------------------------------------------
# TRL's fused output layer multiplies hidden states by `head.weight` and adds `head.bias`, never calling the layer itself. While it scores,
# it is shown a stand-in whose bias is the mask of `editr1.vlm.base`. The model keeps no trace of it: nothing is registered, sharded,
# saved or sent to an engine. Holds for whole, FSDP2-sharded and ZeRO-3-sharded layers.


@dataclass(frozen=True)
class MaskedHead:
    """What TRL reads of an output layer."""

    weight: Tensor
    bias: Tensor


def mask_scores(model: Any, token_ids: Sequence[int]) -> None:
    """From here on `model(..., fused_lm_head=True)` gives the tokens probability 0. Call it after TRL has added its fused layer.

    Raises ConfigError for an output layer with a bias of its own.
    """
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise ConfigError(f"the output layer of {type(model).__name__} has a bias, beside which forbidden tokens cannot be masked")
    score, size = model.forward, vocabulary(model)

    @functools.wraps(type(model).forward)  # `generate` checks its arguments against the signature
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("fused_lm_head"):
            return score(*args, **kwargs)
        head = type(self).get_output_embeddings
        self.get_output_embeddings = lambda: masked(head(self), token_ids, size)
        try:
            return score(*args, **kwargs)
        finally:
            del self.get_output_embeddings

    model.forward = types.MethodType(forward, model)


def masked(head: Any, token_ids: Sequence[int], size: int) -> MaskedHead:
    """The layer's weight, gathered where FSDP2 keeps a part of it, beside the mask."""
    weight = head.weight.full_tensor() if isinstance(head.weight, DTensor) else head.weight
    mask_V = token_mask(token_ids, size, weight)
    if hasattr(weight, "ds_status"):  # ZeRO-3: TRL gathers what is not available; the mask is whole on every process
        mask_V.ds_status = type(weight.ds_status).AVAILABLE  # type: ignore[attr-defined]
    return MaskedHead(weight, mask_V)


# --- generating while it is trained -------------------------------------------------------------------
# Sharded weights are gathered once for all tokens; float32 weights stand aside for bfloat16 ones where training computes in bfloat16, since
# autocast would convert every weight at every token. Afterwards everything is as before: the masters are not touched.


@contextlib.contextmanager
def whole_model(trainer: Any) -> Iterator[Any]:
    """The transformers model inside `trainer.model`, adapters still in its layers. All ranks enter and leave together."""
    from trl.models import unwrap_model_for_generation

    dtype = generation_dtype(trainer.args)
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model, unsharded(model), converted(model, dtype):
        yield model.get_base_model() if hasattr(model, "get_base_model") else model


def generation_dtype(arguments: Any) -> torch.dtype | None:
    """What weights are converted to while a model generates; None = nothing is. A CPU reads float32 faster than it computes bfloat16."""
    return torch.bfloat16 if arguments.bf16 and arguments.device.type != "cpu" else None


@contextlib.contextmanager
def unsharded(model: Any) -> Iterator[None]:
    """Every FSDP2 module inside keeps its weights whole, in the dtype of its products; nothing to do for other models."""
    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    groups = [group for module in modules for group in _groups(module)]
    after_forward = [group.post_forward_mesh_info for group in groups]
    for group in groups:
        group.post_forward_mesh_info = None  # not `set_reshard_after_forward`, which cannot tell what to go back to
    for module in modules:
        module.unshard()
    try:
        yield
    finally:
        for group, mesh in zip(groups, after_forward, strict=True):
            group.post_forward_mesh_info = mesh
        for module in modules:
            module.reshard()


def _groups(module: Any) -> list[Any]:
    state = module._get_fsdp_state()
    several = getattr(state, "_fsdp_param_groups", None)  # torch 2.13; one before
    return [group for group in ([state._fsdp_param_group] if several is None else several) if group is not None]


@contextlib.contextmanager
def converted(model: Any, dtype: torch.dtype | None) -> Iterator[None]:
    """float32 weights inside are in `dtype`; sharded ones are left alone."""
    masters = []
    if dtype is not None and not any(isinstance(module, FSDPModule) for module in model.modules()):
        masters = [(p, p.data) for p in model.parameters() if p.dtype == torch.float32 and p.numel() and not hasattr(p, "ds_id")]
    for parameter, master in masters:
        parameter.data = master.to(dtype)
    try:
        yield
    finally:
        for parameter, master in masters:
            parameter.data = master


# --- a scalar head in the place of traces -------------------------------------------------------------
# It reads the last hidden state of the question, where a reasoning judge would begin to write, and lies in the checkpoint beside the
# weights, as `score_head.weight`; `bench.judges.bradley_terry` asks it.

HEAD = "score_head"


def add_head(model: Any, path: str | Path) -> Any:
    """The model, whose forward now gives one score a row, `[B]`, of unbounded scale. The head comes from `path`, or begins at 0."""
    weight_1H = read_head(path)
    head = torch.nn.Linear(model.get_input_embeddings().weight.shape[1], 1, bias=False)
    head.weight.data.copy_(torch.zeros_like(head.weight) if weight_1H is None else weight_1H)
    setattr(model, HEAD, head.to(model.device))
    model.forward = types.MethodType(_score, model)
    return model


def read_head(path: str | Path) -> Tensor | None:
    """`[1, H]` from the weights in a folder; None where it holds no head."""
    from safetensors import safe_open

    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as weights:
            if f"{HEAD}.weight" in weights.keys():  # noqa: SIM118 - no mapping
                found: Tensor = weights.get_tensor(f"{HEAD}.weight")
                return found.float()
    return None


def _score(self: Any, **inputs: Any) -> Tensor:
    hidden_BLH = self.base_model(**inputs, use_cache=False).last_hidden_state
    scores: Tensor = getattr(self, HEAD)(hidden_BLH[:, -1].float())[:, 0]  # padding is on the left
    return scores


def encode(processor: Any, messages: Sequence[Any], images: Sequence[Any], template: Mapping[str, bool]) -> dict[str, Tensor]:
    """Model inputs of a batch of questions (as `vlm.base.to_messages` gives them), padded on the left."""
    processor.tokenizer.padding_side = "left"
    texts = [processor.apply_chat_template(one, add_generation_prompt=True, tokenize=False, **template) for one in messages]
    return dict(processor(text=texts, images=list(images), padding=True, return_tensors="pt"))
