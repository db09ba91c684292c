"""The trained weights of an editor: LoRA layers or everything, the reference, and swapped-in copies (EMA, old policy)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from editr1.editors.base import FlowEditor
from editr1.errors import ConfigError
from editr1.flow.config import Training
from editr1.optimizers import muon_adamw
from editr1.placement import drop_gathered, repeated_blocks, shard
from editr1.schema import derive_seed

Weights = dict[str, torch.Tensor]


class Policy:
    """The parameters that learn, by name. Base weights of a LoRA run are frozen and never copied.

    Where the editor's weights are not float32, its trained ones have float32 masters: forwards run on rounded copies, gradients add up
    and the optimiser steps in float32. In bfloat16 itself a step of 1e-5 moves one weight in six.

    `spread` cuts the transformer into parts, one a process, but for the weights that it is given: the LoRA layers. Everything here then
    holds parts (masters, snapshots, the reference); `gathered` and `exported` weights are whole.
    """

    def __init__(
        self, editor: FlowEditor, training: Training, seed: int, keep_initial: bool | None = None,
        spread: Callable[[Sequence[torch.nn.Parameter]], None] | None = None,
    ) -> None:  # fmt: skip
        """`keep_initial`: full fine-tuning keeps the weights of the start as its reference; None = with a KL term."""
        self.is_lora = training.weights == "lora"
        self.transformer: Any = editor.transformer
        self.transformer.requires_grad_(False)
        if self.is_lora:
            self.lora_config, self._lora_layers = _add_lora(self.transformer, editor.lora_targets(), training, seed)
        else:
            self.transformer.requires_grad_(True)
        if training.gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        if spread is not None:
            spread([p for p in self.transformer.parameters() if p.requires_grad] if self.is_lora else [])
        self.working: dict[str, torch.nn.Parameter] = {n: p for n, p in self.transformer.named_parameters() if p.requires_grad}
        """What forwards read, in the editor's dtype."""
        self.params: dict[str, torch.nn.Parameter] = {name: _master_of(param) for name, param in self.working.items()}
        """What the optimiser moves, float32; the working weights themselves where these are float32."""
        keep_initial = training.beta > 0 if keep_initial is None else keep_initial
        kept = keep_initial and not self.is_lora
        self._initial = {name: param.detach().clone() for name, param in self.working.items()} if kept else None

    def refresh(self) -> None:
        """Rounds the masters into the working weights, after a step."""
        self._write({name: param for name, param in self.working.items() if param is not self.params[name]}, self.params)

    def snapshot(self) -> Weights:
        """A copy of the trained weights, float32."""
        return {name: param.detach().clone() for name, param in self.params.items()}

    def load(self, weights: Weights) -> None:
        """Copies `weights` into the parameters. Raises ConfigError when their names differ from the trained ones."""
        if weights.keys() != self.params.keys():
            raise ConfigError(f"the weights of another policy: {len(weights)} tensors for {len(self.params)}; same rank?")
        self._write(self.params, weights)
        self.refresh()

    @contextmanager
    def using(self, weights: Weights | None) -> Iterator[None]:
        """Runs a block with other weights in place and puts the trained ones back, whatever happens. None = no change."""
        if weights is None:
            yield
            return
        if self.is_sharded:  # FSDP2 keeps hold of the parts themselves
            kept = {name: param.detach().clone() for name, param in self.working.items()}
            try:
                self._write(self.working, weights)
                yield
            finally:
                self._write(self.working, kept)
            return
        kept = {name: param.data for name, param in self.working.items()}
        try:
            for name, param in self.working.items():
                param.data = weights[name].to(param.device, param.dtype)
            yield
        finally:
            for name, param in self.working.items():
                param.data = kept[name]

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of each trained weight."""
        return any(isinstance(param, DTensor) for param in self.working.values())

    def _write(self, params: Mapping[str, torch.nn.Parameter], weights: Mapping[str, torch.Tensor]) -> None:
        if self.is_sharded:
            drop_gathered(self.transformer)
        with torch.no_grad():
            for name, param in params.items():
                param.copy_(part_of(weights[name], param))

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Runs a block under the reference policy without gradient: LoRA off, or the weights of the start."""
        with torch.no_grad():
            if self.is_lora:
                self._switch_lora(False)
                try:
                    yield
                finally:
                    self._switch_lora(True)
            else:
                if self._initial is None:
                    raise ConfigError("full fine-tuning kept no reference weights: a KL term or an algorithm must ask for them")
                with self.using(self._initial):
                    yield

    def _switch_lora(self, on: bool) -> None:
        """What diffusers' `disable_adapters` and `enable_adapters` do, without looking through all modules each time."""
        for layer in self._lora_layers:
            layer.enable_adapters(on)

    def drift(self) -> dict[str, float]:
        """How far training has moved: norm of LoRA's B (0 at the start), or of the change of all weights when a copy was kept.

        All processes ask for it together.
        """
        if self.is_lora:
            moved = [p.detach().float() for name, p in self.params.items() if "lora_B" in name]
        elif self._initial is not None:
            moved = [p.detach().float() - self._initial[name].float() for name, p in self.params.items()]
        else:
            return {}
        return {"train/drift": float(torch.stack([whole(m.norm()) for m in moved]).norm())}


