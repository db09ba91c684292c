"""The trained weights of an editor: LoRA layers or everything, the reference, and swapped-in copies (EMA, old policy)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from editr1.editors.base import FlowEditor
from editr1.errors import ConfigError
from editr1.flow.config import Training
from editr1.schema import derive_seed

Weights = dict[str, torch.Tensor]


class Policy:
    """The parameters that learn, by name. Base weights of a LoRA run are frozen and never copied.

    Where the editor's weights are not float32, its trained ones have float32 masters: forwards run on rounded copies, gradients add up
    and the optimiser steps in float32. In bfloat16 itself a step of 1e-5 moves one weight in six.
    """

    def __init__(self, editor: FlowEditor, training: Training, seed: int, keep_initial: bool | None = None) -> None:
        """`keep_initial`: full fine-tuning keeps the weights of the start as its reference; None = with a KL term."""
        self.is_lora = training.weights == "lora"
        self.transformer: Any = editor.transformer
        self.transformer.requires_grad_(False)
        if self.is_lora:
            self.lora_config = _add_lora(self.transformer, editor.lora_targets(), training, seed)
        else:
            self.transformer.requires_grad_(True)
        if training.gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        self.working: dict[str, torch.nn.Parameter] = {n: p for n, p in self.transformer.named_parameters() if p.requires_grad}
        """What forwards read, in the editor's dtype."""
        self.params: dict[str, torch.nn.Parameter] = {name: _master_of(param) for name, param in self.working.items()}
        """What the optimiser moves, float32; the working weights themselves where these are float32."""
        keep_initial = training.beta > 0 if keep_initial is None else keep_initial
        kept = keep_initial and not self.is_lora
        self._initial = {name: param.detach().clone() for name, param in self.working.items()} if kept else None

    def refresh(self) -> None:
        """Rounds the masters into the working weights, after a step."""
        with torch.no_grad():
            for name, param in self.working.items():
                if param is not self.params[name]:
                    param.copy_(self.params[name])

    def move(self, device: torch.device) -> None:
        """Puts the masters where the working weights went."""
        for param in self.params.values():
            param.data = param.data.to(device)

    def snapshot(self) -> Weights:
        """A copy of the trained weights, float32."""
        return {name: param.detach().clone() for name, param in self.params.items()}

    def load(self, weights: Weights) -> None:
        """Copies `weights` into the parameters. Raises ConfigError when their names differ from the trained ones."""
        if weights.keys() != self.params.keys():
            raise ConfigError(f"the weights of another policy: {len(weights)} tensors for {len(self.params)}; same rank?")
        with torch.no_grad():
            for name, param in self.params.items():
                param.copy_(weights[name])
        self.refresh()

    @contextmanager
    def using(self, weights: Weights | None) -> Iterator[None]:
        """Runs a block with other weights in place and puts the trained ones back, whatever happens. None = no change."""
        if weights is None:
            yield
            return
        kept = {name: param.data for name, param in self.working.items()}
        try:
            for name, param in self.working.items():
                param.data = weights[name].to(param.device, param.dtype)
            yield
        finally:
            for name, param in self.working.items():
                param.data = kept[name]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Runs a block under the reference policy without gradient: LoRA off, or the weights of the start."""
        with torch.no_grad():
            if self.is_lora:
                self.transformer.disable_adapters()
                try:
                    yield
                finally:
                    self.transformer.enable_adapters()
            else:
                if self._initial is None:
                    raise ConfigError("full fine-tuning kept no reference weights: a KL term or an algorithm must ask for them")
                with self.using(self._initial):
                    yield

    def drift(self) -> float | None:
        """How far training has moved: norm of LoRA's B (0 at the start), or of the change of all weights when a copy was kept."""
        if self.is_lora:
            moved = [p.detach().float() for name, p in self.params.items() if "lora_B" in name]
        elif self._initial is not None:
            moved = [p.detach().float() - self._initial[name].float() for name, p in self.params.items()]
        else:
            return None
        return float(torch.stack([m.norm() for m in moved]).norm())


def follow(slow: Weights, policy: Policy, decay: float) -> None:
    """slow <- decay * slow + (1 - decay) * trained, in place: an EMA, or DiffusionNFT's old policy."""
    for name, param in policy.params.items():
        slow[name].lerp_(param.detach().to(slow[name].dtype), 1.0 - decay)


def export(policy: Policy, weights: Weights | None, folder: Path) -> Path:
    """The trained editor as other programs load it, written and returned.

    `folder/lora` for `pipeline.load_lora_weights` (float32), or `folder/transformer` for `from_pretrained` (the editor's dtype).
    `weights` (the EMA, or the best evaluation's) are exported in the place of the trained ones; None exports those.
    """
    if policy.is_lora:
        return _export_lora(policy, weights or policy.snapshot(), folder / "lora")
    with policy.using(weights):
        policy.transformer.save_pretrained(folder / "transformer")
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


def _add_lora(transformer: Any, targets: list[str], training: Training, seed: int) -> Any:
    from peft import LoraConfig

    config = LoraConfig(r=training.rank, lora_alpha=training.alpha, target_modules=targets, init_lora_weights=True)
    # peft draws A from torch's global generator; it is drawn again below from (seed, name), so its state is put back
    with torch.random.fork_rng(devices=[]):
        transformer.add_adapter(config)
    for name, param in transformer.named_parameters():
        if "lora_" not in name:
            continue
        param.data = param.data.to(transformer.dtype)  # products in the editor's dtype; the masters are float32
        if "lora_A" in name:
            generator = torch.Generator().manual_seed(derive_seed(seed, "lora", name))
            param.data.copy_(torch.randn(param.shape, generator=generator) / training.rank)
        param.requires_grad_(True)
    return cast(Any, config)
