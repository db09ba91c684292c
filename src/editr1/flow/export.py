"""The trained editor as other programs load it: a diffusers LoRA file, or a transformer folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from editr1.flow.policy import Policy, Weights


def export(policy: Policy, weights: Weights | None, folder: Path) -> Path:
    """Writes `folder/lora` for `pipeline.load_lora_weights`, or `folder/transformer` for `from_pretrained`, and returns it.

    `weights` (the EMA, or the best evaluation's) are exported in the place of the trained ones; None exports those.
    """
    with policy.using(weights):
        return _export_lora(policy, folder / "lora") if policy.is_lora else _export_full(policy.transformer, folder / "transformer")


def _export_lora(policy: Policy, target: Path) -> Path:
    from diffusers.loaders import FluxLoraLoaderMixin  # its file layout (`transformer.` prefix) is that of every DiT pipeline
    from peft.utils import get_peft_model_state_dict

    FluxLoraLoaderMixin.save_lora_weights(
        target,
        transformer_lora_layers=get_peft_model_state_dict(policy.transformer),
        # without this the file forgets lora_alpha, and a plain pipeline applies a delta scaled by r / alpha
        transformer_lora_adapter_metadata=policy.lora_config.to_dict(),
    )
    return target


def _export_full(transformer: Any, target: Path) -> Path:
    transformer.save_pretrained(target)
    return target