def make_optimizer(policy: Policy, training: Training) -> torch.optim.Optimizer:
    """AdamW, or Muon for the matrices."""
    if training.lr_matrices is not None:
        return muon_adamw(policy.params.items(), training.lr_matrices, training.lr, decay=training.weight_decay)
    return torch.optim.AdamW(policy.params.values(), lr=training.lr, weight_decay=training.weight_decay)


def spread(editor: Any, accelerator: Any, keep_gathered: bool, stays_whole: Sequence[torch.nn.Parameter]) -> None:
    """FSDP2 of the transformer: every process keeps a part of it, but for the LoRA layers, which stay whole on each.

    What it asks for is that all processes make the same number of forwards, since each gathers the weights from all: no row is skipped,
    groups are sampled one at a time.
    """
    transformer = editor.transformer
    blocks = repeated_blocks(transformer)
    shard(transformer, blocks, accelerator.device, accelerator.num_processes, stays_whole, keep_gathered)
    if hasattr(editor, "place"):
        editor.place(accelerator.device)  # what was loaded on the CPU and is not sharded: encoders, VAE


def follow(slow: Weights, policy: Policy, decay: float) -> None:
    """slow <- decay * slow + (1 - decay) * trained, in place: an EMA, or DiffusionNFT's old policy."""
    for name, param in policy.params.items():
        slow[name].lerp_(param.detach().to(slow[name].dtype), 1.0 - decay)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor put together, which all processes must ask for; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process' part of a whole tensor, cut as `like` is; parts, and anything where `like` is whole, as they are."""
    if not isinstance(like, DTensor) or isinstance(tensor, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def gathered(weights: Weights, keep: bool = True) -> Weights:
    """Whole weights on the CPU, put together one by one by all processes; empty for those that do not `keep` them."""
    found = {}
    for name, value in weights.items():
        together = whole(value.detach())
        if keep:
            found[name] = together.cpu().contiguous()
    return found


def export(policy: Policy, weights: Weights | None, folder: Path, write: bool = True) -> Path:
    """The trained editor as other programs load it, written by the process that is to `write` and returned; all processes call it.

    `folder/lora` for `pipeline.load_lora_weights` (float32), or `folder/transformer` for `from_pretrained` (the editor's dtype).
    `weights` (the EMA, or the best evaluation's) are exported in the place of the trained ones; None exports those.
    """
    if policy.is_lora:
        return _export_lora(policy, weights or policy.snapshot(), folder / "lora") if write else folder / "lora"
    with policy.using(weights):
        if policy.is_sharded:
            found = gathered(policy.transformer.state_dict(), write)
        elif write:
            policy.transformer.save_pretrained(folder / "transformer")
    if policy.is_sharded and write:
        with torch.device("meta"):
            plain = type(policy.transformer).from_config(policy.transformer.config)
        plain.load_state_dict(found, assign=True)
        plain.save_pretrained(folder / "transformer")
    return folder / "transformer"


def _export_lora(policy: Policy, weights: Weights, target: Path) -> Path:
    from diffusers.loaders import FluxLoraLoaderMixin  # its file layout (`transformer.` prefix) is that of every DiT pipeline
    from peft.utils import get_peft_model_state_dict

    FluxLoraLoaderMixin.save_lora_weights(
        target,
        transformer_lora_layers=get_peft_model_state_dict(policy.transformer, state_dict=weights),
        # without this the file forgets lora_alpha, and a plain pipeline applies a delta scaled by r / alpha
        transformer_lora_adapter_metadata=policy.lora_config.to_dict(),
    )
    return target


def _master_of(param: torch.nn.Parameter) -> torch.nn.Parameter:
    """A float32 copy that collects the parameter's gradients in float32; the parameter itself where it is float32."""
    if param.dtype == torch.float32:
        return param
    master = torch.nn.Parameter(param.detach().float())

    def hand_over(working: torch.Tensor) -> None:
        assert working.grad is not None
        gradient = working.grad.float()
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)
        working.grad = None

    param.register_post_accumulate_grad_hook(hand_over)
    return master


def _add_lora(transformer: Any, targets: list[str], training: Training, seed: int) -> tuple[Any, list[Any]]:
    """(its configuration, its layers)."""
    from peft import LoraConfig
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = LoraConfig(r=training.rank, lora_alpha=training.alpha, target_modules=targets, init_lora_weights=True)
    dtype = transformer.dtype  # read once: diffusers looks through all modules at each reading, a minute for 60 blocks
    # peft draws A from torch's global generator; it is drawn again below from (seed, name), so its state is put back
    with torch.random.fork_rng(devices=[]):
        transformer.add_adapter(config)
    for name, param in transformer.named_parameters():
        if "lora_" not in name:
            continue
        param.data = param.data.to(dtype)  # products in the editor's dtype; the masters are float32
        if "lora_A" in name:
            generator = torch.Generator().manual_seed(derive_seed(seed, "lora", name))
            param.data.copy_(torch.randn(param.shape, generator=generator) / training.rank)
        param.requires_grad_(True)
    return config, [module for module in transformer.modules() if isinstance(module, BaseTunerLayer)]
