"""FSDP2 of the frozen weights: every process keeps a part of the base model, the trained LoRA layers stay whole on each.

Gradients, averages, checkpoints and exports therefore know nothing of it. What it asks for is that all processes make the same
number of forwards, since each gathers the weights from all: no row is skipped, groups are sampled one at a time.
Source: torch.distributed.fsdp.fully_shard, with `ignored_params` (torch 2.7).
"""

from __future__ import annotations

from typing import Any

import torch

from editr1.errors import ConfigError
from editr1.flow.policy import Policy


def shard_frozen(policy: Policy, device: torch.device, num_processes: int) -> None:
    """Spreads all but the trained weights over the processes, block by block; nothing to do for one process."""
    if num_processes == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (num_processes,))
    trained = set(policy.params.values())
    for module in [*repeated_blocks(policy.transformer), policy.transformer]:
        fully_shard(module, mesh=mesh, ignored_params=trained)


def repeated_blocks(transformer: Any) -> list[torch.nn.Module]:
    """The transformer blocks, by the class names that diffusers keeps together."""
    names = set(getattr(transformer, "_no_split_modules", None) or ())
    return [module for module in transformer.modules() if type(module).__name__ in names]


def check_launcher(distributed_type: str) -> None:
    """Raises ConfigError for launchers that would shard a model which nobody hands them: each process would hold everything."""
    if distributed_type in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        raise ConfigError(
            f"accelerate was started for {distributed_type}, which editor RL does not use: launch with recipes/accelerate/8_gpus.yaml, "
            "and set edit_rl.training.shard to spread the frozen weights over the processes (FSDP2)"
        )
