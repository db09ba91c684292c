"""The policy as one process can generate with it, on every rank: for rollouts and held-out scoring while it is trained.

Sharded weights are gathered once for all tokens; float32 weights stand aside for bfloat16 ones where training computes in bfloat16, since
autocast would convert every weight at every token. Afterwards everything is as before: the masters are not touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from trl.models import unwrap_model_for_generation


@contextlib.contextmanager
def whole_model(trainer: Any) -> Iterator[Any]:
    """The transformers model inside `trainer.model`, adapters still in its layers. All ranks enter and leave together."""
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
