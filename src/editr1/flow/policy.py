"""The trained weights of an editor: LoRA layers or everything, the reference, and swapped-in copies (EMA, old policy)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch

from editr1.editors.base import FlowEditor
from editr1.errors import ConfigError
from editr1.flow.config import Training
from editr1.schema import derive_seed

Weights = dict[str, torch.Tensor]


class Policy:
    """The parameters that learn, by name. Base weights of a LoRA run are frozen and never copied."""

    def __init__(self, editor: FlowEditor, training: Training, seed: int) -> None:
        self.is_lora = training.weights == "lora"
        self.transformer: Any = editor.transformer
        self.transformer.requires_grad_(False)
        if self.is_lora:
            self.lora_config = _add_lora(self.transformer, editor.lora_targets(), training, seed)
        else:
            self.transformer.requires_grad_(True)
        if training.gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        self.params: dict[str, torch.nn.Parameter] = {n: p for n, p in self.transformer.named_parameters() if p.requires_grad}
        keep_initial = not self.is_lora and training.beta > 0
        self._initial = self.snapshot() if keep_initial else None

    def snapshot(self) -> Weights:
        """A copy of the trained weights, float32."""
        return {name: param.detach().float().clone() for name, param in self.params.items()}

    def load(self, weights: Weights) -> None:
        """Copies `weights` into the parameters. Raises ConfigError when their names differ from the trained ones."""
        if weights.keys() != self.params.keys():
            raise ConfigError(f"the weights of another policy: {len(weights)} tensors for {len(self.params)}; same rank?")
        with torch.no_grad():
            for name, param in self.params.items():
                param.copy_(weights[name])

    @contextmanager
    def using(self, weights: Weights | None) -> Iterator[None]:
        """Runs a block with other weights in place and puts the trained ones back, whatever happens. None = no change."""
        if weights is None:
            yield
            return
        kept = {name: param.data for name, param in self.params.items()}
        try:
            for name, param in self.params.items():
                param.data = weights[name].to(param.dtype)
            yield
        finally:
            for name, param in self.params.items():
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
                    raise ConfigError("full fine-tuning kept no reference weights: they are kept when training.beta > 0")
                with self.using(self._initial):
                    yield

    def drift(self) -> float | None:
        """How far training has moved: norm of LoRA's B (0 at the start), or of the change of all weights when a copy was kept."""
        if self.is_lora:
            moved = [p.detach().float() for name, p in self.params.items() if "lora_B" in name]
        elif self._initial is not None:
            moved = [p.detach().float() - self._initial[name] for name, p in self.params.items()]
        else:
            return None
        return float(torch.stack([m.norm() for m in moved]).norm())

    @property
    def num_trained(self) -> int:
        """Trained numbers."""
        return sum(p.numel() for p in self.params.values())


def follow(slow: Weights, policy: Policy, decay: float) -> None:
    """slow <- decay * slow + (1 - decay) * trained, in place: an EMA, or DiffusionNFT's old policy."""
    for name, param in policy.params.items():
        slow[name].lerp_(param.detach().to(slow[name].dtype), 1.0 - decay)


def _add_lora(transformer: Any, targets: list[str], training: Training, seed: int) -> Any:
    from peft import LoraConfig

    config = LoraConfig(r=training.rank, lora_alpha=training.alpha, target_modules=targets, init_lora_weights=True)
    # peft draws A from torch's global generator; it is drawn again below from (seed, name), so its state is put back
    with torch.random.fork_rng(devices=[]):
        transformer.add_adapter(config)
    for name, param in transformer.named_parameters():
        if "lora_" not in name:
            continue
        param.data = param.data.float()  # fp32 LoRA on a bf16 base: updates of 1e-4 vanish in bf16
        if "lora_A" in name:
            generator = torch.Generator().manual_seed(derive_seed(seed, "lora", name))
            param.data.copy_(torch.randn(param.shape, generator=generator) / training.rank)
        param.requires_grad_(True)
    return cast(Any, config)
